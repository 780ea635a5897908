"""Teachers that cdl does not train: a file of answers, or a classifier that makes one.

Does not import torch.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cdl.data.sources import SOURCES, SPLITS
from cdl.layout import contents_memory
from cdl.runtime.errors import CdlError
from cdl.spec import Answers
from cdl.study.classifiers import FIELD as CLASSIFIER
from cdl.study.classifiers import (
    check_classifier,
    classifier_name,
    classifier_of,
    learnt_classes,
    packed_items,
)
from cdl.study.configuration import ConfigError
from cdl.study.contents import hashes
from cdl.study.runs import Run

if TYPE_CHECKING:
    from cdl.study.grid import Grid

FIELD = "grid.pairs.teacher.answers"


def teacher_name(given: Mapping[str, Any]) -> str:
    """Return the name in folders and tables of a teacher of answers: that of its file.

    Raises:
        ConfigError: it is neither a file nor a classifier, or both.
    """
    if ("answers" in given) == ("classifier" in given):
        raise ConfigError(
            "grid.pairs.teacher: expected one of answers and classifier, or the name of a backbone"
        )
    if "classifier" in given:
        return classifier_name(given["classifier"])
    return "answers_" + re.sub(r"[^A-Za-z0-9]", "_", Path(given["answers"]).stem)[:40]


def answers_of(given: Mapping[str, Any]) -> Answers:
    """Return the specification of a teacher of answers, with the hash of its file.

    Raises:
        ConfigError: the file cannot be read.
    """
    name = teacher_name(given)
    if "classifier" in given:
        return classifier_of(given["classifier"])
    path = Path(given["answers"])
    if not path.is_file():
        raise ConfigError(f"{FIELD}: {str(path)!r} is not a file; expected a CSV or Parquet file")
    found = hashes([path], contents_memory("queries", name))
    return Answers(name, found[str(path)], given["values"], given["missing"])


def check_answers(given: Mapping[str, Any], grid: "Grid", run: Run) -> None:
    """Read a file of answers; compare it with the data, if these are packed or the user's own.

    Raises:
        ConfigError: the file is invalid, a class or item has no answer, or a class is unknown.
    """
    from cdl.data.answers import read_answers  # pyarrow and pandas, which most commands do without

    try:
        table = read_answers(given["answers"], given["values"])
        names, classes = _items(grid, run.dataset)
        if not classes:
            return
        table.check_classes(classes)
        table.check_any(names)
        learnt = learnt_classes(grid, run, classes)
        table.columns(learnt)
        images = grid.dataset(run)["images_per_class"]
        whole = not any(images if isinstance(images, list) else [images])
        every = len(learnt) == len(classes) and whole
        if given["missing"] == "refused" and every:  # else the jobs check the items that they read
            table.check_items(names)
    except CdlError as error:
        raise ConfigError(f"{FIELD}: {error}") from error


def _items(grid: "Grid", dataset: str) -> tuple[list[str], list[str]]:
    """Return training items and classes of packed data or of a user's own; else both empty."""
    if (packed := packed_items(grid, dataset)) is not None:
        return packed
    source = dict(grid.source(dataset)["source"])
    facts = SOURCES[source.pop("name")]
    if facts.files is None or "validation" in grid.source(dataset):
        return [], []
    read = facts.read(**source)
    return [item.name for item in read.items if item.split == SPLITS[0]], list(read.classes)


def check_answered(run: Run, dataset: Mapping[str, Any]) -> None:
    """Raise `ConfigError` if a run needs more than its teacher's answers."""
    if run.answers is None:
        return
    field = CLASSIFIER if run.answers.values == "classifier" else FIELD
    if run.reads_blocks or run.distils.maps_prompts:
        part = "prompts" if run.distils.maps_prompts else "blocks"
        raise ConfigError(
            f"{field}: invalid with the distiller {run.distiller.label!r}, which reads the {part} "
            "of its teacher; expected one that reads outputs alone, such as kd, dkd or dist, or a "
            "backbone as the teacher"
        )
    if dataset["unlabelled"] is not None:
        raise ConfigError(
            f"{field}: invalid with datasets.{run.dataset}.unlabelled, whose images have no "
            "answer; expected unlabelled: null (with labels: {per_class: N} the other images of "
            "the data itself are answered), or a backbone as the teacher"
        )


def check_every_answer(grid: "Grid") -> None:
    """Check the files and classifiers of a grid, see `check_answers` and `check_classifier`."""
    for run in {(run.answers.name, run.dataset): run for run in grid.runs if run.answers}.values():
        assert run.answers is not None, "selected above"
        given = grid.answers[run.answers.name]
        if "classifier" in given:
            check_classifier(given["classifier"], grid, run)
        else:
            check_answers(given, grid, run)
