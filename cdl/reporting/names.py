"""Display names of learners, datasets and labels in tables, figures and on the page."""

import re
from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd


def distiller_of(row: Mapping[Hashable, Any] | pd.Series) -> str:
    """Return the display name of a row's distiller: `kd`, `kd (hot)`, `kd (alpha=0.9)`.

    In brackets: the variant or, without one, the options that differ from the defaults.
    """
    if row["role"] == "teacher":
        return "(teacher)"
    note = row["variant"] or row["distiller_options"]
    return f"{row['distiller']} ({note})" if note else str(row["distiller"])


def method_of(row: Mapping[Hashable, Any] | pd.Series) -> str:
    """Return the display name of a row's method, formed like that of `distiller_of`."""
    named = "+" in row["method"] or not row["method_options"]
    return str(row["method"]) if named else f"{row['method']} ({row['method_options']})"


def taught_by(row: Mapping[Hashable, Any] | pd.Series) -> str:
    """Return the display name of a row's teacher, with its method if it differs."""
    other = f" ({row['teacher_method']})" if row["teacher_method"] else ""
    return f"{row['teacher']}{other}" if row["teacher"] else "-"


def labels_shown(row: Mapping[Hashable, Any]) -> str:
    """Return the display name of the label levels of a row's learner and its teacher."""
    taught = f" (teacher: {row['teacher_labels']})" if row["teacher"] else ""
    return f"{row['labels']}{taught}"


_LEARNT, _ALIGNED = "alignment=null", 'alignment.preset="slca"'
WORDS = {  # of options, as in the tables of the README
    'soft_columns="seen"': "all classes seen",
    _LEARNT: "heads as learnt",
    _ALIGNED: "heads aligned",
    'alignment.preset="class_means"': "heads from class means",
}


def named(table: pd.DataFrame) -> pd.DataFrame:
    """Add the column `label`, the name of each row in words: `kd, all classes seen`.

    The words are those of the options in which a row differs from others with its distiller. Rows
    that are still alike have their variants in brackets.

    Args:
        table: runs or cells of a whole configuration, with the columns of `CELL`.
    """
    rows = table.to_dict("records")
    students = [row for row in rows if row["role"] == "student"]
    options = {row["distiller_options"]: {*_split(row["distiller_options"])} for row in students}
    shared = {
        name: set.intersection(
            *(options[row["distiller_options"]] for row in students if row["distiller"] == name)
        )
        for name in {row["distiller"] for row in students}
    }

    learnt = {
        (row["method"], row["distiller"])
        for row in students
        if _LEARNT in options[row["distiller_options"]]
    }

    def words(row: Mapping[Hashable, Any]) -> str:
        if row["role"] == "teacher":
            return "teacher"
        name = row["distiller"]
        own = options[row["distiller_options"]]
        differing = sorted(own - shared[name])
        if (row["method"], name) in learnt and not any(o.startswith("alignment") for o in own):
            differing.append(_ALIGNED)  # as its method says
        return ", ".join([name, *(WORDS.get(o, o.replace('"', "")) for o in differing)])

    label = pd.Series([words(row) for row in rows], table.index, dtype=object)
    variant = table["variant"].where(table["role"] == "student", "")
    alike = variant.groupby(label).transform("nunique") > 1
    noted = variant.map(lambda name: f" ({name})" if name else "")
    return table.assign(label=label + noted.where(alike, ""))


def _split(options: str) -> list[str]:
    """Return the options in a text such as `alpha=0.9, ks=[1, 2]`."""
    return re.split(r", (?=[\w.]+=)", options) if options else []


def names(table: pd.DataFrame) -> pd.Series:
    """Return the name of each row in figures: `teacher`, `kd`, or `kd (hot)` for a variant.

    In a table of `named`, it is in words: `kd, all classes seen`.
    """
    if "label" in table:
        return table["label"]
    named = table["distiller"] + table["variant"].map(lambda v: f" ({v})" if v else "")
    return named.where(table["role"] == "student", "teacher")


def dataset_names(table: pd.DataFrame) -> dict[str, str]:
    """Return the name in figures and on the page of each dataset in a table of runs or cells.

    It says how many labels the students see, if that is not all. A variant that this does not
    distinguish has its own name in brackets.
    """
    shown: dict[str, str] = {}
    students = table[table["role"] == "student"]
    for dataset in dict.fromkeys(table["dataset"]):
        name, _, variant = str(dataset).partition("+")
        levels = {*students.loc[students["dataset"] == dataset, "labels"]}
        few = f"{name} with {labels_text(levels.pop())}" if len(levels) == 1 else name
        few = name if few.endswith(" all labels") else few
        ambiguous = variant and (few == name or few in shown.values())
        shown[dataset] = f"{few} ({variant})" if ambiguous else few
    return shown


def labels_text(level: str) -> str:
    """Return a level of labels as text: `all labels`, `1 label per class`, `10% of the labels`."""
    if level.isdecimal():
        return f"{level} label{'s' * (level != '1')} per class"
    return f"{level} labels" if level == "all" else f"{level} of the labels"


def cell_name(folder: str) -> str:
    """Return `METHOD/LEARNER`, without backbones, of the folder of a cell, for `cdl compare`."""
    method, learner = folder.split("/")[-2:]
    return f"{method}/{learner.partition('-')[0]}"


def names_of(row: Mapping[Hashable, Any]) -> dict[str, str]:
    """Return the display names of a row: method, backbone, teacher, distiller."""
    return {
        "method": method_of(row),
        "backbone": row["backbone"],
        "teacher": taught_by(row),
        "distiller": distiller_of(row),
    }
