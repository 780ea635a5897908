"""Find the runs that `cdl learn` made, which no configuration can make again."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cdl.layout import ResultsFolder, RunFiles, record_of
from cdl.runtime.artifacts import read_json
from cdl.runtime.errors import CdlError


@dataclass(frozen=True)
class LearntRun:
    """A run that `cdl learn` made.

    Attributes:
        name: folder of the run's results, the option `--output` of `cdl learn`.
        files: files of the run.
    """

    name: str
    files: RunFiles

    def needs(self, results: ResultsFolder) -> Iterator[Path]:
        """Yield the run's folder, its packed data and the files of its backbones."""
        yield Path(self.files.folder)
        of_name = re.compile(re.escape(self.name) + "(-[0-9a-f]{8})+")
        yield from (p for p in results.path.glob("data/*") if of_name.fullmatch(p.name))
        try:
            backbones = dict(read_json(self.files.results)["backbones"])
        except (CdlError, KeyError, TypeError, ValueError):
            return  # `cdl verify` and `cdl trace` report it
        for name, fingerprint in backbones.items():
            for weights in map(Path, results.backbones(name)):
                if _fingerprint(str(weights)) in (fingerprint, None):
                    yield from weights.parent.glob(f"{weights.stem}.*")


def learnt_runs(results: ResultsFolder) -> list[LearntRun]:
    """Return all runs that `cdl learn` made, or may have made: their record is damaged."""
    return [
        LearntRun(Path(run.folder).relative_to(results.path).parts[0], run)
        for run in results.runs()
        if is_learnt(run)
    ]


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
