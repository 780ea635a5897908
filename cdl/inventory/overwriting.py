"""List the finished results that the next run will overwrite."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from cdl.inventory.state import State, name_of, outdated_by_values
from cdl.runtime.artifacts import read_json
from cdl.runtime.errors import CdlError
from cdl.study.jobs import Job, Jobs

SHOWN = 5  # runs that are listed
_FORM = "learner.format"  # an entry of a record, see `cdl.spec.FORMAT`


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
    outdated = list(_outdated(jobs))
    found = [_described(*one) for one in outdated if one[1].what != _FORM]
    n, former, lines = len(found), len(outdated) - len(found), []
    if former:
        lines.append(
            f"{former} finished run{'s' * (former > 1)} of another version of cdl, which stores "
            "results in another form, will be computed again and overwritten"
        )
    if found:
        lines.append(f"{n} finished run{'s' * (n > 1)} with other values will be overwritten:")
        lines += [f"  {line}" for line in found[:SHOWN]]
    if n > SHOWN:
        lines.append(f"  and {n - SHOWN} more, see `cdl status`")
    if not lines:
        return []
    return [*lines, "  to keep them, rename this configuration or use variants of the blocks"]


def _outdated(jobs: Jobs) -> Iterator[tuple[Job, State]]:
    for job in jobs.of("evaluate"):
        (record,) = job.records
        if not Path(record.path).is_file():
            continue
        try:
            state = outdated_by_values(record, read_json(record.path))
        except CdlError:  # reported by the job that reads it
            continue
        if state is not None:
            yield job, state


def _described(job: Job, state: State) -> str:
    what = state.what.removeprefix("learner.")
    return f"{name_of(job)}: {what} {state.before}, now {state.now}"
