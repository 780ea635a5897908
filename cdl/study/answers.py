"""Teachers that cdl does not train: pairs whose teacher is a file of answers.

Does not import torch.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cdl.data.sources import SPLITS
from cdl.layout import PackedFiles, contents_memory
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
    return Answers(name, found[str(path)], given["values"])


def check_answers(given: Mapping[str, Any], packed: PackedFiles) -> None:
    """Read a file of answers; compare it with the data, where these are packed already.

    Raises:
        ConfigError: the file is invalid, or a class that it answers for is unknown.
    """
    from cdl.data.answers import read_answers  # pyarrow and pandas, which most commands do without
    from cdl.data.packing import read_index

    try:
        table = read_answers(given["answers"], given["values"])
        if Path(packed.manifest).exists():
            table.check_classes(read_index(packed.folder, SPLITS[0])[2])
    except CdlError as error:
        raise ConfigError(f"{FIELD}: {error}") from error


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
        check_answers(grid.answers[run.answers.name], grid.packed(run.dataset))
