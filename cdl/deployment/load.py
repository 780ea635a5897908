"""Load a student from the folder of a finished run or of an export, or from the Hub."""

from os import PathLike
from pathlib import Path

from cdl.deployment import hub
from cdl.deployment.manifest import MODEL, PROGRAM, TENSORS
from cdl.deployment.student import ExportedStudent
from cdl.device.classifier import Classifier
from cdl.layout import RunFiles, runs_below
from cdl.runtime.errors import CdlError

_SHOWN = 6  # runs that a message lists


def is_exported(path: Path) -> bool:
    """Return whether a folder contains an exported student."""
    return (path / MODEL).exists() or (path / PROGRAM).exists()


def load(
    path: str | PathLike[str], task: int | None = None, threads: int = 1, verify: bool = True
) -> Classifier:
    """Load a student of one of the internal classes; see `cdl.load`, which wraps it."""
    if threads < 1:
        raise CdlError(f"threads: invalid value {threads}; expected at least 1")
    path = hub.fetch(str(path)) if str(path).startswith(hub.PREFIX) else Path(path)
    if not path.is_dir():
        raise CdlError(
            f"{path}: is not a folder; expected the folder of a finished run or of an export"
        )
    if is_exported(path):
        if task is not None:
            raise CdlError(
                f"task: {task} is not available; {path} was exported after one task; load its run"
            )
        return ExportedStudent(path, threads, verify)
    if (path / TENSORS).exists():
        raise CdlError(
            f"{path}: is a student exported for timm, which loads it: "
            f"timm.create_model('local-dir:{path}', pretrained=True); for cdl.load export it with "
            "the format onnx"
        )
    results = Path(RunFiles(str(path)).results)
    if not results.exists():
        below = ", ".join(map(str, runs_below(path)[:_SHOWN]))
        found = f"; runs below it: {below}" if below else ""
        raise CdlError(f"{path}: is not a finished run: {results.name} is missing{found}")
    from cdl.deployment.trained import (
        TrainedStudent,  # imports torch, which an export does not need
    )

    return TrainedStudent.open(path, task, threads)
