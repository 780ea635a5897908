"""Determine the state of a job, for status, tables, verify and the list of overwritten results.

A job is done if all its outputs exist and, according to its record, they were made with the
configured values, and from inputs that are done and have not changed since. Records are read once.
`compared` decides this for one record; the hashes of records and files are compared by
`cdl.runtime.artifacts`.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from cdl.data.order import digests, domains_of
from cdl.runtime.artifacts import check_files, differences, first_difference, read_json
from cdl.runtime.errors import CdlError
from cdl.study.grid import Grid
from cdl.study.jobs import Job, Jobs, Record, flat
from cdl.study.learning_jobs import LearningJobs
from cdl.study.runs import as_list

DONE, OUTDATED, DAMAGED, MISSING = "done", "outdated", "damaged", "missing"
Reader = Callable[[str], dict[str, Any]]
Change = tuple[str, str, str]  # field, value in a record, value as configured


class State(NamedTuple):
    """The state of a job.

    Attributes:
        name: `done`, `outdated`, `damaged` or `missing`.
        what: for an outdated job, the first entry of its record that differs; for a damaged one,
            the error message.
        before: value of that entry in the record.
        now: value as configured.
    """

    name: str
    what: str = ""
    before: str = ""
    now: str = ""

    @property
    def why(self) -> str:
        """Why an outdated or damaged job is not done; empty for others."""
        changes = [(self.what, self.before, self.now)]
        return in_words(changes) if self.name == OUTDATED else self.what


class States:
    """The states of the jobs of a list, from the files below the current folder.

    Records are cached, so create a new object after files have changed.
    """

    def __init__(self, jobs: Jobs) -> None:
        """Store the list of jobs, which is needed to find the job that makes an input."""
        self.jobs = jobs
        self.read: Reader = cache(read_json)
        self._recorded: dict[Job, State] = {}

    @classmethod
    def of_grid(cls, grid: Grid) -> "States":
        """Return the states of the jobs up to the evaluation of all runs of a grid."""
        return cls(Jobs(LearningJobs(grid)))

    def __call__(self, job: Job) -> State:
        """Return the state of a job that has a record."""
        if not all(Path(path).is_file() for path in flat(job.outputs)):
            return State(MISSING)
        return self.recorded(job)

    def recorded(self, job: Job) -> State:
        """Return the state according to the record of a job, ignoring its other outputs."""
        if job not in self._recorded:
            self._recorded[job] = compared(job.records[0], self.read, self._fingerprint)
        return self._recorded[job]

    def checked(self, job: Job, *files: str) -> State:
        """Return the state of a job; if it is done, after comparing files with its record.

        Args:
            job: the job.
            files: files of its record; none for all of them.
        """
        state, record = self(job), job.records[0]
        if state.name == DONE:
            try:
                check_files(record.path, *(files or record.files))
            except CdlError as error:
                return State(DAMAGED, str(error))
        return state

    def changes(self, job: Job) -> list[Change]:
        """Return every field in which the record of a job differs from the configuration.

        Nothing is returned of a job without a record or with a damaged one.
        """
        try:
            return changed_values(job.records[0], self.read(job.records[0].path))
        except CdlError:  # reported by the job that reads it
            return []

    def _fingerprint(self, path: str) -> str | None:
        """Return the fingerprint in the record of an input; None if the input is not done."""
        job = self.jobs.by_output.get(path)
        if not Path(path).is_file() or (job and self.recorded(job).name != DONE):
            return None
        return fingerprint_of(self.read(path))


def compared(record: Record, read: Reader, fingerprint: Callable[[str], str | None]) -> State:
    """Return the state of a job according to its record: `done`, `outdated` or `damaged`.

    Args:
        record: path of the record, and what it contains if it is as planned.
        read: returns the content of a record, see `read_json`.
        fingerprint: returns the fingerprint of an input by the path of its record; None if the
            input is not as planned.
    """
    try:
        content = read(record.path)
        if changes := changed_values(record, content):
            return State(OUTDATED, *changes[0])
        return _outdated_by_inputs(record, content, read, fingerprint) or State(DONE)
    except CdlError as error:
        return State(DAMAGED, str(error))
    except (KeyError, TypeError, AttributeError) as error:  # from an earlier version
        return State(
            DAMAGED, f"{record.path} cannot be compared ({error!r}); delete it and run again"
        )


def fingerprint_of(content: Mapping[str, Any]) -> str:
    """Return the fingerprint of an artifact from its record."""
    fingerprint: str = content.get("fingerprint") or content["sha256"]
    return fingerprint


def _outdated_by_inputs(
    record: Record,
    content: Mapping[str, Any],
    read: Reader,
    fingerprint: Callable[[str], str | None],
) -> State | None:
    """Return an outdated state if an input has changed since, None otherwise."""
    for entry, sources in record.made_from.items():
        if (before := _entry(content, entry)) is None:
            continue
        now: Any = [fingerprint(path) for path in as_list(sources)]
        now = now if isinstance(sources, list) else now[0]
        if now != before:
            return State(OUTDATED, ".".join(entry), _abbreviated(before), _abbreviated(now))
    if absent := [path for path in record.data if not Path(path).is_file()]:
        return State(OUTDATED, "data", "packed", f"without {absent[0]}")
    if record.data:
        splits = [read(path)["splits"] for path in record.data]
        if len(splits) > 1:
            splits[0] = splits[0] | {"unlabelled": splits[1]["train"]}
        tasks = content["learner"]["stream"]["tasks"]
        now = digests(splits[0], content.get("classes", []), domains_of(tasks))
        if difference := first_difference(content.get("data", {}), now):
            return State(OUTDATED, f"data.{difference[0]}", *difference[1:])
    return None


def name_of(job: Job) -> str:
    """Return the name of a job's run: its folder below the configuration's folder."""
    return "{dataset}/{method}/{learner}/seed{seed}".format(**job.key)


def changed_values(record: Record, content: Mapping[str, Any]) -> list[Change]:
    """Return every field in which a record differs from the configuration, and both values.

    Raises:
        CdlError: the record lacks an entry.
    """
    wanted = record.expected()
    if lacking := wanted.keys() - content.keys():
        raise CdlError(f"{record.path} has no {min(lacking)!r}; delete it and run again")
    return list(differences({key: content[key] for key in wanted}, wanted))


def in_words(changes: Iterable[Change]) -> str:
    """Return changed fields as text: `training.lr was 0.1, is 0.2; ...`."""
    fields = ((what.removeprefix("learner."), *values) for what, *values in changes)
    return "; ".join(f"{what} was {before}, is {now}" for what, before, now in fields)


def _entry(content: Any, keys: Iterable[str]) -> Any:
    """Return a nested entry of a record, None if it is missing."""
    for key in keys:
        content = content.get(key) if isinstance(content, Mapping) else None
    return content


def _abbreviated(value: Any) -> str:
    """Return a fingerprint, or a list of them, as short text."""
    if isinstance(value, list):
        return f"[{', '.join(map(_abbreviated, value))}]"
    return "not as configured" if value is None else str(value)[:12]
