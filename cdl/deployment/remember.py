"""Write what an exported student needs to learn on: `memory.safetensors` and `student.py`."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from cdl.deployment.bundle import program
from cdl.deployment.manifest import DEVICE
from cdl.deployment.one_more_task import trained_artifact
from cdl.deployment.parity import learnt_images
from cdl.deployment.student import ExportedStudent
from cdl.deployment.trained import TrainedStudent
from cdl.device.belonging import THRESHOLD
from cdl.device.closed import pack
from cdl.device.kept import EACH, EXAMPLES, OWNERS
from cdl.device.memory import Memory
from cdl.device.stored import MEMORY, make_memory, write_memory
from cdl.layout import record_of
from cdl.methods.fecam import FecamHead
from cdl.methods.heads import CosineHead, PrototypeHead
from cdl.models.learner import Learner, memory_of, name_of
from cdl.runtime import artifacts
from cdl.runtime.errors import CdlError
from cdl.runtime.outside import json_object
from cdl.spec import ClassMeans, SampledAlignment
from cdl.training.align_task import TOKENS

_PROBES = 8  # random tokens for which the heads in the memory must predict like torch
_KEPT = (
    "; says what is unknown by the cosine with the nearest class mean, not tested for this "
    "student; keeps up to {each} feature vectors of each class, no {items}, to count broken answers"
)
_NEAR = 1e-3  # relative to the largest logit


def write_program(
    student: TrainedStudent, folder: Path, memory: bool = True, check: bool = True
) -> str:
    """Write `student.py` and, if possible, `memory.safetensors` into an exported folder.

    Args:
        student: the exported student.
        folder: its folder, with an ONNX graph.
        memory: whether to write the memory.
        check: whether to read training items, which give the memory thresholds and examples.

    Returns:
        A sentence on learning for the terminal and the card: size of the memory and what a new
        class costs on this machine, or why there is no memory.
    """
    try:
        if not memory:
            raise CdlError(f"exported without {MEMORY}")
        found = remembered(student)
    except CdlError as error:
        _write_program(student, folder, "mean")
        return f"cannot learn on: {error}"
    _write_program(student, folder, found.about["kind"])
    if check:
        found = _with_examples(found, student, ExportedStudent(folder, verify=False))
    with artifacts.replacing(folder / MEMORY) as temporary:
        write_memory(found, temporary)
    total, each = found.bytes()
    kind = {
        "ridge": "a ridge",
        "mean": "class means",
        "fecam": "class means and covariances",
        "aligned": "class statistics",
    }
    new = _costs(folder, student.items.kind)
    command = f"python {DEVICE} learn {student.items.path}"
    return (
        f"learns on by `{command}` from {kind[found.about['kind']]}: {MEMORY} "
        f"has {total / 1e6:.2f} MB, {each / 1e3:.2f} kB for each class; {new}"
        + (_KEPT.format(each=EACH, items=student.facts.items) if check else "")
    )


def _with_examples(memory: Memory, trained: TrainedStudent, exported: ExportedStudent) -> Memory:
    """Return the memory with thresholds and examples from training items."""
    items, labels = learnt_images(trained)
    tokens = exported.features(items)
    empty = {THRESHOLD: np.zeros(0), OWNERS: np.zeros(0), EXAMPLES: tokens[:0]}
    return memory.after(make_memory(memory.about, memory.tensors | empty), tokens, labels)


def _write_program(student: TrainedStudent, folder: Path, kind: str) -> None:
    with artifacts.replacing(folder / DEVICE) as temporary:
        temporary.write_text(program(student.facts, kind), encoding="utf-8")


def _costs(folder: Path, kind: str) -> str:
    """Return what a new class costs, measured by the program of an exported folder."""
    command = [sys.executable, str(folder / DEVICE), "costs"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = json_object(done.stdout, f"{DEVICE} costs")["learn"]
    parts = [
        f"{row['count']} in {1e3 * row['count'] / row['items_per_second']:.0f} + "
        f"{row['milliseconds']:.0f} ms"
        + (f" and {row['peak_memory_mb']:.0f} MB" if row["peak_memory_mb"] else "")
        for row in rows
    ]
    return f"{kind} of a new class take (features + heads, peak memory) {'; '.join(parts)}"


def remembered(student: TrainedStudent) -> Memory:
    """Return the memory of a student; raise `CdlError` with the reason if it has none."""
    task, spec = student.model.task, student.spec
    checkpoints = student.files.checkpoints(student.results)[: task + 1]
    state, _ = artifacts.load(checkpoints[-1])
    head, how = student.model.learner.head, spec.alignment

    def records() -> list[dict[str, Any]]:
        return [artifacts.read_json(record_of(path)) for path in checkpoints]

    if isinstance(head, PrototypeHead) and head.from_sums:
        memory = _of_ridge(student, head, memory_of(state), records())
    elif isinstance(head, FecamHead):
        memory = _of_fecam(student, head, memory_of(state))
    elif isinstance(how, ClassMeans):
        memory = _of_class_means(student, memory_of(state), records())
    elif isinstance(how, SampledAlignment) and hasattr(head, "linear"):
        memory = _of_statistics(student, how, state, records(), checkpoints[-1])
    else:
        raise CdlError(
            f"methods.{spec.method.name}: keeps no class statistics for the device; use alignment, "
            "ranpac or fecam"
        )
    _check_predictions(student, memory)
    return memory


def _of_ridge(
    student: TrainedStudent,
    head: PrototypeHead,
    sums: Mapping[str, Tensor],
    records: Sequence[Mapping[str, Any]],
) -> Memory:
    """Return the sums of a ridge or of class means."""
    names = {"sums": "prototypes", "counts": "counts"}
    tensors = {name: _array(sums[old]) for name, old in names.items() if old in sums}
    tensors["images"] = tensors["counts"]
    tensors["weight"] = _array(head.weight[: len(student.classes)])
    if head.projection is not None:
        tensors["projection"] = _array(head.projection)
    if head.ridge:
        if "gram" not in sums or not all("ridge_errors" in record for record in records):
            raise CdlError(_older(student, "the errors of all ridges"))
        tensors["gram"] = pack(_array(sums["gram"]))
        tensors["losses"] = np.sum([record["ridge_errors"] for record in records], axis=0)
    about = {"kind": "ridge" if head.ridge else "mean", "updates": 0}
    return make_memory({**about, "parts": [[0, float(head.scale)]]}, tensors)


def _of_fecam(student: TrainedStudent, head: FecamHead, kept: Mapping[str, Tensor]) -> Memory:
    """Return the means and covariances of all classes."""
    if "deviations" not in kept:
        raise CdlError(_older(student, "the deviations of all classes"))
    n, counts, deviations = len(student.classes), *map(_array, (kept["counts"], kept["deviations"]))
    weight, precision = _array(head.weight[:n]), pack(_array(head.precision[:n]))
    tensors = {"weight": weight, "precision": precision, "deviations": deviations}
    tensors |= {"sums": (weight * counts[:, None]).T, "counts": counts, "images": counts}
    about = {"kind": "fecam", "updates": 0, "parts": [[0, float(head.scale)]]}
    options = {"tukey": head.tukey, "alpha1": head.alpha1, "alpha2": head.alpha2}
    return make_memory(about | options, tensors)


def _of_class_means(
    student: TrainedStudent, kept: Mapping[str, Tensor], records: Sequence[Mapping[str, Any]]
) -> Memory:
    """Return the class means of all heads, side by side, as means of `ranpac`."""
    learner, counts = student.model.learner, _counts(student, records)
    owned, shares = learner.heads(), _shares(learner)
    scale = {name: float(cast(CosineHead, head).scale) for name, (head, _) in owned.items()}
    parts = [[token, shares[name] * scale[name]] for name, (_, token) in owned.items()]
    means = [_array(kept[f"{TOKENS[token]}.mean"]) for _, token in owned.values()]
    weight = np.concatenate(means, axis=1)
    tensors = {"sums": (weight * counts[:, None]).T, "counts": counts, "images": counts}
    about = {"kind": "mean", "updates": 0, "parts": parts}
    return make_memory(about, {**tensors, "weight": weight})


def _counts(student: TrainedStudent, records: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Return the number of images of each class, `[C]`."""
    if not all("counts" in record for record in records):
        raise CdlError(_older(student, "the number of examples of each class"))
    return np.concatenate([record["counts"] for record in records]).astype(np.float32)


def _shares(learner: Learner) -> dict[str, float]:
    """Return the weight of each head's logits in the prediction."""
    alpha = learner.distiller.alpha
    return {"head": 1.0} if len(learner.heads()) == 1 else {"head": 1 - alpha, "kd_head": alpha}


def _of_statistics(
    student: TrainedStudent,
    how: SampledAlignment,
    state: Mapping[str, Tensor],
    records: Sequence[Mapping[str, Any]],
    aligned: str,
) -> Memory:
    """Return class statistics and heads, as aligned and as trained."""
    learner, tensors = student.model.learner, {"counts": _counts(student, records)}
    trained, _ = artifacts.load(trained_artifact(aligned))
    heads, owned, shares = [], learner.heads(), _shares(learner)
    prefixes = {name: name_of(head, learner) for name, (head, _) in owned.items()}
    for name, (head, token) in owned.items():
        part = TOKENS[token]
        for kind in ("mean", "spread"):
            own = _array(memory_of(state)[f"{part}.{kind}"])
            packed = kind == "spread" and how.statistic == "covariance"
            tensors[f"{part}.{kind}"] = pack(own) if packed else own
        for own_name, source in ((name, state), (f"{name}.trained", trained)):
            for kind in ("weight", "bias"):
                rows = source[f"{prefixes[name]}.linear.{kind}"][: len(student.classes)]
                tensors[f"{own_name}.{kind}"] = _array(rows)
        heads.append(
            {
                "name": name,
                "part": part,
                "token": token,
                "factor": shares[name],
                "normalised": hasattr(head, "norm"),
            }
        )
    sizes = [len(record["counts"]) for record in records]
    about = {"kind": "aligned", "updates": 0, "closed": False, "heads": heads, "sizes": sizes}
    return make_memory({**about, "alignment": how.to_json()}, tensors)


def _array(tensor: Tensor) -> np.ndarray:
    return np.ascontiguousarray(tensor.detach().float().numpy())


def _older(student: TrainedStudent, what: str) -> str:
    return (
        f"{student.files.folder} was written by an earlier version of cdl, which did not record "
        f"{what}; run the experiment again"
    )


@torch.no_grad()
def _check_predictions(student: TrainedStudent, memory: Memory) -> None:
    """Raise `CdlError` if the heads of the memory do not predict like those of the student."""
    learner, source = student.model.learner, torch.Generator().manual_seed(0)
    width = learner.backbone.width
    if isinstance(learner.head, PrototypeHead) and learner.head.projection is None:
        width = learner.head.weight.shape[1]  # of the features of several passes side by side
    tokens = torch.randn(_PROBES, 2, width, generator=source)
    if {token for _, token in learner.heads().values()} == {0}:
        tokens = tokens[:, :1]
    expected = learner.predict(learner.read(tokens), student.model.n_classes).numpy()
    found = memory.logits(tokens.numpy())
    if found.shape != expected.shape or np.abs(found - expected).max() > _NEAR * max(
        1.0, float(np.abs(expected).max())
    ):
        name = type(learner.head).__name__
        raise CdlError(
            f"the head {name} with {student.spec.distiller.name} has no numpy counterpart"
        )
