"""Find the runs that `cdl learn` made, which no configuration can make again."""

import re
from collections.abc import Iterator
from pathlib import Path

from cdl.layout import ResultsFolder, RunFiles, record_of
from cdl.runtime.artifacts import read_json
from cdl.runtime.errors import CdlError


def learnt_runs(results: ResultsFolder) -> dict[str, list[RunFiles]]:
    """Return all runs that `cdl learn` made, or may have made: their record is damaged.

    They are sorted by the folder of their results, the option `--output` of `cdl learn`.
    """
    runs: dict[str, list[RunFiles]] = {}
    for run in filter(is_learnt, results.runs()):
        runs.setdefault(Path(run.folder).relative_to(results.path).parts[0], []).append(run)
    return runs


def needs(name: str, run: RunFiles, results: ResultsFolder) -> Iterator[Path]:
    """Yield the folder, the packed data and the files of the backbones of a run of a name."""
    yield Path(run.folder)
    of_name = re.compile(re.escape(name) + "(-[0-9a-f]{8})+")
    yield from (path for path in results.path.glob("data/*") if of_name.fullmatch(path.name))
    try:
        backbones = dict(read_json(run.results)["backbones"])
    except (CdlError, KeyError, TypeError, ValueError):
        return  # `cdl verify` and `cdl trace` report it
    for backbone, fingerprint in backbones.items():
        for weights in map(Path, results.backbones(backbone)):
            if _fingerprint(str(weights)) in (fingerprint, None):
                yield from weights.parent.glob(f"{weights.stem}.*")


def is_learnt(run: RunFiles, if_damaged: bool = True) -> bool:
    """Return whether `cdl learn` made a run: its first checkpoint is a copy of another run's.

    Args:
        run: files of the run.
        if_damaged: the result if the record of the first checkpoint is damaged.
    """
    record = Path(record_of(run.task(0).learner))
    try:
        return record.is_file() and "learnt_as" in read_json(record)
    except CdlError:
        return if_damaged


def _fingerprint(weights: str) -> str | None:
    """Return the recorded fingerprint of a backbone; None if its record is missing or damaged."""
    try:
        return str(read_json(record_of(weights))["fingerprint"])
    except (CdlError, KeyError):
        return None
