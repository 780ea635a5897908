"""A finished run to a folder that needs neither cdl's training code nor torch, and its proof."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from cdl.deployment.card import card
from cdl.deployment.costs import Costs, costs
from cdl.deployment.graph import INPUT, MOST, OUTPUT, Graph, to_int8, write_executorch, write_onnx
from cdl.deployment.measure import latency, this_machine
from cdl.deployment.parity import (
    Parity,
    TestImages,
    accuracy,
    compare,
    test_images,
    training_images,
)
from cdl.deployment.student import (
    CARD,
    CLASSES,
    MODEL,
    PREPROCESSING,
    PROGRAM,
    ExportedStudent,
)
from cdl.deployment.trained import TrainedStudent
from cdl.runtime import artifacts
from cdl.runtime.errors import CdlError


@dataclass(frozen=True)
class Int8:
    """What eight bits cost: before and after, bytes of the model, accuracy, milliseconds an image.

    kind: `dynamic` or `static`.
    accuracy: mean over tasks, percent; None where nothing was compared.
    latency: median of single images, one thread.
    """

    kind: str
    bytes: tuple[int, int]
    accuracy: tuple[float, float] | None
    latency: tuple[float, float]

    def text(self) -> str:
        """Return it as a sentence."""
        before, after = (n / 1e6 for n in self.bytes)
        text = f"int8 ({self.kind}): {before:.1f} MB before, {after:.1f} MB after; "
        if self.accuracy is not None:
            text += "accuracy {:.2f} % before, {:.2f} % after; ".format(*self.accuracy)
        return text + "{:.2f} ms an image before, {:.2f} ms after".format(*self.latency)


@dataclass(frozen=True)
class Exported:
    """What an export wrote: its folder, the size of the model in bytes, and the comparisons.

    latency: milliseconds of one image on the machine, one thread, median.
    """

    folder: str
    classes: int
    bytes: int
    costs: Costs
    latency: float
    machine: str
    parity: Parity | None
    int8: Int8 | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)

    def text(self) -> str:
        """Return it for people."""
        size = f"{self.folder}: {self.classes} classes, {self.bytes / 1e6:.1f} MB"
        return "\n".join([size, *self.remarks()])

    def remarks(self) -> list[str]:
        """Return how its answers compare and what they cost."""
        parity = self.parity.text() if self.parity else "not compared with what was evaluated"
        cost = f"{self.costs.text()}; {self.latency:.2f} ms on one thread of {self.machine}"
        return [parity, *([self.int8.text()] if self.int8 else []), cost]


def export(
    run: Path,
    folder: Path,
    task: int | None = None,
    check: bool = True,
    int8: str | None = None,
    executorch: bool = False,
) -> Exported:
    """Write a student as a folder of its own.

    Args:
        run: of a finished run.
        folder: to make.
        task: after which, counted from 0; None: the last.
        check: whether its answers are compared with torch's and with evaluation's.
        int8: `dynamic` or `static`: how its weights are rounded to eight bits, after the
            comparison; None: not at all.
        executorch: whether a program of ExecuTorch is written instead of a graph of ONNX.

    Raises:
        CdlError: the run cannot be loaded, its prediction needs the teacher's ViT, the folder is
            not empty, or the images to compare or to calibrate with are not there.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CdlError(f"{folder}: exists and is kept; name another folder")
    if executorch and int8 is not None:
        raise CdlError(f"--int8 {int8}: is for onnx alone; leave it out, or --format executorch")
    student = TrainedStudent.open(run, task, torch.get_num_threads())
    model, spec = student.model, student.spec
    if model.foreign is not None and model.foreign is not model.query:
        raise CdlError(
            f"distillers.{spec.distiller.name}: with protocol.query: self its prompts read "
            f"the teacher's ViT {spec.teacher!r} at prediction, which no export holds; needed "
            "is protocol.query: student"
        )
    frame = test_images(student) if check else None
    file = folder / (PROGRAM if executorch else MODEL)
    (write_executorch if executorch else write_onnx)(Graph(model, student.views), file)
    _write(folder / CLASSES, "".join(f"{name}\n" for name in student.classes))
    _write(folder / PREPROCESSING, json.dumps(preprocessing(student, executorch), indent=2) + "\n")
    parity = None if frame is None else compare(student, ExportedStudent(folder), frame)
    size = file.stat().st_size
    counted = costs(model, student.views.size)
    took, machine = latency(ExportedStudent(folder), _image(student)), this_machine()["cpu"]
    answer = Exported(str(folder), len(student.classes), size, counted, took, machine, parity)
    if int8 is not None:
        answer = _rounded(answer, student, int8, frame)
    _write(folder / CARD, card(student, answer.remarks()))
    return answer


def _rounded(
    answer: Exported, student: TrainedStudent, kind: str, images: TestImages | None
) -> Exported:
    """Round the weights of an exported folder; ask it about test images before and after."""
    folder = Path(answer.folder)
    calibrating = training_images(student) if kind == "static" else None
    sizes, accuracies, times = [], [], []
    for rounded in (False, True):
        if rounded:
            to_int8(folder / MODEL, calibrating)
        sizes.append((folder / MODEL).stat().st_size)
        asked = ExportedStudent(folder)
        times.append(latency(asked, _image(student)) if rounded else answer.latency)
        if images is not None:
            accuracies.append(accuracy(asked, images))
    found = (accuracies[0], accuracies[1]) if accuracies else None
    int8 = Int8(kind, (sizes[0], sizes[1]), found, (times[0], times[1]))
    return replace(answer, bytes=sizes[1], latency=times[1], int8=int8)


def _image(student: TrainedStudent) -> tuple[int, int]:
    """Return height and width of the images that are timed: those of the test view."""
    return (student.views.test_resize or student.views.size,) * 2


def preprocessing(student: TrainedStudent, executorch: bool = False) -> dict[str, Any]:
    """Return what the graph does to pixels, and what it expects of them."""
    views, backbone = student.views, student.model.learner.backbone
    axes = ["batch", "height", "width", "RGB"]
    most = {"most": list(MOST.values())} if executorch else {}
    return {
        "input": {"name": INPUT, "type": "uint8", "axes": axes, **most},
        "output": {"name": OUTPUT, "type": "float32", "axes": ["batch", "class"]},
        "before": "upright as EXIF says, RGB, transparency on white; one size in a batch",
        "in_the_graph": {
            "resize_short_side": views.test_resize,
            "centre_crop" if views.test_resize else "resize": [views.size, views.size],
            "interpolation": "bilinear, antialiased",
            "scale": 1 / 255,
            "mean": backbone.mean.flatten().tolist(),
            "std": backbone.std.flatten().tolist(),
        },
    }


def _write(path: Path, text: str) -> None:
    with artifacts.replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def deploy(run: Path, folders: Mapping[str, Path], record: Path, int8: str) -> None:
    """Export a finished run with weights of both kinds, and record what is known without a clock.

    Args:
        run: its folder.
        folders: to make anew, `fp32` and `int8`.
        record: JSON to write, which vouches for both graphs.
        int8: see `export`.

    Raises:
        CdlError: as `export`, or the graph does not say what was evaluated.
    """
    for folder in folders.values():
        shutil.rmtree(folder, ignore_errors=True)
    answer = export(run, folders["fp32"])
    if answer.parity is None or not answer.parity.holds:
        raise CdlError(f"{run}: the graph does not say what was evaluated: {answer.text()}")
    shutil.copytree(folders["fp32"], folders["int8"])
    student = TrainedStudent.open(run, threads=torch.get_num_threads())
    copy = replace(answer, folder=str(folders["int8"]))
    both = _rounded(copy, student, int8, test_images(student))
    _write(folders["int8"] / CARD, card(student, both.remarks()))
    assert both.int8 is not None and both.int8.accuracy is not None
    facts = {
        "accuracy": dict(zip(folders, both.int8.accuracy, strict=True)),
        "forgetting_max": student.results["metrics"]["forgetting_max"],
        "bytes": dict(zip(folders, both.int8.bytes, strict=True)),
        "costs": asdict(answer.costs),
        "parity": asdict(answer.parity),
        "image": _image(student),
    }
    artifacts.write_json(record, facts, files=[folder / MODEL for folder in folders.values()])
