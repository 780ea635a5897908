"""Classify image files one by one and print the predictions: the work of `cdl predict`.

Does not import torch for an exported student.
"""

import csv
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol, TextIO

from cdl.data.sources.decoding import images_below
from cdl.deployment.device.classifier import Classifier
from cdl.runtime.errors import CdlError

TopClasses = list[tuple[str, float]]  # the most probable classes with their probabilities


class Printer(Protocol):
    """Prints a prediction to stdout in one format."""

    def __call__(self, file: str, top: TopClasses) -> None:
        """Print the most probable classes of a file."""


class TextPrinter:
    """One line of text per file."""

    def __call__(self, file: str, top: TopClasses) -> None:
        print(f"{file}: {', '.join(f'{name} {p:.3f}' for name, p in top)}")


class JsonPrinter:
    """One line of JSON per file."""

    def __call__(self, file: str, top: TopClasses) -> None:
        found = [{"class": name, "probability": p} for name, p in top]
        print(json.dumps({"file": file, "predictions": found}))


class CsvPrinter:
    """A CSV header, then rows `file, rank, class, probability`."""

    def __init__(self) -> None:
        self._writer = csv.writer(sys.stdout, lineterminator="\n")
        self._writer.writerow(["file", "rank", "class", "probability"])

    def __call__(self, file: str, top: TopClasses) -> None:
        for rank, (name, p) in enumerate(top, start=1):
            self._writer.writerow([file, rank, name, p])


def list_images(paths: Sequence[str], stdin: TextIO) -> list[str]:
    """List the image files of the paths on the command line.

    Args:
        paths: files; folders, which are searched for images at any depth; `-`: paths from stdin.
        stdin: stream with one path per line.

    Raises:
        CdlError: a folder contains no image.
    """
    files: list[str] = []
    for path in paths:
        if path == "-":
            files += [line.rstrip("\n") for line in stdin if line.strip()]
        elif Path(path).is_dir():
            files += map(str, images_below(path))
        else:
            files.append(path)
    return files


def arguments_of(student: Classifier, given: Sequence[str], stdin: TextIO) -> list[str]:
    """Return what a command line asks a student to classify: images, unless it says otherwise.

    Raises:
        CdlError: see `list_images`.
    """
    own = getattr(student, "arguments", None)
    found: list[str] = list_images(given, stdin) if own is None else own(given, stdin)
    return found


def print_predictions(
    student: Classifier, files: Iterable[str], top: int, printer: Printer
) -> bool:
    """Classify files and print the predictions; report unreadable files on stderr.

    Args:
        student: classifier.
        files: paths of images.
        top: number of classes to print per image.
        printer: output format.

    Returns:
        Whether all files could be read.
    """
    all_read = True
    for file in files:
        try:
            found = student.best(file, top)
        except CdlError as error:
            print(f"cdl: {error}", file=sys.stderr)
            all_read = False
            continue
        printer(file, found)
    return all_read
