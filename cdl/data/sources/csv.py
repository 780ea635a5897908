"""Texts and their classes in a user's CSV files."""

from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from cdl.data.sources import CLASSES, SPLITS, SourceFacts
from cdl.data.sources.files import existing_folder, validate_file
from cdl.data.sources.items import Source, first_share, only
from cdl.data.sources.summary import Summary, counted
from cdl.data.sources.texts import MODALITY, Text, source_of
from cdl.device.reading import rows_of
from cdl.runtime.errors import CdlError
from cdl.runtime.options import REQUIRED, number, text


def read(
    path: str,
    train: str = "train*.csv",
    test: str = "test*.csv",
    text: str = "text",
    label: str = "label",
    delimiter: str = ",",
    test_share: float | None = None,
    classes: Sequence[int | str] | None = None,
) -> Source:
    """Read texts in CSV files with a header, in UTF-8.

    Args:
        path: folder of the files; or one file, of which `test_share` is drawn.
        train: glob of the training files in it.
        test: glob of the test files, which is not used with `test_share`.
        text: column of the texts.
        label: column of the class names, which are the classes in alphabetical order.
        delimiter: character between two columns.
        test_share: share of each class's texts, at least one, that is drawn for the test split by
            the contents of the texts, equal texts together; None: the files of `test`.
        classes: see `cdl.data.sources.items.only`.

    Raises:
        CdlError: a file cannot be read or lacks a column, or a class name is invalid.
    """
    found = [
        Text(split, name, value, _name_in(file, path), row)
        for split, file in _files(path, train, test, test_share)
        for value, name, row in rows_of(file, text, label, delimiter)
    ]
    if test_share is not None:
        found = _drawn(found, test_share)
    return only(source_of(found, sorted({row.label for row in found})), classes)


def _name_in(file: Path, path: str) -> str:
    """Return the name of a file of the source `path`."""
    return file.name if file == Path(path) else file.relative_to(path).as_posix()


def _files(
    path: str, train: str, test: str, test_share: float | None, **_: Any
) -> list[tuple[str, Path]]:
    """Return the files of each split, see `read`; raise `CdlError` if a split has none."""
    if Path(path).is_file():
        if test_share is None:
            raise CdlError(f"{path}: is one file; set test_share to draw the test texts from it")
        return [(SPLITS[0], Path(path))]
    globs = (train,) if test_share is not None else (train, test)
    folder, found = existing_folder(path), []
    for split, pattern in zip(SPLITS, globs, strict=False):
        files = sorted(folder.glob(pattern))
        if not files:
            raise CdlError(f"no {split} file matches {pattern!r} in the folder {path!r}")
        for file in files:
            validate_file(file)
        found += [(split, file) for file in files]
    return found


def _drawn(texts: Sequence[Text], share: float) -> list[Text]:
    """Return texts with a drawn test split; raise `CdlError` if a class has one text alone."""
    places: dict[str, set[str]] = {}
    for row in texts:
        places.setdefault(row.label, set()).add(_place(row))
    tested: dict[str, set[str]] = {}
    for label, found in places.items():
        if len(found) < 2:
            raise CdlError(
                f"test_share: class {label!r} has one text; expected two different texts or more "
                "in every class"
            )
        tested[label] = first_share(found, share)
    return [
        row._replace(split=SPLITS[1] if _place(row) in tested[row.label] else SPLITS[0])
        for row in texts
    ]


def _place(row: Text) -> str:
    """Return the place of a text in the order of the draw."""
    return sha256(str(row.text).strip().encode(errors="surrogatepass")).hexdigest()


def _source_files(**options: Any) -> list[Path]:
    """Return the files, see `_files`; raise `CdlError` if a header or a first row is wrong."""
    files = [file for _, file in _files(**options)]
    for file in files:
        next(rows_of(file, options["text"], options["label"], options["delimiter"]), None)
    return files


def _summarise(options: dict[str, Any], sha256_of: Callable[[Path], str]) -> Summary:
    source = read(**options)
    pairs = [(item.split, item.label) for item in source.items]
    return counted(source.classes, pairs, _source_files(**options))


CSV = SourceFacts(
    read=read,
    description="Texts and class names in CSV files with a header.",
    options={
        "path": text(REQUIRED, "Folder of the files; or one file, with test_share."),
        "train": text("train*.csv", "Glob of the training files."),
        "test": text("test*.csv", "Glob of the test files; not used with test_share."),
        "text": text("text", "Column of the texts."),
        "label": text("label", "Column of the class names."),
        "delimiter": text(",", "Character between two columns.", minLength=1, maxLength=1),
        "test_share": number(
            None,
            "Share of each class's texts that is drawn for the test split by the contents of the "
            "texts; null: the test files.",
            exclusiveMinimum=0,
            exclusiveMaximum=1,
        ),
        "classes": CLASSES,
    },
    modality=MODALITY,
    files=_source_files,
    summarise=_summarise,
)
