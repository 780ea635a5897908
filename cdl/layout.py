"""Where everything lies below `results/`: the only module that knows a path there.

Packed data, backbones and queries are shared by all configurations under a hash of what they are
made from; the rest lies below `results/NAME/`. A task or a run may be given as a wildcard, such as
`{task}`: then the path is a rule's pattern.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cdl.data import MANIFEST, index_name, pixels_name
from cdl.data.sources import SPLITS

RESULTS = "results"
PAGE = "index.html"
RESERVED = {  # what lies there beside the folders of configurations
    *("data", "backbones", "queries", "state", "tables", "figures", "logs"),
    *(PAGE, "README.md"),
}
STATES = f"{RESULTS}/state"  # of unfinished jobs, under fingerprints
COMPARISON = {**{kind: kind for kind in ("csv", "md", "tex", "html", "json")}, "runs": "runs.csv"}
DEPLOYED = "deployment/*/*/*/seed*"  # below a configuration's folder
WEIGHTS = ("fp32", "int8")  # of exported students
FIGURES = ("accuracy", "forgetting", "gain", "cost")
IMAGES = ("svg", "pdf", "png")
SUMMARIES = ("csv", "md", "tex")
_LARGE = (".safetensors", ".pixels", ".parquet")


def digest(value: Any) -> str:
    """Return eight digits of the sha256 of a JSON-able value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]


def record_of(tensors: str) -> str:
    """Return the path of the JSON beside a tensor file."""
    return tensors.removesuffix(".safetensors") + ".json"


def artifact(name: str, tensors: str) -> dict[str, str]:
    """Return a tensor file under a name and the JSON beside it as `metadata`."""
    return {name: tensors, "metadata": record_of(tensors)}


def is_large(path: str) -> bool:
    """Whether a file is told by the record beside it and not by its time."""
    return path.endswith(_LARGE)


@dataclass(frozen=True)
class JobFiles:
    """Log and benchmark of a job, `STEM.log` and `STEM.tsv`."""

    stem: str

    @property
    def log(self) -> str:
        """The rule's log."""
        return f"{self.stem}.log"

    @property
    def benchmark(self) -> str:
        """Snakemake's record of its seconds, written when it succeeds."""
        return f"{self.stem}.tsv"

    @property
    def record(self) -> str:
        """What vouches for outputs that no other record vouches for."""
        return f"{self.stem}.json"


@dataclass(frozen=True)
class TaskFiles:
    """Files of one task of a learner."""

    folder: str

    @property
    def learner(self) -> str:
        """Its artifact."""
        return f"{self.folder}/learner.safetensors"

    @property
    def losses(self) -> str:
        """Its loss curve."""
        return f"{self.folder}/losses.csv"

    @property
    def targets(self) -> str:
        """Its logits for all views, where it teaches."""
        return f"{self.folder}/targets.safetensors"

    def job(self, rule: str) -> JobFiles:
        """Log and benchmark of `train`, `distil` or `teacher_targets`."""
        return JobFiles(f"{self.folder}/{'targets' if rule == 'teacher_targets' else rule}")

    def outputs(self) -> dict[str, str]:
        """Return all that learning writes, by the names of a rule."""
        return {**artifact("learner", self.learner), "losses": self.losses}


@dataclass(frozen=True)
class RunFiles:
    """Files of a run."""

    folder: str

    @property
    def results(self) -> str:
        """Matrix, metrics, specification."""
        return f"{self.folder}/results.json"

    @property
    def predictions(self) -> str:
        """The prediction for every test image."""
        return f"{self.folder}/predictions.parquet"

    @property
    def evaluation(self) -> JobFiles:
        """Log and benchmark of its evaluation."""
        return JobFiles(f"{self.folder}/evaluate")

    @property
    def first(self) -> JobFiles:
        """A trial after its first tasks: `record` is what it came to."""
        return JobFiles(f"{self.folder}/first")

    @property
    def first_predictions(self) -> str:
        """The prediction for every validation image then."""
        return f"{self.folder}/first.parquet"

    def outputs(self) -> dict[str, str]:
        """Return what an evaluation writes, by the names of a rule."""
        return {"results": self.results, "predictions": self.predictions}

    def first_outputs(self) -> dict[str, str]:
        """Return the same of a trial after its first tasks."""
        return {"results": self.first.record, "predictions": self.first_predictions}

    def task(self, task: int | str) -> TaskFiles:
        """Files of a task."""
        return TaskFiles(f"{self.folder}/task{task}")

    def siblings(self, task: int | str) -> list[Path]:
        """Records after a task of this seed's other runs of the same method."""
        run = Path(self.folder).resolve()
        pattern = f"*/{run.name}/task{task}/{record_of(Path(self.task(task).learner).name)}"
        return sorted(run.parents[1].glob(pattern))

    def described(self, n_tasks: int, rule: str) -> list[tuple[str, str]]:
        """Return what each file is and where it lies, for people."""
        named = [
            ("matrix, metrics, specification", self.results),
            ("prediction for every test image", self.predictions),
            ("log of the evaluation", self.evaluation.log),
        ]
        for t in range(n_tasks):
            task = self.task(t)
            named += [
                (f"checkpoint after task {t + 1}", task.learner),
                ("what made it", record_of(task.learner)),
                ("losses", task.losses),
                ("log", task.job(rule).log),
            ]
        return named


@dataclass(frozen=True)
class DeployedFiles:
    """Files of a run exported for the table of deployment."""

    folder: str

    def student(self, weights: str) -> str:
        """The folder that `cdl predict` reads, with weights as in `WEIGHTS`."""
        return f"{self.folder}/{weights}"

    def model(self, weights: str) -> str:
        """Its graph."""
        return f"{self.student(weights)}/model.onnx"

    def about(self, weights: str) -> list[str]:
        """Its classes and preprocessing, without which no graph is opened."""
        return [f"{self.student(weights)}/{name}" for name in ("classes.txt", "preprocessing.json")]

    @property
    def job(self) -> JobFiles:
        """Log and record of the export."""
        return JobFiles(f"{self.folder}/deploy")

    def outputs(self) -> dict[str, Any]:
        """Return all files that a rule promises, by its names."""
        models = {weights: self.model(weights) for weights in WEIGHTS}
        about = [path for weights in WEIGHTS for path in self.about(weights)]
        return {"record": self.job.record, **models, "about": about}


@dataclass(frozen=True)
class PackedFiles:
    """Files of a packed dataset."""

    folder: str

    @property
    def manifest(self) -> str:
        """Its record."""
        return f"{self.folder}/{MANIFEST}"

    @property
    def fetched(self) -> str:
        """Says that published files were there and right."""
        return f"{self.folder}/fetched.json"

    def pixels(self, split: str) -> str:
        """Images of a split."""
        return f"{self.folder}/{pixels_name(split)}"

    def index(self, split: str) -> str:
        """Labels, sizes and hashes of a split."""
        return f"{self.folder}/{index_name(split)}"

    def split(self, split: str) -> list[str]:
        """All that reading a split needs, the record first."""
        return [self.manifest, self.pixels(split), self.index(split)]

    def outputs(self) -> dict[str, str]:
        """Return all files, by the names of a rule."""
        files = {f"{split}_pixels": self.pixels(split) for split in SPLITS}
        files |= {f"{split}_index": self.index(split) for split in SPLITS}
        return {"manifest": self.manifest, **files}

    def job(self, rule: str) -> JobFiles:
        """Log of `fetch_dataset` or `prepare_dataset`."""
        return JobFiles(f"{self.folder}/{rule}")


@dataclass(frozen=True)
class TableFiles:
    """Tables of all runs, or of the finished ones."""

    folder: str

    @property
    def results(self) -> str:
        """One row per run."""
        return f"{self.folder}/results.csv"

    @property
    def curves(self) -> str:
        """One row per run and stage."""
        return f"{self.folder}/curves.csv"

    @property
    def cost(self) -> str:
        """One row per run: seconds and memory."""
        return f"{self.folder}/cost.csv"

    @property
    def cost_text(self) -> str:
        """Costs for people, means over seeds."""
        return f"{self.folder}/cost.md"

    @property
    def classes(self) -> str:
        """One row per run and class."""
        return f"{self.folder}/classes.csv"

    @property
    def confusion(self) -> str:
        """One row per run, task and task of the predicted class."""
        return f"{self.folder}/confusion.csv"

    def deployment(self, kind: str) -> str:
        """One row per exported student and kind of weights, as `csv` or `md`."""
        return f"{self.folder}/deployment.{kind}"

    @property
    def intervals(self) -> str:
        """One row per cell: means over seeds with their intervals."""
        return f"{self.folder}/intervals.csv"

    @property
    def contrasts(self) -> str:
        """One row per pair of cells: their paired difference with its interval."""
        return f"{self.folder}/contrasts.csv"

    @property
    def protocols(self) -> str:
        """What stands behind each protocol hash."""
        return f"{self.folder}/protocols.json"

    @property
    def configuration(self) -> str:
        """The resolved configuration."""
        return f"{self.folder}/configuration.yaml"

    def summary(self, kind: str) -> str:
        """Means over seeds, in a format of `SUMMARIES`."""
        return f"{self.folder}/summary.{kind}"

    def comparison(self, name: str, kind: str) -> str:
        """A pair beside published numbers, in a format of `COMPARISON`."""
        return f"{self.folder}/{name}.{COMPARISON[kind]}"

    def log(self, job: str) -> str:
        """Log of a job that writes here."""
        return f"{self.folder}/{job}.log"

    def record(self, name: str) -> str:
        """What vouches: `cost`, `page`, `deployment`, `summary` (and intervals), or `protocols`."""
        return f"{self.folder}/{name}.json"

    def collected(self) -> dict[str, str]:
        """Return what `collect` writes, by its names."""
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
        """Return what `tabulate` writes, by its names."""
        summaries = {kind: self.summary(kind) for kind in SUMMARIES}
        tables = {"intervals": self.intervals, "contrasts": self.contrasts}
        return {**summaries, **tables, "record": self.record("summary")}

    def compared(self, name: str) -> dict[str, str]:
        """Return what `compare` writes of a pair, by its names."""
        return {kind: self.comparison(name, kind) for kind in COMPARISON}

    def measured(self) -> dict[str, str]:
        """Return what `measure` writes, by its names."""
        return {"csv": self.deployment("csv"), "record": self.record("deployment")}


@dataclass(frozen=True)
class ReportFiles:
    """Tables, figures and page of a configuration."""

    root: str

    @property
    def tables(self) -> TableFiles:
        """Of all runs."""
        return TableFiles(f"{self.root}/tables")

    @property
    def partial(self) -> TableFiles:
        """Of what is finished."""
        return TableFiles(f"{self.root}/tables/partial")

    @property
    def page(self) -> str:
        """Every run on one page."""
        return f"{self.root}/{PAGE}"

    def figure(self, name: str, dataset: str, image: str) -> str:
        """A figure of a dataset."""
        return f"{self.root}/figures/{name}_{dataset}.{image}"

    def label_efficiency(self, dataset: str) -> dict[str, str]:
        """Table, figure and record of a dataset at several levels of labels, by format."""
        name = "label_efficiency"
        paths = {kind: f"{self.tables.folder}/{name}_{dataset}.{kind}" for kind in ("csv", "md")}
        paths |= {image: self.figure(name, dataset, image) for image in IMAGES}
        return {"record": self.figure(name, dataset, "json"), **paths}

    def plotting(self, dataset: str) -> JobFiles:
        """Log of a dataset's figures."""
        return JobFiles(f"{self.root}/figures/plot_{dataset}")

    @property
    def deployment(self) -> JobFiles:
        """Log and record of what is drawn and written of deployment."""
        return JobFiles(f"{self.root}/figures/deployment")

    def deployment_figures(self, datasets: Iterable[str]) -> list[str]:
        """Return the figures of deployment, of each dataset one in each format."""
        return [self.figure("deployment", d, image) for d in datasets for image in IMAGES]

    def shown_deployment(self, datasets: Iterable[str]) -> dict[str, Any]:
        """Return what `show_deployment` writes, by its names."""
        return {
            "md": self.tables.deployment("md"),
            "figures": self.deployment_figures(datasets),
            "record": self.deployment.record,
        }

    def plotted(self, dataset: str) -> dict[str, str]:
        """Return what `plot` writes of a dataset, by its names: a figure alone is its SVG."""
        drawn = {
            name if image == "svg" else f"{name}_{image}": self.figure(name, dataset, image)
            for name in FIGURES
            for image in IMAGES
        }
        return {**drawn, "record": self.plotting(dataset).record}

    def paged(self) -> dict[str, str]:
        """Return what `page` writes, by its names."""
        tables = self.tables
        record = tables.record("page")
        return {"page": self.page, "configuration": tables.configuration, "record": record}


@dataclass(frozen=True)
class TuningFiles:
    """What tuning a configuration came to."""

    root: str

    @property
    def overlay(self) -> str:
        """The best values, an overlay of the configuration."""
        return f"{self.root}/tuned.yaml"

    @property
    def kept(self) -> JobFiles:
        """Which trials went on after their first tasks: `record`."""
        return JobFiles(f"{self.root}/tuned/kept")

    @property
    def trials(self) -> str:
        """One row per trial."""
        return f"{self.root}/tuned/trials.csv"

    @property
    def text(self) -> str:
        """Best values and flat ranges, for people."""
        return f"{self.root}/tuned/tuned.md"

    @property
    def log(self) -> str:
        """Log of the job that writes these."""
        return f"{self.root}/tuned/tuned.log"

    def figure(self, distiller: str) -> str:
        """The trials of a distiller."""
        return f"{self.root}/tuned/{distiller}.svg"

    def outputs(self, distillers: Iterable[str]) -> dict[str, Any]:
        """Return what `tuned` writes, by its names."""
        files = {"overlay": self.overlay, "trials": self.trials, "text": self.text}
        return {**files, "figures": [self.figure(name) for name in distillers]}


@dataclass(frozen=True)
class Layout:
    """Paths of one configuration."""

    name: str

    @property
    def root(self) -> str:
        """Folder of its runs."""
        return f"{RESULTS}/{self.name}"

    @property
    def report(self) -> ReportFiles:
        """Its tables and figures; those of `default` lie where a newcomer looks first."""
        return ReportFiles(RESULTS if self.name == "default" else self.root)

    @property
    def tuning(self) -> TuningFiles:
        """What tuning it came to."""
        return TuningFiles(self.root)

    def run(self, folder: str = "{dataset}/{method}/{learner}/seed{seed}") -> RunFiles:
        """Files of a run, by its path below the root."""
        return RunFiles(f"{self.root}/{folder}")

    def deployed(self, folder: str = "{dataset}/{method}/{learner}/seed{seed}") -> DeployedFiles:
        """Files of an exported run, by the run's path below the root."""
        return DeployedFiles(f"{self.root}/deployment/{folder}")


def packed(name: str) -> PackedFiles:
    """Files of packed data by the name of their folder, see `packed_name`."""
    return PackedFiles(f"{RESULTS}/data/{name}")


def packed_name(dataset: str, source: Mapping[str, Any]) -> str:
    """Name packed data after its dataset and source."""
    return f"{dataset}-{digest(source)}"


def backbone(name: str) -> str:
    """Return a backbone's artifact by its name, see `backbone_name`."""
    return f"{RESULTS}/backbones/{name}.safetensors"


def backbone_name(name: str, source: Mapping[str, Any]) -> str:
    """Name a backbone's artifact after it and its source."""
    return f"{name}-{digest(source)}"


def fetching(name: str) -> JobFiles:
    """Log of fetching a backbone."""
    return JobFiles(f"{RESULTS}/backbones/{name}")


def queries(name: str) -> str:
    """Return the folder of a backbone's queries by its name, see `queries_name`."""
    return f"{RESULTS}/queries/{name}"


def queries_name(backbone: str, spec: Mapping[str, Any], *sources: Mapping[str, Any]) -> str:
    """Name a backbone's queries after it, the views, and the sources of data and weights."""
    return f"{backbone}-{digest([spec, *sources])}"


def cached(folder: str, part: int | str) -> str:
    """Return the queries of a task, or of the `test` views, in their folder."""
    return f"{folder}/{part}.safetensors" if part == "test" else f"{folder}/task{part}.safetensors"


def caching(folder: str, part: int | str) -> JobFiles:
    """Log and benchmark of computing queries."""
    return JobFiles(cached(folder, part).removesuffix(".safetensors"))


def contents_memory(kind: str, name: str) -> Path:
    """Return where the hashes of a user's files are remembered; kind is `data` or `backbones`."""
    return Path(RESULTS, kind, f"{name}.contents.json")


@dataclass(frozen=True)
class ResultsFolder:
    """What lies in a folder of results, whatever configurations made it."""

    path: Path

    @classmethod
    def of_run(cls, run: Path) -> "ResultsFolder":
        """Return the folder that a run lies in, see `Layout.run`."""
        return cls(run.resolve().parents[Layout("name").run().folder.count("/") - 1])

    def tables(self) -> Iterator[tuple[Path, Path]]:
        """Yield every table of runs with the file of its protocols, whole ones last."""
        for name in ("tables/partial/results.csv", "tables/*.runs.csv", "tables/results.csv"):
            for pattern in (name, f"*/{name}"):
                for table in sorted(self.path.glob(pattern)):
                    stem = table.name.removesuffix(".runs.csv")
                    whole = stem == table.name
                    yield table, table.with_name("protocols.json" if whole else f"{stem}.json")

    def finished(self) -> dict[str, dict[int, RunFiles]]:
        """Return the evaluated runs of every cell by seed; cells by their folder below this one."""
        pattern = Layout("*").run("*/*/*/seed*").results.removeprefix(f"{RESULTS}/")
        found: dict[str, dict[int, RunFiles]] = {}
        for results in sorted(self.path.glob(pattern)):
            run = results.parent
            cell, seed = str(run.parent.relative_to(self.path)), run.name.removeprefix("seed")
            if Path(cell).parts[0] not in RESERVED and seed.isdecimal():
                found.setdefault(cell, {})[int(seed)] = RunFiles(str(run))
        return found

    def run(self, folder: str) -> RunFiles:
        """Files of a run, by the folder that a table names."""
        return RunFiles(str(self.path.parent / folder))

    def backbones(self, name: str) -> list[str]:
        """Artifacts of a backbone, from any source."""
        return sorted(map(str, self.path.glob(f"backbones/{name}-*.safetensors")))

    def queries(self, backbone: str) -> list[str]:
        """Caches of a backbone's queries."""
        return sorted(map(str, self.path.glob(f"queries/{backbone}-*/*.safetensors")))

    def page(self, run: str) -> tuple[str, str]:
        """The page that shows a run, by the folder that a table names, and its record."""
        report = Layout(Path(run).parts[1]).report
        here = self.path.parent
        return str(here / report.page), str(here / report.tables.record("page"))

    def packed(self, dataset: str) -> list[PackedFiles]:
        """Packed data of a dataset, from any source."""
        found = sorted(self.path.glob(f"data/{dataset}-*/{MANIFEST}"))
        return [PackedFiles(str(manifest.parent)) for manifest in found]
