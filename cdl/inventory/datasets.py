"""Summarise the datasets of a grid and check its tasks. Does not import torch."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from cdl import layout
from cdl.data.order import labels_of
from cdl.data.sources.heldout import remaining
from cdl.data.sources.summary import Summary, summarise
from cdl.runtime.errors import CdlError
from cdl.study.configuration import ConfigError
from cdl.study.contents import files_of, hashes
from cdl.study.grid import Grid
from cdl.study.validation import ClassOrder, validate_classes, validate_counts


def describe(grid: Grid) -> dict[str, Summary]:
    """Return a summary of each dataset of a grid.

    Raises:
        ConfigError: a source is missing or invalid, or the tasks, the class order or the images
            per class do not fit it.
    """
    found: dict[str, Summary] = {}
    for name, block in grid.datasets.items():
        source = grid.source(name)["source"]
        memory = layout.contents_memory("data", grid.packed_name(name))
        known: dict[str, str] = {}
        try:
            if source.get("split") is not None:  # needs the hash of every file
                known = hashes(files_of(source), memory)
            found[name] = summarise(source, partial(_hash_of, known))
            if held_out := grid.source(name).get("validation"):
                found[name] = remaining(found[name], **held_out)
        except (CdlError, ConfigError) as error:
            raise ConfigError(f"datasets.{name}: {error}") from error
        order = grid.class_order(name)
        validate_classes(name, block.options, order, found[name].n_classes)
        counts = found[name].classes
        if counts is not None:
            _check_class_names(name, block.options, order, list(counts))
            validate_counts(name, block.options, counts)
    return found


def _check_class_names(
    name: str, dataset: Mapping[str, Any], order: ClassOrder, classes: list[str]
) -> None:
    """Raise `ConfigError` if a class order has a class that the dataset does not have."""
    try:
        labels_of(order if isinstance(order, list) else [], classes)
    except CdlError as error:
        where = "" if dataset.get("class_order") is not None else "protocol."
        raise ConfigError(f"datasets.{name}: {where}{error}") from error


def _hash_of(known: Mapping[str, str], file: Path) -> str:
    return known[str(file)]


def text(found: Mapping[str, Summary]) -> str:
    """Return the summaries as text."""
    return "\n".join(line for name, summary in found.items() for line in _lines(name, summary))


def _lines(name: str, summary: Summary) -> Iterator[str]:
    train, test = summary.images["train"], summary.images["test"]
    size = f", {_format_bytes(summary.nbytes)}" if summary.nbytes else ""
    yield (
        f"{name}: {summary.n_classes} classes, {train:,} training and {test:,} test images{size}"
    )
    if summary.absent:
        yield f"  not fetched yet: {', '.join(summary.absent)}"
    if summary.skipped:
        skipped = ", ".join(f"{n} {kind}" for kind, n in summary.skipped.items())
        yield f"  skipped, not images: {skipped}"
    if summary.classes:
        width = max(len("class"), *map(len, summary.classes))
        yield f"  {'label':>5}  {'class':<{width}}  {'train':>7}  {'test':>7}"
        for label, (title, (train, test)) in enumerate(summary.classes.items()):
            yield f"  {label:>5}  {title:<{width}}  {train:>7,}  {test:>7,}"


def _format_bytes(nbytes: int) -> str:
    megabytes = nbytes / 1e6
    return f"{megabytes / 1000:.1f} GB" if megabytes >= 1000 else f"{megabytes:.1f} MB"
