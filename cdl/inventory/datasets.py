"""Summarise the datasets of a grid and check its tasks. Does not import torch."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from cdl import layout
from cdl.backbones.weights_facts import is_research_only, size_of
from cdl.data.modalities import MODALITIES, ModalityFacts
from cdl.data.order import labels_of, sizes_of
from cdl.data.sources import SOURCES, modality_of
from cdl.data.sources.folder import Listing, items_of
from cdl.data.sources.heldout import remaining
from cdl.data.sources.summary import Summary, summarise
from cdl.runtime.errors import CdlError, Unreadable
from cdl.study.configuration import ConfigError
from cdl.study.contents import files_of, hashes
from cdl.study.grid import Grid
from cdl.study.validation import ClassOrder, validate_batches, validate_classes

SHOWN = 20  # images or classes that one message lists


def describe(
    grid: Grid, opened: bool = True, published: bool = True
) -> tuple[dict[str, Summary], list[str]]:
    """Return a summary of each dataset of a grid, and all problems.

    Args:
        grid: grid of the configuration.
        opened: whether to open every item of a user's own files.
        published: whether to include published sources, whose numbers planning has checked.

    Returns:
        Summaries by name, and messages: a source is missing or invalid; images cannot be read; the
        tasks, the class order or the images per class do not fit.
    """
    summaries: dict[str, Summary] = {}
    of_sources: dict[str, Summary] = {}  # by packed data, which variants of a dataset share
    problems: list[str] = []
    for name, block in grid.datasets.items():
        if not published and SOURCES[grid.source(name)["source"]["name"]].files is None:
            continue
        try:
            summaries[name] = _summary(grid, name, of_sources)
        except CdlError as error:
            problems.append(f"datasets.{name}: {error}")
            continue
        problems += [f"datasets.{name}: {text}" for text in summaries[name].problems]
        order, counts = grid.class_order(name), summaries[name].classes
        checks = [partial(validate_classes, name, block.options, order, summaries[name].n_classes)]
        if counts is not None:
            checks.append(partial(_check_class_names, name, block.options, order, list(counts)))
            problems += _small_classes(name, block.options, order, counts, summaries[name].items)
            train = {label: n for label, (n, _) in counts.items()}
            checks += [
                partial(validate_batches, run, grid.dataset(run), grid.training(run), order, train)
                for run in grid.runs
                if run.dataset == name
            ]
        wrong = (_problem(check, summaries[name]) for check in checks)
        problems += next(filter(None, wrong), [])  # the later checks rely on the earlier ones
        if opened:
            unreadable, disputed = _opened(grid, name)
            problems += [f"datasets.{name}: {text}" for text in unreadable]
            summaries[name] = replace(summaries[name], disputed=disputed)
    return summaries, problems


def check(grid: Grid, opened: bool = True, published: bool = True) -> dict[str, Summary]:
    """Return a summary of each dataset of a grid, see `describe`.

    Raises:
        CdlError: something is wrong; the message has a line for each problem.
    """
    summaries, problems = describe(grid, opened, published)
    if problems:
        many = [f"{len(problems)} problems:"] if len(problems) > 1 else []
        raise CdlError("\n".join([*many, *problems]))
    return summaries


def remarks(grid: Grid) -> Iterator[str]:
    """Yield what is allowed, but costs accuracy or limits the use of the students."""
    yield from small_views(grid)
    research = [
        name for name, (source, model) in _weights(grid).items() if is_research_only(source, model)
    ]
    if research:
        names = ", ".join(research)
        yield f"backbones: the licence of {names} allows research only, also of its students"


def small_views(grid: Grid) -> Iterator[str]:
    """Yield a sentence for each view of a user's photos below the size of the pretraining."""
    for name, (source, model) in _weights(grid).items():
        best = size_of(source, model)
        for label in dict.fromkeys(run.dataset for run in grid.runs if name in run.backbones):
            options = grid.datasets[label].options
            side = grid.shape(name).size or options["view"].get("size", best)
            of_user = SOURCES[next(iter(options["source"]))].files is not None
            if of_user and best and side < best:
                yield (
                    f"datasets.{label}.view.size: {side} is below {best}, the size that {name} was "
                    f"pretrained with, which costs accuracy; expected {best}"
                )


def _weights(grid: Grid) -> dict[str, tuple[str, str]]:
    """Return source and name of the weights of each backbone in use."""
    names = dict.fromkeys(name for run in grid.runs for name in run.backbones)
    blocks = {name: grid.backbone_source(name) for name in names}
    return {n: (b["source"], b.get("timm_model") or b["model"]) for n, b in blocks.items()}


def _summary(grid: Grid, name: str, of_sources: dict[str, Summary]) -> Summary:
    """Return the summary of a dataset; raise `CdlError` if it is invalid.

    A source is read unless `of_sources` has its summary, which is added.
    """
    prepared, source = grid.packed_name(name), grid.source(name)["source"]
    if prepared not in of_sources:
        known: dict[str, str] = {}
        if source.get("split") is not None:  # needs the hash of every file
            known = hashes(_files(source), layout.contents_memory("data", prepared))
        of_sources[prepared] = summarise(source, lambda file: known[str(file)])
    tasks = grid.datasets[name].options["tasks"]
    in_tasks = sum(tasks) if isinstance(tasks, list) else None
    whole = replace(of_sources[prepared], items=_facts(grid, name).items, in_tasks=in_tasks)
    held_out = grid.source(name).get("validation")
    return remaining(whole, **held_out) if held_out else whole


def _files(source: Mapping[str, Any]) -> list[Path]:
    """Return the files of a user's source, also of a folder that has problems."""
    listing = _listing(source)
    return files_of(source) if listing is None else listing.files


def _listing(source: Mapping[str, Any]) -> Listing | None:
    """Return the listing of a folder, also if it has problems; None for other sources."""
    options = dict(source)
    list_images = SOURCES[options.pop("name")].listing
    return None if list_images is None else list_images(**options)


def _facts(grid: Grid, name: str) -> ModalityFacts:
    """Return the facts of the modality of a dataset."""
    return MODALITIES[modality_of(grid.datasets[name].options["source"])]


def _problem(check: Callable[[], None], summary: Summary) -> list[str]:
    """Return the message of a check that fails, with the numbers of tasks that are possible."""
    try:
        check()
    except ConfigError as error:
        n = summary.n_classes
        counts = ", ".join(str(tasks) for tasks in range(1, n + 1) if n % tasks == 0)
        more = f" (equal tasks: {counts})" if "tasks: invalid" in str(error) else ""
        return [f"{error}{more}"]
    return []


def _of_classes(
    dataset: Mapping[str, Any], order: ClassOrder, classes: Sequence[str]
) -> dict[str, int]:
    """Return the smallest number of training items that each class needs, 0 if not known."""
    images = dataset["images_per_class"]
    if not isinstance(images, list):
        return dict.fromkeys(classes, images or 0)
    if not isinstance(order, list) and order != "natural":  # any class may be in any task
        return dict.fromkeys(classes, min(number or 0 for number in images))
    needed = dict.fromkeys(classes, 0)
    with suppress(CdlError):  # tasks and order are checked later
        labels = labels_of(order if isinstance(order, list) else range(len(classes)), classes)
        first = 0
        for number, size in zip(images, sizes_of(dataset["tasks"], len(labels)), strict=True):
            needed |= {classes[label]: number or 0 for label in labels[first : first + size]}
            first += size
    return needed


def _small_classes(
    name: str,
    dataset: Mapping[str, Any],
    order: ClassOrder,
    counts: Mapping[str, tuple[int, int]],
    items: str,
) -> Iterator[str]:
    """Yield a message for each number of items that a class does not have."""
    labelled = (dataset["labels"] or {}).get("per_class")
    for part, numbers in (
        ("images_per_class", _of_classes(dataset, order, [*counts])),
        ("test_images_per_class", dict.fromkeys(counts, dataset["test_images_per_class"] or 0)),
        ("labels.per_class", dict.fromkeys(counts, labelled or 0)),
    ):
        which = int(part.startswith("test"))
        part_of = ("training", "test")[which]
        few = {label: n[which] for label, n in counts.items() if n[which] < numbers[label]}
        if not few:
            continue
        scarce = min(few, key=lambda label: few[label])
        required = numbers[scarce]
        listed = ", ".join(f"{label!r} ({n})" for label, n in [*few.items()][:SHOWN])
        more = f" and {len(few) - SHOWN} more" if len(few) > SHOWN else ""
        yield (
            f"datasets.{name}.{part}: invalid value {required}; expected at most {few[scarce]}, "
            f"the number of {part_of} {items} of class {scarce!r}; classes with fewer than "
            f"{required}: {listed}{more}; lower {part}, add {items}, or leave these classes out"
        )


def _opened(grid: Grid, name: str) -> tuple[list[str], tuple[str, ...] | None]:
    """Open every item of a user's own source.

    Returns:
        A message if some cannot be used; and the names of those with copies in another class, None
        for a published source.
    """
    source, called = dict(grid.source(name)["source"]), _facts(grid, name).item
    if SOURCES[source["name"]].files is None:
        return [], None
    listing, path = _listing(source), source.get("path", "")
    facts = SOURCES[source.pop("name")]
    wrong: list[str] = []
    same: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)  # by hash of the content
    for item in facts.read(**source).items if listing is None else items_of(listing, path):
        try:
            content = item.read()
        except Unreadable as error:
            wrong.append(str(error))
        else:
            same[sha256(content.tobytes()).hexdigest()].append((item.label, item.name))
    equal = [items for items in same.values() if len({label for label, _ in items}) > 1]
    disputed = tuple(name for items in equal for _, name in items)
    messages = []
    if wrong:
        more = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        n = f"{len(wrong)} {called}{'s' * (len(wrong) > 1)} cannot be used"
        remedy = "replace or remove them"
        if facts.listing is not None:
            remedy += ", or leave them out: names that begin with a dot are ignored"
        messages = [f"{n}: {'; '.join(wrong[:SHOWN])}{more}; {remedy}"]
    return messages, disputed


def _check_class_names(
    name: str, dataset: Mapping[str, Any], order: ClassOrder, classes: list[str]
) -> None:
    """Raise `ConfigError` if a class order has a class that the dataset does not have."""
    try:
        labels_of(order if isinstance(order, list) else [], classes)
    except CdlError as error:
        where = "" if dataset["class_order"] is not None else "protocol."
        raise ConfigError(f"datasets.{name}: {where}{error}") from error


def text(summaries: Mapping[str, Summary]) -> str:
    """Return the summaries as text."""
    return "\n".join(line for name, summary in summaries.items() for line in _lines(name, summary))


def _lines(name: str, summary: Summary) -> Iterator[str]:
    train, test = summary.images["train"], summary.images["test"]
    size = f", {_format_bytes(summary.nbytes)}" if summary.nbytes else ""
    yield (
        f"{name}: {summary.n_classes} classes, {train:,} training and {test:,} test "
        f"{summary.items}{size}"
    )
    if summary.in_tasks is not None and summary.in_tasks < summary.n_classes:
        rest = summary.n_classes - summary.in_tasks
        yield f"  {rest} of its classes {'are' if rest > 1 else 'is'} in no task and never learnt"
    if summary.absent:
        yield f"  not fetched yet: {', '.join(summary.absent)}"
    if summary.skipped:
        skipped = ", ".join(f"{n} {kind}" for kind, n in summary.skipped.items())
        yield f"  skipped, not images: {skipped}"
    if summary.disputed:
        more = f" and {len(summary.disputed) - SHOWN} more" if summary.disputed[SHOWN:] else ""
        which = f"{', '.join(map(repr, summary.disputed[:SHOWN]))}{more}"
        yield f"  {len(summary.disputed)} {summary.items} have copies in another class: {which}"
    if summary.classes:
        width = max(len("class"), *map(len, summary.classes))
        yield f"  {'label':>5}  {'class':<{width}}  {'train':>7}  {'test':>7}"
        for label, (title, (train, test)) in enumerate(summary.classes.items()):
            yield f"  {label:>5}  {title:<{width}}  {train:>7,}  {test:>7,}"


def _format_bytes(nbytes: int) -> str:
    megabytes = nbytes / 1e6
    return f"{megabytes / 1000:.1f} GB" if megabytes >= 1000 else f"{megabytes:.1f} MB"
