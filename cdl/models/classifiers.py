"""Open classifiers with heads of their own: from packed items to logits.

Nothing is unpickled, and no code is run that comes with a model: timm and transformers build their
own architectures from plain values, and the weights are read as safetensors.
"""

import json
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from timm.data.config import resolve_data_config
from timm.data.transforms_factory import create_transform
from torch import Tensor

from cdl.backbones import weights
from cdl.backbones.classifiers import CONFIG, IMAGES, TENSORS, TEXTS, ClassifierSource
from cdl.backbones.onnx_file import open_network
from cdl.data.modalities import ModalityFacts
from cdl.runtime.compute import Compute
from cdl.runtime.errors import CdlError
from cdl.runtime.outside import imported, json_object, one_sentence
from cdl.runtime.registry import load

Logits = Callable[[Sequence[Any]], np.ndarray]  # of images [H, W, 3] uint8 of any sizes, or texts
_LARGEST = 10_000  # number in the arguments of an architecture: blocks, widths, pixels
_INPUT = {"input_size", "fixed_input_size", "num_classes", "global_pool", "pool_size", "mean"}
_INPUT |= {"std", "interpolation", "crop_pct", "crop_mode"}  # what is read of `pretrained_cfg`
_THREE = {"type": "array", "items": {"type": "number"}, "minItems": 3, "maxItems": 3}
_SIDE = {"type": "integer", "minimum": 8, "maximum": _LARGEST}
_SCHEMA = {
    "properties": {
        "input_size": {"prefixItems": [{"const": 3}, _SIDE, _SIDE], "minItems": 3, "maxItems": 3},
        "mean": _THREE,
        "std": {**_THREE, "items": {"type": "number", "exclusiveMinimum": 0}},
        "interpolation": {"enum": ["bilinear", "bicubic", "nearest", "lanczos"]},
        "crop_pct": {"type": "number", "exclusiveMinimum": 0.1, "maximum": 1},
        "crop_mode": {"enum": ["center", "squash", "border"]},
    }
}


def open_classifier(source: ClassifierSource, facts: ModalityFacts, compute: Compute) -> Logits:
    """Return the function from items to the logits `[n, C]` of all classes of a classifier.

    Args:
        source: the classifier.
        facts: of the modality of the items.
        compute: device of the model; ONNX files and students run on the CPU.

    Raises:
        CdlError: the model cannot be read, or classifies other items.
    """
    source.check_items(facts.items)
    opened = {"timm": _timm, "hf": _transformers, "onnx": _onnx, "student": _student}
    logging.getLogger("timm").setLevel(logging.ERROR)
    return opened[source.kind](source, facts, compute)


def _timm(source: ClassifierSource, facts: ModalityFacts, compute: Compute) -> Logits:
    """Build a model of timm from its configuration."""
    config, what = source.config, f"classifier {str(source.path)!r}"
    name, arguments = config["architecture"], dict(config.get("model_args", {}))
    if not timm.is_model(name):
        raise CdlError(f"{what}: timm {timm.__version__} has no architecture {name!r}")
    if any(n > _LARGEST for n in _numbers(arguments)):
        raise CdlError(f"{what}: model_args has a number above {_LARGEST}")
    given = {k: v for k, v in config.get("pretrained_cfg", {}).items() if k in _INPUT and v}
    known: Any = timm.get_pretrained_cfg(name)
    own: dict[str, Any] = known.to_dict() if known else {}
    own |= json_object(json.dumps(given), f"{what}: pretrained_cfg", schema=_SCHEMA)
    arguments["num_classes"] = config["num_classes"]

    def build() -> Any:  # an argument that is there twice is refused: it would load other weights
        make: Any = timm.create_model
        fixed = {"pretrained": False, "checkpoint_path": "", "cache_dir": None}
        return make(name, pretrained_cfg=own, pretrained_cfg_overlay=None, **fixed, **arguments)

    with one_sentence(source.path, f"timm {timm.__version__}"):
        with torch.device("meta"):
            state = weights.convert(weights.read(source.path / TENSORS)[0], name, build(), what)
        model = build()
        model.load_state_dict(state)
        read: Any = resolve_data_config
        transform = create_transform(**read(pretrained_cfg=own), is_training=False)
    return _on_device(model, source, _transformed(transform), compute)


def _transformers(source: ClassifierSource, facts: ModalityFacts, compute: Compute) -> Logits:
    """Build a model of transformers from its configuration."""
    install = "pip install 'cdl-workbench[text]'"
    transformers = imported("transformers", "classifiers of transformers", install)
    config, library = source.config, f"transformers {transformers.__version__}"
    if "quantization_config" in config or config["model_type"].startswith("timm"):
        raise CdlError(f"{source.path}: is quantised or wraps timm; expected plain weights")
    # code from the Hub: remote classes, and kernels that are named as an attention
    skipped = [k for k in config if "auto_map" in k or "implementation" in k or "kernel" in k]
    task = "ImageClassification" if facts.items == "images" else "SequenceClassification"
    auto: Any = getattr(transformers, f"AutoModelFor{task}")
    closed: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    how = closed | {"use_safetensors": True, "output_loading_info": True, "dtype": torch.float32}
    with one_sentence(source.path, library), tempfile.TemporaryDirectory() as name:
        folder = Path(name)  # without other files, which might name code or other weights
        (folder / CONFIG).write_text(json.dumps({k: config[k] for k in config.keys() - {*skipped}}))
        (folder / TENSORS).symlink_to((source.path / TENSORS).resolve())
        model, about = auto.from_pretrained(folder, attn_implementation="eager", **how)
        if wrong := {k: v for k, v in about.items() if k.endswith("keys") and v}:
            raise CdlError(f"{source.path / TENSORS}: does not fit {CONFIG} ({wrong})"[:400])
        if facts.items == "images":
            if not (source.path / IMAGES).exists():
                raise CdlError(f"{source.path}: has no {IMAGES}, which says how images are read")
            (folder / IMAGES).write_bytes((source.path / IMAGES).read_bytes())
            read: Any = transformers.AutoImageProcessor.from_pretrained
            made = read(folder, backend="pil", **closed)
            return _on_device(model, source, partial(_processed, made), compute)
    from cdl.device.tokens import open_tokenizer

    most = getattr(model.config, "max_position_embeddings", None) or 512
    padding = int(model.config.pad_token_id or 0)
    behind = padding + 1 if config["model_type"] in ("roberta", "xlm-roberta", "mpnet") else 0
    content = (source.path / TEXTS).read_bytes() if (source.path / TEXTS).exists() else b""
    tokens = open_tokenizer(content, str(source.path), most - behind)
    tokens.enable_padding(pad_id=padding)

    def prepared(texts: Sequence[str]) -> dict[str, Tensor]:
        found = tokens.encode_batch(list(texts))
        return {
            "input_ids": torch.tensor([own.ids for own in found]),
            "attention_mask": torch.tensor([own.attention_mask for own in found]),
        }

    return _on_device(model, source, prepared, compute)


def _processed(processor: Any, images: Sequence[Any]) -> dict[str, Tensor]:
    """Return the inputs of an image classifier of transformers."""
    return dict(processor([*map(Image.fromarray, images)], return_tensors="pt"))


def _onnx(source: ClassifierSource, facts: ModalityFacts, compute: Compute) -> Logits:
    """Open an ONNX file of images `[n, 3, size, size]`."""
    content, threads = source.path.read_bytes(), torch.get_num_threads()
    network = open_network(content, str(source.path), threads)
    size = (3, source.size, source.size)
    transform = create_transform(
        size, mean=source.mean, std=source.std, interpolation="bilinear", crop_pct=1.0
    )
    prepared = _transformed(transform)
    return lambda images: network.run(prepared(images).numpy())


def _student(source: ClassifierSource, facts: ModalityFacts, compute: Compute) -> Logits:
    """Open a folder of `cdl export`."""
    student = load(facts.device)(source.path, torch.get_num_threads())
    run = lambda some: student.logits(student.preprocess(some))  # noqa: E731
    return lambda items: student.in_batches(list(items), run, len(student.classes))


def _transformed(transform: Callable[[Any], Tensor]) -> Callable[[Any], Tensor]:
    return lambda images: torch.stack([transform(Image.fromarray(image)) for image in images])


def _on_device(
    model: Any, source: ClassifierSource, prepare: Callable[[Any], Any], compute: Compute
) -> Logits:
    """Return the logits of a model on a device."""
    model.eval().requires_grad_(False).to(compute.device)

    @torch.inference_mode()
    def run(items: Sequence[Any]) -> np.ndarray:
        with one_sentence(source.path, "torch", "run"):
            given = prepare(items)
            if isinstance(given, Mapping):
                found = model(**{k: v.to(compute.device) for k, v in given.items()}).logits
            else:
                found = model(given.to(compute.device))
        values: np.ndarray = found.float().cpu().numpy()
        return values

    return run


def _numbers(value: Any) -> Iterator[float]:
    """Yield all numbers in a JSON value."""
    inner = value.values() if isinstance(value, Mapping) else value
    if isinstance(inner, int | float):
        yield abs(inner)
    elif inner is not None and not isinstance(inner, str):
        for one in inner:
            yield from _numbers(one)
