"""Export a finished run to a folder that needs no torch, and compare the predictions."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

import cdl
from cdl.backbones.extractor import OnnxModel
from cdl.deployment import manifest
from cdl.deployment.card import backbone_record, card, licence_of, research_only
from cdl.deployment.costs import Costs, costs
from cdl.deployment.graph import to_int8, write_executorch, write_onnx
from cdl.deployment.manifest import CARD, CLASSES, CONFIG, MODEL, PREPROCESSING, PROGRAM, TENSORS
from cdl.deployment.measure import latency, this_machine
from cdl.deployment.merged import TimmStudent, plain, timm_config, write_timm
from cdl.deployment.model import Model
from cdl.deployment.parity import (
    Parity,
    TestImages,
    accuracy,
    compare,
    test_images,
    training_images,
)
from cdl.deployment.remember import write_program
from cdl.deployment.student import ExportedStudent
from cdl.deployment.trained import TrainedStudent, using_threads
from cdl.device.classifier import Classifier
from cdl.device.names import check_class_name
from cdl.device.stored import MEMORY
from cdl.layout import ResultsFolder
from cdl.runtime import artifacts
from cdl.runtime.errors import CdlError
from cdl.runtime.folders import is_empty, new_folder
from cdl.runtime.shown import Shown

# GFLOPs of a prediction from which torch uses all cores. Threads of a smaller model wait for each
# other at every operation, on a machine with other work for most of the time.
_PARALLEL = 1.0
LIBRARIES = {MODEL: "onnx", PROGRAM: "executorch", TENSORS: "timm"}  # on the Hub, by file


@dataclass(frozen=True)
class Int8:
    """Size, accuracy and latency of the model before and after int8 quantisation.

    kind: `dynamic` or `static`.
    item: what one item is called.
    bytes: size of the model.
    accuracy: mean over tasks, percent; None if predictions were not compared.
    latency: milliseconds per item, median of single items, one thread.
    """

    kind: str
    item: str
    bytes: tuple[int, int]
    accuracy: tuple[float, float] | None
    latency: tuple[float, float]

    def text(self) -> str:
        """Return the comparison as a sentence."""
        before, after = (n / 1e6 for n in self.bytes)
        text = f"int8 ({self.kind}): {before:.1f} MB before, {after:.1f} MB after; "
        if self.accuracy is not None:
            text += "accuracy {:.2f} % before, {:.2f} % after; ".format(*self.accuracy)
        return (
            text
            + f"{self.latency[0]:.2f} ms per {self.item} before, {self.latency[1]:.2f} ms after"
        )


@dataclass(frozen=True, repr=False)
class Exported(Shown):
    """Result of an export: folder, size of the model in bytes, costs and comparisons.

    latency: milliseconds per item on `machine`, median of single items, one thread.
    machine: its processor; for texts also the length of the timed ones.
    parity: comparison of the predictions; None if it was skipped.
    int8: effects of the quantisation; None without it.
    learning: whether it can learn on: the size of its memory, or why it has none.
    research_only: whether the licence of its weights is known to allow research only.
    """

    folder: str
    classes: int
    bytes: int
    costs: Costs
    latency: float
    machine: str
    parity: Parity | None
    int8: Int8 | None = None
    learning: str | None = None
    research_only: bool = False

    @property
    def problem(self) -> str:
        """A sentence if the predictions differ from the evaluation; else empty."""
        if self.parity is None or self.parity.holds:
            return ""
        return f"{self.folder}: the exported model's predictions differ from the evaluation"

    def as_dict(self) -> dict[str, Any]:
        """Return the result for JSON."""
        return asdict(self)

    def text(self) -> str:
        """Return the result as text for the terminal."""
        size = f"{self.folder}: {self.classes} classes, {self.bytes / 1e6:.1f} MB"
        licence = ["licence of the weights: research only"] if self.research_only else []
        return "\n".join([size, *self.remarks(), *licence])

    def remarks(self) -> list[str]:
        """Return sentences on the comparison with torch, on int8 and on costs."""
        parity = (
            self.parity.text() if self.parity else "predictions not compared with the evaluation"
        )
        cost = f"{self.costs.text()}; {self.latency:.2f} ms on one thread of {self.machine}"
        more = [self.int8.text()] if self.int8 else []
        return [parity, *more, cost, *([self.learning] if self.learning else [])]


def export(
    run: Path,
    folder: Path,
    task: int | None = None,
    check: bool = True,
    int8: str | None = None,
    executorch: bool = False,
    timm: bool = False,
    memory: bool = True,
) -> Exported:
    """Export a student to a folder; low-rank branches and SSF are merged into plain weights.

    Args:
        run: folder of a finished run.
        folder: folder to create; it must be empty or missing.
        task: task after which the student is exported, counted from 0; None: the last.
        check: whether to compare the predictions with those of torch and of the evaluation.
        int8: quantisation of the weights after the comparison, `dynamic` or `static`; None: none.
        executorch: whether to write an ExecuTorch program instead of an ONNX graph.
        timm: whether to write weights that `timm.create_model` loads instead.
        memory: whether the student can learn on, if it has class statistics; only with ONNX.

    Raises:
        CdlError: the run cannot be loaded, its prediction needs the teacher's ViT, timm has no
            model for it, the folder is not empty, or the images for the comparison or the
            calibration are missing.
        Busy: another process is exporting to the folder.
    """
    folder, given = folder.resolve(), folder
    if folder == Path.cwd() or (folder.exists() and not is_empty(folder)):
        raise CdlError(f"{given}: already exists; choose another folder")
    if (executorch or timm) and int8 is not None:
        kind = "executorch" if executorch else "timm"
        raise CdlError(
            f"--int8 {int8}: only valid with --format onnx; omit --int8 or --format {kind}"
        )
    student = TrainedStudent.open(run, task)
    _check_exportable(student, "executorch" if executorch else "timm" if timm else "onnx", int8)
    images = test_images(student) if check else None
    with new_folder(folder) as made:
        if timm:
            result = _write_timm(student, made, images)
        else:
            result = _write_student(student, made, images, executorch)
        if int8 is not None:
            result = _quantize(result, student, made, int8, images)
        if not executorch and not timm:
            result = replace(result, learning=write_program(student, made, memory, check))
        _finish(student, made, result)
    return replace(result, folder=str(given))


def _check_exportable(student: TrainedStudent, kind: str, int8: str | None) -> None:
    """Raise `CdlError` if an export cannot have a format or int8, or needs the teacher's ViT."""
    model, spec, facts = student.model, student.spec, student.facts
    for option, value, known in (("format", kind, facts.formats), ("int8", int8, facts.int8)):
        if value not in (*known, None):
            raise CdlError(
                f"--{option} {value}: is not available for {facts.items}, on which this run is; "
                f"expected {' or '.join(known)}"
            )
    if kind == "executorch" and isinstance(model.learner.backbone.model, OnnxModel):
        raise CdlError(
            "--format executorch: is not available for backbones of ONNX files; use --format onnx"
        )
    if model.teacher_query is not None and model.teacher_query is not model.query:
        raise CdlError(
            f"distillers.{spec.distiller.name}: with protocol.query: self the prediction needs the "
            f"teacher's ViT {spec.teacher!r}, which an export does not contain; set "
            "protocol.query: student and run again"
        )
    for name in student.classes:
        check_class_name(name, student.files.folder)


def _write_student(
    student: TrainedStudent, folder: Path, images: TestImages | None, executorch: bool = False
) -> Exported:
    """Write graph, classes and preprocessing; compare the predictions if there are images."""
    file, model = folder / (PROGRAM if executorch else MODEL), plain(student.model)
    (write_executorch if executorch else write_onnx)(student.graph(model), file)
    _write(folder / CLASSES, "".join(f"{name}\n" for name in student.classes))
    _write(folder / PREPROCESSING, json.dumps(student.preprocessing(executorch), indent=2) + "\n")
    for name, content in student.files_beside().items():
        (folder / name).write_bytes(content)
    return _measure(student, model, ExportedStudent(folder, verify=False), file, images)


def _write_timm(student: TrainedStudent, folder: Path, images: TestImages | None) -> Exported:
    """Write weights and configuration for timm, classes and preprocessing; compare."""
    file, model = folder / TENSORS, plain(student.model)
    about = write_timm(model, backbone_record(student), file)
    _write(folder / CLASSES, "".join(f"{name}\n" for name in student.classes))
    how = {"timm.create_model": about, **student.preprocessing()}
    how["before_the_model"] = how.pop("in_the_graph")
    _write(folder / PREPROCESSING, json.dumps(how, indent=2) + "\n")
    config = timm_config(about, student.views, student.classes, licence_of(student))
    _write(folder / CONFIG, json.dumps(config, indent=2) + "\n")
    return _measure(student, model, TimmStudent(file, about, student), file, images)


def _measure(
    student: TrainedStudent,
    model: Model,
    exported: Classifier,
    file: Path,
    images: TestImages | None,
) -> Exported:
    """Compare an exported model with the student, count its costs and time it."""
    with using_threads(1):
        counted = costs(model, student.counted_size)
    if counted.gflops >= _PARALLEL:
        student = replace(student, threads=torch.get_num_threads())
    parity = None if images is None else compare(student, exported, images)
    duration = latency(exported, student.random_size)
    machine = this_machine()["cpu"] + student.timed
    folder, n = str(file.parent), len(student.classes)
    facts = (folder, n, file.stat().st_size, counted, duration, machine, parity)
    return Exported(*facts, research_only=research_only(student))


def _finish(student: TrainedStudent, folder: Path, result: Exported) -> None:
    """Write the model card, and the manifest of all files."""
    library = next(name for file, name in LIBRARIES.items() if (folder / file).exists())
    _write(folder / CARD, card(student, result.remarks(), library, (folder / MEMORY).exists()))
    files, task = student.files, student.model.task
    run = Path(files.folder)
    made_from = {
        "run": run.resolve().relative_to(ResultsFolder.of_run(run).path).as_posix(),
        "task": task,
        "results": artifacts.fingerprint_file(files.results),
        "checkpoint": student.results["checkpoints"][task],
        "backbones": student.results["backbones"],
        "cdl": cdl.__version__,
    }
    manifest.write(folder, made_from)


def _quantize(
    exported: Exported, student: TrainedStudent, folder: Path, kind: str, images: TestImages | None
) -> Exported:
    """Quantise the exported model in a folder to int8; measure it before and after."""
    calibration = training_images(student) if kind == "static" else None
    sizes, accuracies, times = [], [], []
    for quantized in (False, True):
        if quantized:
            to_int8(folder / MODEL, calibration, student.graph(student.model).quantised)
        sizes.append((folder / MODEL).stat().st_size)
        model = ExportedStudent(folder, verify=False)
        times.append(latency(model, student.random_size) if quantized else exported.latency)
        if images is not None:
            accuracies.append(accuracy(model, student, images))
    found = (accuracies[0], accuracies[1]) if accuracies else None
    int8 = Int8(kind, student.facts.item, (sizes[0], sizes[1]), found, (times[0], times[1]))
    return replace(exported, bytes=sizes[1], latency=times[1], int8=int8)


def _write(path: Path, text: str) -> None:
    with artifacts.replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def deploy(run: Path, folders: Mapping[str, Path], record: Path, int8: str) -> None:
    """Export a finished run with fp32 and with int8 weights; record all facts except timings.

    Args:
        run: folder of the run.
        folders: folders `fp32` and `int8`, which are replaced.
        record: JSON file to write; it contains the hashes of both models.
        int8: see `export`.

    Raises:
        CdlError: see `export`; or the exported model's predictions differ from the evaluation.
    """
    for folder in folders.values():
        shutil.rmtree(folder, ignore_errors=True)
    result = export(run, folders["fp32"])
    if result.parity is None or not result.parity.holds:
        raise CdlError(
            f"{run}: the exported model's predictions differ from the evaluation: {result.text()}"
        )
    shutil.copytree(folders["fp32"], folders["int8"])
    student = TrainedStudent.open(run)
    both = _quantize(result, student, folders["int8"], int8, test_images(student))
    _finish(student, folders["int8"], both)
    assert both.int8 is not None and both.int8.accuracy is not None
    facts = {
        "accuracy": dict(zip(folders, both.int8.accuracy, strict=True)),
        "forgetting_max": student.results["metrics"]["forgetting_max"],
        "bytes": dict(zip(folders, both.int8.bytes, strict=True)),
        "costs": asdict(result.costs),
        "parity": asdict(result.parity),
        "image": student.random_size,
    }
    artifacts.write_json(record, facts, files=[folder / MODEL for folder in folders.values()])
