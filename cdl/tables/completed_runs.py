"""Which runs are finished, told from the JSON beside their files, and tables of these alone."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from cdl.data.packing import digests
from cdl.runtime.artifacts import check_provenance, read_json, write_json
from cdl.runtime.errors import CdlError
from cdl.spec import LearnerSpec
from cdl.tables.published import write_comparison
from cdl.tables.runs import results_of, write, write_summary

log = logging.getLogger(__name__)


def completed_run(
    results: str,
    learner: Mapping[str, Any],
    teacher: Mapping[str, Any] | None,
    manifest: str,
    images_per_class: int | None,
    unlabelled: str | None = None,
) -> dict[str, Any] | None:
    """Read a run's results if they are there and were made by this very configuration.

    Nothing is loaded or computed.

    Args:
        results: path of the run's JSON.
        learner: the `records` of its tasks' artifacts, the `spec` of the learner after the last of
            them, and the records of the `backbones` it learns with, by name.
        teacher: the same of its teacher's run.
        manifest: record of the packed data.
        images_per_class: test images per class.
        unlabelled: record of the packed further images, None without them.

    Returns:
        The content of the results; None if a file is missing or was made from something else
        than what lies there now: specification, teacher, backbone, data or checkpoint.
    """
    try:
        found: dict[str, Any] = read_json(results)
    except CdlError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            log.warning("counts as not run: %s", error)
        return None
    try:
        alone = [None] * len(learner["records"])
        teachers = _checkpoints(teacher, alone) if teacher else alone
        splits, spec = dict(read_json(manifest)["splits"]), LearnerSpec.from_json(learner["spec"])
        if unlabelled is not None:
            splits["unlabelled"] = read_json(unlabelled)["splits"]["train"]
        now = {
            "learner": learner["spec"],
            "checkpoints": _checkpoints(learner, teachers),
            "data": digests(splits, found.get("classes", []), spec.stream.domains),
            "test_images_per_class": images_per_class,
        }
        check_provenance(results, found, now)
    except CdlError as error:
        log.warning("counts as not run: %s", error)
        return None
    return found


def tabulate(
    outputs: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    runs: Sequence[Mapping[str, Any]],
    comparisons: Mapping[str, Mapping[str, Any]],
) -> None:
    """Write whatever is finished: the summary, and each pair beside the papers' numbers.

    Args:
        outputs: paths of `results` and `protocols`, of the `summary` as CSV and Markdown, and of
            the `comparisons` by name, without suffix.
        rows: of `cdl.tables.runs.results_of`.
        runs: arguments of `completed_run`, one per row.
        comparisons: the `rows` of each comparison and what the papers call them (`published`).
    """
    results, protocols = results_of(rows, [completed_run(**run) for run in runs])
    write(results[results["protocol"] != ""], outputs["results"])
    write_summary(results, *outputs["summary"])
    write_json(outputs["protocols"], protocols, [outputs["results"], *outputs["summary"]])
    for name, comparison in comparisons.items():
        mine = results[results["run"].isin([row["run"] for row in comparison["rows"]])]
        stem = outputs["comparisons"][name]
        write_comparison(stem, mine, protocols, **comparison["published"])


def _checkpoints(learner: Mapping[str, Any], teachers: Sequence[str | None]) -> list[str]:
    """Return the sha256 of a learner's artifacts; raise `CdlError` unless each fits the others."""
    weights = {name: read_json(path)["fingerprint"] for name, path in learner["backbones"].items()}
    shas: list[str] = []
    spec = LearnerSpec.from_json(learner["spec"])
    for task, (path, teacher) in enumerate(zip(learner["records"], teachers, strict=True)):
        metadata = read_json(path)
        used = {name: weights.get(name) for name in metadata["inputs"]["backbones"]}
        inputs = {"backbones": used, "previous": shas[-1] if shas else None, "teacher": teacher}
        now = {"task": task, "learner": spec.until(task).to_json(), "inputs": inputs}
        check_provenance(path, metadata, now)
        shas.append(metadata["sha256"])
    return shas
