"""The grid: which runs a configuration asks for, what each is made of, and where it lies."""

import hashlib
import json
import re
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from configuration import ConfigError, check, complete, merge, schema

from cdl import NUMERICS

EMBEDDED = Path(__file__).parent.parent / "cdl" / "assets"
_TIMM = re.compile(r"vit_(tiny|small|base|large)_patch(\d+)_\d+\.\w+")
_TIMM_SHAPES = {"tiny": (192, 12), "small": (384, 12), "base": (768, 12), "large": (1024, 24)}


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
        return self.teacher_query if self.distiller.name == "cdl_prompt" else None

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
        for pair in grid["pairs"]:
            _known("grid.pairs", pair.values(), config["backbones"])
            if pair["teacher"] == pair["student"]:
                raise ConfigError(
                    f"grid.pairs: {pair['teacher']!r} is its own teacher; to distil "
                    "a backbone into itself give it a second name in backbones"
                )
        self.methods = self._blocks("methods")
        self.distillers = self._blocks("distillers")
        self.runs = list(dict.fromkeys(self._expand()))
        self.by_folder = {run.folder: run for run in self.runs}

    def _blocks(self, kind: str) -> list[Block]:
        blocks = []
        for entry in self.config["grid"][kind]:
            entry = {"block": entry, "variant": ""} if isinstance(entry, str) else dict(entry)
            name, variant = entry.pop("block"), entry.pop("variant")
            _known(f"grid.{kind}", [name], self.config[kind])
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
        labels = [block.label for block in blocks]
        twice = next((label for label in labels if labels.count(label) > 1), None)
        if twice:
            raise ConfigError(f"grid.{kind}: {twice!r} is listed twice; give one another variant")
        return blocks

    def _expand(self):
        own = self.config["protocol"]["query"] == "self"
        none = Block("none")
        grid = self.config["grid"]
        for dataset, method, pair, seed in product(
            self.datasets, self.methods, grid["pairs"], grid["seeds"]
        ):
            teacher, student = pair["teacher"], pair["student"]
            teacher_query = teacher if own else student
            tasks = 1 if method.joint else self.config["datasets"][dataset]["tasks"]
            common = {
                "dataset": dataset,
                "method": method,
                "seed": seed,
                "n_tasks": tasks if isinstance(tasks, int) else len(tasks),
            }
            yield self._checked(
                Run(
                    **common,
                    role="teacher",
                    backbone=teacher,
                    distiller=none,
                    query=teacher_query,
                    teacher=None,
                    teacher_query=None,
                )
            )
            for distiller in self.distillers:
                alone = distiller.name == "none"
                yield self._checked(
                    Run(
                        **common,
                        role="student",
                        backbone=student,
                        query=student,
                        distiller=distiller,
                        teacher=None if alone else teacher,
                        teacher_query=None if alone else teacher_query,
                    )
                )

    def teacher_of(self, run: Run) -> Run | None:
        """Return the run whose learner teaches this one."""
        if run.teacher is None:
            return None
        learner = f"teacher-{run.teacher}-q-{run.teacher_query}"
        return self.by_folder[f"{run.dataset}/{run.method.label}/{learner}/seed{run.seed}"]

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
        return spec

    def source(self, dataset: str) -> dict[str, Any]:
        """Return the arguments of `cdl.data.prepare` for a dataset."""
        block = self.config["datasets"][dataset]
        ((name, options),) = block["source"].items()
        return {"source": {"name": name, **options}, "short_side": block["short_side"]}

    def data(self, dataset: str) -> str:
        """Return the packed folder, shared by all configurations with the same source."""
        return f"results/data/{dataset}-{_digest(self.source(dataset))}"

    def backbone_source(self, name: str) -> dict[str, str]:
        """Return the arguments of `cdl.backbones.fetch`."""
        given = {k: v for k, v in self.config["backbones"][name].items() if v is not None}
        if len(given) != 1:
            raise ConfigError(
                f"backbones.{name}: give exactly one of embedded, file and timm, "
                f"not {sorted(given) or 'none'}"
            )
        ((source, model),) = given.items()
        return {"source": source, "model": model}

    def backbone(self, name: str) -> str:
        """Return the path of a backbone artifact, shared like packed data."""
        return f"results/backbones/{name}-{_digest(self.backbone_source(name))}.safetensors"

    def shape(self, name: str) -> tuple[int, int, int]:
        """Return a backbone's width, depth and patch size without loading it."""
        given = self.backbone_source(name)
        model = given["model"]
        if given["source"] == "timm":
            match = _TIMM.fullmatch(model)
            if not match:
                raise ConfigError(
                    f"backbones.{name}.timm: {model!r} is not a full tag of a plain ViT, such as "
                    "vit_base_patch16_224.augreg_in21k_ft_in1k (without the part behind the dot "
                    "the weights depend on timm's version)"
                )
            return *_TIMM_SHAPES[match[1]], int(match[2])
        path = EMBEDDED / f"{model}.safetensors" if given["source"] == "embedded" else Path(model)
        try:
            with open(path, "rb") as file:
                size = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(min(size, 10**7)))["__metadata__"]
            return tuple(int(header[key]) for key in ("embed_dim", "depth", "patch_size"))
        except OSError as error:
            known = sorted(p.stem for p in EMBEDDED.glob("*.safetensors"))
            raise ConfigError(
                f"backbones.{name}: {model!r} cannot be read ({error.strerror}); "
                f"embedded are {', '.join(known)}"
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"backbones.{name}: {model!r} is not a .safetensors file with "
                f"embed_dim, depth and patch_size in its header"
            ) from error

    def _checked(self, run: Run) -> Run:
        """Refuse a run that could only fail later."""
        width, depth, patch = self.shape(run.backbone)
        where, options = f"methods.{run.method.label}", run.method.options
        for key in ("layers", "g_layers", "e_layers"):
            _layers(f"{where}.{key}", options.get(key, []), run.backbone, depth)
        size = self.config["datasets"][run.dataset]["view"]["size"]
        if size % patch:
            raise ConfigError(
                f"datasets.{run.dataset}.view.size: {size} is not a multiple of {patch}, the "
                f"patch size of {run.backbone!r}"
            )
        if run.method.name == "coda_prompt":
            _pool(where, options, self.shape(run.query)[0], width, run.n_tasks)
        if run.method.name == "dual_prompt":
            shared = set(options["g_layers"]) & set(options["e_layers"])
            _refuse(shared, f"{where}.e_layers", min(shared, default=0), "not also in g_layers")
            short = options["pool"] < run.n_tasks
            _refuse(short, f"{where}.pool", options["pool"], f"one per task, {run.n_tasks}")
        if options.get("top_k", 1) > options.get("pool", 1):
            _refuse(
                True, f"{where}.top_k", options["top_k"], f"at most the pool, {options['pool']}"
            )
        if run.teacher is not None:
            self._check_distiller(run, width, depth, patch)
        return run

    def _check_distiller(self, run: Run, width: int, depth: int, patch: int) -> None:
        where, options = f"distillers.{run.distiller.label}", run.distiller.options
        teacher_width, teacher_depth, teacher_patch = self.shape(run.teacher)
        name = run.distiller.name
        if name == "kd_prompt":
            layers = options["kd_layers"]
            _refuse(
                (layers or 1) > depth,
                f"{where}.kd_layers",
                layers,
                f"at most the {depth} blocks of {run.backbone!r}",
            )
        if name in ("fitnets", "reviewkd"):
            _refuse(
                patch != teacher_patch,
                where,
                f"{run.teacher} to {run.backbone}",
                f"a pair with equal patch sizes, not {teacher_patch} and {patch}: "
                "it compares token by token",
            )
        if name == "reviewkd":
            _refuse(
                teacher_depth < depth,
                where,
                f"{run.teacher} to {run.backbone}",
                f"a teacher with at least {depth} blocks, not {teacher_depth}",
            )
        if name == "dkd":
            sizes = self.config["datasets"][run.dataset]["tasks"]
            alone = isinstance(sizes, list) and 1 in sizes and not run.method.joint
            _refuse(alone, where, f"tasks {sizes}", "two classes or more in every task")
        if name == "cdl_prompt":
            _refuse(
                run.method.name in ("apt", "head_only"),
                where,
                f"methods.{run.method.label}",
                "a method with prefixes (l2p, dual_prompt, coda_prompt): there is no prompt to map",
            )
            if options["mapping"] == "attention":
                _pool(where, options, teacher_width, width, run.n_tasks)


def _refuse(wrong: Any, field: str, value: Any, right: str) -> None:
    if wrong:
        raise ConfigError(f"{field}: {value!r} cannot work; needed is {right}")


def _known(field: str, names: Any, known: dict[str, Any]) -> None:
    for name in names:
        if name not in known:
            raise ConfigError(
                f"{field}: {name!r} is not defined; known are {', '.join(sorted(known))}"
            )


def _layers(field: str, layers: list[int], backbone: str, depth: int) -> None:
    if max(layers, default=0) >= depth:
        raise ConfigError(
            f"{field}: {max(layers)} is beyond {backbone!r}, whose {depth} "
            f"blocks are 0 to {depth - 1}"
        )


def _pool(where: str, options: dict[str, Any], query: int, width: int, n_tasks: int) -> None:
    """A pool of orthogonal components holds one per task at least, and no more than fit."""
    most = min(query, options["length"] * width)
    if not n_tasks <= options["pool"] <= most:
        raise ConfigError(
            f"{where}.pool: {options['pool']} is not between {n_tasks} (the number "
            f"of tasks) and {most}, the least of the query's width {query} and "
            f"length x width {options['length'] * width}"
        )


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]
