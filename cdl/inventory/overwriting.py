"""List the finished results that the next run will overwrite."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from cdl.inventory.state import name_of, outdated_by_values
from cdl.runtime.artifacts import read_json
from cdl.runtime.errors import CdlError
from cdl.study.jobs import Jobs

SHOWN = 5  # runs that are listed


def start_messages(jobs: Jobs, files: Iterable[str | Path]) -> list[str]:
    """Return the messages printed before a run: results that it overwrites, and how to verify.

    Args:
        jobs: jobs of the configuration.
        files: configuration files.
    """
    names = " ".join(map(str, files))
    return [*overwritten(jobs), f"`cdl verify {names}` compares finished files with their hashes"]


def overwritten(jobs: Jobs) -> list[str]:
    """Return lines of text with each run and its first difference; empty without any.

    Paths are relative to the current folder.
    """
    found = list(_outdated(jobs))
    if not found:
        return []
    n = len(found)
    lines = [f"{n} finished run{'s' * (n > 1)} with other values will be overwritten:"]
    lines += [f"  {line}" for line in found[:SHOWN]]
    if len(found) > SHOWN:
        lines.append(f"  and {len(found) - SHOWN} more, see `cdl status`")
    return [*lines, "  to keep them, rename this configuration or use variants of the blocks"]


def _outdated(jobs: Jobs) -> Iterator[str]:
    for job in jobs.of("evaluate"):
        (record,) = job.records
        if not Path(record.path).is_file():
            continue
        try:
            state = outdated_by_values(record, read_json(record.path))
        except CdlError:  # reported by the job that reads it
            continue
        if state is not None:
            what = state.what.removeprefix("learner.")
            yield f"{name_of(job)}: {what} {state.before}, now {state.now}"
