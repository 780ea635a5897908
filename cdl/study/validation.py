"""What cannot work is refused when the configuration is read, before any job starts."""

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError, safe_open

from cdl.backbones.architectures import Architecture, find, find_weights
from cdl.backbones.shape import BackboneShape
from cdl.data.order import count_of
from cdl.data.sources import SOURCES, images_per_class, n_training_images
from cdl.distillers import DISTILLERS, Distillation
from cdl.methods import PROMPTS, Prompting
from cdl.runtime.errors import CdlError
from cdl.runtime.facts import Unsuitable
from cdl.study.configuration import ConfigError
from cdl.study.estimate import DAYS, MEMORY, cache_gb, step_bytes, task_days
from cdl.study.runs import Run

T = TypeVar("T")
EMBEDDED = Path(__file__).parent.parent / "assets"


def shipped_backbones() -> dict[str, Path]:
    """Return the weights that ship with the package, by name."""
    return {path.stem: path for path in sorted(EMBEDDED.glob("*.safetensors"))}


def shape_of(name: str, source: str, model: str, timm_model: str | None = None) -> BackboneShape:
    """Return the shape of a backbone without loading it; raise `ConfigError` if that fails."""
    field = f"backbones.{name}.{source}"
    if source == "timm":
        return _known(field, lambda: find_weights(model))
    shipped = shipped_backbones()
    if source == "embedded" and model not in shipped:
        known = ", ".join(shipped)
        raise ConfigError(f"{field}: {model!r} cannot be read; embedded are {known}")
    header = _header(field, shipped[model] if source == "embedded" else Path(model), model)
    base = None
    if timm_model is not None:
        base = _known(f"backbones.{name}.model", lambda: find(timm_model))
    elif "timm_model" in header:
        base = _known(field, lambda: find(header["timm_model"]))
    try:
        return _of_header(header, base)
    except (ValueError, KeyError) as error:
        raise ConfigError(
            f"{field}: {model!r} says in its header neither timm_model nor embed_dim, depth, "
            "patch_size and num_heads, a divisor of embed_dim; name the timm model whose weights "
            f"it holds in backbones.{name}.model"
        ) from error


def _of_header(header: Mapping[str, str], base: BackboneShape | None) -> BackboneShape:
    """Return the shape that a header says, where it says nothing that of its timm model."""
    if base is not None:
        known = {"embed_dim": base.width, "depth": base.depth, "patch_size": base.patch}
        header = {**{key: str(value) for key, value in known.items()}, "num_heads": "1", **header}
    width, depth, patch, heads = (
        int(header[key]) for key in ("embed_dim", "depth", "patch_size", "num_heads")
    )
    if min(width, depth, patch, heads) < 1 or width % heads:
        raise ValueError
    return BackboneShape(width, depth, patch, base is None or base.class_token)


def _known(field: str, ask: Callable[[], Architecture]) -> BackboneShape:
    """Return the shape of an architecture that the table knows and accepts."""
    try:
        shape = ask().shape
    except CdlError as error:
        raise ConfigError(f"{field}: {error}") from error
    assert shape is not None, "what is found is accepted"
    return shape


def _header(field: str, path: Path, model: str) -> dict[str, str]:
    """Return the metadata in the header of a .safetensors file."""
    validate_path(field, model)
    try:
        if path.exists() and not path.is_file():  # a device or a pipe might never end
            raise SafetensorError("it is no file")
        path.open("rb").close()  # what the system says of a path is clearer than what Rust says
        with safe_open(path, framework="numpy") as file:
            return dict(file.metadata() or {})
    except OSError as error:
        raise ConfigError(
            f"{field}: {model!r} cannot be read ({error.strerror}); give a .safetensors file"
        ) from error
    except SafetensorError as error:
        raise ConfigError(f"{field}: {model!r} is not a .safetensors file: {error}") from error


def validate_path(field: str, text: str, folder: str = "") -> None:
    """Raise `ConfigError` if a text cannot be a path; that nothing lies there yet is fine."""
    usable = text and text.isprintable() and not {"{", "}"} & set(text)
    _reject(not usable, field, text, "a path of printable characters without braces")
    try:
        os.stat(Path(folder, text))
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        _reject(True, field, text, f"a path that can be read ({error.strerror})")


def validate_dataset(
    name: str, dataset: dict[str, Any], class_order: str | list[int | str]
) -> None:
    """Raise `ConfigError` if a dataset's paths, views or tasks could only fail later.

    Args:
        name: of the dataset.
        dataset: its block of the configuration.
        class_order: as in the protocol.
    """
    field, ((kind, source),) = f"datasets.{name}", dataset["source"].items()
    _source(f"{field}.source.{kind}", source)
    for further in filter(None, [dataset.get("unlabelled")]):
        ((name_of, options),) = further["source"].items()
        _source(f"{field}.unlabelled.source.{name_of}", options)
    _held_out(name, dataset)
    view = dataset["view"]
    for key in ("crop_scale", "crop_ratio"):
        low, high = view[key]
        _reject(low > high, f"{field}.view.{key}", view[key], "the lower one first")
    resize = view["test_resize"]
    small = resize is not None and resize < view["size"]
    _reject(small, f"{field}.view.test_resize", resize, f"at least view.size, {view['size']}")
    side = dataset["short_side"] or 0
    right = f"a smaller number: an image would take about {3 * side**2 / 1e9:,.0f} GB of memory"
    _reject(3 * side**2 > MEMORY, f"{field}.short_side", side, right)
    if (n_classes := SOURCES[kind].n_classes) is not None:
        validate_classes(name, dataset, class_order, n_classes)
    if dataset["images_per_class"] is not None:
        _labels(name, dataset, dataset["images_per_class"], "each class (images_per_class)")


def validate_classes(
    name: str, dataset: dict[str, Any], class_order: str | list[int | str], n: int
) -> None:
    """Raise `ConfigError` if a dataset of `n` classes cannot be cut into its tasks, or ordered."""
    tasks = dataset["tasks"]
    if not isinstance(class_order, str):
        unknown = [x for x in class_order if isinstance(x, int) and x >= n]
        right = f"labels from 0 to {n - 1}, as {name!r} has, or names"
        _reject(unknown, "protocol.class_order", class_order, right)
        n = min(n, len(class_order))
    if isinstance(tasks, dict):
        return
    even = n % tasks == 0 if isinstance(tasks, int) else sum(tasks) <= n
    right = f"a divisor of its {n} classes in order, or sizes that sum to {n} or less"
    _reject(not even, f"datasets.{name}.tasks", tasks, right)


def validate_counts(
    name: str, dataset: dict[str, Any], counts: Mapping[str, tuple[int, int]]
) -> None:
    """Raise `ConfigError` if more images of each class are asked for than there are.

    Args:
        name: of the dataset.
        dataset: its block of the configuration.
        counts: training and test images of each class.
    """
    for i, key in enumerate(("images_per_class", "test_images_per_class")):
        asked, scarce = dataset[key], min(counts, key=lambda c: counts[c][i])
        least = counts[scarce][i]
        right = f"at most {least}, as class {scarce!r} has"
        _reject(asked is not None and asked > least, f"datasets.{name}.{key}", asked, right)
    scarce = min(counts, key=lambda c: counts[c][0])
    _labels(name, dataset, counts[scarce][0], f"class {scarce!r}")


def _labels(name: str, dataset: dict[str, Any], n: int, whose: str) -> None:
    """Refuse more labelled images of a class than there are."""
    asked = (dataset.get("labels") or {}).get("per_class", 0)
    right = f"at most {n}, the training images of {whose}"
    _reject(asked > n, f"datasets.{name}.labels.per_class", asked, right)


def _held_out(name: str, dataset: dict[str, Any]) -> None:
    """Refuse an evaluation on images that nobody holds out, and classes held out whole."""
    field, ((kind, source),) = f"datasets.{name}", dataset["source"].items()
    held, on = dataset.get("validation"), dataset.get("evaluate_on", "test")
    right = "validation: {per_class: N} beside it, which holds images out of training"
    _reject(held is None and on == "validation", f"{field}.evaluate_on", on, right)
    known = images_per_class(kind, source)
    if held is not None and known is not None:
        most = int(known) - 1
        whole, right = held["per_class"] > most, f"at most {most}, which leave one to train on"
        _reject(whole, f"{field}.validation.per_class", held["per_class"], right)


def _source(field: str, source: dict[str, Any]) -> None:
    """Refuse paths that cannot be read, and patterns that leave their folder."""
    if not source.keys() & {"path", "root"}:  # it comes with the package
        return
    for key in sorted(source.keys() & {"path", "root"}):
        validate_path(f"{field}.{key}", source[key])
        ours = Path(source[key]).resolve() in (Path.cwd(), *Path.cwd().parents)
        _reject(ours, f"{field}.{key}", source[key], "a folder that does not hold the results too")
    for key in sorted(source.keys() & {"train", "test"}):
        inside = Path(source[key])
        outside = inside.is_absolute() or not inside.parts or ".." in inside.parts
        right = "a name or pattern below the path, without '..' and '**'"
        _reject(outside or "**" in source[key], f"{field}.{key}", source[key], right)
        validate_path(f"{field}.{key}", source[key], source.get("path") or source["root"])
    if source.get("split") is not None:
        named = [source["train"], source["test"]]
        right = "no train and no test of their own, or no split"
        _reject(named != ["train", "test"], f"{field}.split", named, right)


def validate_run(run: Run, dataset: dict[str, Any], shape: Callable[[str], BackboneShape]) -> None:
    """Raise `ConfigError` if a run could only fail later.

    Args:
        run: what would be run.
        dataset: the configuration's block of its dataset.
        shape: name of a backbone to its shape.
    """
    own = shape(run.backbone)
    for name in (run.backbone, run.query):
        fed, patch = shape(name), shape(name).patch or 1
        size, field = _size(fed, dataset), _size_field(fed, name, run.dataset)
        _reject(size % patch, field, size, f"a multiple of {patch}, the patch size of {name!r}")
    _reject(
        run.prompts.adds_to_class_token and not own.class_token,
        f"methods.{run.method.label}",
        run.backbone,
        "a backbone with a class token, to which it adds",
    )
    _checked(f"methods.{run.method.label}", run.prompts.check, _prompting(run, shape))
    if run.method.alignment is not None:
        field, right = f"methods.{run.method.label}.alignment", "two tasks or more"
        _reject(run.n_tasks == 1, field, "one task", right)
        right = "tasks with classes of their own: it remembers a class by the task that brought it"
        _reject(isinstance(dataset["tasks"], dict), field, "tasks by domain", right)
        _spread(run.method.alignment["statistic"], field, dataset)
    if run.method.joint:
        right = "one task, tasks: 1, for all domains at once"
        field = f"methods.{run.method.label}.joint"
        _reject(isinstance(dataset["tasks"], dict), field, "tasks by domain", right)
    if run.teacher is not None:
        _soft(run, dataset)
        facts = _distillation(run, run.teacher, dataset, shape)
        _checked(f"distillers.{run.distiller.label}", run.distils.check, facts)


def _checked(block: str, check: Callable[[T], None], facts: T) -> None:
    """Call the check of a method or distiller; raise `ConfigError` on what it refuses."""
    try:
        check(facts)
    except Unsuitable as error:
        field = f"{block}.{error.field}" if error.field else block
        _reject(True, field, error.value, error.expected)


def _prompting(run: Run, shape: Callable[[str], BackboneShape]) -> Prompting:
    return Prompting(
        options=run.method.options,
        n_tasks=run.n_tasks,
        backbone=run.backbone,
        shape=shape(run.backbone),
        query_shape=shape(run.query),
        memory=MEMORY,
    )


def _distillation(
    run: Run, teacher: str, dataset: dict[str, Any], shape: Callable[[str], BackboneShape]
) -> Distillation:
    own, theirs = (
        replace(found, size=_size(found, dataset)) for found in map(shape, (run.backbone, teacher))
    )
    return Distillation(
        options=run.distiller.options,
        method=run.method.name,
        tasks=dataset["tasks"],
        n_tasks=run.n_tasks,
        smallest_task=_smallest_task(run, dataset),
        student=run.backbone,
        student_shape=own,
        teacher=teacher,
        teacher_shape=theirs,
    )


def validate_sizes(
    run: Run,
    config: dict[str, Any],
    dataset: dict[str, Any],
    training: dict[str, Any],
    shape: Callable[[str], BackboneShape],
) -> None:
    """Raise `ConfigError` if a run asks for more memory, time or disk than can be had.

    Args:
        run: what would be run.
        config: the resolved configuration.
        dataset: the configuration's block of its dataset.
        training: of the run, see `Grid.training`.
        shape: name of a backbone to its shape.
    """
    compute, epochs = config["compute"], training["epochs"]
    ratio = training.get("unlabelled_ratio", 0.0) if run.teacher is not None else 0.0
    batch = math.ceil(training["batch_size"] * (1 + ratio))
    _memory(run, config, dataset, batch, shape(run.backbone))
    ((source, options),) = dataset["source"].items()
    tasks = 1 if run.method.joint else dataset["tasks"]
    known = n_training_images(source, options, dataset["images_per_class"])
    images = known or training["batch_size"] * run.n_tasks  # of which there is a batch at least
    largest = images / count_of(tasks)
    if isinstance(tasks, list):
        largest = images * max(tasks) / sum(tasks)
    days = task_days(largest, epochs, training["batch_size"])
    own = run.role == "teacher" and config["training"]["teacher"]["epochs"] is not None
    right = (
        f"a smaller number: a task of {run.learner} would take about {days:,.0f} days"
        f"{'' if known else ' or more'}, and at most {DAYS:g} are planned for"
    )
    _reject(days > DAYS, f"training.{'teacher.' if own else ''}epochs", epochs, right)
    if compute["targets"] == "cached":
        _disk(run, images, epochs, SOURCES[source].n_classes or run.n_tasks, compute, shape)


def _memory(
    run: Run, config: dict[str, Any], dataset: dict[str, Any], batch: int, own: BackboneShape
) -> None:
    """Refuse a step that needs more memory than machines have, naming what is least usual."""
    size = _size(own, dataset)
    teacher = run.backbone if run.role == "teacher" else run.teacher
    asked = teacher and config["backbones"][teacher]["batch_size"]
    fields = {
        _size_field(own, run.backbone, run.dataset): (size, 224),
        f"backbones.{teacher}.batch_size" if asked else "training.batch_size": (batch, 64),
        **_prompt_sizes(run),
    }
    parameters, prompts = _prompt_numbers(run, own)
    needed = step_bytes(own, size, batch, parameters, prompts)
    name = max(fields, key=lambda field: fields[field][0] / fields[field][1])
    right = (
        f"a smaller number: a step of {run.learner} would take about {needed / 1e9:,.0f} GB of "
        f"memory, and at most {MEMORY / 1e9:,.0f} are planned for"
    )
    _reject(needed > MEMORY, name, fields[name][0], right)


def _disk(
    run: Run,
    images: int,
    epochs: int,
    classes: int,
    compute: dict[str, Any],
    shape: Callable[[str], BackboneShape],
) -> None:
    """Refuse caches that are larger than they may be; jobs know exactly and look again."""
    itemsize, limit = 2 if compute["targets_dtype"] == "float16" else 4, compute["targets_max_gb"]
    widths = {}
    if run.prompts.needs_query:
        widths["queries"] = float(shape(run.query).width)
    if run.teacher is not None and not run.reads_blocks:
        widths["teacher targets"] = classes / run.n_tasks
    for what, width in widths.items():
        needed = cache_gb(images, epochs, width, itemsize)
        right = (
            f"about {needed:.3g} for the {what} of all tasks of {run.dataset}; raise it, or set "
            "compute.targets to online"
        )
        _reject(needed > limit, "compute.targets_max_gb", limit, right)


def _prompt_sizes(run: Run) -> dict[str, tuple[int, int]]:
    """Return the fields that say how many prompt numbers there are: value and usual value."""
    usual = {
        "pool": 100,
        "pool_per_task": 10,
        "length": 20,
        "g_length": 6,
        "top_k": 5,
        "kd_length": 6,
    }
    blocks = {"methods": run.method, "distillers": run.distiller}
    return {
        f"{kind}.{block.label}.{key}": (block.options[key], usual[key])
        for kind, block in blocks.items()
        for key in usual.keys() & block.options.keys()
        if block.options[key] is not None
    }


def _prompt_numbers(run: Run, own: BackboneShape) -> tuple[int, int]:
    """Return how many numbers of prompts learn, and how many tokens an image gets from them."""
    method, distiller = run.method.options, run.distiller.options
    layers = len(method.get("e_layers", method.get("layers", ())))
    general = method.get("g_length", 0) * len(method.get("g_layers", ()))
    token = distiller.get("kd_length", 0) * (distiller.get("kd_layers") or own.depth)
    mapped = distiller.get("length", 0)
    pool, length = _entries(method, run.n_tasks), method.get("length", 0) * layers
    learning = pool * length + general + token + _entries(distiller, run.n_tasks) * mapped
    return learning * own.width, method.get("top_k", 1) * length + general + token + mapped


def _entries(options: dict[str, Any], n_tasks: int) -> int:
    """Return how many prompts or components there are after the last task."""
    entries: int = options.get("pool") or n_tasks * options.get("pool_per_task", 1)
    return entries


def _size(shape: BackboneShape, dataset: dict[str, Any]) -> int:
    """Return the side of what a backbone reads."""
    size: int = shape.size or dataset["view"]["size"]
    return size


def _size_field(shape: BackboneShape, backbone: str, dataset: str) -> str:
    return f"backbones.{backbone}.size" if shape.size else f"datasets.{dataset}.view.size"


def _reject(wrong: Any, field: str, value: Any, right: str) -> None:
    if wrong:
        raise ConfigError(f"{field}: {value!r} cannot work; needed is {right}")


def _spread(statistic: str, field: str, dataset: dict[str, Any]) -> None:
    """Refuse the spread of one image, of which a centroid alone can be kept."""
    one = (dataset.get("labels") or {}).get("per_class") == 1
    right = "centroid: of one labelled image a class there is no other"
    _reject(one and statistic != "centroid", f"{field}.statistic", statistic, right)


def _smallest_task(run: Run, dataset: dict[str, Any]) -> float:
    """Return the classes of the smallest task, infinity where they are not known yet."""
    sizes, n = dataset["tasks"], SOURCES[next(iter(dataset["source"]))].n_classes
    if isinstance(sizes, list):
        return sum(sizes) if run.method.joint else min(sizes)
    return math.inf if n is None or isinstance(sizes, dict) else n // run.n_tasks


def _soft(run: Run, dataset: dict[str, Any]) -> None:
    """Refuse what no distiller's soft loss could learn from."""
    field = f"distillers.{run.distiller.label}"
    few = run.distiller.options.get("standardize") and _smallest_task(run, dataset) < 3
    right = "three classes or more in every task: z-scores of two are constants"
    _reject(few, f"{field}.standardize", f"tasks {dataset['tasks']}", right)
    unsure = not run.prompts.trains and run.distiller.options.get("confidence") is not None
    right = f"null: a solve, as that of {run.method.label}, takes all that the teacher says"
    _reject(unsure, f"{field}.confidence", run.distiller.options.get("confidence"), right)
    foreign = not run.prompts.trains and not run.distils.suits_solve
    names = " or ".join(
        ["none", *(name for name, facts in DISTILLERS.items() if facts.suits_solve)]
    )
    right = f"{names}, whose soft labels its solve can take; list the combination in grid.exclude"
    _reject(foreign, field, f"methods.{run.method.label}", right)
    other = run.teacher_method.label if run.teacher_method else ""
    right = f"{run.method.label}, the student's: it maps the prompts of a teacher of its own method"
    _reject(other and run.distils.maps_prompts, field, f"teacher_method: {other}", right)
    own = run.distiller.methods.get(run.method.name)
    right = "none: it maps the prompts of a teacher that has its own method's options"
    _reject(own and run.distils.maps_prompts, f"{field}.methods", own, right)
    mappable = ", ".join(name for name, facts in PROMPTS.items() if facts.gives_prefixes)
    unmapped = run.distils.maps_prompts and not run.prompts.gives_prefixes
    right = f"a method with prefixes to map ({mappable}); list the combination in grid.exclude"
    _reject(unmapped, field, f"methods.{run.method.label}", right)
