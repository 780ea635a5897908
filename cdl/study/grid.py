"""The grid: all runs of a configuration, and the folders of their results."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from itertools import product
from typing import Any

from cdl import layout
from cdl.backbones.shape import BackboneShape
from cdl.data.modalities import MODALITIES
from cdl.data.order import count_of
from cdl.data.sources import modality_of
from cdl.distillers import DISTILLERS
from cdl.spec import Answers
from cdl.study.answers import answers_of, check_answered, teacher_name
from cdl.study.blocks import (
    blocks_of,
    check_defined,
    check_unique,
    few_labels,
    of_student,
    renamed,
    taught_statistics,
    uses_teacher,
)
from cdl.study.configuration import ConfigError
from cdl.study.contents import domains_in
from cdl.study.runs import Block, Run, as_list
from cdl.study.validation import (
    ClassOrder,
    known_images,
    shape_of,
    sized,
    validate_batches,
    validate_dataset,
    validate_run,
)

_OPTIONS = {name: option["default"] for name, option in DISTILLERS["none"].options.items()}
_ALONE = Block("none", options=_OPTIONS, trains_as="none")  # of teachers and bounds


class Grid:
    """All runs of a resolved configuration, checked.

    Attributes:
        config: the resolved configuration.
        layout: paths of its results.
        datasets: the datasets in use, by label: a name, or `c+few` for a variant.
        methods: prompt methods with distillation.
        bounds: prompt methods without distillation.
        distillers: distillers of `methods`.
        runs: every learner, teachers before their students.
        comparisons: dataset, teacher and student of each table with published numbers, by the
            name of the table, such as `cifar100_base-small`.
        excluded: combinations without runs, each with one label of a dataset, method or distiller.
        deployed: runs to export and measure, including their teachers.
        answers: pairs' teachers that cdl does not train, by name: their files or classifiers.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        """Expand the grid; raise `ConfigError` if a combination is impossible."""
        self.config = config
        self._packed_names: dict[str, str] = {}
        self._backbone_names: dict[str, str] = {}
        self._trained: dict[Run, Run] = {}
        self._baselines: dict[Run, Run] = {}
        self.answers: dict[str, dict[str, Any]] = {}
        self._answered: dict[str, Answers] = {}
        self.layout = layout.Layout(config["name"])
        grid = config["grid"]
        blocks = blocks_of(config, "datasets", grid["datasets"] or sorted(config["datasets"]))
        check_unique("grid.datasets", blocks)
        self.datasets = {block.label: block for block in blocks}
        for block in blocks:
            self._fill_in_domains(block)
        self.methods = blocks_of(config, "methods", grid["methods"])
        self.bounds = blocks_of(config, "methods", grid["bounds"])
        self._by_label = {block.label: block for block in [*self.methods, *self.bounds]}
        self.distillers = blocks_of(config, "distillers", grid["distillers"])
        self.excluded = [
            dict(zip(entry, labels, strict=True))
            for entry in grid["exclude"]
            for labels in product(*map(as_list, entry.values()))
        ]
        self._validate()
        self._baseline_of = _baseline_of(grid["baseline"], [d.label for d in self.distillers])
        self.runs = list(dict.fromkeys(self._expand()))
        if not self.runs:
            raise ConfigError("grid.exclude: excludes all runs; list fewer combinations")
        self._by_folder = {run.folder: run for run in self.runs}
        self.comparisons = self._comparisons()
        self._shapes: dict[str, BackboneShape] = {}
        for run in self.runs:
            dataset, order = self.dataset(run), self.class_order(run.dataset)
            check_answered(run, dataset)
            validate_run(run, dataset, self.shape)
            named = isinstance(order, list) and any(isinstance(label, str) for label in order)
            if (known := known_images(dataset)) and not named:
                validate_batches(run, dataset, self.training(run), order, known)
        self.deployed = self._deployed()

    def _fill_in_domains(self, block: Block) -> None:
        """Replace `domains: null` by the names of all domains in the folder."""
        tasks, ((kind, source),) = block.options["tasks"], block.options["source"].items()
        if isinstance(tasks, dict):
            if not source.get("domains"):
                raise ConfigError(
                    f"datasets.{block.label}.tasks: invalid value 'by: domain' with the source "
                    f"{kind!r}; expected a folder with domains: true"
                )
            found = tasks["domains"] or domains_in({"name": kind, **source})
            block.options["tasks"] = {**tasks, "domains": found}

    def _validate(self) -> None:
        config, grid = self.config, self.config["grid"]
        if config["name"] in layout.RESERVED:
            raise ConfigError(f"name: {config['name']!r} is reserved; choose another")
        for dataset, block in self.datasets.items():
            validate_dataset(dataset, block.options, self.class_order(dataset))
            few = few_labels(block.options)
            if few and self.cached and config["protocol"]["views"] == "per_draw":
                raise ConfigError(
                    f"protocol.views: invalid value 'per_draw' with datasets.{dataset}.{few[0]} "
                    "and compute.targets: cached; expected online, since a cache has one view of "
                    "an image for each epoch"
                )
        for pair in grid["pairs"]:
            named = [name for name in (pair["teacher"], pair["student"]) if isinstance(name, str)]
            check_defined("grid.pairs", named, config["backbones"])
            _check_alone(pair)
            _check_compute(config["compute"], pair, config["backbones"])
        check_unique("grid.methods", [*self.methods, *self.bounds])
        check_unique("grid.distillers", self.distillers)
        labels = {
            "dataset": self.datasets.keys(),
            "method": {block.label for block in [*self.methods, *self.bounds]},
            "distiller": {block.label for block in self.distillers},
        }
        for combination in self.excluded:
            for part, label in combination.items():
                check_defined("grid.exclude", [label], labels[part])

    def _expand(self) -> Iterator[Run]:
        """Yield every run, teachers first; a run that several students share is repeated."""
        own_query = self.config["protocol"]["query"] == "self"
        grid = self.config["grid"]
        for dataset, method, pair, seed in product(
            self.datasets, [*self.methods, *self.bounds], grid["pairs"], grid["seeds"]
        ):
            distillers = self._combined(dataset, method)
            if not distillers:
                continue
            teacher, student, answers = pair["teacher"], pair["student"], None
            if isinstance(teacher, dict):
                answers = self._answers(teacher)
                teacher = answers.name
            teacher_method = None if method in self.bounds else self._teacher_method(method, pair)
            query: str = teacher if own_query else student
            teacher_query = None if answers else query
            n_tasks = 1 if method.joint else count_of(self.datasets[dataset].options["tasks"])
            learner = partial(Run, seed=seed, n_tasks=n_tasks)
            alone: dict[str, Any] = {"distiller": _ALONE, "teacher": None, "teacher_query": None}
            # the students of bounds have no teacher
            if teacher is not None and answers is None and method not in self.bounds:
                yield learner(
                    dataset=self._home(dataset, "teacher"),
                    method=teacher_method or method,
                    role="teacher",
                    backbone=teacher,
                    query=query,
                    **alone,
                )
            students: dict[str, Run] = {}
            for distiller in distillers:
                taught = {"teacher": teacher, "teacher_query": teacher_query}
                taught |= {"teacher_method": teacher_method, "answers": answers}
                own = of_student(method, distiller)
                reads_teacher = uses_teacher(distiller) or taught_statistics(own)
                _check_taught(reads_teacher, teacher, distiller)
                fields = (taught if reads_teacher else alone) | {"distiller": distiller}
                students[distiller.label] = learner(
                    dataset=dataset if reads_teacher else self._home(dataset, "student"),
                    method=own,
                    role="student",
                    backbone=student,
                    query=student,
                    **fields,
                )
            yield from students.values()
            plain = students.get("none")
            for label, run in students.items():
                baseline = students.get(self.baseline_label(label), plain)
                if baseline is not None:
                    self._baselines.setdefault(run, baseline)

    def baseline_label(self, distiller: str) -> str:
        """Return the label of the distiller that a distiller's gain is over."""
        return self._baseline_of.get(distiller, "none")

    def _combined(self, dataset: str, method: Block) -> list[Block]:
        """Return the distillers of a dataset and a method that the grid does not exclude."""

        def excluded(distiller: Block) -> bool:
            labels = {"dataset": dataset, "method": method.label, "distiller": distiller.label}
            return any(part.items() <= labels.items() for part in self.excluded)

        every = [_ALONE] if method in self.bounds else self.distillers
        return [distiller for distiller in every if not excluded(distiller)]

    def _home(self, dataset: str, role: str) -> str:
        """Return the dataset whose folder has the runs of a learner without a teacher.

        Variants of a dataset that do not differ for this learner share one run, in the folder of
        the first variant.
        """
        name = self.datasets[dataset].name
        visible = _visible_options(self.datasets[dataset].options, role)
        return next(
            label
            for label, block in self.datasets.items()
            if block.name == name and _visible_options(block.options, role) == visible
        )

    def dataset(self, run: Run) -> dict[str, Any]:
        """Return the block of a run's dataset, reduced to what concerns this learner."""
        block = self.datasets[run.dataset].options
        if run.teacher is not None and few_labels(block):
            return block
        visible = _visible_options(block, run.role)
        whole = run.role == "teacher" and block["teacher_labels"] == "all"
        return visible | {"unlabelled": None} if whole else visible

    def class_order(self, dataset: str) -> ClassOrder:
        """Return the class order of a dataset: its own, or that of the protocol."""
        own: ClassOrder | None = self.datasets[dataset].options["class_order"]
        shared: ClassOrder = self.config["protocol"]["class_order"]
        return shared if own is None else own

    def _teacher_method(self, method: Block, pair: dict[str, Any]) -> Block | None:
        """Return the method of a pair's teacher, None if it is the student's method."""
        label = pair["teacher_method"]
        if label in (None, method.label):
            return None
        listed = {block.label: block for block in [*self.methods, *self.bounds]}
        defined = {*listed, *self.config["methods"]}
        check_defined("grid.pairs.teacher_method", [label], defined)
        found = listed.get(label) or blocks_of(self.config, "methods", [label])[0]
        if found.joint != method.joint:
            raise ConfigError(
                f"grid.pairs.teacher_method: invalid value {label!r} for {method.label!r}; "
                "expected joint: true for both or for neither"
            )
        return found

    def _answers(self, given: dict[str, Any]) -> Answers:
        """Return the specification of a teacher that cdl does not train."""
        name = teacher_name(given)
        known = self.answers.setdefault(name, given)
        if known != given:
            one, other = (own.get("answers") or own["classifier"] for own in (known, given))
            raise ConfigError(
                f"grid.pairs.teacher: {one!r} and {other!r} have the same name in tables, {name}; "
                "rename one"
            )
        if name not in self._answered:  # hashed once for all runs
            self._answered[name] = answers_of(given)
        return self._answered[name]

    def _comparisons(self) -> dict[str, tuple[str, str, str]]:
        """Return the tables with published numbers, see `comparisons`."""
        blocks, found = self.config["backbones"], {}
        for dataset, pair in product(self.datasets, self.config["grid"]["pairs"]):
            teacher, student = pair["teacher"], pair["student"]
            # no published numbers
            if not isinstance(teacher, str) or pair["teacher_method"] is not None:
                continue
            block = self.datasets[dataset].options
            parts = (block, blocks[teacher], blocks[student])
            if not few_labels(block) and all(part["published"] for part in parts):
                short = "-".join(name.removeprefix("vit_") for name in (teacher, student))
                name = f"{dataset}_{short}"
                if name in found:
                    raise ConfigError(
                        f"grid.pairs: two pairs have the same table name {name!r}; "
                        f"rename {teacher!r} or {student!r} in backbones"
                    )
                found[name] = (dataset, teacher, student)
        return found

    def _deployed(self) -> list[Run]:
        """Return the runs to export and measure, see `deployed`."""
        block = self.config["deploy"]
        if block is None:
            return []
        chosen: set[Run] = set()
        for pattern in block["runs"]:
            found = {run for run in self.runs if fnmatchcase(run.folder, pattern)}
            if not found:
                raise ConfigError(
                    f"deploy.runs: {pattern!r} matches no run of this configuration; expected a "
                    f"folder such as {self.runs[0].folder}, with * as a wildcard"
                )
            chosen |= found | {teacher for run in found if (teacher := self.teacher_of(run))}
        for run in chosen:
            facts = MODALITIES[modality_of(self.dataset(run)["source"])]
            if block["int8"] not in facts.int8:
                raise ConfigError(
                    f"deploy.int8: invalid value {block['int8']!r} for {run.folder}, a run on "
                    f"{facts.items}; expected {' or '.join(facts.int8)}"
                )
        for run in self.runs:
            if (
                run in chosen
                and run.mapped_query not in (None, run.query)
                and run.prompts.needs_query
            ):
                raise ConfigError(
                    f"deploy.runs: {run.folder} needs its teacher's ViT {run.mapped_query!r} at "
                    "prediction, which exports do not include; expected protocol.query: student"
                )
        return [run for run in self.runs if run in chosen]

    @property
    def modules(self) -> list[str]:
        """Modules that jobs import to open the backbones of these datasets."""
        sources = (block.options["source"] for block in self.datasets.values())
        kinds = {modality_of(source) for source in sources}
        return sorted(MODALITIES[kind].backbone.partition(":")[0] for kind in kinds)

    def run_of(self, dataset: str, method: str, learner: str, seed: str | int) -> Run:
        """Return the run with the given parts of its folder."""
        return self._by_folder[f"{dataset}/{method}/{learner}/seed{seed}"]

    def teacher_of(self, run: Run) -> Run | None:
        """Return the run of a student's teacher, None without one or if cdl does not train it."""
        if run.teacher is None or run.answers is not None:
            return None
        learner = f"teacher-{run.teacher}-q-{run.teacher_query}"
        method = run.teacher_method or run.method
        return self.run_of(self._home(run.dataset, "teacher"), method.label, learner, run.seed)

    def trained(self, run: Run) -> Run:
        """Return the run whose jobs train a run; runs that differ in alignment alone share it.

        Its folder has the checkpoints before the alignment. It is the run itself if the next task
        starts from aligned heads, and it is not always a run of the grid.
        """
        if run not in self._trained:
            self._trained[run] = self._without_alignment(run)
        return self._trained[run]

    def _without_alignment(self, run: Run) -> Run:
        """Return the run of `trained`."""
        if run.method.starts_aligned:
            return run
        method, distiller = replace(run.method, alignment=None), run.distiller
        listed = self._by_label.get(method.label, method)
        if run.role == "student" and not listed.starts_aligned:
            distiller = renamed(distiller, distiller.trains_as)
        if uses_teacher(run.distiller) or taught_statistics(method):
            # methods whose teachers' heads differ share nothing
            return replace(run, method=method, distiller=distiller)
        return replace(
            run,
            dataset=self._home(run.dataset, run.role),
            method=renamed(method, method.trains_as),
            distiller=distiller,
            teacher=None,
            teacher_query=None,
            teacher_method=None,
            answers=None,
        )

    def checkpoint(self, run: Run, task: int) -> str:
        """Return the path of a run's artifact after a task, after the alignment if there is one."""
        files = self.files(run if run.aligned else self.trained(run))
        return files.task(task).checkpoint(run.aligned)

    def baseline(self, run: Run) -> Run | None:
        """Return the student that a student's gain is over, by `grid.baseline`.

        It has the same data, method, pair and seed; if the grid leaves it out, plain `none` takes
        its place. None for teachers, and without either.
        """
        return self._baselines.get(run)

    def runs_on(self, dataset: str) -> list[Run]:
        """Return the runs of a dataset, and the teachers and baselines that it shares."""
        own = [run for run in self.runs if run.dataset == dataset]
        shared = [other for run in own for other in (self.teacher_of(run), self.baseline(run))]
        folders = {run.folder for run in (*own, *shared) if run}
        return [run for run in self.runs if run.folder in folders]

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
        """Return the optimisation of a learner: epochs, batch size, learning rate, betas.

        Later ones override earlier ones: `training`, `training.teacher`, the method's, the
        distiller's. The batch size is that of the teacher's backbone, if it is set there.
        """
        few = few_labels(self.dataset(run))
        skipped = {"teacher"} if few else {"teacher", "unlabelled_ratio"}
        training = {k: v for k, v in self.config["training"].items() if k not in skipped}
        if run.role == "teacher":
            overrides = self.config["training"]["teacher"]
            training |= {k: v for k, v in overrides.items() if v is not None}
        teacher = None if run.answers else run.teacher
        teacher = run.backbone if run.role == "teacher" else teacher
        own_size = self.config["backbones"][teacher]["batch_size"] if teacher else None
        batch_size = own_size or self.config["training"]["batch_size"]
        training |= run.method.training | run.distiller.training
        return training | {"batch_size": batch_size}

    def files(self, run: Run) -> layout.RunFiles:
        """Return the paths of a run."""
        return self.layout.run(run.folder)

    def deployed_files(self, run: Run) -> layout.DeployedFiles:
        """Return the paths of an exported run."""
        return self.layout.deployed(run.folder)

    @property
    def cached(self) -> bool:
        """Whether queries and teacher logits are cached on disk."""
        return bool(self.config["compute"]["targets"] == "cached")

    def test_images_per_class(self, dataset: str) -> int | None:
        """Return the number of test images per class; None for all."""
        n: int | None = self.datasets[dataset].options["test_images_per_class"]
        return n

    def source(self, dataset: str) -> dict[str, Any]:
        """Return the arguments of `cdl.data.packing.prepare` for a dataset."""
        block = self.datasets[dataset].options
        source = _packing_arguments(block["source"], block["short_side"])
        if (held_out := block["validation"]) is not None:
            evaluated = block["evaluate_on"] == "validation"
            source["validation"] = {**held_out, "evaluated": evaluated}
        return source

    def unlabelled_source(self, dataset: str) -> dict[str, Any] | None:
        """Return the same for a dataset's additional unlabelled images, None without them.

        If they are the dataset's own images, none of the held-out ones is among them.
        """
        block = self.datasets[dataset].options
        unlabelled = block["unlabelled"]
        if unlabelled and unlabelled["source"] == block["source"]:
            return self.source(dataset)
        return unlabelled and _packing_arguments(unlabelled["source"], block["short_side"])

    def unlabelled(self, dataset: str) -> layout.PackedFiles | None:
        """Return the paths of a dataset's packed unlabelled images, None without them."""
        source = self.unlabelled_source(dataset)
        name = self.datasets[dataset].name
        return None if source is None else layout.packed(layout.packed_name(name, source))

    def packed_name(self, dataset: str) -> str:
        """Return the name of a dataset's packed data; equal sources share it."""
        if dataset not in self._packed_names:
            name = layout.packed_name(self.datasets[dataset].name, self.source(dataset))
            self._packed_names[dataset] = name
        return self._packed_names[dataset]

    def packed(self, dataset: str) -> layout.PackedFiles:
        """Return the paths of a dataset's packed data."""
        return layout.packed(self.packed_name(dataset))

    def backbone_source(self, name: str) -> dict[str, Any]:
        """Return the arguments of `cdl.backbones.fetch.fetch`."""
        block = self.config["backbones"][name]
        kinds = ("embedded", "file", "timm", "hf", "folder", "onnx")
        given = {k: block[k] for k in kinds if block[k] is not None}
        if len(given) != 1:
            raise ConfigError(
                f"backbones.{name}: give exactly one of {', '.join(kinds[:-1])} and {kinds[-1]}, "
                f"not {sorted(given) or 'none'}"
            )
        ((source, model),) = given.items()
        if block["model"] is not None and source != "file":
            raise ConfigError(f"backbones.{name}.model: only valid together with file; remove it")
        valid = {"pooling": ("hf", "folder"), "revision": ("hf",)}
        valid |= dict.fromkeys(("mean", "std"), ("onnx",))
        more = {k: block[k] for k in valid if block[k] is not None}
        wrong = next((k for k in more if source not in valid[k]), None)
        if wrong is not None:
            raise ConfigError(
                f"backbones.{name}.{wrong}: only valid together with "
                f"{' or '.join(valid[wrong])}; remove it"
            )
        if source == "onnx":
            missing = next((k for k in ("mean", "std") if k not in more), None)
            if missing is not None:
                raise ConfigError(
                    f"backbones.{name}.{missing}: is missing; expected three numbers, one for each "
                    "channel of the images that the ONNX file reads"
                )
            more["size"] = block["size"]
        if block["model"] is not None:
            more["timm_model"] = block["model"]
        return {"source": source, "model": model, **more}

    def sizes(self, names: Iterable[str | None]) -> dict[str, int]:
        """Return the input sizes of the backbones for which views are resized, by name."""
        found = {name: self.shape(name).size for name in sorted(filter(None, names))}
        return {name: size for name, size in found.items() if size}

    def backbone_name(self, name: str) -> str:
        """Return the name of a backbone's artifact; equal sources share it."""
        if name not in self._backbone_names:
            found = layout.backbone_name(name, self.backbone_source(name))
            self._backbone_names[name] = found
        return self._backbone_names[name]

    def backbone(self, name: str) -> str:
        """Return the path of a backbone's artifact."""
        return layout.backbone(self.backbone_name(name))

    def shape(self, name: str) -> BackboneShape:
        """Return a backbone's shape; of its weights only those of an ONNX file are read."""
        if name not in self._shapes:
            shape = shape_of(name, **self.backbone_source(name))
            self._shapes[name] = sized(name, shape, self.config["backbones"][name]["size"])
        return self._shapes[name]


def _baseline_of(given: str | list[dict[str, Any]], labels: list[str]) -> dict[str, str]:
    """Return the label of the distiller that a distiller's gain is over, where it is not `none`."""
    if given == "none":
        return {}
    entries: list[dict[str, Any]]
    entries = [{"over": given, "distiller": labels}] if isinstance(given, str) else given
    found: dict[str, str] = {}
    for entry in entries:
        check_defined("grid.baseline", [entry["over"]], labels)
        for label in as_list(entry["distiller"]):
            check_defined("grid.baseline", [label], labels)
            if label in found:
                raise ConfigError(f"grid.baseline: {label!r} has two baselines; expected one")
            found[label] = entry["over"]
    return found


def _packing_arguments(source: dict[str, Any], short_side: int | None) -> dict[str, Any]:
    ((name, options),) = source.items()
    return {"source": {"name": name, **options}, "short_side": short_side}


def _visible_options(dataset: dict[str, Any], role: str) -> dict[str, Any]:
    """Return a dataset's options as a learner without a teacher sees them, by its role.

    Options that do not affect it have their default.
    """
    all_labels = role == "teacher" and dataset["teacher_labels"] == "all"
    return dataset | {"teacher_labels": "same"} | ({"labels": None} if all_labels else {})


def _check_alone(pair: dict[str, Any]) -> None:
    """Reject the method of a teacher in a pair without one."""
    if not isinstance(pair["teacher"], str) and pair["teacher_method"] is not None:
        raise ConfigError(
            f"grid.pairs.teacher_method: invalid value {pair['teacher_method']!r} without "
            "a backbone as the teacher; expected one, or no teacher_method"
        )


def _check_taught(reads_teacher: bool, teacher: str | None, distiller: Block) -> None:
    """Reject a distiller that reads a teacher in a pair without one."""
    if reads_teacher and teacher is None:
        raise ConfigError(
            f"grid.pairs.teacher: invalid value null with the distiller {distiller.label!r}; "
            "expected a backbone, since this distiller reads the outputs of a teacher"
        )


def _check_compute(
    compute: Mapping[str, Any], pair: dict[str, Any], blocks: Mapping[str, Any]
) -> None:
    """Reject a computation that a backbone cannot have.

    These are bf16 and CUDA graphs for an ONNX file, and precisions by role if one backbone has
    both roles, since jobs load it once.
    """
    given, teacher, student = compute["precision"], pair["teacher"], pair["student"]
    for role in ("teacher", "student"):
        own = given if isinstance(given, str) else given[role]
        onnx = isinstance(pair[role], str) and blocks[pair[role]]["onnx"]
        if onnx and own != "fp32":
            raise ConfigError(
                f"compute.precision: invalid value {own!r} for {pair[role]!r}; expected fp32: an "
                "ONNX file computes as it was written"
            )
        if onnx and compute["capture"]:
            raise ConfigError(
                f"compute.capture: invalid value true for {pair[role]!r}; expected false: an ONNX "
                "file computes on the CPU"
            )
    if teacher == student and not isinstance(given, str) and given["teacher"] != given["student"]:
        raise ConfigError(
            f"compute.precision: invalid value {given} for the pair {teacher!r} and {student!r}; "
            "expected one precision for both, or a second name of the backbone in backbones"
        )
