"""Write an encoder that is published as an ONNX graph of BERT as a folder that cdl reads.

    python benchmarks/encoder_from_onnx.py MODEL.onnx LIKE FOLDER

`LIKE` is the folder of a model with the same tokenizer and, but for the number of blocks, the same
configuration, such as all-MiniLM-L6-v2 for paraphrase-MiniLM-L3-v2. The weights are the
initializers of the graph; those of a product without a name of their own have the name of its
node, and are transposed. The pooled feature of a text is compared with the output of the graph.
"""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper
from safetensors.torch import save_file
from tokenizers import Tokenizer

from cdl.backbones.encoders import Encoder
from cdl.backbones.fetch import fetch
from cdl.data.text import encoded

_TEXT = "How do I ask for a refund of my ticket?"
_NEAR = 1e-4  # relative to the largest value of a feature


def weights_of(graph: onnx.GraphProto) -> dict[str, torch.Tensor]:
    """Return the weights of a BERT in an ONNX graph by the names of transformers."""
    arrays = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    found = {name.partition("auto_model.")[2]: a for name, a in arrays.items() if "." in name}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in arrays:
            path = node.name.partition("/auto_model/")[2].removesuffix("/MatMul")
            found[path.replace("/", ".") + ".weight"] = arrays[node.input[1]].T
    return {name: torch.tensor(np.ascontiguousarray(a)) for name, a in found.items() if name}


def write(model: Path, like: Path, folder: Path) -> None:
    """Write the folder of an encoder."""
    weights = weights_of(onnx.load(model).graph)
    config = json.loads((like / "config.json").read_text())
    blocks = {int(name.split(".")[2]) for name in weights if name.startswith("encoder.layer.")}
    (folder / "1_Pooling").mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "1_Pooling/config.json"):
        shutil.copy(like / name, folder / name)
    config = {**config, "_name_or_path": model.stem, "num_hidden_layers": len(blocks)}
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@torch.no_grad()
def difference(model: Path, folder: Path) -> float:
    """Return the difference between the pooled features of the graph and of the folder.

    It is relative to the largest value.
    """
    artifact = folder / "artifact.safetensors"
    fetch(artifact, "folder", str(folder))
    encoder = Encoder.load(artifact, 32, "backbone")
    own = encoder.query(encoder.prepare(encoded([_TEXT])))[0].numpy()
    for path in folder.glob("artifact.*"):
        path.unlink()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    ids = np.array([tokenizer.encode(_TEXT).ids])
    session = onnxruntime.InferenceSession(model)
    outputs = session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
    pooled = [out[0] for out in outputs if out.shape == (1, len(own))]
    assert pooled, "the graph has no pooled feature"
    differences = [float(np.abs(out - own).max()) for out in pooled]
    return min(differences) / float(np.abs(own).max())


def main() -> None:
    """Write the folder and print the difference."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("model", "like", "folder"):
        parser.add_argument(name, type=Path)
    given = parser.parse_args()
    write(given.model, given.like, given.folder)
    found = difference(given.model, given.folder)
    print(f"{given.folder}: largest difference of a pooled feature {found:.1e}")
    assert found < _NEAR, "the weights were not read as the graph uses them"


if __name__ == "__main__":
    main()
