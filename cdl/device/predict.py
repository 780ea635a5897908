"""Classify items one by one and print the predictions: the work of `cdl predict`.

Does not import torch for an exported student.
"""

import csv
import json
import sys
from collections.abc import Callable, Iterable

from cdl.device.classifier import Classifier
from cdl.device.errors import CdlError

TopClasses = list[tuple[str, float]]  # the most probable classes with their probabilities
Printer = Callable[[str, TopClasses], None]  # prints a prediction of an item to stdout


class TextPrinter:
    """One line of text per item."""

    def __call__(self, item: str, top: TopClasses) -> None:
        print(f"{item}: {', '.join(f'{name} {p:.3f}' for name, p in top)}")


class JsonPrinter:
    """One line of JSON per item, whose column is `file` or `text`."""

    def __init__(self, column: str) -> None:
        self._column = column

    def __call__(self, item: str, top: TopClasses) -> None:
        found = [{"class": name, "probability": p} for name, p in top]
        print(json.dumps({self._column: item, "predictions": found}))


class CsvPrinter:
    """A CSV header, then rows of item, rank, class and probability."""

    def __init__(self, column: str) -> None:
        self._writer = csv.writer(sys.stdout, lineterminator="\n")
        self._writer.writerow([column, "rank", "class", "probability"])

    def __call__(self, item: str, top: TopClasses) -> None:
        for rank, (name, p) in enumerate(top, start=1):
            self._writer.writerow([item, rank, name, p])


def print_predictions(
    student: Classifier, items: Iterable[str], top: int, printer: Printer
) -> bool:
    """Classify items and print the predictions; report unreadable ones on stderr.

    Args:
        student: classifier.
        items: paths of images, or texts.
        top: number of classes to print for each.
        printer: output format.

    Returns:
        Whether all items could be read.
    """
    all_read = True
    for item in items:
        try:
            found = student.best(item, top)
        except CdlError as error:
            print(f"cdl: {error}", file=sys.stderr)
            all_read = False
            continue
        printer(item, found)
    return all_read
