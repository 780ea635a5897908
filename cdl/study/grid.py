"""The grid: which runs a configuration asks for, and where they lie."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from itertools import product
from typing import Any

from cdl import layout
from cdl.backbones.shape import BackboneShape
from cdl.data.order import count_of
from cdl.distillers import DISTILLERS
from cdl.methods import PROMPTS
from cdl.runtime.facts import Facts
from cdl.study.configuration import (
    ConfigError,
    alignment,
    complete,
    merge,
    optional,
    schema,
    validate_block,
)
from cdl.study.contents import domains_in
from cdl.study.runs import Block, Run
from cdl.study.validation import shape_of, validate_dataset, validate_run, validate_sizes

UNITS: dict[str, Mapping[str, Facts]] = {"methods": PROMPTS, "distillers": DISTILLERS}


class Grid:
    """All runs of a resolved configuration, checked.

    Attributes:
        config: the resolved configuration.
        layout: where its results lie.
        datasets: those that are used, by their label: a name, or `c+few` for a variant.
        methods: prompt methods that are distilled.
        bounds: prompt methods that are not.
        distillers: what they are distilled with.
        runs: every learner, teachers before their students.
        comparisons: by the name of a table, the dataset, teacher and student that are laid
            beside published numbers: `cifar100_base-small`.
        deployed: runs that are exported and measured, with the teachers of each.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        """Expand the grid; raise `ConfigError` if a combination cannot work."""
        self.config = config
        self._packed_names: dict[str, str] = {}
        self._backbone_names: dict[str, str] = {}
        self.layout = layout.Layout(config["name"])
        grid = config["grid"]
        blocks = self._blocks("datasets", grid["datasets"] or sorted(config["datasets"]))
        _unique("grid.datasets", blocks)
        self.datasets = {block.label: block for block in blocks}
        for block in blocks:
            self._name_domains(block)
        self.methods = self._blocks("methods", grid["methods"])
        self.bounds = self._blocks("methods", grid["bounds"])
        self.distillers = self._blocks("distillers", grid["distillers"])
        self._validate()
        self.runs = list(dict.fromkeys(self._expand()))
        if not self.runs:
            raise ConfigError("grid.exclude: leaves nothing to run; list fewer combinations")
        self._by_folder = {run.folder: run for run in self.runs}
        self.comparisons = self._comparisons()
        self._shapes: dict[str, BackboneShape] = {}
        for run in self.runs:
            validate_run(run, self.dataset(run), self.shape)
            validate_sizes(run, config, self.dataset(run), self.training(run), self.shape)
        self.deployed = self._deployed()

    def _name_domains(self, block: Block) -> None:
        """Put the domains of a folder in the place of `domains: null`."""
        tasks, ((kind, source),) = block.options["tasks"], block.options["source"].items()
        if isinstance(tasks, dict):
            if not source.get("domains"):
                raise ConfigError(
                    f"datasets.{block.label}.tasks: by domain cannot work with the source "
                    f"{kind!r}; needed is a folder with domains: true"
                )
            found = tasks["domains"] or domains_in({"name": kind, **source})
            block.options["tasks"] = {**tasks, "domains": found}

    def _validate(self) -> None:
        config, grid = self.config, self.config["grid"]
        if config["name"] in layout.RESERVED:
            raise ConfigError(f"name: {config['name']!r} is reserved; choose another")
        for dataset, block in self.datasets.items():
            validate_dataset(dataset, block.options, config["protocol"]["class_order"])
        for pair in grid["pairs"]:
            _known("grid.pairs", (pair["teacher"], pair["student"]), config["backbones"])
            if pair["teacher"] == pair["student"]:
                raise ConfigError(
                    f"grid.pairs: {pair['teacher']!r} is its own teacher; to distil "
                    "a backbone into itself give it a second name in backbones"
                )
        _unique("grid.methods", [*self.methods, *self.bounds])
        _unique("grid.distillers", self.distillers)
        known = {
            "dataset": self.datasets.keys(),
            "method": {block.label for block in [*self.methods, *self.bounds]},
            "distiller": {block.label for block in self.distillers},
        }
        for named in grid["exclude"]:
            for part, label in named.items():
                _known("grid.exclude", [label], known[part])

    def _blocks(self, kind: str, entries: list[Any]) -> list[Block]:
        blocks = []
        for entry in entries:
            entry = {"block": entry, "variant": ""} if isinstance(entry, str) else dict(entry)
            name, variant = entry.pop("block"), entry.pop("variant")
            _known(f"grid.{kind}", [name], self.config[kind])
            training = entry.pop("training", {}) if kind == "distillers" else {}
            validate_block(training, _overrides(), f"grid.{kind}.{variant}.training")
            training = complete(training, _overrides())
            methods = _methods(entry.pop("methods", {})) if kind == "distillers" else {}
            if name == "none" and variant and not training and not methods:
                raise ConfigError(f"grid.{kind}: none has no variant {variant!r}; write none")
            section = schema()["properties"][kind]
            part = section.get("properties", {}).get(name) or section["additionalProperties"]
            validate_block(entry, optional(part), f"grid.{kind}.{variant}")
            options = told(complete(merge(self.config[kind][name], entry, part), part), part)
            fields = UNITS[kind][name].protocol if kind in UNITS else ()
            options |= {field: self.config["protocol"][field] for field in sorted(fields)}
            joint, given = options.pop("joint", False), options.pop("alignment", None)
            aligned = given and alignment(given)
            blocks.append(Block(name, variant, options, joint, aligned, training, methods))
        return blocks

    def _expand(self) -> Iterator[Run]:
        """Yield every run, teachers first, some more than once."""
        own_query = self.config["protocol"]["query"] == "self"
        none = Block("none")
        grid = self.config["grid"]
        for dataset, method, pair, seed in product(
            self.datasets, [*self.methods, *self.bounds], grid["pairs"], grid["seeds"]
        ):
            distillers = self._combined(dataset, method)
            if not distillers:
                continue
            teacher, student = pair["teacher"], pair["student"]
            foreign = None if method in self.bounds else self._teacher_method(method, pair)
            teacher_query = teacher if own_query else student
            n_tasks = 1 if method.joint else count_of(self.datasets[dataset].options["tasks"])
            learner = partial(Run, seed=seed, n_tasks=n_tasks)
            alone: dict[str, Any] = {"distiller": none, "teacher": None, "teacher_query": None}
            yield learner(
                dataset=self._home(dataset, "teacher"),
                method=foreign or method,
                role="teacher",
                backbone=teacher,
                query=teacher_query,
                **alone,
            )
            for distiller in distillers:
                taught = {"teacher": teacher, "teacher_query": teacher_query}
                taught |= {"distiller": distiller, "teacher_method": foreign}
                home = self._home(dataset, "student") if distiller.name == "none" else dataset
                taught = alone | {"distiller": distiller} if distiller.name == "none" else taught
                options = method.options | distiller.methods.get(method.name, {})
                yield learner(
                    dataset=home,
                    method=replace(method, options=options),
                    role="student",
                    backbone=student,
                    query=student,
                    **taught,
                )

    def _combined(self, dataset: str, method: Block) -> list[Block]:
        """Return the distillers that a dataset and a method are combined with."""

        def excluded(distiller: Block) -> bool:
            named = {"dataset": dataset, "method": method.label, "distiller": distiller.label}
            return any(part.items() <= named.items() for part in self.config["grid"]["exclude"])

        every = [Block("none")] if method in self.bounds else self.distillers
        return [distiller for distiller in every if not excluded(distiller)]

    def _home(self, dataset: str, role: str) -> str:
        """Return the dataset under whose label a learner without a teacher lies.

        Variants in which it sees the same share it: the first of them has it.
        """
        name, seen = self.datasets[dataset].name, _seen(self.datasets[dataset].options, role)
        return next(
            label
            for label, block in self.datasets.items()
            if block.name == name and _seen(block.options, role) == seen
        )

    def dataset(self, run: Run) -> dict[str, Any]:
        """Return the block of a run's dataset, with what of the labels concerns this learner."""
        block = self.datasets[run.dataset].options
        few = block.keys() & {"labels", "unlabelled"}
        if run.teacher is not None and few:
            return block
        whole = run.role == "teacher" and block.get("teacher_labels") == "all"
        hidden = {"unlabelled"} if whole else set()
        return {k: v for k, v in _seen(block, run.role).items() if k not in hidden}

    def _teacher_method(self, method: Block, pair: dict[str, Any]) -> Block | None:
        """Return the method of a pair's teacher, None if it is the student's own."""
        label = pair["teacher_method"]
        if label in (None, method.label):
            return None
        listed = {block.label: block for block in [*self.methods, *self.bounds]}
        _known("grid.pairs.teacher_method", [label], {*listed, *self.config["methods"]})
        found = listed.get(label) or self._blocks("methods", [label])[0]
        if found.joint != method.joint:
            raise ConfigError(
                f"grid.pairs.teacher_method: {label!r} cannot teach {method.label!r}, of which "
                "one learns all tasks at once; needed is joint for both or for neither"
            )
        return found

    def _comparisons(self) -> dict[str, tuple[str, str, str]]:
        blocks, found = self.config["backbones"], {}
        for dataset, pair in product(self.datasets, self.config["grid"]["pairs"]):
            teacher, student = pair["teacher"], pair["student"]
            if pair["teacher_method"] is not None:  # no paper has one
                continue
            block = self.datasets[dataset].options
            named = (block, blocks[teacher], blocks[student])
            if not block.keys() & {"labels", "unlabelled"} and all(
                part["published"] for part in named
            ):
                short = "-".join(name.removeprefix("vit_") for name in (teacher, student))
                name = f"{dataset}_{short}"
                if name in found:
                    raise ConfigError(
                        f"grid.pairs: two of them would share the table {name!r}; "
                        f"rename {teacher!r} or {student!r} in backbones"
                    )
                found[name] = (dataset, teacher, student)
        return found

    def _deployed(self) -> list[Run]:
        """Return the runs that are exported and measured side by side."""
        block = self.config["deploy"]
        if block is None:
            return []
        chosen: set[Run] = set()
        for pattern in block["runs"]:
            found = {run for run in self.runs if fnmatchcase(run.folder, pattern)}
            if not found:
                raise ConfigError(
                    f"deploy.runs: {pattern!r} is no run of this configuration; they are written "
                    f"as {self.runs[0].folder}, * stands for anything"
                )
            chosen |= found | {teacher for run in found if (teacher := self.teacher_of(run))}
        for run in self.runs:
            if (
                run in chosen
                and run.mapped_query not in (None, run.query)
                and run.prompts.needs_query
            ):
                raise ConfigError(
                    f"deploy.runs: {run.folder} reads its teacher's ViT {run.mapped_query!r} at "
                    "prediction, which no export holds; needed is protocol.query: student"
                )
        return [run for run in self.runs if run in chosen]

    def run_of(self, dataset: str, method: str, learner: str, seed: str | int) -> Run:
        """Return a run by the parts of its folder."""
        return self._by_folder[f"{dataset}/{method}/{learner}/seed{seed}"]

    def teacher_of(self, run: Run) -> Run | None:
        """Return the run whose learner teaches this one."""
        if run.teacher is None:
            return None
        learner = f"teacher-{run.teacher}-q-{run.teacher_query}"
        method = run.teacher_method or run.method
        return self.run_of(self._home(run.dataset, "teacher"), method.label, learner, run.seed)

    def undistilled(self, run: Run) -> Run | None:
        """Return the run that a student is compared with, if there is one."""
        if run.role != "student":
            return None
        home = self._home(run.dataset, "student")
        where, learner = f"{home}/{run.method.label}", f"{run.backbone}-q-{run.query}"
        variant = run.distiller.variant.rpartition(".")[2]
        roles = (f"student+{variant}", "student")  # of the same name if there is one
        folders = (f"{where}/{role}-{learner}/seed{run.seed}" for role in roles)
        return next((self._by_folder[f] for f in folders if f in self._by_folder), None)

    def runs_on(self, dataset: str) -> list[Run]:
        """Return a dataset's runs, and those of other variants that it shares with them."""
        own = [run for run in self.runs if run.dataset == dataset]
        beside = [other for run in own for other in (self.teacher_of(run), self.undistilled(run))]
        shown = {run.folder for run in (*own, *beside) if run}
        return [run for run in self.runs if run.folder in shown]

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
            for run in self.runs_on(dataset)
            if run.teacher_method is None
            and (run.role, run.backbone, run.query, run.teacher) in wanted
        ]

    def training(self, run: Run) -> dict[str, Any]:
        """Return how a learner's tasks are optimised: epochs, batch size, learning rate, betas.

        The batch size is what its teacher's backbone asks for, if it does.
        """
        few = self.dataset(run).keys() & {"labels", "unlabelled"}
        skipped = {"teacher"} if few else {"teacher", "unlabelled_ratio"}
        training = {k: v for k, v in self.config["training"].items() if k not in skipped}
        if run.role == "teacher":
            overrides = self.config["training"]["teacher"]
            training |= {k: v for k, v in overrides.items() if v is not None}
        teacher = run.backbone if run.role == "teacher" else run.teacher
        asked = self.config["backbones"][teacher]["batch_size"] if teacher else None
        batch_size = asked or self.config["training"]["batch_size"]
        return training | run.distiller.training | {"batch_size": batch_size}

    def files(self, run: Run) -> layout.RunFiles:
        """Return where a run lies."""
        return self.layout.run(run.folder)

    def deployed_files(self, run: Run) -> layout.DeployedFiles:
        """Return where an exported run lies."""
        return self.layout.deployed(run.folder)

    @property
    def cached(self) -> bool:
        """Whether queries and teacher logits are artifacts of their own."""
        return bool(self.config["compute"]["targets"] == "cached")

    def test_images_per_class(self, dataset: str) -> int | None:
        """Return how many test images of each class count; None for all."""
        n: int | None = self.datasets[dataset].options["test_images_per_class"]
        return n

    def source(self, dataset: str) -> dict[str, Any]:
        """Return the arguments of `cdl.data.packing.prepare` for a dataset."""
        block = self.datasets[dataset].options
        source = _packing(block["source"], block["short_side"])
        if (held_out := block.get("validation")) is not None:
            evaluated = block.get("evaluate_on") == "validation"
            source["validation"] = {**held_out, "evaluated": evaluated}
        return source

    def unlabelled_source(self, dataset: str) -> dict[str, Any] | None:
        """Return the same for a dataset's further images, None without them."""
        block = self.datasets[dataset].options
        further = block.get("unlabelled")
        return further and _packing(further["source"], block["short_side"])

    def unlabelled(self, dataset: str) -> layout.PackedFiles | None:
        """Return where a dataset's further images lie packed, None without them."""
        source = self.unlabelled_source(dataset)
        name = self.datasets[dataset].name
        return None if source is None else layout.packed(layout.packed_name(name, source))

    def packed_name(self, dataset: str) -> str:
        """Return the name of a dataset's packed data, shared with whoever has the same source."""
        if dataset not in self._packed_names:
            name = layout.packed_name(self.datasets[dataset].name, self.source(dataset))
            self._packed_names[dataset] = name
        return self._packed_names[dataset]

    def packed(self, dataset: str) -> layout.PackedFiles:
        """Return where a dataset's packed data lie."""
        return layout.packed(self.packed_name(dataset))

    def backbone_source(self, name: str) -> dict[str, str]:
        """Return the arguments of `cdl.backbones.fetch.fetch`."""
        block = self.config["backbones"][name]
        given = {k: block[k] for k in ("embedded", "file", "timm") if block[k] is not None}
        if len(given) != 1:
            raise ConfigError(
                f"backbones.{name}: give exactly one of embedded, file and timm, "
                f"not {sorted(given) or 'none'}"
            )
        ((source, model),) = given.items()
        if block["model"] is None:
            return {"source": source, "model": model}
        if source != "file":
            raise ConfigError(f"backbones.{name}.model: it says what a file holds; remove it")
        return {"source": source, "model": model, "timm_model": block["model"]}

    def sizes(self, names: Iterable[str | None]) -> dict[str, int]:
        """Return the input sizes of those backbones whose views are resized."""
        blocks = self.config["backbones"]
        return {n: blocks[n]["size"] for n in sorted(filter(None, names)) if blocks[n]["size"]}

    def backbone_name(self, name: str) -> str:
        """Return the name of a backbone's artifact, shared like packed data."""
        if name not in self._backbone_names:
            found = layout.backbone_name(name, self.backbone_source(name))
            self._backbone_names[name] = found
        return self._backbone_names[name]

    def backbone(self, name: str) -> str:
        """Return the path of a backbone's artifact."""
        return layout.backbone(self.backbone_name(name))

    def shape(self, name: str) -> BackboneShape:
        """Return a backbone's shape without loading it."""
        if name not in self._shapes:
            shape = shape_of(name, **self.backbone_source(name))
            self._shapes[name] = replace(shape, size=self.config["backbones"][name]["size"])
        return self._shapes[name]


def _packing(source: dict[str, Any], short_side: int | None) -> dict[str, Any]:
    ((name, options),) = source.items()
    fields = schema()["properties"]["datasets"]["additionalProperties"]["properties"]
    options = told(options, fields["source"]["properties"][name])
    return {"source": {"name": name, **options}, "short_side": short_side}


def _seen(dataset: dict[str, Any], role: str) -> dict[str, Any]:
    """Return a dataset's block as a learner without a teacher sees it: a teacher may see more."""
    everything = role == "teacher" and dataset.get("teacher_labels") == "all"
    hidden = {"teacher_labels", *(("labels",) if everything else ())}
    return {key: value for key, value in dataset.items() if key not in hidden}


def _methods(given: dict[str, Any]) -> dict[str, Any]:
    """Return what a distiller's variant sets of its students' methods, by their names, checked."""
    known = schema()["properties"]["methods"]["properties"]
    _known("grid.distillers.methods", given, known)
    made = {}
    for name, options in given.items():
        part = {"type": "object", "additionalProperties": False, "properties": {}}
        fields = known[name]["properties"]
        part["properties"] = {k: v for k, v in fields.items() if k not in ("joint", "alignment")}
        validate_block(options, optional(part), f"grid.distillers.methods.{name}")
        kept = {k: v for k, v in complete(options, part).items() if k in options}
        made[name] = kept
    return made


def _overrides() -> dict[str, Any]:
    """Return the schema of what a variant may train otherwise: nothing that a cache depends on."""
    fields = schema()["properties"]["training"]["properties"]
    own = {k: {n: v for n, v in fields[k].items() if n != "default"} for k in ("lr", "betas")}
    return {"type": "object", "additionalProperties": False, "properties": own}


def told(options: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    """Leave out fields that a specification does not name at their default (`omit_default`).

    So runs from before such a field existed keep their specification.
    """
    fields = part["properties"]
    return {
        key: value
        for key, value in options.items()
        if not (fields[key].get("omit_default") and value == fields[key]["default"])
    }


def _known(field: str, names: Iterable[str], known: Iterable[str]) -> None:
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
