"""Images on the disk asked about, one after the other. No torch where the student needs none."""

import csv
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol, TextIO

from PIL import Image

from cdl.data.sources.decoding import FORMATS
from cdl.deployment.student import Student
from cdl.runtime.errors import CdlError

Best = list[tuple[str, float]]


class Printer(Protocol):
    """How an answer looks on stdout."""

    def __call__(self, file: str, best: Best) -> None:
        """Print the best classes of a file with their probabilities."""


class TextPrinter:
    """A line for people."""

    def __call__(self, file: str, best: Best) -> None:
        print(f"{file}: {', '.join(f'{name} {p:.3f}' for name, p in best)}")


class JsonPrinter:
    """A line of JSON."""

    def __call__(self, file: str, best: Best) -> None:
        found = [{"class": name, "probability": p} for name, p in best]
        print(json.dumps({"file": file, "predictions": found}))


class CsvPrinter:
    """Rows `file, rank, class, probability` below a header."""

    def __init__(self) -> None:
        self._writer = csv.writer(sys.stdout, lineterminator="\n")
        self._writer.writerow(["file", "rank", "class", "probability"])

    def __call__(self, file: str, best: Best) -> None:
        for rank, (name, p) in enumerate(best, start=1):
            self._writer.writerow([file, rank, name, p])


def files_of(paths: Sequence[str], stdin: TextIO) -> list[str]:
    """Return the files that paths name.

    Args:
        paths: files; folders, of which all images are taken, at any depth; `-`: names on stdin.
        stdin: where these are read.

    Raises:
        CdlError: a folder holds no image.
    """
    known = {end for end, kind in Image.registered_extensions().items() if kind in FORMATS}
    files: list[str] = []
    for path in paths:
        if path == "-":
            files += [line.rstrip("\n") for line in stdin if line.strip()]
        elif Path(path).is_dir():
            found = [p for p in sorted(Path(path).rglob("*")) if p.suffix.lower() in known]
            if not found:
                raise CdlError(f"{path} holds no image; their names end in {', '.join(FORMATS)}")
            files += map(str, found)
        else:
            files.append(path)
    return files


def ask(student: Student, files: Sequence[str], top: int, printer: Printer) -> bool:
    """Print what a student says of each file; name those that cannot be read on stderr.

    Args:
        student: it.
        files: paths.
        top: how many classes are named.
        printer: of answers.

    Returns:
        Whether all could be read.
    """
    whole = True
    for file in _with_progress(files):
        try:
            (probabilities,) = student.predict_proba(file)
        except CdlError as error:
            print(f"cdl: {error}", file=sys.stderr)
            whole = False
            continue
        order = probabilities.argsort(kind="stable")[::-1][:top]
        printer(file, [(student.classes[i], float(probabilities[i])) for i in order])
    return whole


def _with_progress(files: Sequence[str]) -> Iterable[str]:
    """Return files, with a bar on stderr where answers go elsewhere and stderr is a terminal."""
    if len(files) < 2 or sys.stdout.isatty() or not sys.stderr.isatty():
        return files
    from tqdm import tqdm

    return tqdm(files, unit="image")
