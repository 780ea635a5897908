"""The specification of a run, its protocol, and its row in the tables."""

import json
from typing import Any

from cdl import NUMERICS
from cdl.data.sources import images_per_class, modality_of
from cdl.distillers import DistillerFacts
from cdl.methods import PROMPTS, PromptFacts
from cdl.runtime.artifacts import fingerprint
from cdl.spec import (
    BF16,
    Distiller,
    InputView,
    Labels,
    LearnerSpec,
    Method,
    Stream,
    Training,
    Unlabelled,
)
from cdl.study.blocks import few_labels
from cdl.study.configuration import complete, preset, schema
from cdl.study.grid import Grid
from cdl.study.runs import Block, Run

_PAIR = ("teacher", "student")
OPTIMISER = ("betas", "lr", "schedule", "sgd")  # settings of gradient steps


def specification(grid: Grid, run: Run, task: int | None = None) -> LearnerSpec:
    """Return everything that determines a learner, for `cdl.training.task.learn_task`.

    Args:
        grid: grid of the run.
        run: the run.
        task: task after which the learner is specified, counted from 0; nothing in the
            specification depends on later tasks. None for the last task.
    """
    dataset, shared, teacher = grid.dataset(run), grid.config["protocol"], grid.teacher_of(run)
    tasks, labels, images = dataset["tasks"], dataset["labels"], dataset["images_per_class"]
    if run.method.joint:
        tasks = 1 if isinstance(tasks, int) else [sum(tasks)]
    fresh = run.role == "student" and shared["student_views"] == "fresh"
    alignment, teacher_method = run.method.alignment, run.teacher_method
    theirs = teacher.method.alignment if teacher else alignment
    spec = LearnerSpec(
        numerics=NUMERICS,
        seed=run.seed,
        role=run.role,
        backbone=run.backbone,
        query=run.query,
        teacher=run.teacher,
        method=Method(run.method.name, run.method.options),
        distiller=Distiller(run.distiller.name, run.distiller.options),
        stream=Stream.from_json({"tasks": tasks, "class_order": grid.class_order(run.dataset)}),
        images_per_class=tuple(images) if isinstance(images, list) else images,
        view=InputView.of(modality_of(dataset["source"]), dataset["view"]),
        normalization=shared["normalization"],
        auxiliary_weight=shared["auxiliary_weight"],
        training=_training(grid, run),
        labels=None if labels is None else Labels.from_json(labels),
        teacher_labels="all" if dataset["teacher_labels"] == "all" else None,
        unlabelled=_unlabelled(dataset, run.n_tasks),
        n_tasks=run.n_tasks if _counts_tasks(run) else None,
        alignment=alignment,
        teacher_alignment=None if theirs == alignment else theirs or "none",
        student_views="fresh" if fresh else None,
        views="per_draw" if few_labels(dataset) and shared["views"] == "per_draw" else None,
        teacher_method=None
        if teacher_method is None
        else Method(teacher_method.name, teacher_method.options),
        apt_teacher=shared["apt_teacher"] if teacher and teacher.prompts.merges else None,
        sizes=grid.sizes(run.backbones) or None,
        answers=run.answers,
        teacher_query=run.mapped_query,
        **_numerics(run),
        **_rounding(grid, run),
    )
    return spec.until(run.n_tasks - 1 if task is None else task)


def _training(grid: Grid, run: Run) -> Training:
    """Return the settings of training that the method reads."""
    given = {**grid.training(run), "schedule": grid.config["protocol"]["schedule"]}
    if run.prompts.names_optimiser(run.method.options):
        return Training.from_json(given)
    return Training.from_json({k: v for k, v in given.items() if k not in OPTIMISER})


def _unlabelled(dataset: dict[str, Any], n_tasks: int) -> Unlabelled | None:
    """Return how a dataset's additional unlabelled images are used; None without them."""
    if dataset["unlabelled"] is None:
        return None
    how = dataset["unlabelled"]["tasks"]
    return Unlabelled(how, n_tasks if how == "cut" else None)


def _counts_tasks(run: Run) -> bool:
    """Return whether the number of tasks affects the learner, through a shared pool."""
    kinds: list[tuple[Block, PromptFacts | DistillerFacts]]
    kinds = [(run.method, run.prompts), (run.distiller, run.distils)]
    if run.teacher_method is not None:  # the distiller may map its prompts
        kinds.append((run.teacher_method, PROMPTS[run.teacher_method.name]))
    return any(facts.counts_tasks and block.options.get("pool") for block, facts in kinds)


def _numerics(run: Run) -> dict[str, Any]:
    """Return the numerics of method and distiller, unless built in and at their first revision."""
    kinds: list[tuple[Block, PromptFacts | DistillerFacts]]
    kinds = [(run.method, run.prompts), (run.distiller, run.distils)]
    found = {
        "external": {b.name: f.numerics for b, f in kinds if not f.built_in},
        "revised": {b.name: f.numerics for b, f in kinds if f.built_in and f.numerics > 1},
    }
    return {name: numbers for name, numbers in found.items() if numbers}


def protocol(grid: Grid, run: Run) -> dict[str, Any]:
    """Return the protocol of a run, whose hash is in the tables.

    All students of a pair have the same protocol: of the backbones it has only the learner's own
    and that of its query.
    """
    block = grid.dataset(run)
    return {
        "numerics": NUMERICS,
        "protocol": grid.config["protocol"],
        "training": grid.config["training"] | {"batch_size": grid.training(run)["batch_size"]},
        "dataset": {k: v for k, v in block.items() if k not in ("source", "published")},
        "backbones": {
            name: grid.backbone_source(name) for name in sorted({run.backbone, run.query})
        },
        **({"sizes": sizes} if (sizes := grid.sizes({run.backbone, run.query})) else {}),
        **_rounding(grid),
    }


def row(grid: Grid, run: Run) -> dict[str, Any]:
    """Return the columns that identify a run in the tables, its teacher and its baseline."""
    none, teacher, dataset = grid.baseline(run), grid.teacher_of(run), grid.dataset(run)
    return {
        "dataset": run.dataset,
        "method": run.method.label,
        "teacher": run.teacher or "",
        "backbone": run.backbone,
        "distiller": run.distiller.name,
        "variant": run.distiller.variant,
        "seed": run.seed,
        "n_tasks": run.n_tasks,
        "role": run.role,
        "query": run.query,
        "teacher_method": run.teacher_method.label if run.teacher_method else "",
        "labels": labels_of(dataset["labels"]),
        "teacher_labels": labels_of(grid.dataset(teacher)["labels"]) if teacher else "",
        "method_options": chosen(grid, "methods", run.method),
        "distiller_options": chosen(grid, "distillers", run.distiller),
        "protocol": protocol(grid, run),
        "provenance": fingerprint(specification(grid, run).to_json()),
        "run": grid.files(run).folder,
        "trained_run": grid.files(grid.trained(run)).folder,
        "baseline_run": grid.files(none).folder if none else "",
        "teacher_run": grid.files(teacher).folder if teacher else "",
    }


def labels_of(given: dict[str, Any] | None) -> str:
    """Return the label level of a dataset as text: `10` per class, `10%`, or `all`."""
    if given is None:
        return "all"
    return str(given["per_class"]) if "per_class" in given else f"{100 * given['fraction']:g}%"


def label_levels(grid: Grid) -> dict[str, dict[str, float]]:
    """Return the label levels of every dataset that the grid has with at least two.

    Returns:
        By name of the dataset, the position of each level (see `labels_of`) on an axis of labels
        per class, in ascending order; in percent if any level is a percentage. If the number of
        images per class is unknown, `all` is at twice the highest other level, and numbers are
        left out of an axis in percent.
    """
    found: dict[str, set[str]] = {}
    for block in grid.datasets.values():
        found.setdefault(block.name, set()).add(labels_of(block.options["labels"]))
    levels = {name: _axis(own, grid.config["datasets"][name]) for name, own in found.items()}
    return {name: axis for name, axis in levels.items() if len(axis) > 1}


def _axis(levels: set[str], dataset: dict[str, Any]) -> dict[str, float]:
    """Return the positions of levels on an axis, in ascending order."""
    ((source, options),) = dataset["source"].items()
    given = dataset["images_per_class"]
    images = None if isinstance(given, list) else given or images_per_class(source, options)
    numbers = {level: float(level) for level in levels if level.isdecimal()}
    shares = {level: float(level[:-1]) for level in levels if level.endswith("%")}
    if shares:
        numbers = {level: 100 * x / images for level, x in numbers.items()} if images else {}
        images = 100.0
    axis = numbers | shares
    if "all" in levels:
        axis["all"] = float(images or 2 * max(axis.values(), default=1.0))
    return dict(sorted(axis.items(), key=lambda item: item[1]))


def chosen(grid: Grid, kind: str, block: Block) -> str:
    """Return the options of a block that differ from their defaults, as text.

    Args:
        grid: grid of the block.
        kind: `methods` or `distillers`.
        block: a method or distiller.

    Returns:
        Such as `alpha=0.9, temperature=4.0`; empty if all options have the defaults of preset and
        schema.
    """
    own = preset(grid.config["protocol"]["preset"]).get(kind, {}).get(block.name, {})
    defaults = complete(own, schema()["properties"][kind]["properties"][block.name])
    options = {k: v for k, v in block.options.items() if k in defaults and v != defaults[k]}
    options |= {f"training.{name}": value for name, value in block.training.items()}
    if block.aligning is None:
        options["alignment"] = None
    else:
        options |= {f"alignment.{name}": value for name, value in block.aligning.items()}
    return ", ".join(f"{name}={json.dumps(value)}" for name, value in sorted(options.items()))


def published(grid: Grid, dataset: str, teacher: str, student: str) -> dict[str, Any]:
    """Return the names that a dataset and the backbones of a pair have in the papers."""
    blocks = grid.config["backbones"]
    return {
        "dataset": grid.datasets[dataset].options["published"],
        "backbones": {name: blocks[name]["published"] for name in (teacher, student)},
    }


def in_use(grid: Grid) -> dict[str, Any]:
    """Return the configuration, reduced to what can change a result.

    Leaves out blocks that no run uses, where files are downloaded from, and where, how fast and
    with how much disk space results are computed.
    """
    kept = {
        "datasets": {block.name for block in grid.datasets.values()},
        "backbones": {
            pair[role]
            for pair in grid.config["grid"]["pairs"]
            for role in _PAIR
            if isinstance(pair[role], str)
        },
        "methods": {run.method.name for run in grid.runs},
        "distillers": {block.name for block in grid.distillers},
        "compute": grid.config["compute"].keys()
        - {"device", "jobs_per_gpu", "save_minutes", "targets_max_gb", "warm"},
    }
    return {
        key: {k: v for k, v in part.items() if k in kept[key]} if key in kept else part
        for key, part in grid.config.items()
        if key not in ("fetch", "chain", "deploy", "tune")
    }


def _rounding(grid: Grid, run: Run | None = None) -> dict[str, Any]:
    """Return the fields for rounding that differs from uncached fp32; empty without any."""
    compute, rounding = grid.config["compute"], {}
    reads = run is None or run.prompts.needs_query
    if run is not None and (teacher := grid.teacher_of(run)) is not None:
        reads |= teacher.prompts.needs_query or not run.reads_blocks or run.aligned
    if grid.cached and reads and compute["targets_dtype"] != "float32":
        rounding["cache_dtype"] = compute["targets_dtype"]
    precision = _precision(compute["precision"], run)
    if precision != "fp32":
        rounding |= {"precision": precision, "bf16": BF16}
    return rounding


def _precision(given: str | dict[str, str], run: Run | None) -> str | dict[str, str]:
    """Return the precision by role, or by backbone of a run; a single value if all are equal."""
    if isinstance(given, str):
        return given
    if run is not None:
        given = {name: given[run.role_of(name)] for name in run.backbones}
    values = set(given.values())
    return values.pop() if len(values) == 1 else given
