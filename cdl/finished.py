"""Which runs are finished, told from the JSON beside their files; nothing is loaded or computed."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cdl.artifacts import check, read_json
from cdl.errors import CdlError

log = logging.getLogger(__name__)


def finished(
    learner: Mapping[str, Any],
    teacher: Mapping[str, Any] | None,
    tasks: int,
    data: str,
    images_per_class: int | None,
) -> dict[str, Any] | None:
    """Read a run's results if they are there and were made by this very configuration.

    Args:
        learner: the `folder` of the run, the `spec` of its learner, and the paths of the
            `backbones` it learns with, by name.
        teacher: the same of its teacher's run.
        tasks: their number.
        data: packed folder.
        images_per_class: test images per class.

    Returns:
        The content of `results.json`; None if a file is missing or was made from something else
        than what lies there now: specification, teacher, backbone, data or checkpoint.
    """
    path = Path(learner["folder"], "results.json")
    if not path.exists():
        return None
    try:
        results = read_json(path)
        teachers = _checkpoints(teacher, [None] * tasks) if teacher else [None] * tasks
        splits = read_json(Path(data, "manifest.json"))["splits"]
        now = {
            "learner": dict(learner["spec"]),
            "checkpoints": _checkpoints(learner, teachers),
            "data": {split: entry["sha256"] for split, entry in splits.items()},
            "test_images_per_class": images_per_class,
        }
        check(path, results, now)
    except CdlError as error:
        log.warning("counts as not run: %s", error)
        return None
    return results


def _checkpoints(learner: Mapping[str, Any], teachers: list[str | None]) -> list[str]:
    """Return the sha256 of a learner's artifacts; raise `CdlError` unless each fits the others."""
    weights = {
        name: read_json(Path(path).with_suffix(".json"))["fingerprint"]
        for name, path in learner["backbones"].items()
    }
    shas: list[str] = []
    for task, teacher in enumerate(teachers):
        path = Path(learner["folder"], f"task{task}", "learner.json")
        metadata = read_json(path)
        used = {name: weights.get(name) for name in metadata["inputs"]["backbones"]}
        inputs = {"backbones": used, "previous": shas[-1] if shas else None, "teacher": teacher}
        now = {"task": task, "learner": dict(learner["spec"]), "inputs": inputs}
        check(path, metadata, now)
        shas.append(metadata["sha256"])
    return shas
