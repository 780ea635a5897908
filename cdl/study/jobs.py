"""The list of jobs of a configuration, with their files, parameters and records.

The rules of the workflow look up inputs and parameters in it; the targets of the workflow,
`cdl status`, `cdl verify` and `cdl clean` filter it. Does not import torch. Files are read only
when `inputs` or `params` of a job are read.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from cdl.layout import JobFiles
from cdl.runtime.errors import CdlError
from cdl.study.runs import as_list

Paths = dict[str, str | list[str]]
MadeFrom = dict[tuple[str, ...], str | list[str]]  # see `Record`
CACHES = (  # rules whose files may be deleted
    *("queries", "test_queries", "test_features", "classify", "answers"),
    *("teacher_targets", "teacher_targets_seen"),
    *("teacher_targets_test", "teacher_targets_test_seen"),
)
ON_DEMAND = ("prompts", "plot_prompts")  # rules that run only if somebody asks for their files
OPTIONAL = (*CACHES, *ON_DEMAND, "fetch_dataset")  # rules whose files may be missing


def flat(paths: Mapping[str, str | list[str]]) -> list[str]:
    """Return all paths of a job's inputs or outputs."""
    return [path for value in paths.values() for path in as_list(value)]


def empty() -> dict[str, Any]:
    """Return an empty dictionary, for jobs without inputs or parameters."""
    return {}


@dataclass(frozen=True)
class Record:
    """A JSON file with checksums of outputs of a job, and the values that they were made with.

    Attributes:
        path: path of the JSON file, which is also an output.
        files: outputs with a checksum in the record; for tensors and packed data, implied by its
            kind.
        expected: returns the entries of a record of the job as configured.
        made_from: records of the inputs whose fingerprints are entries of this record, by the
            keys of the entry, outermost first.
        data: records of the packed data, and of its unlabelled images if there are any, whose
            digests are in the entry `data`; empty without that entry.
    """

    path: str
    files: tuple[str, ...] = ()
    expected: Callable[[], dict[str, Any]] = empty
    made_from: MadeFrom = field(default_factory=dict)
    data: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Job:
    """One job of the workflow.

    Attributes:
        rule: name of the rule.
        key: values of its wildcards.
        outputs: paths of the outputs, by their names in the rule.
        records: records of the outputs; the first one decides whether the job is done. Empty for
            `tuned`.
        files: paths of log and benchmark.
        reads: returns the inputs, by their names in the rule.
        given: returns the parameters.
        measured: whether Snakemake writes a benchmark.
        alike: properties by which the duration is estimated from other jobs of the rule, the most
            general first.
        training: folder of the run that is trained, for the jobs that train, align or evaluate it
            (see `Grid.trained`); empty for other jobs.
    """

    rule: str
    key: dict[str, str]
    outputs: Paths
    records: tuple[Record, ...]
    files: JobFiles
    reads: Callable[[], Paths] = empty
    given: Callable[[], dict[str, Any]] = empty
    measured: bool = False
    alike: tuple[str, ...] = ()
    training: str = ""

    @cached_property
    def inputs(self) -> Paths:
        """Paths of all files that the job reads, by their names in the rule."""
        return self.reads()

    @cached_property
    def params(self) -> dict[str, Any]:
        """Parameters of the job, by name."""
        return self.given()

    @property
    def log(self) -> str:
        """Path of the log."""
        return self.files.log

    @property
    def benchmark(self) -> str | None:
        """Path of Snakemake's benchmark, written when the job succeeds; None without one."""
        return self.files.benchmark if self.measured else None

    @property
    def measurements(self) -> str | None:
        """Path of the job's own measurements, of a job that trains or aligns; else None."""
        return self.files.measured if self.rule in ("train", "distil", "align") else None

    @property
    def paths(self) -> list[str]:
        """All files that the job writes."""
        others = filter(None, (self.benchmark, self.measurements))
        return [*flat(self.outputs), self.log, *others]


class Jobs:
    """A list of jobs with look-up by rule and wildcards, or by output."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        """Keep the first of the jobs with the same rule and wildcards."""
        self._jobs: dict[tuple[str, frozenset[tuple[str, str]]], Job] = {}
        for job in jobs:
            self._jobs.setdefault((job.rule, frozenset(job.key.items())), job)

    def __iter__(self) -> Iterator[Job]:
        return iter(self._jobs.values())

    def find(self, rule: str, key: Mapping[str, str]) -> Job:
        """Return the job with a rule and wildcards; raise `CdlError` if there is none."""
        try:
            return self._jobs[rule, frozenset(key.items())]
        except KeyError:
            wildcards = ", ".join(f"{name}={value}" for name, value in key.items())
            raise CdlError(
                f"{rule}: the configuration has no such job ({wildcards or 'no wildcards'})"
            ) from None

    def of(self, *rules: str) -> list[Job]:
        """Return the jobs of the given rules."""
        return [job for job in self if job.rule in rules]

    @cached_property
    def by_output(self) -> dict[str, Job]:
        """The job that writes each file."""
        return {path: job for job in self for path in flat(job.outputs)}

    @cached_property
    def targets(self) -> list[str]:
        """Files that the workflow must produce, without those of the rules in `OPTIONAL`.

        All outputs are listed, so that a deleted file is made again even if the tables are newer.
        """
        return [path for job in self if job.rule not in OPTIONAL for path in flat(job.outputs)]

    def behind(self, job: Job) -> list[Job]:
        """Return a job and the jobs that it depends on, without those of other learners."""
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
    """Whether a job trains, aligns or evaluates another learner than the job `than`."""
    return bool(job.training) and job.training != than.training
