"""Label efficiency: panels of learners, from rows of a planned grid."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from lab import make_grid

from cdl.reporting import label_efficiency as efficiency
from cdl.reporting.columns import CELL
from cdl.reporting.tables import write
from cdl.runtime.artifacts import write_json
from cdl.runtime.errors import CdlError
from cdl.study.specifications import label_levels, row


def few(variant, labels, **options):
    return {"block": "digits", "variant": variant, "labels": labels, **options}


LEVELS = [few("l1", {"per_class": 1}), few("l4", {"per_class": 4})]
FULL = [few("l1t", {"per_class": 1}, teacher_labels="all")]


@pytest.fixture
def study():
    """Runs and cells of a grid with made-up numbers, all different."""
    grid = make_grid(
        {"grid": {"datasets": ["digits", *LEVELS, *FULL], "distillers": ["none", "kd"]}}
    )
    runs = pd.DataFrame([row(grid, run) for run in grid.runs])
    protocols = {str(i): protocol for i, protocol in enumerate(runs["protocol"])}
    runs["protocol"] = [str(i) for i in range(len(runs))]
    cells = runs[CELL].assign(
        n=2, over="seeds and test examples", accuracy=np.arange(len(runs)) + 10.0
    )
    cells = cells.assign(accuracy_low=cells["accuracy"] - 1, accuracy_high=cells["accuracy"] + 2)
    return grid, runs.assign(accuracy=cells["accuracy"]), cells, protocols


def table_of(grid, runs, cells, protocols):
    (levels,) = label_levels(grid).values()
    assert levels == {"1": 1, "4": 4, "all": 16}
    runs = runs.drop(columns="accuracy")
    return efficiency.label_efficiency(runs, cells, protocols, "digits", levels)


def test_every_student_is_in_a_panel_with_its_teacher_and_the_undistilled_one(study):
    grid, runs, cells, protocols = study
    table = table_of(grid, runs, cells, protocols)
    assert not table.duplicated([*efficiency.PANEL, "learner", "labels"]).any()
    by_level = table.pivot(index=["teacher_saw", "labels"], columns="learner", values="accuracy")
    assert set(by_level.index) == {
        *(("same", level) for level in ("1", "4", "all")),
        *(("all", level) for level in ("1", "all")),
    }
    accuracy = runs.set_index("run")["accuracy"]
    for (saw, labels), line in by_level.iterrows():
        seen = "all" if saw == "all" else labels
        kd = runs[(runs["labels"] == labels) & (runs["teacher_labels"] == seen)].iloc[0]
        assert line["kd"] == kd["accuracy"]
        assert line["teacher"] == accuracy[kd["teacher_run"]]
        assert line["none"] == accuracy[kd["baseline_run"]]
    full = by_level.loc["all"]
    assert full["teacher"].nunique() == 1 and full["none"].nunique() == 2


def test_the_figure_shows_every_level_at_its_place(study):
    grid, runs, cells, protocols = study
    table = table_of(grid, runs, cells, protocols)
    all_labels, same = efficiency.draw(table, "note").axes
    assert {line.get_label() for line in same.lines} == {"teacher", "none", "kd"}
    assert [list(line.get_xdata()) for line in same.lines] == [[1, 4, 16]] * 3
    (teacher,) = (line for line in all_labels.lines if line.get_label() == "teacher")
    assert teacher.get_linestyle() == "--" and len(set(teacher.get_ydata())) == 1
    assert [text.get_text() for text in same.get_xticklabels()] == ["1", "4", "all"]
    assert len(same.collections) == 2 * 3  # bands, and bars where they end
    text = efficiency.markdown(table)
    assert "| 1 label " in text and "10.0 (9.0 to 12.0)" in text


def test_a_panel_with_one_level_of_labels_is_not_drawn(study):
    table = table_of(*study)
    same = table["teacher_saw"] == "same"
    figure = efficiency.draw(table[~same | (table["labels"] == "all")], "note")
    (axis,) = (axis for axis in figure.axes if axis.axison)
    assert axis.get_title().endswith("teacher saw all labels")
    figure = efficiency.draw(table[table["labels"] == "all"], "note")
    assert "one level of labels" in figure.texts[0].get_text()


def test_titles_name_the_teacher_if_there_are_several(study):
    def titles(*tables):
        axes = efficiency.draw(pd.concat(tables), "note").axes
        return [title.split("\n")[-1] for axis in axes if (title := axis.get_title())]

    table = table_of(*study)
    one = ["teacher saw all labels", "teacher saw the same labels"]
    assert titles(table) == one
    assert titles(table, table.assign(teacher="-", teacher_saw="")) == [*one, "no teacher"]
    two = titles(table, table.assign(teacher="vit_nano"))
    assert len(set(two)) == len(two) == 4
    assert two[0] == "vit_micro saw all labels"


def test_the_page_shows_the_table_that_matches_its_record(study, tmp_path):
    table = table_of(*study)
    path, figure, record = (
        str(tmp_path / f"label_efficiency_d.{k}") for k in ("csv", "svg", "json")
    )
    write(table, path)
    Path(figure).write_text('<svg width="90pt"/>')
    write_json(record, {}, files=[path, figure])
    given = {"tables": [path], "figures": [figure], "records": [record]}
    tables = SimpleNamespace(**{f"efficiency_{name}": paths for name, paths in given.items()})
    (part,) = efficiency.on_page(tables)
    assert part["dataset"] == "d" and part["rows"] == efficiency.display_table(table)
    assert efficiency.on_page(SimpleNamespace()) == []
    write(table[table["labels"] == "all"], path)  # one level: nothing to compare
    write_json(record, {}, files=[path, figure])
    assert efficiency.on_page(tables) == []
    Path(figure).write_text("<svg> </svg>")
    with pytest.raises(CdlError):
        efficiency.on_page(tables)


@pytest.mark.parametrize(
    ("labels", "images", "levels"),
    [
        ([{"per_class": 2}, None], 8, {"2": 2, "all": 8}),
        ([{"per_class": 2}, {"fraction": 0.5}], 8, {"2": 25, "50%": 50}),
        ([None, {"fraction": 0.1}], None, {"10%": 10, "all": 100}),
        ([{"per_class": 2}, {"per_class": 2}], 8, None),
        ([None], 8, None),
    ],
)
def test_levels_have_places_on_one_axis(labels, images, levels):
    variants = [few(f"v{i}", given) for i, given in enumerate(labels)]
    digits = {"images_per_class": images}
    grid = make_grid({"datasets": {"digits": digits}, "grid": {"datasets": variants}})
    assert label_levels(grid) == ({} if levels is None else {"digits": levels})
