"""What the next run overwrites: results of the same row that were made with other values."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from cdl.inventory.state import as_configured, name_of
from cdl.runtime.artifacts import read_json
from cdl.runtime.errors import CdlError
from cdl.study.jobs import Jobs

SHOWN = 5


def announced(jobs: Jobs, files: Iterable[str | Path]) -> list[str]:
    """Return what is said before a run: what it overwrites, and how finished files are compared.

    Args:
        jobs: what is asked for.
        files: of its configuration.
    """
    names = " ".join(map(str, files))
    return [*overwritten(jobs), f"`cdl verify {names}` compares finished files with their hashes"]


def overwritten(jobs: Jobs) -> list[str]:
    """Return lines for people that name the runs and what of each is different, if there are any.

    Paths are relative to the current folder.
    """
    found = list(_outdated(jobs))
    if not found:
        return []
    lines = [f"finished runs that were made with other values will be overwritten, {len(found)}:"]
    lines += [f"  {line}" for line in found[:SHOWN]]
    if len(found) > SHOWN:
        lines.append(f"  and {len(found) - SHOWN} more, see `cdl status`")
    return [*lines, "  to keep them give this configuration another name, or the blocks a variant"]


def _outdated(jobs: Jobs) -> Iterator[str]:
    for job in jobs.of("evaluate"):
        (record,) = job.records
        if not Path(record.path).is_file():
            continue
        try:
            state = as_configured(record, read_json(record.path))
        except CdlError:  # to be refused by who needs it
            continue
        if state is not None:
            what = state.what.removeprefix("learner.")
            yield f"{name_of(job)}: {what} {state.before}, now {state.now}"
