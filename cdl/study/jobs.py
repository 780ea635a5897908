"""Every job of a configuration: the files that it reads and writes, its parameters, its record.

The only list of jobs: the workflow's rules look inputs and parameters up in it, and its targets,
`cdl status`, `cdl verify` and `cdl clean` are filters over it. No torch, and no file is read before
`inputs` or `params` of a job is.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from cdl.layout import JobFiles
from cdl.runtime.errors import CdlError

Paths = dict[str, str | list[str]]
MadeFrom = dict[tuple[str, ...], str | list[str]]  # see `Record`
CACHES = ("queries", "test_queries", "teacher_targets")  # files that may be deleted at any time


def flat(paths: Mapping[str, str | list[str]]) -> list[str]:
    """Return all paths of a job's inputs or outputs."""
    lists = [[value] if isinstance(value, str) else value for value in paths.values()]
    return [path for paths in lists for path in paths]


def nothing() -> dict[str, Any]:
    """Return no inputs, parameters or entries."""
    return {}


@dataclass(frozen=True)
class Record:
    """A JSON file that vouches for outputs of a job.

    Attributes:
        path: of the JSON file, itself an output.
        files: outputs whose sha256 is in it, or that are known by its kind: tensors, packed data.
        says: returns entries that it has if the job was run as configured.
        made_from: by entry (its keys from the outside in), the record of an input, or a list of
            them, whose fingerprint the entry repeats.
        data: records of the packed data, and of its unlabelled images if there are some, whose
            digests it repeats under `data`; empty if it does not.
    """

    path: str
    files: tuple[str, ...] = ()
    says: Callable[[], dict[str, Any]] = nothing
    made_from: MadeFrom = field(default_factory=dict)
    data: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Job:
    """One job of the workflow.

    Attributes:
        rule: of the workflow.
        key: its wildcards.
        outputs: paths by the rule's names.
        records: of the outputs; the first one tells whether the job is done; none for `tuned`.
        files: its log and benchmark.
        reads: returns its inputs, by the rule's names.
        given: returns its parameters.
        measured: whether Snakemake writes a benchmark.
        alike: what jobs of the rule that take equally long have in common, the widest first.
    """

    rule: str
    key: dict[str, str]
    outputs: Paths
    records: tuple[Record, ...]
    files: JobFiles
    reads: Callable[[], Paths] = nothing
    given: Callable[[], dict[str, Any]] = nothing
    measured: bool = False
    alike: tuple[str, ...] = ()

    @cached_property
    def inputs(self) -> Paths:
        """Paths of every file that the job reads, by the rule's names."""
        return self.reads()

    @cached_property
    def params(self) -> dict[str, Any]:
        """Parameters of the rule, by their names."""
        return self.given()

    @property
    def log(self) -> str:
        """Path of the log."""
        return self.files.log

    @property
    def benchmark(self) -> str | None:
        """Path of Snakemake's file of its seconds, written when it succeeds."""
        return self.files.benchmark if self.measured else None

    @property
    def paths(self) -> list[str]:
        """All files that the job leaves."""
        return [*flat(self.outputs), self.log, *([self.benchmark] if self.benchmark else [])]


class Jobs:
    """A list of jobs, looked up by rule and wildcards, or by a file that they write."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        """Take jobs; of two with the same rule and wildcards the first one."""
        self._jobs: dict[tuple[str, frozenset[tuple[str, str]]], Job] = {}
        for job in jobs:
            self._jobs.setdefault((job.rule, frozenset(job.key.items())), job)

    def __iter__(self) -> Iterator[Job]:
        return iter(self._jobs.values())

    def find(self, rule: str, key: Mapping[str, str]) -> Job:
        """Return the job of a rule with some wildcards; raise `CdlError` if there is none."""
        try:
            return self._jobs[rule, frozenset(key.items())]
        except KeyError:
            named = ", ".join(f"{name}={value}" for name, value in key.items())
            raise CdlError(
                f"{rule}: the configuration has no such job ({named or 'no wildcards'})"
            ) from None

    def of(self, *rules: str) -> list[Job]:
        """Return the jobs of some rules."""
        return [job for job in self if job.rule in rules]

    @cached_property
    def by_output(self) -> dict[str, Job]:
        """The job that writes each file."""
        return {path: job for job in self for path in flat(job.outputs)}

    @cached_property
    def targets(self) -> list[str]:
        """Files that must exist: a deleted one is made again even if tables are newer.

        Caches are not among them, nor the temporary record of `fetch_dataset`.
        """
        skipped = (*CACHES, "fetch_dataset")
        return [path for job in self if job.rule not in skipped for path in flat(job.outputs)]

    def behind(self, job: Job) -> list[Job]:
        """Return the jobs that a job waits for, and itself, without those of another learner."""
        found, left = {job: None}, [job]
        while left:
            for path in flat(left.pop().inputs):
                other = self.by_output.get(path)
                if other is None or other in found or _is_other_learner(other, job):
                    continue
                found[other] = None
                if other.rule not in ("prepare_dataset", "fetch_backbone"):
                    left.append(other)
        return list(found)


def _is_other_learner(job: Job, than: Job) -> bool:
    """Whether a job learns or is evaluated for another learner than that of a job."""
    own = job.rule in ("train", "distil", "evaluate")
    return own and any(job.key[name] != value for name, value in than.key.items())
