"""Panels: the rows of a table by method, with their pair of teacher and student."""

from collections.abc import Mapping
from itertools import product
from typing import Any, NamedTuple

import pandas as pd

from cdl.reporting.names import names

_PAIR = ["teacher", "teacher_method", "backbone"]


def of_dataset(dataset: str, runs: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a dataset, and the rows of its variants that it is compared with."""
    own = runs[runs["dataset"] == dataset]
    linked = runs[runs["run"].isin([*own["teacher_run"], *own["baseline_run"]])]
    compared = set(zip(linked["dataset"], linked["role"], strict=True))
    pairs = pd.Series(zip(table["dataset"], table["role"], strict=True), table.index)
    shared = (table["teacher"] == "") & pairs.isin(compared)
    return table[(table["dataset"] == dataset) | shared].assign(dataset=dataset)


class HeldOut(NamedTuple):
    """The test set of a dataset.

    Attributes:
        images: number of test images.
        classes: number of classes.
    """

    images: int
    classes: int

    @classmethod
    def of(cls, run: Mapping[str, Any]) -> "HeldOut":
        """Return the test set from the content of a run's JSON."""
        return cls(sum(run["test_images"]), len(run["classes"]))

    @property
    def chance(self) -> float:
        """Accuracy of guessing, in percent."""
        return 100 / self.classes


class Panel(NamedTuple):
    """A method with one pair of teacher and student, and its rows."""

    title: str
    rows: pd.DataFrame


def panels_of(table: pd.DataFrame) -> list[Panel]:
    """Split rows into panels, each with its teacher; panels without students are omitted."""
    distilled = table[table["teacher"] != ""]
    pairs = list(dict.fromkeys(distilled[_PAIR].itertuples(index=False, name=None)))
    pairs = pairs or [("", "", name) for name in dict.fromkeys(table["backbone"])]
    panels = []
    for (teacher, other, student), method in product(pairs, dict.fromkeys(table["method"])):
        is_teacher = (table["role"] == "teacher") & (table["backbone"] == teacher)
        is_teacher &= table["query"].isin([teacher, student])
        is_teacher &= table["method"] == (other or method)
        is_student = (table["role"] == "student") & (table["backbone"] == student)
        is_student &= table["method"] == method
        taught = (table["teacher"] == teacher) & (table["teacher_method"] == other)
        is_student &= taught | (table["teacher"] == "")
        rows = table[is_teacher | is_student]
        by = f"{teacher} ({other})" if other else teacher
        title = method if len(pairs) == 1 else f"{method}\n{by} to {student}"
        elsewhere = (distilled["method"] == method) & (distilled["backbone"] == student)
        if (is_student & taught).any() or is_student.any() and not (other or elsewhere.any()):
            panels.append(Panel(title, rows))
    return panels


def learners_of(table: pd.DataFrame) -> list[Panel]:
    """Split rows into one panel per learner, with its name and, if there are several, the panel."""
    panels, learners = panels_of(table), dict[tuple[str, ...], tuple[str, str, pd.DataFrame]]()
    for panel in panels:
        title = panel.title.replace("\n", ", ")
        for name, rows in panel.rows.groupby(names(panel.rows), sort=False):
            # a teacher has many students
            learners.setdefault(tuple(rows["run"]), (title, str(name), rows))
    titles = [name for _, name, _ in learners.values()]
    if len(panels) > 1:
        titles = [f"{title.split(', ')[0]}: {name}" for title, name, _ in learners.values()]
    if len({*titles}) < len(titles):
        titles = [f"{title}: {name}" for title, name, _ in learners.values()]
    return [Panel(t, rows) for t, (*_, rows) in zip(titles, learners.values(), strict=True)]
