"""Reject impossible configurations before any job starts. Does not import torch."""

import math
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError, safe_open

from cdl.backbones import pretrained
from cdl.backbones.architectures import Architecture, find, find_weights
from cdl.backbones.shape import BackboneShape
from cdl.data.modalities import MODALITIES
from cdl.data.order import count_of, labels_of, sizes_of
from cdl.data.sources import SOURCES, images_per_class, modality_of, n_classes
from cdl.distillers import DISTILLERS, Distillation, DistillerFacts, softens
from cdl.methods import PROMPTS, Prompting
from cdl.runtime.errors import CdlError
from cdl.runtime.facts import Unsuitable
from cdl.study.blocks import few_labels
from cdl.study.configuration import ConfigError, complete, preset, schema
from cdl.study.runs import Run

T = TypeVar("T")
ClassOrder = str | list[int | str] | dict[str, int]  # as in a configuration
EMBEDDED = Path(__file__).parent.parent / "assets"
MEMORY = 10**12  # bytes, the limit for methods whose check estimates their memory


def shipped_backbones() -> dict[str, Path]:
    """Return the paths of the weights that ship with the package, by name."""
    return {path.stem: path for path in sorted(EMBEDDED.glob("*.safetensors"))}


def shape_of(
    name: str,
    source: str,
    model: str,
    timm_model: str | None = None,
    revision: str | None = None,
    pooling: str | None = None,
    size: int | None = None,
    **preparing: Any,
) -> BackboneShape:
    """Return the shape of a backbone; of these only an ONNX file is loaded.

    The arguments are those of `cdl.backbones.fetch.fetch`; the pooling does not change the shape.

    Raises:
        ConfigError: the model is unknown, unsupported, or its file cannot be read.
    """
    field = f"backbones.{name}.{source}"
    if source == "timm":
        return _supported_shape(field, lambda: find_weights(model))
    if source in (*pretrained.SOURCES, "onnx"):
        validate_path(field, model)
        try:
            if source == "onnx":
                from cdl.backbones import onnx_file  # numpy, which other plans do without

                return onnx_file.read_features(Path(model), size)[1]
            return pretrained.shape_of(source, model, revision)
        except CdlError as error:
            raise ConfigError(f"{field}: {error}") from error
    shipped = shipped_backbones()
    if source == "embedded" and model not in shipped:
        known = ", ".join(shipped)
        raise ConfigError(f"{field}: invalid value {model!r}; expected one of {known}")
    header = _header(field, shipped[model] if source == "embedded" else Path(model), model)
    base = None
    if timm_model is not None:
        base = _supported_shape(f"backbones.{name}.model", lambda: find(timm_model))
    elif "timm_model" in header:
        base = _supported_shape(field, lambda: find(header["timm_model"]))
    try:
        return _shape_in_header(header, base)
    except (ValueError, KeyError) as error:
        raise ConfigError(
            f"{field}: the header of {model!r} has neither timm_model nor embed_dim, depth, "
            "patch_size and num_heads, a divisor of embed_dim; name the timm model of these "
            f"weights in backbones.{name}.model"
        ) from error


def _shape_in_header(header: Mapping[str, str], base: BackboneShape | None) -> BackboneShape:
    """Return the shape in a file's header; missing entries come from its timm model.

    Raises:
        KeyError: an entry is missing and there is no timm model.
        ValueError: an entry is not a valid number.
    """
    if base is not None and base.unprompted:
        return base
    if base is not None:
        known = {"embed_dim": base.width, "depth": base.depth, "patch_size": base.patch}
        header = {**{key: str(value) for key, value in known.items()}, "num_heads": "1", **header}
    width, depth, patch, heads = (
        int(header[key]) for key in ("embed_dim", "depth", "patch_size", "num_heads")
    )
    if min(width, depth, patch, heads) < 1 or width % heads:
        raise ValueError
    if base is None:
        return BackboneShape(width, depth, patch)
    return replace(base, width=width, depth=depth, patch=patch)


def sized(name: str, shape: BackboneShape, size: int | None) -> BackboneShape:
    """Return the shape of a backbone with the size in its block of the configuration.

    Raises:
        ConfigError: only its feature is read, and its input cannot have this size.
    """
    if shape.unprompted and size is not None and size != shape.size:
        right = f"{shape.size}, the size of its pretraining"
        right += f", or a multiple of {shape.patch}" if shape.patch else ""
        _reject(shape.patch is None or size % shape.patch, f"backbones.{name}.size", size, right)
    return replace(shape, size=size or shape.size)


def _supported_shape(field: str, look_up: Callable[[], Architecture]) -> BackboneShape:
    """Return the shape of a supported architecture; raise `ConfigError` for any other."""
    try:
        shape = look_up().shape
    except CdlError as error:
        raise ConfigError(f"{field}: {error}") from error
    assert shape is not None, "a look-up returns supported architectures only"
    return shape


def _header(field: str, path: Path, model: str) -> dict[str, str]:
    """Return the metadata in the header of a .safetensors file."""
    validate_path(field, model)
    try:
        if path.exists() and not path.is_file():  # reading a device or a pipe might never end
            raise SafetensorError("not a regular file")
        path.open("rb").close()  # the system's error message is clearer than that of safetensors
        with safe_open(path, framework="numpy") as file:
            return dict(file.metadata() or {})
    except OSError as error:
        raise ConfigError(
            f"{field}: {model!r} cannot be read ({error.strerror}); give a .safetensors file"
        ) from error
    except SafetensorError as error:
        raise ConfigError(f"{field}: {model!r} is not a .safetensors file: {error}") from error


def validate_path(field: str, text: str, folder: str = "") -> None:
    """Raise `ConfigError` if a text cannot be a path; the path need not exist yet."""
    usable = text and text.isprintable() and not {"{", "}"} & set(text)
    _reject(not usable, field, text, "a path of printable characters without braces")
    try:
        os.stat(Path(folder, text))
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        _reject(True, field, text, f"a path that can be read ({error.strerror})")


def validate_dataset(name: str, dataset: dict[str, Any], class_order: ClassOrder) -> None:
    """Raise `ConfigError` if the paths, views or tasks of a dataset are impossible.

    Args:
        name: name of the dataset.
        dataset: its block of the configuration.
        class_order: its class order, see `cdl.study.grid.Grid.class_order`.
    """
    field, ((kind, source),) = f"datasets.{name}", dataset["source"].items()
    _validate_source(f"{field}.source", kind, source)
    uneven = class_order == "seeded_tasks" and not isinstance(dataset["tasks"], int)
    right = "a number of equal tasks, which class_order: seeded_tasks shuffles"
    _reject(uneven, f"{field}.tasks", dataset["tasks"], right)
    if (unlabelled := dataset["unlabelled"]) is not None:
        ((unlabelled_kind, options),) = unlabelled["source"].items()
        _validate_source(f"{field}.unlabelled.source", unlabelled_kind, options)
    _validate_held_out(name, dataset)
    if (labels := dataset["labels"]) is not None:
        kinds = labels.keys() & {"per_class", "fraction"}
        _reject(len(kinds) != 1, f"{field}.labels", labels, "either per_class or fraction")
    _validate_modality(field, dataset)
    if (n := n_classes(kind, source)) is not None:
        validate_classes(name, dataset, class_order, n)
    _validate_images(name, dataset)


def _validate_modality(field: str, dataset: dict[str, Any]) -> None:
    """Reject views and options that do not fit the modality of a dataset."""
    kind = modality_of(dataset["source"])
    facts, short = MODALITIES[kind], dataset["short_side"]
    try:
        facts.check(f"{field}.view", dataset["view"])
    except CdlError as error:
        raise ConfigError(str(error)) from error
    right = f"null: {facts.items} are stored as they are"
    _reject(short is not None and not facts.resizes, f"{field}.short_side", short, right)
    if (unlabelled := dataset["unlabelled"]) is not None:
        found = MODALITIES[modality_of(unlabelled["source"])].items
        right = f"a source of {facts.items}, as datasets.source"
        _reject(found != facts.items, f"{field}.unlabelled.source", f"a source of {found}", right)


def validate_classes(name: str, dataset: dict[str, Any], class_order: ClassOrder, n: int) -> None:
    """Raise `ConfigError` if tasks or class order do not fit a dataset of `n` classes."""
    tasks = dataset["tasks"]
    if isinstance(class_order, list):
        unknown = [x for x in class_order if isinstance(x, int) and x >= n]
        right = f"labels from 0 to {n - 1}, those of {name!r}, or names"
        own = dataset["class_order"] is not None
        field = f"datasets.{name}.class_order" if own else "protocol.class_order"
        _reject(unknown, field, class_order, right)
        n = min(n, len(class_order))
    if isinstance(tasks, dict):
        return
    even = n % tasks == 0 if isinstance(tasks, int) else sum(tasks) <= n
    right = f"a divisor of its {n} classes in order, or sizes that sum to {n} or less"
    _reject(not even, f"datasets.{name}.tasks", tasks, right)


def validate_batches(
    run: Run,
    dataset: dict[str, Any],
    training: Mapping[str, Any],
    order: ClassOrder,
    images: Mapping[str, int],
) -> None:
    """Raise `ConfigError` if a learner has a task that it cannot train on.

    Args:
        run: run of the grid.
        dataset: block of its dataset, see `cdl.study.grid.Grid.dataset`.
        training: its optimisation, see `cdl.study.grid.Grid.training`.
        order: class order of the dataset.
        images: training examples of each class, by name in label order.
    """
    if not run.prompts.trains or isinstance(dataset["tasks"], dict):
        return
    drawn = not isinstance(order, list) and order not in ("natural", "seeded_tasks")
    counts = list(images.values())
    if drawn:
        counts.sort()  # a task has at least as many as the smallest classes
    elif isinstance(order, list):
        counts = [counts[label] for label in labels_of(order, list(images))]
    sizes = [len(counts)] if run.method.joint else sizes_of(dataset["tasks"], len(counts))
    _validate_sizes(run, dataset["tasks"], min(sizes))
    each = dataset["images_per_class"]
    by_task = each if isinstance(each, list) else [each] * len(sizes)
    starts = [0 if drawn else sum(sizes[:t]) for t in range(len(sizes))]
    tasks = [slice(start, start + n) for start, n in zip(starts, sizes, strict=True)]
    batch = training["batch_size"]
    unlabelled = max(1, round(batch * (training.get("unlabelled_ratio") or 1)))
    enough = dataset["unlabelled"] is not None
    for task, most in () if enough else zip(tasks, by_task, strict=False):  # one, if joint
        kept = [min(n, most or n) for n in counts[task]]
        n = sum(_n_labelled(n, dataset["labels"]) for n in kept)
        others = sum(kept) - n
        field, right = "training.batch_size", f"at most {n}, the labelled training examples of"
        which = f"the smallest task of datasets.{run.dataset}"
        _reject(n < batch and others < unlabelled, field, batch, f"{right} {which}")


def known_images(dataset: dict[str, Any]) -> dict[str, int]:
    """Return the training examples of each class that are known without files; empty if not."""
    ((kind, source),) = dataset["source"].items()
    n, each = n_classes(kind, source), images_per_class(kind, source)
    held = (dataset["validation"] or {}).get("per_class", 0)
    return {} if n is None or each is None else {str(i): int(each) - held for i in range(n)}


def _validate_sizes(run: Run, tasks: Any, smallest: float) -> None:
    """Reject tasks of one class, whose cross-entropy is always zero."""
    seen = run.distiller.options.get("label_columns") == "seen"
    right = (
        f"two classes or more in every task: methods.{run.method.label} compares the classes of a "
        "task, and the loss of one class is always 0"
    )
    one = run.prompts.trains and not seen and smallest < 2
    _reject(one, f"datasets.{run.dataset}.tasks", tasks, right)


def _n_labelled(n: int, labels: Mapping[str, Any] | None) -> int:
    """Return the number of labelled examples of a class of `n`."""
    if labels is None:
        return n
    per_class: int | None = labels.get("per_class")
    return min(n, max(1, round(labels.get("fraction", 0) * n)) if per_class is None else per_class)


def _validate_images(name: str, dataset: dict[str, Any]) -> None:
    """Reject images per class that are not one number per task, or fewer than the labels."""
    images, n = dataset["images_per_class"], count_of(dataset["tasks"])
    by_task = images if isinstance(images, list) else [images] * n
    right = f"one number for all tasks, or {n}, one for each task; null takes all images"
    _reject(len(by_task) != n, f"datasets.{name}.images_per_class", images, right)
    if numbers := [number for number in by_task if number is not None]:
        _validate_labels(name, dataset, min(numbers), "each class (images_per_class)")


def _validate_labels(name: str, dataset: dict[str, Any], n: int, owner: str) -> None:
    """Reject more labelled images of a class than it has training images."""
    labelled = (dataset["labels"] or {}).get("per_class", 0)
    right = f"at most {n}, the training examples of {owner}"
    _reject(labelled > n, f"datasets.{name}.labels.per_class", labelled, right)


def _validate_held_out(name: str, dataset: dict[str, Any]) -> None:
    """Reject evaluation on validation images without any, and classes held out completely."""
    field, ((kind, source),) = f"datasets.{name}", dataset["source"].items()
    held, on = dataset["validation"], dataset["evaluate_on"]
    right = "validation: {per_class: N} in the same block, to hold examples out of training"
    _reject(held is None and on == "validation", f"{field}.evaluate_on", on, right)
    known = images_per_class(kind, source)
    if held is not None and known is not None:
        most = int(known) - 1
        whole, right = (
            held["per_class"] > most,
            f"at most {most}, to leave one example for training",
        )
        _reject(whole, f"{field}.validation.per_class", held["per_class"], right)


def _validate_source(field: str, kind: str, source: dict[str, Any]) -> None:
    """Reject classes that do not exist, unreadable paths, and patterns that leave their folder."""
    field, n = f"{field}.{kind}", SOURCES[kind].n_classes
    labels = [label for label in source.get("classes") or () if isinstance(label, int)]
    right = f"labels from 0 to {(n or 0) - 1}, or names"
    _reject(n and any(label >= n for label in labels), f"{field}.classes", labels, right)
    if not source.keys() & {"path", "root"}:  # a source that ships with the package
        return
    for key in sorted(source.keys() & {"path", "root"}):
        validate_path(f"{field}.{key}", source[key])
        above = Path(source[key]).resolve() in (Path.cwd(), *Path.cwd().parents)
        right = "a folder that does not contain the results"
        _reject(above, f"{field}.{key}", source[key], right)
    for key in sorted(source.keys() & {"train", "test"}):
        inside = Path(source[key])
        outside = inside.is_absolute() or not inside.parts or ".." in inside.parts
        right = "a name or pattern below the path, without '..' or '**'"
        _reject(outside or "**" in source[key], f"{field}.{key}", source[key], right)
        validate_path(f"{field}.{key}", source[key], source.get("path") or source["root"])
    if source.get("split") is not None:
        named = [source["train"], source["test"]]
        right = "train and test at their defaults, or no split"
        _reject(named != ["train", "test"], f"{field}.split", named, right)


def validate_run(run: Run, dataset: dict[str, Any], shape: Callable[[str], BackboneShape]) -> None:
    """Raise `ConfigError` if a run is impossible.

    Args:
        run: run of the grid.
        dataset: block of its dataset in the configuration.
        shape: function from the name of a backbone to its shape.
    """
    own, kind = shape(run.backbone), modality_of(dataset["source"])
    trained = None if run.answers else run.teacher
    for name in filter(None, {run.backbone: 0, run.query: 0, trained: 0}):
        found = shape(name).modality
        right = f"a backbone for {kind}, the items of datasets.{run.dataset}"
        _reject(found != kind, f"backbones.{name}", f"a backbone for {found}", right)
    for name in (run.backbone, run.query):
        backbone, patch = shape(name), shape(name).patch or 1
        size, field = _view_size(backbone, dataset), f"backbones.{name}.size"
        if not backbone.size:
            field = f"datasets.{run.dataset}.view.{MODALITIES[kind].size}"
        uneven = size % patch and not backbone.unprompted  # see `sized`
        _reject(uneven, field, size, f"a multiple of {patch}, the patch size of {name!r}")
        most = backbone.positions or size
        _reject(size > most, field, size, f"at most {most}, the number of positions of {name!r}")
    _validate_features(run, shape)
    _reject(
        run.prompts.adds_to_class_token and not own.class_token,
        f"methods.{run.method.label}",
        run.backbone,
        "a backbone with a class token, which this method modifies",
    )
    _check_unit(f"methods.{run.method.label}", run.prompts.check, _prompting(run, dataset, shape))
    _validate_sizes(run, dataset["tasks"], _smallest_task(run, dataset))
    if run.method.alignment is not None:
        field, right = f"methods.{run.method.label}.alignment", "two tasks or more, or class means"
        single = run.n_tasks == 1 and run.method.alignment.kind == "sampled"
        _reject(single, field, "one task", right)
        right = "tasks with different classes: each class belongs to the task that introduced it"
        _reject(isinstance(dataset["tasks"], dict), field, "tasks by domain", right)
        _validate_statistic(run.method.alignment.statistic, field, dataset)
    if run.method.joint:
        right = "tasks: 1, which learns all domains at once"
        field = f"methods.{run.method.label}.joint"
        _reject(isinstance(dataset["tasks"], dict), field, "tasks by domain", right)
        images = dataset["images_per_class"]
        right = "one number of images per class, since it learns the classes of all tasks at once"
        _reject(isinstance(images, list) and len({*images}) > 1, field, f"images {images}", right)
    _validate_labels_needed(run, dataset)
    seen = not run.prompts.trains and run.distiller.options.get("label_columns") == "seen"
    right = f"task: {run.method.label} solves for its head and has no cross-entropy to change"
    _reject(seen, f"distillers.{run.distiller.label}.label_columns", "seen", right)
    if run.teacher is not None or run.distiller.name != "none":
        _validate_distillation(run, dataset)
        facts = _distillation(run, trained or run.backbone, dataset, shape)
        _check_unit(f"distillers.{run.distiller.label}", run.distils.check, facts)


def _validate_features(run: Run, shape: Callable[[str], BackboneShape]) -> None:
    """Reject methods and distillers that need blocks of a model of which features are read."""
    own, method, distiller = shape(run.backbone), run.method, run.distiller
    if own.unprompted and not run.prompts.reads_features(method.options):
        heads = ", ".join(methods_of(own))
        raise ConfigError(
            f"methods.{method.label}: {own.unprompted}, or a method that reads features only: "
            f"{heads}"
        )
    compares = run.distils.compares != "none"
    teacher = run.teacher if compares and run.teacher and not run.answers else run.backbone
    for name in (run.backbone, teacher):
        if shape(name).unprompted and (compares or run.distils.enters):
            logits = [n for n, facts in DISTILLERS.items() if not _needs_blocks(facts)]
            raise ConfigError(
                f"distillers.{distiller.label}: {shape(name).unprompted}, or a distiller of "
                f"logits: {', '.join(logits)}"
            )


def _needs_blocks(facts: DistillerFacts) -> bool:
    return facts.compares != "none" or facts.enters or facts.maps_prompts


def methods_of(shape: BackboneShape) -> list[str]:
    """Return the methods that a backbone can have with their default options, by name."""
    options, found = schema()["properties"]["methods"]["properties"], list[str]()
    clean = preset("clean")
    for name, facts in PROMPTS.items():
        given = complete(clean["methods"].get(name, {}), options[name])
        given |= {key: clean["protocol"][key] for key in facts.protocol}
        fits = not facts.adds_to_class_token or shape.class_token
        fits &= not shape.unprompted or facts.reads_features(given)
        with suppress(Unsuitable):
            facts.check(Prompting(given, 2, name, shape, shape, MEMORY))
            found += [name] if fits else []
    return found


def _check_unit(block: str, check: Callable[[T], None], facts: T) -> None:
    """Call the check of a method or distiller; raise `ConfigError` if it fails."""
    try:
        check(facts)
    except Unsuitable as error:
        field = f"{block}.{error.field}" if error.field else block
        _reject(True, field, error.value, error.expected)


def _prompting(
    run: Run, dataset: dict[str, Any], shape: Callable[[str], BackboneShape]
) -> Prompting:
    return Prompting(
        options=run.method.options,
        n_tasks=run.n_tasks,
        backbone=run.backbone,
        shape=shape(run.backbone),
        query_shape=shape(run.query),
        memory=MEMORY,
        domains=isinstance(dataset["tasks"], dict),
    )


def _distillation(
    run: Run, teacher: str, dataset: dict[str, Any], shape: Callable[[str], BackboneShape]
) -> Distillation:
    student_shape, teacher_shape = (
        replace(found, size=_view_size(found, dataset))
        for found in map(shape, (run.backbone, teacher))
    )
    return Distillation(
        options=run.distiller.options,
        method=run.method.name,
        tasks=dataset["tasks"],
        n_tasks=run.n_tasks,
        smallest_task=_smallest_task(run, dataset),
        student=run.backbone,
        student_shape=student_shape,
        teacher=teacher,
        teacher_shape=teacher_shape,
        unlabelled=bool(few_labels(dataset)),
    )


def _view_size(shape: BackboneShape, dataset: dict[str, Any]) -> int:
    """Return the size of a backbone's input, a side in pixels or a number of tokens."""
    facts = MODALITIES[modality_of(dataset["source"])]
    size: int = shape.size or dataset["view"][facts.size]
    return size


def _reject(wrong: Any, field: str, value: Any, right: str) -> None:
    if wrong:
        raise ConfigError(f"{field}: invalid value {value!r}; expected {right}")


def _validate_statistic(statistic: str, field: str, dataset: dict[str, Any]) -> None:
    """Reject a variance or covariance of classes with one labelled image."""
    one = (dataset["labels"] or {}).get("per_class") == 1
    right = "centroid, the only statistic of one labelled example per class"
    _reject(one and statistic != "centroid", f"{field}.statistic", statistic, right)


def _validate_labels_needed(run: Run, dataset: dict[str, Any]) -> None:
    """Reject data without any label for a learner that needs some."""
    options = run.distiller.options
    taught = run.distils.uses_teacher(options)
    soft = taught and options.get("alpha") == 1 and not options.get("kd_head")
    labelled = run.statistics == "teacher"
    steps = run.prompts.takes_steps(run.method.options)
    learns = soft if steps else taught or labelled
    learns &= labelled or not run.aligned
    right = (
        f"1 or more: {run.method.label} with {run.distiller.label} needs labels; without any learn "
        "those that have a teacher and alpha 1, or labels: teacher"
    )
    none = (dataset["labels"] or {}).get("per_class") == 0
    _reject(none and not learns, f"datasets.{run.dataset}.labels.per_class", 0, right)


def _validate_targets(run: Run, field: str) -> None:
    """Reject labels of a method whose solve uses the targets of a distiller."""
    if not run.prompts.labels_images or not run.distils.uses_teacher(run.distiller.options):
        return
    for name, usual in (("labels", None), ("label_classes", "task")):
        given, where = run.method.options[name], f"methods.{run.method.label}.{name}"
        own = "null" if usual is None else usual
        right = f"{own}: {field} gives the targets; list the combination in grid.exclude"
        _reject(given != usual, where, given, right)


def _smallest_task(run: Run, dataset: dict[str, Any]) -> float:
    """Return the number of classes of the smallest task, infinity if unknown until data is read."""
    ((kind, source),) = dataset["source"].items()
    sizes, n = dataset["tasks"], n_classes(kind, source)
    if isinstance(sizes, list):
        return sum(sizes) if run.method.joint else min(sizes)
    return math.inf if n is None or isinstance(sizes, dict) else n // run.n_tasks


def _validate_soft_targets(run: Run, field: str) -> None:
    """Reject logits between zero and one that a distiller softens as they are.

    Their softmax is nearly the same for all classes, so that they teach next to nothing.
    """
    teacher = run.teacher_method or run.method
    options, plain = run.distiller.options, not run.distiller.options.get("standardize")
    flat = PROMPTS[teacher.name].unscaled(teacher.options) and plain and softens(options)
    right = (
        f"true, or methods.{teacher.label}.logit_scale above 1, such as 10: the logits of the "
        f"teacher's method {teacher.label} estimate zeros and ones, which softened are nearly equal"
    )
    trained = run.teacher is not None and run.answers is None
    _reject(trained and flat, f"{field}.standardize", False, right)


def _validate_distillation(run: Run, dataset: dict[str, Any]) -> None:
    """Reject combinations of method, teacher and distiller that cannot be trained."""
    field = f"distillers.{run.distiller.label}"
    few = run.distiller.options.get("standardize") and _smallest_task(run, dataset) < 3
    right = "three classes or more in every task: z-scores of two logits are constants"
    _reject(few, f"{field}.standardize", f"tasks {dataset['tasks']}", right)
    unsure = not run.prompts.trains and run.distiller.options.get("confidence") is not None
    right = f"null: the solve of {run.method.label} uses all targets of the teacher"
    _reject(unsure, f"{field}.confidence", run.distiller.options.get("confidence"), right)
    seen = not run.prompts.trains and run.distiller.options.get("soft_columns") == "seen"
    right = f"task: the solve of {run.method.label} uses the classes of the task"
    _reject(seen, f"{field}.soft_columns", "seen", right)
    _validate_targets(run, field)
    unsuited = not run.prompts.trains and not run.distils.suits_solve
    unsuited &= run.distiller.name != "none"  # its teacher labels images
    names = " or ".join(
        ["none", *(name for name, facts in DISTILLERS.items() if facts.suits_solve)]
    )
    right = f"{names}, whose soft labels a solve can use; list the combination in grid.exclude"
    _reject(unsuited, field, f"methods.{run.method.label}", right)
    other = run.teacher_method.label if run.teacher_method else ""
    right = f"{run.method.label}, the student's method: this distiller maps the teacher's prompts"
    _reject(other and run.distils.maps_prompts, field, f"teacher_method: {other}", right)
    own = run.distiller.methods.get(run.method.name)
    right = "none: this distiller maps prompts, so teacher and student need the same options"

    _reject(own and run.distils.maps_prompts, f"{field}.methods", own, right)
    mappable = ", ".join(name for name, facts in PROMPTS.items() if facts.gives_prefixes)
    unmapped = run.distils.maps_prompts and not run.prompts.gives_prefixes
    right = f"a method with prefixes to map ({mappable}); list the combination in grid.exclude"
    _reject(unmapped, field, f"methods.{run.method.label}", right)
    _validate_soft_targets(run, field)
