"""List the finished results that the next run will overwrite, or keep although code has changed."""

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

from cdl.distillers import DISTILLERS
from cdl.inventory.state import DONE, States, in_words, name_of
from cdl.methods import PROMPTS
from cdl.runtime.facts import Facts
from cdl.runtime.registry import source_hash
from cdl.study.jobs import CACHES, Job, Jobs
from cdl.study.layers import shown

SHOWN = 5  # runs that are listed
_FORM = "learner.format"  # an entry of a record, see `cdl.spec.FORMAT`


def start_messages(jobs: Jobs, files: Iterable[str | Path], verbose: bool = False) -> list[str]:
    """Return the messages printed before a run.

    They list results that it overwrites, results of other source code that it keeps, and deleted
    caches.

    Args:
        jobs: jobs of the configuration.
        files: configuration files.
        verbose: whether to add the command that verifies.
    """
    names = shlex.join(map(shown, files))
    verify = [f"`cdl verify {names}` compares finished files with their hashes"] * verbose
    states = States(jobs)
    return [*overwritten(states), *changed_sources(states), *deleted(states), *verify]


def overwritten(states: States) -> list[str]:
    """Return lines of text with each run and every value that has changed; empty without any.

    Paths are relative to the current folder.
    """
    changed = {job: states.changes(job) for job in states.jobs.of("evaluate")}
    outdated = {job: changes for job, changes in changed.items() if changes}
    runs = [
        f"{name_of(job)}: {in_words(changes)}"
        for job, changes in outdated.items()
        if all(what != _FORM for what, *_ in changes)
    ]
    n, former, lines = len(runs), len(outdated) - len(runs), []
    if former:
        lines.append(
            f"{former} finished run{'s' * (former > 1)} of another version of cdl, which stores "
            "results in another form, will be computed again and overwritten"
        )
    if runs:
        lines.append(f"{n} finished run{'s' * (n > 1)} with other values will be overwritten:")
        lines += [f"  {line}" for line in runs[:SHOWN]]
    if n > SHOWN:
        lines.append(f"  and {n - SHOWN} more, see `cdl status`")
    if not lines:
        return []
    return [*lines, "  to keep them, rename this configuration or use variants of the blocks"]


def changed_sources(states: States) -> list[str]:
    """Return a line for each method and distiller of another package whose source has changed.

    Finished results of the former source are kept while `numerics` of its facts is the same. The
    hash of the source is in the entry `versions` of a record, see `cdl.models.build.versions`.
    """
    jobs = states.jobs
    used = {job.training: external for job in jobs.of("evaluate") if (external := _external(job))}
    kept: dict[str, list[str]] = {}
    for job in jobs.of("train", "distil", "align", "evaluate") if used else ():
        names, path = used.get(job.training, {}), job.records[0].path
        if not names or states.recorded(job).name != DONE:
            continue
        versions = states.read(path).get("versions", {})
        for name, module in names.items():
            if versions.get(module) not in (None, source_hash(module)):
                kept.setdefault(name, []).append(path)
    return [
        f"{name}: its source has changed since it made {paths[0]!r}"
        f"{f' and {len(paths) - 1} more' if paths[1:] else ''}, which are kept, since `numerics` "
        "of its facts has not changed; if its numbers change, raise `numerics`"
        for name, paths in kept.items()
    ]


def deleted(states: States) -> list[str]:
    """Return a line about deleted caches and benchmark files, if all runs are evaluated.

    No job is planned for them then; before, or with other values, the plan lists the jobs that
    make them.
    """
    jobs = states.jobs
    evaluated = jobs.of("evaluate")
    if not all(Path(job.records[0].path).is_file() for job in evaluated):
        return []
    if any(states.changes(job) for job in evaluated):
        return []
    paths = [job.records[0].path for job in jobs.of(*CACHES)]
    paths += [job.benchmark for job in jobs if job.benchmark is not None]
    absent = [path for path in paths if not Path(path).is_file()]
    if not absent:
        return []
    more = f" and {len(absent) - 1} more" if absent[1:] else ""
    made = "caches are made again when a job needs them, and benchmark files with their job"
    return [f"{absent[0]!r}{more}: deleted; {made}"]


def _external(job: Job) -> dict[str, str]:
    """Return the modules of the method and distiller from other packages that a job uses."""
    names = job.records[0].expected()["learner"].get("external", {})
    facts: list[Mapping[str, Facts]] = [PROMPTS, DISTILLERS]
    return {name: kind[name].module for name in names for kind in facts if name in kind}
