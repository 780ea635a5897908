"""The table of `cdl run -n`: what would run, how many jobs, and why, in the user's words."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rich.markup import escape
from rich.table import Table

from cdl.cli.progress import describe_job
from cdl.inventory.images import changes, outdated_data
from cdl.inventory.state import OUTDATED, States, in_words
from cdl.runtime.errors import CdlError
from cdl.study.contents import made_of_images
from cdl.study.grid import Grid
from cdl.study.jobs import Job, Jobs
from cdl.study.learning_jobs import LearningJobs
from cdl.study.report_jobs import ReportJobs
from cdl.study.trials import Trials

VALUES = "Params have changed"  # the beginning of Snakemake's reason
FOLLOWS = "reads results of the jobs above"  # rows with this reason are the last ones
REASONS = {  # beginnings of Snakemake's other reasons
    "Missing output files": "not made yet",
    "Input files updated by another job": FOLLOWS,
    "Updated input files": "a file that it reads has changed",
    "Set of input files has changed": "reads other files than before",
    "Software environment definition has changed": "the software environment has changed",
    "Code has changed": "its script has changed",
    "Forced execution": "you asked for it",
    "Rules with neither input nor output": "checks that all files exist",
    "Rules with a run or shell declaration but no output": "checks that all files exist",
}
INCOMPLETE = "Incomplete output files"


class Planned(NamedTuple):
    """A job of a dry run: rule, wildcards, and the reason that Snakemake gives."""

    rule: str
    key: Mapping[str, str]
    reason: str


def table(grid: Grid, planned: Sequence[Planned]) -> Table:
    """Return the planned jobs, grouped by what they do and why; tasks are counted together.

    Paths are relative to the current folder.
    """
    learning = LearningJobs(grid)
    jobs = Jobs([*learning, *ReportJobs(grid), *Trials(grid).jobs()])
    why = _Reasons(jobs, {n: changes(learning.user, n) for n in outdated_data(learning.user)})
    counts: Counter[tuple[str, str]] = Counter()
    for job in planned:
        key = {name: value for name, value in job.key.items() if name != "task"}
        if job.rule != "all":
            counts[describe_job(job.rule, key), why(job)] += 1
    plan = Table(box=None, pad_edge=False, title_justify="left")
    plan.add_column("what")
    plan.add_column("jobs", justify="right")
    plan.add_column("because")
    for (what, because), n in sorted(counts.items(), key=lambda row: row[0][1] == FOLLOWS):
        plan.add_row(escape(what), str(n), escape(because))
    plan.add_row("in total", str(counts.total()), "")
    return plan


class _Reasons:
    """Explain why jobs run, from their records and Snakemake's reason."""

    def __init__(self, jobs: Jobs, images: Mapping[str, str]) -> None:
        self._jobs, self._images, self._states = jobs, images, States(jobs)

    def __call__(self, planned: Planned) -> str:
        try:
            job = self._jobs.find(planned.rule, planned.key)
        except CdlError:  # a rule without a job in the list
            return _snakemake_in_words(planned.reason)
        if changed := self._images.get(job.key.get("prepared", "")):
            return changed
        if "images" in job.params and not made_of_images(job):
            return "examples have changed; ends at once if none is of its task"
        if planned.reason.startswith(VALUES):
            return self._changed_values(job)
        return _snakemake_in_words(planned.reason)

    def _changed_values(self, job: Job) -> str:
        """Return every value of a job that differs from its record, or the input that does."""
        if not job.records:
            return "its values have changed"
        state = self._states(job)
        changes = self._states.changes(job) or [state[1:]] * (state.name == OUTDATED)
        return in_words(changes) or "its values have changed"


def _snakemake_in_words(reason: str) -> str:
    """Return a reason of Snakemake in other words; its first part if it is not known."""
    if INCOMPLETE in reason:
        return "was interrupted"
    known = (text for start, text in REASONS.items() if reason.startswith(start))
    return next(known, reason.partition(":")[0].partition(";")[0] or "not made yet")
