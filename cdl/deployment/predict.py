"""Classify items one by one and print the predictions: the work of `cdl predict`.

Does not import torch for an exported student.
"""

import csv
import json
import sys
from collections.abc import Iterable
from typing import Protocol

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


def print_predictions(
    student: Classifier, files: Iterable[str], top: int, printer: Printer
) -> bool:
    """Classify items and print the predictions; report unreadable ones on stderr.

    Args:
        student: classifier.
        files: paths of images, or texts.
        top: number of classes to print for each.
        printer: output format.

    Returns:
        Whether all items could be read.
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
