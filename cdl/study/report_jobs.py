"""Jobs that make tables, figures and the page from finished runs."""

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from cdl import layout
from cdl.layout import JobFiles, TaskFiles, record_of
from cdl.study.grid import Grid
from cdl.study.inputs import Inputs, names_in, paths
from cdl.study.jobs import Job, Jobs, Paths, Record
from cdl.study.learning_jobs import LearningJobs, key_of
from cdl.study.runs import Run
from cdl.study.specifications import in_use, label_levels, published, row


class ReportJobs:
    """The jobs that follow the evaluations and exports of all runs of a grid.

    Attributes:
        grid: the grid.
        levels: label levels of every dataset with at least two, see `label_levels`.
        deployed: datasets with a figure of deployment.
    """

    def __init__(self, grid: Grid) -> None:
        self.grid, self.levels = grid, label_levels(grid)
        self._inputs = Inputs(grid)
        self.deployed = list(dict.fromkeys(run.dataset for run in grid.deployed))
        self._report, self._tables = grid.layout.report, grid.layout.report.tables

    def __iter__(self) -> Iterator[Job]:
        """Yield the jobs, each after the jobs that it depends on."""
        yield self._collect()
        yield self._tabulate()
        yield from map(self._compare, self.grid.comparisons)
        yield from map(self._prompts, filter(self._shows_prompts, self.grid.runs))
        yield from map(self._plot_prompts, self._with(self._shows_prompts))
        yield from map(self._plot, self.grid.datasets)
        yield from map(self._label_efficiency, self.levels)
        if self.grid.deployed:
            yield self._measure()
            yield self._show_deployment()
        yield self._page()

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """Identity columns of each run in the tables, see `row`."""
        return [row(self.grid, run) for run in self.grid.runs]

    def compared(self, name: str) -> dict[str, Any]:
        """Return the rows of a table with published numbers, and their names in the papers."""
        dataset_and_pair = self.grid.comparisons[name]
        runs = self.grid.runs_of(*dataset_and_pair)
        return {
            "rows": [row(self.grid, run) for run in runs],
            "published": published(self.grid, *dataset_and_pair),
        }

    def results(self, runs: list[Run]) -> list[str]:
        """Return the paths of the results of runs."""
        return [self.grid.files(run).results for run in runs]

    def predictions(self, runs: list[Run]) -> list[str]:
        """Return the paths of the predictions of runs."""
        return [self.grid.files(run).predictions for run in runs]

    def _collect(self) -> Job:
        """Return the job that collects the results and costs of all runs in tables."""
        runs, tables = self.grid.runs, self._tables
        jobs = [self._learning(run) for run in runs]
        costs = [[files.benchmark for files, _ in own] for own in jobs]
        outputs = tables.collected()
        of_results = [outputs[name] for name in ("results", "curves", "classes", "confusion")]
        return Job(
            rule="collect",
            key={},
            outputs=dict(outputs),
            records=(
                Record(tables.protocols, tuple(of_results)),
                Record(outputs["cost_record"], (outputs["cost"], outputs["cost_text"])),
            ),
            files=JobFiles(tables.log("collect").removesuffix(".log")),
            reads=lambda: {
                "results": self.results(runs),
                "predictions": self.predictions(runs),
                "costs": _once(path for own in costs for path in own),
                "measured": _once(self._measured(jobs)),
                "records": _once(record_of(path) for own in jobs for _, path in own),
            },
            given=lambda: {
                "rows": self.rows,
                "costs": costs,
                "records": [[record_of(path) for _, path in own] for own in jobs],
            },
        )

    def _learning(self, run: Run) -> list[tuple[JobFiles, str]]:
        """Return log and artifact of every job that trains or aligns a run, task by task."""
        trained, found = self.grid.trained(run), []
        for t in range(run.n_tasks):
            task = self.grid.files(trained).task(t)
            found.append((task.job(trained.rule), task.learner))
            if run.aligned:
                task = self.grid.files(run).task(t)
                found.append((task.job("align"), task.aligned))
        return found

    def _measured(self, jobs: list[list[tuple[JobFiles, str]]]) -> Iterator[str]:
        """Yield the jobs' own measurements.

        A missing file of a finished job is left out, so that the job does not run again.
        """
        for files, artifact in (pair for own in jobs for pair in own):
            if Path(files.measured).exists() or not Path(artifact).exists():
                yield files.measured

    def _tabulate(self) -> Job:
        """Return the job that computes means, intervals, gains and gaps."""
        runs, tables, outputs = self.grid.runs, self._tables, self._tables.summarised()
        return Job(
            rule="tabulate",
            key={},
            outputs=dict(outputs),
            records=(_record(outputs),),
            files=JobFiles(tables.log("tabulate").removesuffix(".log")),
            reads=lambda: {
                "results": tables.results,
                "protocols": tables.protocols,
                "runs": self.results(runs),
                "predictions": self.predictions(runs),
            },
        )

    def _compare(self, name: str) -> Job:
        """Return the job that compares the runs of one dataset and pair with published numbers."""
        runs = self.grid.runs_of(*self.grid.comparisons[name])
        outputs = self._tables.compared(name)
        return Job(
            rule="compare",
            key={"comparison": name},
            outputs=dict(outputs),
            records=(_record(outputs, "json"),),
            files=JobFiles(self._tables.log(name).removesuffix(".log")),
            reads=lambda: {"results": self.results(runs)},
            given=lambda: self.compared(name),
        )

    def _shows_prompts(self, run: Run) -> bool:
        """Return whether a figure shows which prompts a run chooses: one seed of every cell."""
        return run.prompts.chooses and run.seed == self.grid.config["grid"]["seeds"][0]

    def _prompts(self, run: Run) -> Job:
        """Return the job that determines which prompts the test images of each task use."""
        grid, files, task = self.grid, self.grid.files(run), run.n_tasks - 1
        inputs, spec = self._inputs.prompting(run), self._inputs.specification(run)
        checkpoint, n = grid.checkpoint(run, task), grid.test_images_per_class(run.dataset)
        outputs = files.prompt_outputs()
        record = Record(
            outputs["record"],
            (outputs["prompts"],),
            lambda: {"learner": spec.to_json(), "test_images_per_class": n},
            {("checkpoint",): record_of(checkpoint)},
        )
        return Job(
            rule="prompts",
            key=key_of(run),
            outputs=dict(outputs),
            records=(record,),
            files=files.prompting,
            reads=lambda: paths(inputs),
            given=lambda: {
                "spec": spec.to_json(),
                "names": names_in(inputs, "backbones"),
                "query_names": names_in(inputs, "queries"),
                "teacher_query": run.mapped_query,
                "images_per_class": n,
                "task": task,
            },
        )

    def _plot(self, dataset: str) -> Job:
        """Return the job that draws the figures of a dataset."""
        runs, tables = self.grid.runs_on(dataset), self._tables
        outputs = self._report.plotted(dataset)
        return Job(
            rule="plot",
            key={"dataset": dataset},
            outputs=dict(outputs),
            records=(_record(outputs),),
            files=self._report.plotting(dataset),
            reads=lambda: {
                "curves": tables.curves,
                **self._cells(),
                "cost": tables.cost,
                "cost_record": tables.record("cost"),
                "runs": self.results(runs) + self.predictions(runs),
                "losses": _once(task.losses for run in runs for task in self._trained(run)),
                "loss_records": _once(
                    record_of(task.learner) for run in runs for task in self._trained(run)
                ),
            },
        )

    def _plot_prompts(self, dataset: str) -> Job:
        """Return the job that draws which prompts the test images of a dataset use."""
        runs = filter(self._shows_prompts, self.grid.runs_on(dataset))
        found = [self.grid.files(run) for run in runs]
        outputs = self._report.prompts(dataset)
        return _figure(
            "plot_prompts",
            dataset,
            outputs,
            reads=lambda: {
                "results": self._tables.results,
                "protocols": self._tables.protocols,
                "prompts": [own.prompts for own in found],
                "prompt_records": [own.prompting.record for own in found],
            },
        )

    def _with(self, condition: Callable[[Run], bool]) -> list[str]:
        """Return the datasets with a run that fulfils a condition."""
        found = self.grid.runs_on
        return [d for d in self.grid.datasets if any(map(condition, found(d)))]

    def _trained(self, run: Run) -> list[TaskFiles]:
        """Return the files of the training of a run, task by task."""
        trained = self.grid.files(self.grid.trained(run))
        return [trained.task(t) for t in range(run.n_tasks)]

    def _label_efficiency(self, dataset: str) -> Job:
        """Return the job that plots accuracy against labels, for all variants of a dataset."""
        outputs = self._report.label_efficiency(dataset)
        return _figure(
            "label_efficiency",
            dataset,
            outputs,
            reads=lambda: {**self._cells(), "runs": self.results(self.grid.runs)},
            given=lambda: {"levels": self.levels[dataset]},
        )

    def _measure(self) -> Job:
        """Return the job that measures all exported students."""
        exported = [self.grid.deployed_files(run) for run in self.grid.deployed]
        records, outputs = [files.job.record for files in exported], self._tables.measured()
        both = [(files, weights) for files in exported for weights in layout.WEIGHTS]

        def rows() -> list[dict[str, Any]]:
            pairs = zip(self.grid.deployed, exported, strict=True)
            return [row(self.grid, run) | {"deployed": files.folder} for run, files in pairs]

        return Job(
            rule="measure",
            key={},
            outputs=dict(outputs),
            records=(_record(outputs),),
            files=JobFiles(self._tables.log("deployment").removesuffix(".log")),
            reads=lambda: {
                "records": records,
                "models": [files.model(weights) for files, weights in both],
                "about": [path for files, weights in both for path in files.about(weights)],
            },
            given=lambda: {
                "records": records,
                "rows": rows(),
                "rounds": self.grid.config["deploy"]["rounds"],
            },
        )

    def _show_deployment(self) -> Job:
        """Return the job that makes the table and the figures of deployment."""
        outputs = self._report.shown_deployment(self.deployed)
        recorded = (outputs["md"], *outputs["figures"])
        return Job(
            rule="show_deployment",
            key={},
            outputs=outputs,
            records=(Record(outputs["record"], recorded),),
            files=self._report.deployment,
            reads=self._deployment_table,
            given=lambda: {"datasets": self.deployed},
        )

    def _page(self) -> Job:
        """Return the job that writes the page and the resolved configuration."""
        grid, tables, outputs = self.grid, self._tables, self._report.paged()
        used = sorted({name for run in grid.runs for name in run.backbones})
        files = {run: grid.files(run) for run in grid.runs}
        shown = {
            "data": {name: grid.packed(name).manifest for name in grid.datasets},
            "backbones": {name: record_of(grid.backbone(name)) for name in used},
            "weights": {name: grid.backbone(name) for name in used},
        }
        drawn = self._figures()

        def reads() -> Paths:
            figures = self._report.deployment_figures(self.deployed)
            return {
                **self._deployment_table(),
                **({"deployment_figures": figures} if figures else {}),
                **self._label_efficiency_files(),
                "figures": [path for own in drawn.values() for path, _ in own.values()],
                "figure_records": _once(r for own in drawn.values() for _, r in own.values()),
                **self._cells(),
                "contrasts": tables.contrasts,
                "cost": tables.cost,
                "classes": tables.classes,
                "cost_record": tables.record("cost"),
                "runs": self.results(grid.runs),
                **{name: list(paths.values()) for name, paths in shown.items()},
            }

        def given() -> dict[str, Any]:
            runs = {
                own.folder: {
                    "results": own.results,
                    "files": self._described(run),
                }
                for run, own in files.items()
            }
            described = {"runs": runs, "figures": drawn, **shown}
            return {"configuration": in_use(grid), "shown": described}

        return Job(
            rule="page",
            key={},
            outputs=dict(outputs),
            records=(_record(outputs),),
            files=JobFiles(tables.log("page").removesuffix(".log")),
            reads=reads,
            given=given,
        )

    def _figures(self) -> dict[str, dict[str, tuple[str, str]]]:
        """Return figure and record by dataset, of the figures on the page that show something."""
        report, every = self._report, list(self.grid.datasets)
        shown = {"accuracy": every, "forgetting": every, "losses": self._with(_draws_losses)}
        return {
            name: {d: (report.figure(name, d, "svg"), report.plotting(d).record) for d in datasets}
            for name, datasets in shown.items()
        }

    def _described(self, run: Run) -> list[tuple[str, str]]:
        """Return description and path of the files of a run, for display."""
        trained = self.grid.trained(run)
        found = self.grid.files(run).described()
        for t in range(run.n_tasks):
            found += self.grid.files(trained).task(t).described(t, trained.rule)
            if run.aligned:
                found += self.grid.files(run).task(t).described(t, "align")
        return found

    def _cells(self) -> Paths:
        """Return the tables of runs and of means with intervals, and their records."""
        tables = self._tables
        return {
            "results": tables.results,
            "protocols": tables.protocols,
            "intervals": tables.intervals,
            "summary_record": tables.record("summary"),
        }

    def _deployment_table(self) -> Paths:
        """Return the table of deployment and its record; empty without deployment."""
        if not self.grid.deployed:
            return {}
        measured = self._tables.measured()
        return {"deployment": measured["csv"], "deployment_record": measured["record"]}

    def _label_efficiency_files(self) -> Paths:
        """Return tables, figures and records of label efficiency; empty without label levels."""
        outputs = [self._report.label_efficiency(dataset) for dataset in self.levels]
        kinds = {"tables": "csv", "figures": "svg", "records": "record"}
        paths = {f"efficiency_{k}": [o[kind] for o in outputs] for k, kind in kinds.items()}
        return dict(paths) if outputs else {}


def _draws_losses(run: Run) -> bool:
    return run.prompts.names_optimiser(run.method.options)


def study_jobs(grid: Grid) -> Jobs:
    """Return all jobs of a configuration, without those of its trials."""
    return Jobs([*LearningJobs(grid), *ReportJobs(grid)])


def _record(outputs: dict[str, str], record: str = "record") -> Record:
    """Return the record among outputs, with all other outputs as its files."""
    others = tuple(path for name, path in outputs.items() if name != record)
    return Record(outputs[record], others)


def _figure(rule: str, dataset: str, outputs: dict[str, str], **fields: Any) -> Job:
    """Return a job that draws one figure of a dataset; log and record have the figure's name.

    Args:
        rule: its rule.
        dataset: name of the dataset.
        outputs: paths by format, and of the `record`.
        fields: the fields `reads` and `given` of `Job`.
    """
    files = JobFiles(outputs["record"].removesuffix(".json"))
    key, records = {"dataset": dataset}, (_record(outputs),)
    return Job(rule, key, dict(outputs), records, files, **fields)


def _once(paths: Iterable[str]) -> list[str]:
    """Return paths without repetitions, in order."""
    return list(dict.fromkeys(paths))
