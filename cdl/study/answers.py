"""Teachers that cdl does not train: pairs whose teacher is a file of answers.

Does not import torch.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cdl.data.order import sizes_of
from cdl.data.sources import SOURCES, SPLITS
from cdl.layout import contents_memory
from cdl.runtime.errors import CdlError
from cdl.spec import Answers
from cdl.study.configuration import ConfigError
from cdl.study.contents import hashes
from cdl.study.runs import Run

if TYPE_CHECKING:
    from cdl.study.grid import Grid

FIELD = "grid.pairs.teacher.answers"


def teacher_name(given: Mapping[str, Any]) -> str:
    """Return the name in folders and tables of a teacher of answers: that of its file."""
    return "answers_" + re.sub(r"[^A-Za-z0-9]", "_", Path(given["answers"]).stem)[:40]


def answers_of(given: Mapping[str, Any]) -> Answers:
    """Return the specification of a teacher of answers, with the hash of its file.

    Raises:
        ConfigError: the file cannot be read.
    """
    path, name = Path(given["answers"]), teacher_name(given)
    if not path.is_file():
        raise ConfigError(f"{FIELD}: {str(path)!r} is not a file; expected a CSV or Parquet file")
    found = hashes([path], contents_memory("queries", name))
    return Answers(name, found[str(path)], given["values"], given["missing"])


def check_answers(given: Mapping[str, Any], grid: "Grid", dataset: str) -> None:
    """Read a file of answers; compare it with the data, if these are packed or the user's own.

    Raises:
        ConfigError: the file is invalid, a class or item has no answer, or a class is unknown.
    """
    from cdl.data.answers import read_answers  # pyarrow and pandas, which most commands do without

    options, order = grid.datasets[dataset].options, grid.class_order(dataset)
    try:
        table = read_answers(given["answers"], given["values"])
        names, classes = _items(grid, dataset)
        if not classes:
            return
        table.check_classes(classes)
        table.check_any(names)
        learnt = len(order) if isinstance(order, list) else len(classes)
        if sum(sizes_of(options["tasks"], learnt)) < len(classes):
            return  # the jobs check the classes and items that are learnt
        table.columns(classes)
        if given["missing"] == "refused" and options["images_per_class"] is None:
            table.check_items(names)
    except CdlError as error:
        raise ConfigError(f"{FIELD}: {error}") from error


def _items(grid: "Grid", dataset: str) -> tuple[list[str], list[str]]:
    """Return training items and classes of packed data or of a user's own; else both empty."""
    from cdl.data.packing import read_index

    packed, source = grid.packed(dataset), dict(grid.source(dataset)["source"])
    if Path(packed.manifest).exists():
        index, _, classes = read_index(packed.folder, SPLITS[0])
        return index["name"].tolist(), classes
    facts = SOURCES[source.pop("name")]
    if facts.files is None or "validation" in grid.source(dataset):
        return [], []
    read = facts.read(**source)
    return [item.name for item in read.items if item.split == SPLITS[0]], list(read.classes)


def check_answered(run: Run, dataset: Mapping[str, Any]) -> None:
    """Raise `ConfigError` if a run needs more than its teacher's answers."""
    if run.answers is None:
        return
    if run.reads_blocks or run.distils.maps_prompts:
        part = "prompts" if run.distils.maps_prompts else "blocks"
        raise ConfigError(
            f"{FIELD}: invalid with the distiller {run.distiller.label!r}, which reads the {part} "
            "of its teacher; expected one that reads outputs alone, such as kd, dkd or dist, or a "
            "backbone as the teacher"
        )
    if dataset["unlabelled"] is not None:
        raise ConfigError(
            f"{FIELD}: invalid with datasets.{run.dataset}.unlabelled, whose images have no "
            "answer; expected unlabelled: null, or a backbone as the teacher"
        )


def check_every_answer(grid: "Grid") -> None:
    """Check the files of answers of a grid, see `check_answers`."""
    for run in {(run.answers.name, run.dataset): run for run in grid.runs if run.answers}.values():
        assert run.answers is not None, "selected above"
        check_answers(grid.answers[run.answers.name], grid, run.dataset)
