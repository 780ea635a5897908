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
from cdl.study.jobs import Job, Jobs, Record, flat

DONE, OUTDATED, DAMAGED, MISSING = "done", "outdated", "damaged", "missing"
Reader = Callable[[str], dict[str, Any]]


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


class States:
    """The states of the jobs of a list, from the files below the current folder.

    Records are cached, so create a new object after files have changed.
    """

    def __init__(self, jobs: Jobs) -> None:
        """Store the list of jobs, which is needed to find the job that makes an input."""
        self._jobs = jobs
        self._read: Reader = cache(read_json)
        self._recorded: dict[Job, State] = {}

    def __call__(self, job: Job) -> State:
        """Return the state of a job that has a record."""
        if not all(Path(path).is_file() for path in flat(job.outputs)):
            return State(MISSING)
        return self._of_record(job)

    def _of_record(self, job: Job) -> State:
        """Return the state according to the record of a job, ignoring its other outputs."""
        if job not in self._recorded:
            self._recorded[job] = compared(job.records[0], self._read, self._fingerprint)
        return self._recorded[job]

    def _fingerprint(self, path: str) -> str | None:
        """Return the fingerprint in the record of an input; None if the input is not done."""
        job = self._jobs.by_output.get(path)
        if not Path(path).is_file() or (job and self._of_record(job).name != DONE):
            return None
        return fingerprint_of(self._read(path))


def with_files(state: State, record: Record) -> State:
    """Return the state of a job after comparing the files of its record, if it is done."""
    if state.name != DONE:
        return state
    try:
        check_files(record.path, *record.files)
    except CdlError as error:
        return State(DAMAGED, str(error))
    return state


def compared(record: Record, read: Reader, fingerprint: Callable[[str], str | None]) -> State:
    """Return the state of a job according to its record: `done`, `outdated` or `damaged`.

    Args:
        record: path of the record, and what it contains if it is as planned.
        read: returns the content of a record, see `read_json`.
        fingerprint: returns the fingerprint of an input by the path of its record; None if the
            input is not as planned.
    """
    try:
        found = read(record.path)
        changed = outdated_by_values(record, found)
        return changed or _outdated_by_inputs(record, found, read, fingerprint) or State(DONE)
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
    found: Mapping[str, Any],
    read: Reader,
    fingerprint: Callable[[str], str | None],
) -> State | None:
    """Return an outdated state if an input has changed since, None otherwise."""
    for entry, sources in record.made_from.items():
        if (before := _entry(found, entry)) is None:
            continue
        now: Any = [fingerprint(path) for path in _as_list(sources)]
        now = now if isinstance(sources, list) else now[0]
        if now != before:
            return State(OUTDATED, ".".join(entry), _abbreviated(before), _abbreviated(now))
    if absent := [path for path in record.data if not Path(path).is_file()]:
        return State(OUTDATED, "data", "packed", f"without {absent[0]}")
    if record.data:
        splits = [read(path)["splits"] for path in record.data]
        if len(splits) > 1:
            splits[0] = splits[0] | {"unlabelled": splits[1]["train"]}
        now = digests(splits[0], found.get("classes", []), domains_of(_tasks(found)))
        if difference := first_difference(found.get("data", {}), now):
            return State(OUTDATED, f"data.{difference[0]}", *difference[1:])
    return None


def name_of(job: Job) -> str:
    """Return the name of a job's run: its folder below the configuration's folder."""
    return "{dataset}/{method}/{learner}/seed{seed}".format(**job.key)


def outdated_by_values(record: Record, found: Mapping[str, Any]) -> State | None:
    """Return an outdated state if a record has other values than configured, None otherwise.

    Raises:
        CdlError: the record lacks an entry.
    """
    changed = changed_values(record, found)
    return State(OUTDATED, *changed[0]) if changed else None


def changed_values(record: Record, found: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return every field in which a record differs from the configuration, and both values.

    Raises:
        CdlError: the record lacks an entry.
    """
    wanted = record.expected()
    if lacking := wanted.keys() - found.keys():
        raise CdlError(f"{record.path} has no {min(lacking)!r}; delete it and run again")
    return list(differences({key: found[key] for key in wanted}, wanted))


def in_words(changed: Iterable[tuple[str, str, str]]) -> str:
    """Return changed fields as text: `training.lr was 0.1, is 0.2; ...`."""
    fields = ((what.removeprefix("learner."), *values) for what, *values in changed)
    return "; ".join(f"{what} was {before}, is {now}" for what, before, now in fields)


def _tasks(found: Mapping[str, Any]) -> Any:
    return found["learner"]["stream"]["tasks"]


def _entry(found: Any, keys: Iterable[str]) -> Any:
    """Return a nested entry of a record, None if it is missing."""
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def _as_list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _abbreviated(value: Any) -> str:
    """Return a fingerprint, or a list of them, as short text."""
    if isinstance(value, list):
        return f"[{', '.join(map(_abbreviated, value))}]"
    return "not as configured" if value is None else str(value)[:12]
