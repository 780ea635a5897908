"""What the numbers of a run are made of: its specification, its protocol, its row in the tables."""

import json
from typing import Any

from cdl import NUMERICS
from cdl.data.sources import images_per_class
from cdl.distillers import DistillerFacts
from cdl.methods import PROMPTS, PromptFacts
from cdl.runtime.artifacts import fingerprint
from cdl.spec import (
    BF16,
    Alignment,
    Distiller,
    Labels,
    LearnerSpec,
    Method,
    Stream,
    Training,
    Unlabelled,
    View,
)
from cdl.study.configuration import complete, preset, schema
from cdl.study.grid import Grid, told
from cdl.study.runs import Block, Run

_PAIR = ("teacher", "student")


def specification(grid: Grid, run: Run, task: int | None = None) -> LearnerSpec:
    """Return all that fixes a learner's numbers, for `cdl.training.task.learn_task`.

    After a task, counted from 0: nothing in it depends on later ones. Without one, after the last.
    """
    dataset, shared, teacher = grid.dataset(run), grid.config["protocol"], grid.teacher_of(run)
    tasks, labels = dataset["tasks"], dataset.get("labels")
    if run.method.joint:
        tasks = 1 if isinstance(tasks, int) else [sum(tasks)]
    fresh = run.role == "student" and shared["student_views"] == "fresh"
    aligned, other = run.method.alignment, run.teacher_method
    spec = LearnerSpec(
        numerics=NUMERICS,
        seed=run.seed,
        role=run.role,
        backbone=run.backbone,
        query=run.query,
        teacher=run.teacher,
        method=Method(run.method.name, run.method.options),
        distiller=Distiller(run.distiller.name, run.distiller.options),
        stream=Stream.from_json({"tasks": tasks, "class_order": shared["class_order"]}),
        images_per_class=dataset["images_per_class"],
        view=View.from_json(dataset["view"]),
        normalization=shared["normalization"],
        auxiliary_weight=shared["auxiliary_weight"],
        training=Training.from_json({**grid.training(run), "schedule": shared["schedule"]}),
        labels=None if labels is None else Labels.from_json(labels),
        teacher_labels=dataset.get("teacher_labels"),
        unlabelled=_unlabelled(dataset, run.n_tasks),
        n_tasks=run.n_tasks if _counts_tasks(run) else None,
        alignment=None if aligned is None else Alignment.from_json(aligned),
        student_views="fresh" if fresh else None,
        teacher_method=None if other is None else Method(other.name, other.options),
        apt_teacher=shared["apt_teacher"] if teacher and teacher.prompts.merges else None,
        sizes=grid.sizes({run.backbone, run.query, run.teacher, run.teacher_query}) or None,
        teacher_query=run.mapped_query,
        **_numerics(run),
        **_rounding(grid, run),
    )
    return spec.until(run.n_tasks - 1 if task is None else task)


def _unlabelled(dataset: dict[str, Any], n_tasks: int) -> Unlabelled | None:
    """Return how a dataset's further images are shown; None without them."""
    if "unlabelled" not in dataset:
        return None
    how = dataset["unlabelled"]["tasks"]
    return Unlabelled(how, n_tasks if how == "cut" else None)


def _counts_tasks(run: Run) -> bool:
    """Return whether something is shared by all tasks, so that their number matters."""
    kinds: list[tuple[Block, PromptFacts | DistillerFacts]]
    kinds = [(run.method, run.prompts), (run.distiller, run.distils)]
    if run.teacher_method is not None:  # whose prompts may be mapped
        kinds.append((run.teacher_method, PROMPTS[run.teacher_method.name]))
    return any(facts.counts_tasks and block.options.get("pool") for block, facts in kinds)


def _numerics(run: Run) -> dict[str, Any]:
    """Return the numerics of method and distiller, as far as the specification has them."""
    kinds: list[tuple[Block, PromptFacts | DistillerFacts]]
    kinds = [(run.method, run.prompts), (run.distiller, run.distils)]
    found = {
        "external": {b.name: f.numerics for b, f in kinds if not f.built_in},
        "revised": {b.name: f.numerics for b, f in kinds if f.built_in and f.numerics > 1},
    }
    return {name: numbers for name, numbers in found.items() if numbers}


def protocol(grid: Grid, run: Run) -> dict[str, Any]:
    """Return what a run's numbers share with those beside them: what the hash stands for.

    All students of a pair share one: it names the learner's own weights and those of its query,
    whatever else the grid holds.
    """
    block = told(grid.dataset(run), schema()["properties"]["datasets"]["additionalProperties"])
    training = told(grid.config["training"], schema()["properties"]["training"])
    return {
        "numerics": NUMERICS,
        "protocol": grid.config["protocol"],
        "training": training | {"batch_size": grid.training(run)["batch_size"]},
        "dataset": {k: v for k, v in block.items() if k not in ("source", "published")},
        "backbones": {
            name: grid.backbone_source(name) for name in sorted({run.backbone, run.query})
        },
        **({"sizes": sizes} if (sizes := grid.sizes({run.backbone, run.query})) else {}),
        **_rounding(grid),
    }


def row(grid: Grid, run: Run) -> dict[str, Any]:
    """Return the columns that identify a run in tables and link it to what it builds on."""
    none, teacher, dataset = grid.undistilled(run), grid.teacher_of(run), grid.dataset(run)
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
        "labels": labels_of(dataset.get("labels")),
        "teacher_labels": labels_of(grid.dataset(teacher).get("labels")) if teacher else "",
        "method_options": chosen(grid, "methods", run.method),
        "distiller_options": chosen(grid, "distillers", run.distiller),
        "protocol": protocol(grid, run),
        "provenance": fingerprint(specification(grid, run).to_json()),
        "run": grid.files(run).folder,
        "none_run": grid.files(none).folder if none else "",
        "teacher_run": grid.files(teacher).folder if teacher else "",
    }


def labels_of(given: dict[str, Any] | None) -> str:
    """Return what a dataset's `labels` says, for people: `10` of each class, `10%`, or `all`."""
    if given is None:
        return "all"
    return str(given["per_class"]) if "per_class" in given else f"{100 * given['fraction']:g}%"


def label_levels(grid: Grid) -> dict[str, dict[str, float]]:
    """Return the levels of labels of every dataset that a grid has at two of them or more.

    Returns:
        By the dataset's name, where each level (see `labels_of`) stands on an axis of labels per
        class, or of percent where there are shares; the lowest first. Where nothing says how many
        images a class has, `all` stands at twice the next level, and numbers beside shares nowhere.
    """
    found: dict[str, set[str]] = {}
    for block in grid.datasets.values():
        found.setdefault(block.name, set()).add(labels_of(block.options.get("labels")))
    levels = {name: _axis(own, grid.config["datasets"][name]) for name, own in found.items()}
    return {name: axis for name, axis in levels.items() if len(axis) > 1}


def _axis(levels: set[str], dataset: dict[str, Any]) -> dict[str, float]:
    """Return positions of levels on an axis, in ascending order."""
    ((source, options),) = dataset["source"].items()
    images = dataset["images_per_class"] or images_per_class(source, options)
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
    """Return the options of a block that differ from the preset's and the schema's, for people.

    Args:
        grid: of the block.
        kind: `methods` or `distillers`.
        block: a method or distiller.

    Returns:
        `alpha=0.9, temperature=4.0`, empty where all are the defaults.
    """
    own = preset(grid.config["protocol"]["preset"]).get(kind, {}).get(block.name, {})
    defaults = complete(own, schema()["properties"][kind]["properties"][block.name])
    options = {k: v for k, v in block.options.items() if k in defaults and v != defaults[k]}
    options |= {f"training.{name}": value for name, value in block.training.items()}
    return ", ".join(f"{name}={json.dumps(value)}" for name, value in sorted(options.items()))


def published(grid: Grid, dataset: str, teacher: str, student: str) -> dict[str, Any]:
    """Return what the papers call a dataset and the backbones of a pair."""
    blocks = grid.config["backbones"]
    return {
        "dataset": grid.datasets[dataset].options["published"],
        "backbones": {name: blocks[name]["published"] for name in (teacher, student)},
    }


def in_use(grid: Grid) -> dict[str, Any]:
    """Return the configuration, reduced to what can change a number.

    Blocks that no run uses are left out, and so is what only says where files come from, and
    where, how fast and in how much space numbers are computed.
    """
    kept = {
        "datasets": {block.name for block in grid.datasets.values()},
        "backbones": {p[role] for p in grid.config["grid"]["pairs"] for role in _PAIR},
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
    """Return what rounds otherwise than fp32 computed on the spot, nothing if nothing does."""
    compute, rounding = grid.config["compute"], {}
    reads = run is None or run.prompts.needs_query
    if run is not None and (teacher := grid.teacher_of(run)) is not None:
        reads |= teacher.prompts.needs_query or not run.reads_blocks
    if grid.cached and reads and compute["targets_dtype"] != "float32":
        rounding["cache_dtype"] = compute["targets_dtype"]
    precision = _precision(compute["precision"], run)
    if precision != "fp32":
        rounding |= {"precision": precision, "bf16": BF16}
    return rounding


def _precision(given: str | dict[str, str], run: Run | None) -> str | dict[str, str]:
    """Return what is given by role, or for the backbones of a run; one word if all are alike."""
    if isinstance(given, str):
        return given
    if run is not None:
        given = {name: given[run.role_of(name)] for name in run.backbones}
    words = set(given.values())
    return words.pop() if len(words) == 1 else given
