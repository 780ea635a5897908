"""Encoded images or texts, and labels in a user's Parquet files."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cdl.data.order import labels_of
from cdl.data.sources import CLASSES, SourceFacts
from cdl.data.sources.items import Source, only
from cdl.data.sources.summary import Summary, counted
from cdl.data.sources.tables import (
    Columns,
    items_of,
    kind_of,
    read_classes,
    read_labels,
    tables_of,
)
from cdl.runtime.options import REQUIRED, text


def read(
    path: str,
    train: str = "train*.parquet",
    test: str = "test*.parquet",
    image: str = "image",
    text: str | None = None,
    label: str = "label",
    class_name: str | None = None,
    file: str | None = None,
    classes: Sequence[int | str] | None = None,
) -> Source:
    """Read encoded images or texts in Parquet files.

    Args:
        path: folder of the files.
        train: glob of the training files in it.
        test: glob of the test files.
        image: column of encoded bytes (or of structs with a field `bytes`).
        text: column of texts, which are then read instead of images; or None.
        label: column of integers from 0.
        class_name: column with the name of the label; None uses the label as its name.
        file: column with the image's original path, to detect a file in both splits; or None.
        classes: see `cdl.data.sources.items.only`.
    """
    columns = Columns(text or image, label, class_name, file)
    tables, kind = tables_of(path, train, test), kind_of({"text": text})
    items = items_of(path, tables, columns, kind)
    whole = Source(read_classes(path, tables, columns), items, modality=kind)
    return only(whole, classes)


def _source_files(path: str, train: str, test: str, **columns: Any) -> list[Path]:
    return [file for files in tables_of(path, train, test).values() for file in files]


def _summarise(options: dict[str, Any], sha256_of: Callable[[Path], str]) -> Summary:
    files = tables_of(options["path"], options["train"], options["test"])
    columns = Columns(*(options[key] for key in Columns._fields))
    names, chosen = read_classes(options["path"], files, columns), options.get("classes")
    kept = range(len(names)) if chosen is None else sorted(labels_of(chosen, names, "classes"))
    pairs = [
        (split, kept.index(label))
        for split, parts in files.items()
        for part in parts
        for label in read_labels(part, columns)
        if label in kept
    ]
    classes = tuple(names[label] for label in kept)
    return counted(classes, pairs, [part for parts in files.values() for part in parts])


PARQUET = SourceFacts(
    read=read,
    description="Encoded images, or texts, and labels in Parquet files.",
    modality=kind_of,
    options={
        "path": text(REQUIRED, "Folder of the files."),
        "train": text("train*.parquet", "Glob of the training files."),
        "test": text("test*.parquet", "Glob of the test files."),
        "image": text("image", "Column of encoded image bytes."),
        "text": text(None, "Column of texts, instead of encoded images; null: images."),
        "label": text("label", "Column of integer labels from 0."),
        "class_name": text(None, "Column of class names."),
        "file": text(
            None, "Column of the images' original paths; a path in both splits is an error."
        ),
        "classes": CLASSES,
    },
    files=_source_files,
    summarise=_summarise,
)
