"""Classify items one by one and print the predictions: the work of `cdl predict`.

Does not import torch for an exported student.
"""

import csv
import json
import sys
from collections.abc import Callable, Iterable

from cdl.device.belonging import UNKNOWN, Score
from cdl.device.classifier import NO_SCORES, Classifier
from cdl.device.errors import CdlError

TopClasses = list[tuple[str, float]]  # the most probable classes with their probabilities
Printer = Callable[[str, TopClasses, Score | None], None]  # prints a prediction of an item


class TextPrinter:
    """One line of text per item; at its end, whether the item is unknown."""

    def __call__(self, item: str, top: TopClasses, score: Score | None = None) -> None:
        end = (
            "; {} ({:.3f} below {:.3f})".format(UNKNOWN, *score) if score and score.unknown else ""
        )
        print(f"{item}: {', '.join(f'{name} {p:.3f}' for name, p in top)}{end}")


class JsonPrinter:
    """One line of JSON per item, whose column is `file` or `text`."""

    def __init__(self, column: str) -> None:
        self._column = column

    def __call__(self, item: str, top: TopClasses, score: Score | None = None) -> None:
        found = [{"class": name, "probability": p} for name, p in top]
        more = {UNKNOWN: score.unknown, **score._asdict()} if score else {}
        print(json.dumps({self._column: item, "predictions": found, **more}))


class CsvPrinter:
    """A CSV header, then rows of item, rank, class and probability, and of the score if known."""

    def __init__(self, column: str, scored: bool = False) -> None:
        self._writer = csv.writer(sys.stdout, lineterminator="\n")
        more = [UNKNOWN, *Score._fields] if scored else []
        self._writer.writerow([column, "rank", "class", "probability", *more])

    def __call__(self, item: str, top: TopClasses, score: Score | None = None) -> None:
        more = [score.unknown, *score] if score else []
        for rank, (name, p) in enumerate(top, start=1):
            self._writer.writerow([item, rank, name, p, *more])


def uses_scores(student: Classifier, unknown: bool, threshold: float | None) -> bool:
    """Return whether predictions include scores: they are wanted, and the student has thresholds.

    Raises:
        CdlError: a threshold is given that is no cosine, or that nothing would use.
    """
    if threshold is None:
        return unknown and student.scored
    if not -1 <= threshold <= 1:
        raise CdlError(f"threshold: invalid value {threshold}; expected a cosine, -1 to 1")
    if not unknown:
        raise CdlError(f"threshold: {threshold} excludes no-unknown; give one of them")
    if not student.scored:
        raise CdlError(f"threshold: {threshold} cannot be used: {NO_SCORES}")
    return True


def print_predictions(
    student: Classifier,
    items: Iterable[str],
    top: int,
    printer: Printer,
    scored: bool = False,
    threshold: float | None = None,
) -> bool:
    """Classify items and print the predictions; report unreadable ones on stderr.

    Args:
        student: classifier.
        items: paths of images, or texts.
        top: number of classes to print for each.
        printer: output format.
        scored: whether to print the score of belonging to a class, see `uses_scores`.
        threshold: the score below which an item is unknown; None: that of its nearest class.

    Returns:
        Whether all items could be read.
    """
    all_read = True
    for item in items:
        try:
            if scored:
                (row,), (found,) = student.judged(item)
            else:
                (row,) = student.predict_proba(item)
        except CdlError as error:
            print(f"cdl: {error}", file=sys.stderr)
            all_read = False
            continue
        score = Score.of(found, threshold) if scored else None
        printer(item, student.most_probable(row, top), score)
    return all_read
