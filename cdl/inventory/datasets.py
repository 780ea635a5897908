"""What the datasets of a grid hold, and whether its tasks can be made of it. No torch here."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from cdl import layout
from cdl.data.order import labels_of
from cdl.data.sources.heldout import remaining
from cdl.data.sources.summary import Summary, summarise
from cdl.runtime.errors import CdlError
from cdl.study.configuration import ConfigError
from cdl.study.contents import files_of, hashes
from cdl.study.grid import Grid
from cdl.study.validation import validate_classes, validate_counts


def describe(grid: Grid) -> dict[str, Summary]:
    """Return what each dataset that a grid uses holds.

    Raises:
        ConfigError: a source is not as it is described, or the tasks, the class order or the
            images per class cannot be had of it.
    """
    found: dict[str, Summary] = {}
    for name, block in grid.datasets.items():
        source = grid.source(name)["source"]
        memory = layout.contents_memory("data", grid.packed_name(name))
        known: dict[str, str] = {}
        try:
            if source.get("split") is not None:  # every file is read, and remembered for planning
                known = hashes(files_of(source), memory)
            found[name] = summarise(source, partial(_remembered, known))
            if held_out := grid.source(name).get("validation"):
                found[name] = remaining(found[name], **held_out)
        except (CdlError, ConfigError) as error:
            raise ConfigError(f"datasets.{name}: {error}") from error
        order = grid.config["protocol"]["class_order"]
        validate_classes(name, block.options, order, found[name].n_classes)
        counts = found[name].classes
        if counts is not None:
            _named(name, order, list(counts))
            validate_counts(name, block.options, counts)
    return found


def _named(name: str, order: str | list[int | str], classes: list[str]) -> None:
    """Raise `ConfigError` if a class order names what a dataset does not have."""
    try:
        labels_of([] if isinstance(order, str) else order, classes)
    except CdlError as error:
        raise ConfigError(f"datasets.{name}: protocol.{error}") from error


def _remembered(known: Mapping[str, str], file: Path) -> str:
    return known[str(file)]


def text(found: Mapping[str, Summary]) -> str:
    """Return the same for people."""
    return "\n".join(line for name, summary in found.items() for line in _lines(name, summary))


def _lines(name: str, summary: Summary) -> Iterator[str]:
    train, test = summary.images["train"], summary.images["test"]
    size = f", {_size(summary.nbytes)}" if summary.nbytes else ""
    yield (
        f"{name}: {summary.n_classes} classes, {train:,} training and {test:,} test images{size}"
    )
    if summary.absent:
        yield f"  to be fetched: {', '.join(summary.absent)}"
    if summary.skipped:
        skipped = ", ".join(f"{n} {kind}" for kind, n in summary.skipped.items())
        yield f"  left out, as no images: {skipped}"
    if summary.classes:
        width = max(len("class"), *map(len, summary.classes))
        yield f"  {'label':>5}  {'class':<{width}}  {'train':>7}  {'test':>7}"
        for label, (title, (train, test)) in enumerate(summary.classes.items()):
            yield f"  {label:>5}  {title:<{width}}  {train:>7,}  {test:>7,}"


def _size(nbytes: int) -> str:
    megabytes = nbytes / 1e6
    return f"{megabytes / 1000:.1f} GB" if megabytes >= 1000 else f"{megabytes:.1f} MB"
