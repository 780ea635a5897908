"""The grid: which runs a configuration asks for, what each is made of, and where it lies."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import Any

from configuration import ConfigError, check, complete, merge, schema
from refusals import Shape, refuse_dataset, refuse_impossible, shape_of

from cdl import NUMERICS
from cdl.artifacts import fingerprint

# what the modules of these names say of themselves, known here without torch (a test compares)
QUERYLESS = {"apt", "head_only"}
READ_BLOCKS = {"fitnets", "reviewkd"}
MAP_PROMPTS = {"cdl_prompt"}


@dataclass(frozen=True)
class Block:
    """A configuration block that the grid names, possibly with overrides under a variant."""

    name: str
    variant: str = ""
    options: dict[str, Any] = field(default_factory=dict, hash=False)
    joint: bool = False  # all tasks at once

    @property
    def label(self) -> str:
        """The folder name: `kd`, or `kd+tau4` for a variant."""
        return f"{self.name}+{self.variant}" if self.variant else self.name


@dataclass(frozen=True)
class Run:
    """One learner over all tasks: a teacher, the undistilled student, or a distilled student."""

    dataset: str
    method: Block
    role: str  # teacher or student
    backbone: str
    query: str
    teacher: str | None
    teacher_query: str | None
    distiller: Block
    seed: int
    n_tasks: int

    @property
    def learner(self) -> str:
        """The folder name of the learner."""
        if self.teacher is None:
            return f"{self.role}-{self.backbone}-q-{self.query}"
        return f"{self.distiller.label}-{self.backbone}-from-{self.teacher}-q-{self.query}"

    @property
    def mapped_query(self) -> str | None:
        """Whose query the teacher's prompts read at prediction, where a distiller maps them."""
        return self.teacher_query if self.maps_prompts else None

    @property
    def rule(self) -> str:
        """The rule that learns its tasks."""
        return "distil" if self.teacher else "train"

    @property
    def reads_query(self) -> bool:
        """Whether its prompts depend on a query."""
        return self.method.name not in QUERYLESS

    @property
    def reads_blocks(self) -> bool:
        """Whether its distiller runs the teacher's ViT, for more than logits."""
        return self.distiller.name in READ_BLOCKS

    @property
    def maps_prompts(self) -> bool:
        """Whether its distiller reads the teacher's prompts."""
        return self.distiller.name in MAP_PROMPTS

    @property
    def folder(self) -> str:
        """Path below the configuration's root."""
        return f"{self.dataset}/{self.method.label}/{self.learner}/seed{self.seed}"


class Grid:
    """All runs of a resolved configuration, checked, with what each needs."""

    def __init__(self, config: dict[str, Any]) -> None:
        """Expand the grid; raise `ConfigError` if a combination cannot work."""
        self.config = config
        name = config["name"]
        self.root = f"results/{name}"
        self.tables = "results" if name == "default" else self.root
        grid = config["grid"]
        self.datasets = grid["datasets"] or sorted(config["datasets"])
        _known("grid.datasets", self.datasets, config["datasets"])
        for dataset in self.datasets:
            class_order = config["protocol"]["class_order"]
            refuse_dataset(dataset, config["datasets"][dataset], class_order)
        for pair in grid["pairs"]:
            _known("grid.pairs", pair.values(), config["backbones"])
            if pair["teacher"] == pair["student"]:
                raise ConfigError(
                    f"grid.pairs: {pair['teacher']!r} is its own teacher; to distil "
                    "a backbone into itself give it a second name in backbones"
                )
        self.methods = self._blocks("methods", grid["methods"])
        self.bounds = self._blocks("methods", grid["bounds"])
        self.distillers = self._blocks("distillers", grid["distillers"])
        _unique("grid.methods", [*self.methods, *self.bounds])
        _unique("grid.distillers", self.distillers)
        for pair in grid["exclude"]:
            _known("grid.exclude", [pair["method"]], {b.label: b for b in self.methods})
            _known("grid.exclude", [pair["distiller"]], {b.label: b for b in self.distillers})
        self.runs = list(dict.fromkeys(self._expand()))
        self.by_folder = {run.folder: run for run in self.runs}
        self.comparisons = self._comparisons()
        self._shapes: dict[str, Shape] = {}
        for run in self.runs:
            refuse_impossible(run, config["datasets"][run.dataset], self.shape)

    def _blocks(self, kind: str, entries: list[Any]) -> list[Block]:
        blocks = []
        for entry in entries:
            entry = {"block": entry, "variant": ""} if isinstance(entry, str) else dict(entry)
            name, variant = entry.pop("block"), entry.pop("variant")
            _known(f"grid.{kind}", [name], self.config[kind])
            if name == "none" and variant:
                raise ConfigError(f"grid.{kind}: none has no variant {variant!r}; write none")
            part = schema()["properties"][kind]["properties"][name]
            check(entry, part, f"grid.{kind}.{variant}")
            options = complete(merge(self.config[kind][name], entry), part)
            fields = schema()["properties"]["protocol"]["properties"]
            options |= {
                f: self.config["protocol"][f]
                for f in sorted(fields)
                if name in fields[f].get(kind, ())
            }
            joint = options.pop("joint", False)
            blocks.append(Block(name, variant, options, joint))
        return blocks

    def _expand(self) -> Iterator[Run]:
        """Yield every run, teachers first, some more than once."""
        own_query = self.config["protocol"]["query"] == "self"
        none = Block("none")
        grid = self.config["grid"]
        for dataset, method, pair, seed in product(
            self.datasets, [*self.methods, *self.bounds], grid["pairs"], grid["seeds"]
        ):
            teacher, student = pair["teacher"], pair["student"]
            teacher_query = teacher if own_query else student
            tasks = 1 if method.joint else self.config["datasets"][dataset]["tasks"]
            learner = partial(
                Run,
                dataset=dataset,
                method=method,
                seed=seed,
                n_tasks=tasks if isinstance(tasks, int) else len(tasks),
            )
            alone = {"distiller": none, "teacher": None, "teacher_query": None}
            yield learner(role="teacher", backbone=teacher, query=teacher_query, **alone)
            for distiller in [none] if method in self.bounds else self.distillers:
                if {"method": method.label, "distiller": distiller.label} in grid["exclude"]:
                    continue
                taught = {"teacher": teacher, "teacher_query": teacher_query}
                taught = alone if distiller.name == "none" else {"distiller": distiller, **taught}
                yield learner(role="student", backbone=student, query=student, **taught)

    def teacher_of(self, run: Run) -> Run | None:
        """Return the run whose learner teaches this one."""
        if run.teacher is None:
            return None
        learner = f"teacher-{run.teacher}-q-{run.teacher_query}"
        return self.by_folder[f"{run.dataset}/{run.method.label}/{learner}/seed{run.seed}"]

    def _comparisons(self) -> dict[str, tuple[str, str, str]]:
        """Name what is laid beside published numbers: `cifar100_base-small` and what it is of."""
        blocks, found = self.config["backbones"], {}
        for dataset, pair in product(self.datasets, self.config["grid"]["pairs"]):
            teacher, student = pair["teacher"], pair["student"]
            named = (self.config["datasets"][dataset], blocks[teacher], blocks[student])
            if all(block["published"] for block in named):
                short = "-".join(name.removeprefix("vit_") for name in (teacher, student))
                name = f"{dataset}_{short}"
                if name in found:
                    raise ConfigError(
                        f"grid.pairs: two of them would share the table {name!r}; "
                        f"rename {teacher!r} or {student!r} in backbones"
                    )
                found[name] = (dataset, teacher, student)
        return found

    def runs_of(self, dataset: str, teacher: str, student: str) -> list[Run]:
        """Return the runs of one dataset and pair: teachers, undistilled and distilled students."""
        query = teacher if self.config["protocol"]["query"] == "self" else student
        wanted = {
            ("teacher", teacher, query, None),
            ("student", student, student, None),
            ("student", student, student, teacher),
        }
        return [
            run
            for run in self.runs
            if run.dataset == dataset and (run.role, run.backbone, run.query, run.teacher) in wanted
        ]

    def published(self, dataset: str, teacher: str, student: str) -> dict[str, Any]:
        """Return what the papers call a dataset and the backbones of a pair."""
        blocks = self.config["backbones"]
        return {
            "dataset": self.config["datasets"][dataset]["published"],
            "backbones": {name: blocks[name]["published"] for name in (teacher, student)},
        }

    def protocol(self, run: Run) -> dict[str, Any]:
        """Return what a run's numbers share with those beside them: what the hash stands for.

        All students of a pair share one: it names the learner's own weights and those of its
        query, whatever else the grid holds.
        """
        block, training = self.config["datasets"][run.dataset], self.config["training"]
        return {
            "numerics": NUMERICS,
            "protocol": self.config["protocol"],
            "training": training | {"batch_size": self.batch_size(run)},
            "dataset": {k: v for k, v in block.items() if k not in ("source", "published")},
            "backbones": {
                name: self.backbone_source(name) for name in sorted({run.backbone, run.query})
            },
            **self._rounding(),
        }

    def batch_size(self, run: Run) -> int:
        """Return the batch size of a learner: what its teacher's backbone asks for, or the one."""
        teacher = run.backbone if run.role == "teacher" else run.teacher
        asked = self.config["backbones"][teacher]["batch_size"] if teacher else None
        return asked or self.config["training"]["batch_size"]

    def row(self, run: Run) -> dict[str, Any]:
        """Return the columns that identify a run in tables and link it to what it builds on."""
        teacher = self.teacher_of(run)
        none = f"{run.dataset}/{run.method.label}/student-{run.backbone}-q-{run.query}"
        none = self.by_folder.get(f"{none}/seed{run.seed}") if run.role == "student" else None
        return {
            "dataset": run.dataset,
            "method": run.method.label,
            "teacher": run.teacher or "",
            "student": run.backbone,
            "kd": run.distiller.name,
            "variant": run.distiller.variant,
            "seed": run.seed,
            "n_tasks": run.n_tasks,
            "role": run.role,
            "query": run.query,
            "protocol": self.protocol(run),
            "made_of": fingerprint(self.spec(run)),
            "run": f"{self.root}/{run.folder}",
            "none_run": f"{self.root}/{none.folder}" if none else "",
            "teacher_run": f"{self.root}/{teacher.folder}" if teacher else "",
        }

    def spec(self, run: Run) -> dict[str, Any]:
        """Return all that fixes a learner's numbers, for `cdl.task.learn_task`."""
        config, dataset = self.config, self.config["datasets"][run.dataset]
        training = {k: v for k, v in config["training"].items() if k != "teacher"}
        if run.role == "teacher":
            overrides = config["training"]["teacher"]
            training |= {k: v for k, v in overrides.items() if v is not None}
        training["batch_size"] = self.batch_size(run)
        spec = {
            "numerics": NUMERICS,
            "seed": run.seed,
            "role": run.role,
            "backbone": run.backbone,
            "query": run.query,
            "teacher": run.teacher,
            "method": {"name": run.method.name, **run.method.options},
            "distiller": {"name": run.distiller.name, **run.distiller.options},
            "stream": {
                "tasks": 1 if run.method.joint else dataset["tasks"],
                "class_order": config["protocol"]["class_order"],
            },
            "images_per_class": dataset["images_per_class"],
            "view": dataset["view"],
            "normalization": config["protocol"]["normalization"],
            "auxiliary_weight": config["protocol"]["auxiliary_weight"],
            "training": {**training, "schedule": config["protocol"]["schedule"]},
        }
        if run.teacher is not None and run.method.name == "apt":
            spec["apt_teacher"] = config["protocol"]["apt_teacher"]
        return spec | self._rounding(run)

    def _rounding(self, run: Run | None = None) -> dict[str, Any]:
        """Return what rounds otherwise than fp32 computed on the spot, nothing if nothing does."""
        compute, rounding = self.config["compute"], {}
        reads = run is None or run.reads_query or (run.teacher and not run.reads_blocks)
        if self.cached and reads and compute["targets_dtype"] != "float32":
            rounding["cache_dtype"] = compute["targets_dtype"]
        if compute["precision"] != "fp32":
            rounding["precision"] = compute["precision"]
        return rounding

    @property
    def cached(self) -> bool:
        """Whether queries and teacher logits are artifacts of their own."""
        return self.config["compute"]["targets"] == "cached"

    def in_use(self) -> dict[str, Any]:
        """Return the configuration, reduced to what can change a number.

        Blocks that no run uses are left out, and so is what only says where files come from, and
        where, how fast and in how much space numbers are computed.
        """
        kept = {
            "datasets": set(self.datasets),
            "backbones": {name for pair in self.config["grid"]["pairs"] for name in pair.values()},
            "methods": {block.name for block in [*self.methods, *self.bounds]},
            "distillers": {block.name for block in self.distillers},
            "compute": self.config["compute"].keys() - {"device", "save_minutes", "targets_max_gb"},
        }
        return {
            key: {k: v for k, v in part.items() if k in kept[key]} if key in kept else part
            for key, part in self.config.items()
            if key not in ("fetch", "chain")
        }

    def source(self, dataset: str) -> dict[str, Any]:
        """Return the arguments of `cdl.data.prepare` for a dataset."""
        block = self.config["datasets"][dataset]
        ((name, options),) = block["source"].items()
        return {"source": {"name": name, **options}, "short_side": block["short_side"]}

    def data(self, dataset: str) -> str:
        """Return the packed folder, shared by all configurations with the same source."""
        return f"results/data/{dataset}-{digest(self.source(dataset))}"

    def backbone_source(self, name: str) -> dict[str, str]:
        """Return the arguments of `cdl.backbones.fetch`."""
        block = self.config["backbones"][name]
        given = {k: block[k] for k in ("embedded", "file", "timm") if block[k] is not None}
        if len(given) != 1:
            raise ConfigError(
                f"backbones.{name}: give exactly one of embedded, file and timm, "
                f"not {sorted(given) or 'none'}"
            )
        ((source, model),) = given.items()
        return {"source": source, "model": model}

    def backbone(self, name: str) -> str:
        """Return the path of a backbone artifact, shared like packed data."""
        return f"results/backbones/{name}-{digest(self.backbone_source(name))}.safetensors"

    def shape(self, name: str) -> Shape:
        """Return a backbone's shape without loading it."""
        if name not in self._shapes:
            self._shapes[name] = shape_of(name, **self.backbone_source(name))
        return self._shapes[name]


def _known(field: str, names: Any, known: dict[str, Any]) -> None:
    for name in names:
        if name not in known:
            raise ConfigError(
                f"{field}: {name!r} is not defined; known are {', '.join(sorted(known))}"
            )


def _unique(field: str, blocks: list[Block]) -> None:
    labels = [block.label for block in blocks]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice:
        raise ConfigError(f"{field}: {twice!r} is listed twice; give one another variant")


def digest(value: Any) -> str:
    """Return eight digits of the sha256 of a JSON-able value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]
