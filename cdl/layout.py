"""Define all paths below `results/`.

All configurations share packed data, backbones and queries, whose names contain a hash of their
sources and settings. All other files are below `results/NAME/`, where NAME is the configuration. If
a task or run is given as a wildcard such as `{task}`, the path is a pattern for a rule.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cdl.data import MANIFEST, index_name, pixels_name
from cdl.data.sources import SPLITS

RESULTS = "results"
PAGE = "index.html"
RESERVED = {  # entries of `results/` that are not folders of configurations
    *("data", "backbones", "queries", "state", "tables", "figures", "logs"),
    *(PAGE, "README.md"),
}
STATES = f"{RESULTS}/state"  # states of unfinished jobs, named by fingerprint
COMPARISON = {**{kind: kind for kind in ("csv", "md", "tex", "html", "json")}, "runs": "runs.csv"}
DEPLOYED = "deployment/*/*/*/seed*"  # below a configuration's folder
WEIGHTS = ("fp32", "int8")  # number formats of exported students
FIGURES = ("accuracy", "forgetting", "gain", "cost", "losses")
IMAGES = ("svg", "pdf", "png")
SUMMARIES = ("csv", "md", "tex")
_LARGE = (".safetensors", ".pixels", ".parquet")


def digest(value: Any) -> str:
    """Return the first eight hexadecimal digits of the sha256 of a JSON-able value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]


def record_of(tensors: str) -> str:
    """Return the path of the JSON record of a tensor file."""
    return tensors.removesuffix(".safetensors") + ".json"


def trained_of(aligned: str, trained: str) -> str:
    """Return the path of the learner of an aligned artifact, from the value in its record."""
    return os.path.normpath(f"{os.path.dirname(aligned)}/{trained}")


def measured_of(benchmark: str) -> str:
    """Return the path of a job's own measurements by that of its benchmark file."""
    return benchmark.removesuffix(".tsv") + ".measured.json"


def artifact(name: str, tensors: str) -> dict[str, str]:
    """Return a tensor file under a name, and its JSON record as `metadata`."""
    return {name: tensors, "metadata": record_of(tensors)}


def is_large(path: str) -> bool:
    """Whether changes to a file are detected through its JSON record, not its time."""
    return path.endswith(_LARGE)


@dataclass(frozen=True)
class JobFiles:
    """Log, benchmark and record of a job: `STEM.log`, `STEM.tsv` and `STEM.json`."""

    stem: str

    @property
    def log(self) -> str:
        """Log file."""
        return f"{self.stem}.log"

    @property
    def benchmark(self) -> str:
        """Snakemake's benchmark file, written when the job succeeds."""
        return f"{self.stem}.tsv"

    @property
    def measured(self) -> str:
        """Record of the job's own measurements, of `train`, `distil` and `align`."""
        return measured_of(self.benchmark)

    @property
    def record(self) -> str:
        """Record with the sha256 of outputs that are in no other record."""
        return f"{self.stem}.json"


class Below:
    """Attribute of an object with a folder: the path of a file in this folder."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, files: Any, _: object = None) -> str:
        return f"{files.folder}/{self._name}"


@dataclass(frozen=True)
class TaskFiles:
    """Files of one task of a learner.

    Attributes:
        learner: artifact of the learner after training on the task.
        aligned: artifact of the learner after the alignment of its heads.
        losses: loss curve.
        targets: logits of the task's classes for all training views, if the learner is a teacher.
        targets_seen: the same of all classes seen so far.
        targets_test: logits of the task's classes for their test views.
        targets_test_seen: the same of all classes seen so far.
    """

    folder: str
    learner = Below("learner.safetensors")
    aligned = Below("aligned.safetensors")
    losses = Below("losses.csv")
    targets = Below("targets.safetensors")
    targets_seen = Below("targets_seen.safetensors")
    targets_test = Below("targets_test.safetensors")
    targets_test_seen = Below("targets_test_seen.safetensors")

    def job(self, rule: str) -> JobFiles:
        """Return log and benchmark of `train`, `distil`, `align` or the teacher's targets."""
        return JobFiles(f"{self.folder}/{rule.removeprefix('teacher_')}")

    def outputs(self) -> dict[str, str]:
        """Return the outputs of learning by their names in the rule."""
        return {**artifact("learner", self.learner), "losses": self.losses}

    def described(self, task: int, rule: str) -> list[tuple[str, str]]:
        """Return description and path of the files of `train`, `distil` or `align`, for display.

        Args:
            task: the task, counted from 0.
            rule: name of the rule.
        """
        path = self.checkpoint(rule == "align")
        made = "aligned heads" if rule == "align" else "checkpoint"
        files = [
            (f"{made} after task {task + 1}", path),
            (f"record of the {made}", record_of(path)),
        ]
        losses = [] if rule == "align" else [("losses", self.losses)]
        return [*files, *losses, ("log", self.job(rule).log)]

    def checkpoint(self, aligned: bool) -> str:
        """Return the artifact for prediction, of a learner whose heads are aligned or not."""
        return self.aligned if aligned else self.learner


@dataclass(frozen=True)
class RunFiles:
    """Files of a run.

    Attributes:
        results: accuracy matrix, metrics and specification.
        predictions: predictions for all test images.
        prompts: which prompts the test images of each task use.
        first_predictions: predictions for all validation images after the first tasks of a trial.
        test_features: final tokens of the test images after each task, which runs share.
    """

    folder: str
    results = Below("results.json")
    predictions = Below("predictions.parquet")
    prompts = Below("prompts.csv")
    first_predictions = Below("first.parquet")
    test_features = Below("test_features.safetensors")

    @property
    def evaluation(self) -> JobFiles:
        """Log and benchmark of the evaluation."""
        return JobFiles(f"{self.folder}/evaluate")

    @property
    def featuring(self) -> JobFiles:
        """Log and benchmark of the job that writes `test_features`."""
        return JobFiles(self.test_features.removesuffix(".safetensors"))

    @property
    def prompting(self) -> JobFiles:
        """Log of the job that writes `prompts`, and `record` with its hash."""
        return JobFiles(f"{self.folder}/prompts")

    @property
    def first(self) -> JobFiles:
        """Evaluation of a trial after its first tasks; `record` has the results."""
        return JobFiles(f"{self.folder}/first")

    def outputs(self) -> dict[str, str]:
        """Return the outputs of the evaluation by their names in the rule."""
        return {"results": self.results, "predictions": self.predictions}

    def prompt_outputs(self) -> dict[str, str]:
        """Return the outputs of `prompts` by their names in the rule."""
        return {"prompts": self.prompts, "record": self.prompting.record}

    def first_outputs(self) -> dict[str, str]:
        """Return the outputs of the evaluation of a trial after its first tasks."""
        return {"results": self.first.record, "predictions": self.first_predictions}

    def task(self, task: int | str) -> TaskFiles:
        """Return the files of a task."""
        return TaskFiles(f"{self.folder}/task{task}")

    def checkpoints(self, results: Mapping[str, Any]) -> list[str]:
        """Return the evaluated artifacts of a finished run in task order.

        Args:
            results: content of `results`.
        """
        return [os.path.normpath(f"{self.folder}/{path}") for path in results["checkpoint_files"]]

    def described(self) -> list[tuple[str, str]]:
        """Return description and path of the files of the evaluation, for display."""
        return [
            ("matrix, metrics, specification", self.results),
            ("prediction for every test example", self.predictions),
            ("log of the evaluation", self.evaluation.log),
        ]


@dataclass(frozen=True)
class DeployedFiles:
    """Files of a run that is exported for the deployment table."""

    folder: str

    def student(self, weights: str) -> str:
        """Return the folder for `cdl predict`, with weights in a format of `WEIGHTS`."""
        return f"{self.folder}/{weights}"

    def model(self, weights: str) -> str:
        """Return the path of the ONNX graph."""
        return f"{self.student(weights)}/model.onnx"

    def about(self, weights: str) -> list[str]:
        """Return the paths of classes and preprocessing, which the graph needs."""
        return [f"{self.student(weights)}/{name}" for name in ("classes.txt", "preprocessing.json")]

    @property
    def job(self) -> JobFiles:
        """Log and record of the export."""
        return JobFiles(f"{self.folder}/deploy")

    def outputs(self) -> dict[str, Any]:
        """Return the outputs of the export by their names in the rule."""
        models = {weights: self.model(weights) for weights in WEIGHTS}
        about = [path for weights in WEIGHTS for path in self.about(weights)]
        return {"record": self.job.record, **models, "about": about}


@dataclass(frozen=True)
class PackedFiles:
    """Files of a packed dataset.

    Attributes:
        manifest: record of the packed data.
        fetched: record that the published files were fetched and verified.
    """

    folder: str
    manifest = Below(MANIFEST)
    fetched = Below("fetched.json")

    def pixels(self, split: str) -> str:
        """Return the path of the images of a split."""
        return f"{self.folder}/{pixels_name(split)}"

    def index(self, split: str) -> str:
        """Return the path of the labels, sizes and hashes of a split."""
        return f"{self.folder}/{index_name(split)}"

    def split(self, split: str) -> list[str]:
        """Return all files that are required to read a split, the record first."""
        return [self.manifest, self.pixels(split), self.index(split)]

    def outputs(self) -> dict[str, str]:
        """Return the outputs of packing by their names in the rule."""
        files = {f"{split}_pixels": self.pixels(split) for split in SPLITS}
        files |= {f"{split}_index": self.index(split) for split in SPLITS}
        return {"manifest": self.manifest, **files}

    def job(self, rule: str) -> JobFiles:
        """Return the log of `fetch_dataset` or `prepare_dataset`."""
        return JobFiles(f"{self.folder}/{rule}")


@dataclass(frozen=True)
class TableFiles:
    """Tables of all runs, or of the finished runs.

    Attributes:
        results: one row per run.
        curves: one row per run and stage.
        cost: one row per run with seconds and memory.
        cost_text: means of the costs over seeds, as Markdown.
        classes: one row per run and class.
        confusion: one row per run, task and task of the predicted class.
        intervals: one row per cell with means over seeds and their intervals.
        contrasts: one row per pair of cells with their paired difference and its interval.
        protocols: the protocol of each protocol hash.
        configuration: resolved configuration.
    """

    folder: str
    results = Below("results.csv")
    curves = Below("curves.csv")
    cost = Below("cost.csv")
    cost_text = Below("cost.md")
    classes = Below("classes.csv")
    confusion = Below("confusion.csv")
    intervals = Below("intervals.csv")
    contrasts = Below("contrasts.csv")
    protocols = Below("protocols.json")
    configuration = Below("configuration.yaml")

    def deployment(self, kind: str) -> str:
        """Return the deployment table, one row per exported student and weights."""
        return f"{self.folder}/deployment.{kind}"

    def summary(self, kind: str) -> str:
        """Return the path of the means over seeds, in a format of `SUMMARIES`."""
        return f"{self.folder}/summary.{kind}"

    def comparison(self, name: str, kind: str) -> str:
        """Return a comparison with published numbers, in a format of `COMPARISON`."""
        return f"{self.folder}/{name}.{COMPARISON[kind]}"

    def log(self, job: str) -> str:
        """Return the log of a job that writes to this folder."""
        return f"{self.folder}/{job}.log"

    def record(self, name: str) -> str:
        """Return the record `cost`, `page`, `deployment`, `summary` or `protocols`.

        The record `summary` includes the intervals.
        """
        return f"{self.folder}/{name}.json"

    def collected(self) -> dict[str, str]:
        """Return the outputs of `collect` by their names in the rule."""
        return {
            "results": self.results,
            "curves": self.curves,
            "classes": self.classes,
            "confusion": self.confusion,
            "protocols": self.protocols,
            "cost": self.cost,
            "cost_text": self.cost_text,
            "cost_record": self.record("cost"),
        }

    def summarised(self) -> dict[str, str]:
        """Return the outputs of `tabulate` by their names in the rule."""
        summaries = {kind: self.summary(kind) for kind in SUMMARIES}
        tables = {"intervals": self.intervals, "contrasts": self.contrasts}
        return {**summaries, **tables, "record": self.record("summary")}

    def compared(self, name: str) -> dict[str, str]:
        """Return the outputs of `compare` for a pair by their names in the rule."""
        return {kind: self.comparison(name, kind) for kind in COMPARISON}

    def measured(self) -> dict[str, str]:
        """Return the outputs of `measure` by their names in the rule."""
        return {"csv": self.deployment("csv"), "record": self.record("deployment")}


@dataclass(frozen=True)
class ReportFiles:
    """Tables, figures and page of a configuration."""

    root: str

    @property
    def tables(self) -> TableFiles:
        """Tables of all runs."""
        return TableFiles(f"{self.root}/tables")

    @property
    def partial(self) -> TableFiles:
        """Tables of the finished runs."""
        return TableFiles(f"{self.root}/tables/partial")

    @property
    def page(self) -> str:
        """Path of the page with all runs."""
        return f"{self.root}/{PAGE}"

    def figure(self, name: str, dataset: str, image: str) -> str:
        """Return the path of a figure of a dataset."""
        return f"{self.root}/figures/{name}_{dataset}.{image}"

    def label_efficiency(self, dataset: str) -> dict[str, str]:
        """Return table, figure and record of a dataset's label efficiency by format."""
        name = "label_efficiency"
        paths = {kind: f"{self.tables.folder}/{name}_{dataset}.{kind}" for kind in ("csv", "md")}
        paths |= {image: self.figure(name, dataset, image) for image in IMAGES}
        return {"record": self.figure(name, dataset, "json"), **paths}

    def prompts(self, dataset: str) -> dict[str, str]:
        """Return the outputs of `plot_prompts` for a dataset by their names in the rule."""
        images = {image: self.figure("prompts", dataset, image) for image in IMAGES}
        return {**images, "record": self.figure("prompts", dataset, "json")}

    def plotting(self, dataset: str) -> JobFiles:
        """Return the log of a dataset's figures."""
        return JobFiles(f"{self.root}/figures/plot_{dataset}")

    @property
    def deployment(self) -> JobFiles:
        """Log and record of the figures and the table of deployment."""
        return JobFiles(f"{self.root}/figures/deployment")

    def deployment_figures(self, datasets: Iterable[str]) -> list[str]:
        """Return the deployment figures of all datasets in all formats."""
        return [self.figure("deployment", d, image) for d in datasets for image in IMAGES]

    def shown_deployment(self, datasets: Iterable[str]) -> dict[str, Any]:
        """Return the outputs of `show_deployment` by their names in the rule."""
        return {
            "md": self.tables.deployment("md"),
            "figures": self.deployment_figures(datasets),
            "record": self.deployment.record,
        }

    def plotted(self, dataset: str) -> dict[str, str]:
        """Return the outputs of `plot` for a dataset by their names in the rule.

        The name of a figure without a format is its SVG file.
        """
        figures = {
            name if image == "svg" else f"{name}_{image}": self.figure(name, dataset, image)
            for name in FIGURES
            for image in IMAGES
        }
        return {**figures, "record": self.plotting(dataset).record}

    def paged(self) -> dict[str, str]:
        """Return the outputs of `page` by their names in the rule."""
        tables = self.tables
        record = tables.record("page")
        return {"page": self.page, "configuration": tables.configuration, "record": record}


@dataclass(frozen=True)
class TuningFiles:
    """Results of tuning a configuration.

    Attributes:
        overlay: best values, as an overlay of the configuration.
        trials: one row per trial.
        text: best values and ranges of equal results, as Markdown.
        log: log of the job that writes these files.
    """

    folder: str
    overlay = Below("tuned.yaml")
    trials = Below("tuned/trials.csv")
    text = Below("tuned/tuned.md")
    log = Below("tuned/tuned.log")

    @property
    def kept(self) -> JobFiles:
        """Selection of trials after their first tasks; `record` has the selected ones."""
        return JobFiles(f"{self.folder}/tuned/kept")

    def figure(self, distiller: str) -> str:
        """Return the path of the figure with the trials of a distiller."""
        return f"{self.folder}/tuned/{distiller}.svg"

    def outputs(self, distillers: Iterable[str]) -> dict[str, Any]:
        """Return the outputs of `tuned` by their names in the rule."""
        files = {"overlay": self.overlay, "trials": self.trials, "text": self.text}
        return {**files, "figures": [self.figure(name) for name in distillers]}


@dataclass(frozen=True)
class Layout:
    """Paths of one configuration."""

    name: str

    @property
    def root(self) -> str:
        """Folder of the runs."""
        return f"{RESULTS}/{self.name}"

    @property
    def report(self) -> ReportFiles:
        """Tables, figures and page; those of `default` are directly in `results/`."""
        return ReportFiles(RESULTS if self.name == "default" else self.root)

    @property
    def tuning(self) -> TuningFiles:
        """Results of tuning."""
        return TuningFiles(self.root)

    def run(self, folder: str = "{dataset}/{method}/{learner}/seed{seed}") -> RunFiles:
        """Return the files of a run by its path below the root."""
        return RunFiles(f"{self.root}/{folder}")

    def deployed(self, folder: str = "{dataset}/{method}/{learner}/seed{seed}") -> DeployedFiles:
        """Return the files of an exported run by the run's path below the root."""
        return DeployedFiles(f"{self.root}/deployment/{folder}")


def packed(name: str) -> PackedFiles:
    """Return the files of packed data by the name of their folder, see `packed_name`."""
    return PackedFiles(f"{RESULTS}/data/{name}")


def packed_name(dataset: str, source: Mapping[str, Any]) -> str:
    """Return the name of packed data, from dataset and source."""
    return f"{dataset}-{digest(source)}"


def backbone(name: str) -> str:
    """Return the path of a backbone's artifact by its name, see `backbone_name`."""
    return f"{RESULTS}/backbones/{name}.safetensors"


def backbone_name(name: str, source: Mapping[str, Any]) -> str:
    """Return the name of a backbone's artifact, from backbone and source."""
    return f"{name}-{digest(source)}"


def fetching(name: str) -> JobFiles:
    """Return the log of fetching a backbone."""
    return JobFiles(f"{RESULTS}/backbones/{name}")


def queries(name: str) -> str:
    """Return the folder of a backbone's queries by its name, see `queries_name`."""
    return f"{RESULTS}/queries/{name}"


def queries_name(backbone: str, spec: Mapping[str, Any], *sources: Mapping[str, Any]) -> str:
    """Return the name of a backbone's queries, from backbone, views and all sources."""
    return f"{backbone}-{digest([spec, *sources])}"


def cached(folder: str, part: int | str) -> str:
    """Return the path of the queries of a task, or of the `test` views."""
    return f"{folder}/{part}.safetensors" if part == "test" else f"{folder}/task{part}.safetensors"


def classified(folder: str) -> dict[str, str]:
    """Return a classifier's answers and their record by their names in the rule."""
    return {"table": f"{folder}/answers.parquet", "record": classifying(folder).record}


def classifying(folder: str) -> JobFiles:
    """Return log, benchmark and record of computing a classifier's answers."""
    return JobFiles(f"{folder}/answers")


def caching(folder: str, part: int | str) -> JobFiles:
    """Return log and benchmark of computing queries."""
    return JobFiles(cached(folder, part).removesuffix(".safetensors"))


def contents_memory(kind: str, name: str) -> Path:
    """Return the file of cached hashes of user files, of `data` or `backbones`."""
    return Path(RESULTS, kind, f"{name}.contents.json")


def runs_below(folder: Path) -> list[Path]:
    """Return the folders of finished runs at any depth below a folder."""
    name = Path(RunFiles("").results).name
    return sorted(file.parent for file in folder.rglob(f"seed*/{name}"))


@dataclass(frozen=True)
class ResultsFolder:
    """Contents of a folder of results, of all configurations."""

    path: Path

    @classmethod
    def of_run(cls, run: Path) -> "ResultsFolder":
        """Return the results folder that contains a run, see `Layout.run`."""
        return cls(run.resolve().parents[Layout("name").run().folder.count("/") - 1])

    def tables(self) -> Iterator[tuple[Path, Path]]:
        """Yield all tables of runs with their protocols; complete tables last."""
        for name in ("tables/partial/results.csv", "tables/*.runs.csv", "tables/results.csv"):
            for pattern in (name, f"*/{name}"):
                for table in sorted(self.path.glob(pattern)):
                    stem = table.name.removesuffix(".runs.csv")
                    complete = stem == table.name
                    yield table, table.with_name("protocols.json" if complete else f"{stem}.json")

    def finished(self) -> dict[str, dict[int, RunFiles]]:
        """Return the evaluated runs by cell (its path below this folder) and seed."""
        pattern = Layout("*").run("*/*/*/seed*").results.removeprefix(f"{RESULTS}/")
        found: dict[str, dict[int, RunFiles]] = {}
        for results in sorted(self.path.glob(pattern)):
            run = results.parent
            cell, seed = str(run.parent.relative_to(self.path)), run.name.removeprefix("seed")
            if Path(cell).parts[0] not in RESERVED and seed.isdecimal():
                found.setdefault(cell, {})[int(seed)] = RunFiles(str(run))
        return found

    def runs(self) -> list[RunFiles]:
        """Return the evaluated runs of all cells."""
        return [run for cell in self.finished().values() for run in cell.values()]

    def run(self, folder: str) -> RunFiles:
        """Return the files of a run by its folder in a table."""
        return RunFiles(str(self.path.parent / folder))

    def backbones(self, name: str) -> list[str]:
        """Return the artifacts of a backbone, from all sources."""
        return sorted(map(str, self.path.glob(f"backbones/{name}-*.safetensors")))

    def classified(self, classifier: str) -> list[Path]:
        """Return the records of the answers of a classifier, see `classified`."""
        return sorted(self.path.glob(f"queries/{classifier}-*/answers.json"))

    def packed(self, dataset: str) -> list[PackedFiles]:
        """Return the packed data of a dataset, from all sources."""
        found = sorted(self.path.glob(f"data/{dataset}-*/{MANIFEST}"))
        return [PackedFiles(str(manifest.parent)) for manifest in found]
