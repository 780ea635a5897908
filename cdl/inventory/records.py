"""Every file of a configuration with the record that vouches for it, for `cdl verify`."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from cdl.runtime.errors import CdlError
from cdl.study import layout
from cdl.study.contents import altered, files_of
from cdl.study.inputs import Inputs
from cdl.study.layout import COMPARISON, FIGURES, IMAGES, SUMMARIES, record_of
from cdl.study.runs import Run

SHOWN = 10  # files of a source that are named


def records_of(inputs: Inputs) -> Iterator[dict[str, Any]]:
    """Yield the arguments of `cdl.inventory.verify.Vouched` for all files of a configuration."""
    grid = inputs.grid
    for name in inputs.sources:
        record, *body = layout.packed(name).outputs()
        yield {"kind": "packed", "record": record, "body": tuple(body)}
    for name in inputs.backbones:
        yield _artifact(layout.backbone(name))
    longest = max(run.n_tasks for run in grid.runs)
    for folder in (queries.folder for queries in inputs.queries.values()):
        for part in (*range(longest), "test"):
            yield from _cache(layout.cached(folder, part), layout.caching(folder, part))
    for run in grid.runs:
        yield from _run(inputs, run)
    yield from _report(inputs)


def _artifact(path: str, *files: str, may_lack: bool = False) -> dict[str, Any]:
    return {
        "kind": "artifact",
        "record": record_of(path),
        "body": (path,),
        "files": files,
        "may_lack": may_lack,
    }


def _benchmark(path: str) -> dict[str, Any]:
    """Return Snakemake's file of a job; without it only a new table of costs cannot be made."""
    return {"kind": "benchmark", "record": path, "may_lack": True}


def _cache(path: str, job: layout.JobFiles) -> Iterator[dict[str, Any]]:
    """Yield a cache, which may be deleted once nothing is left to learn."""
    yield _artifact(path, may_lack=True)
    yield _benchmark(job.benchmark)


def _run(inputs: Inputs, run: Run) -> Iterator[dict[str, Any]]:
    files = inputs.grid.files(run)
    for t in range(run.n_tasks):
        task = files.task(t)
        yield _artifact(task.learner, task.losses)
        yield _benchmark(task.job(run.rule).benchmark)
        if files.folder in inputs.targets:
            yield from _cache(task.targets, task.job("teacher_targets"))
    yield {"kind": "record", "record": files.results, "files": (files.predictions,)}
    yield _benchmark(files.evaluation.benchmark)


def _report(inputs: Inputs) -> Iterator[dict[str, Any]]:
    """Yield tables, comparisons, figures and the page."""
    grid, report = inputs.grid, inputs.grid.layout.report
    tables = report.tables
    groups = {
        tables.protocols: [tables.results, tables.curves, tables.classes, tables.confusion],
        tables.record("cost"): [tables.cost, tables.cost_text],
        tables.record("summary"): [
            *map(tables.summary, SUMMARIES),
            tables.intervals,
            tables.contrasts,
        ],
        tables.record("page"): [report.page, tables.configuration],
    }
    for name in grid.comparisons:
        kinds = [kind for kind in COMPARISON if kind != "json"]
        groups[tables.comparison(name, "json")] = [tables.comparison(name, k) for k in kinds]
    for dataset in inputs.levels:
        record, *outputs = report.label_efficiency(dataset).values()
        groups[record] = outputs
    for dataset in grid.datasets:
        groups[report.plotting(dataset).record] = [
            report.figure(figure, dataset, image) for figure in FIGURES for image in IMAGES
        ]
    for run in grid.deployed:
        record, *students = grid.deployed_files(run).outputs()
        groups[record] = students
    if grid.deployed:
        figures = report.deployment_figures(inputs.deployed_datasets)
        groups[tables.record("deployment")] = [tables.deployment("csv")]
        groups[report.deployment.record] = [tables.deployment("md"), *figures]
    for record, files in groups.items():
        yield {"kind": "record", "record": record, "files": tuple(files)}


def sources_of(inputs: Inputs) -> dict[str, Callable[[], None]]:
    """Return, by its name, a function that reads a user's source again, every byte of it.

    It raises `CdlError` if a file is not what was read when the source was planned with: planning
    itself reads a file again only when its size or time has changed.
    """
    checks: dict[str, Callable[[], None]] = {}
    for name, arguments in inputs.sources.items():
        source, memory = arguments["source"], layout.contents_memory("data", name)
        if files := files_of(source):
            checks[f"source of {name}"] = partial(_reread, files, memory)
    for name in inputs.backbones:
        given, memory = inputs.backbone_files(name), layout.contents_memory("backbones", name)
        if given:
            checks[f"source of {name}"] = partial(_reread, list(map(Path, given)), memory)
    return checks


def _reread(files: Sequence[Path], memory: Path) -> None:
    if not memory.is_file():
        raise CdlError(f"{memory} is missing, so nothing is known of its files; run again")
    wrong = [f"{file} is {state}" for file, state in altered(files, memory)]
    if wrong:
        more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise CdlError(
            f"{', '.join(wrong[:SHOWN])}{more}, compared with what was read before; put back what "
            "was there, or touch it and run again"
        )
