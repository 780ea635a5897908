"""Figures and intervals from made-up runs."""

import numpy as np
import pandas as pd
import pytest
from study import intervals_of, make_study, predictions

from cdl.reporting import figures
from cdl.reporting.panels import HeldOut, learners_of, panels_of
from cdl.reporting.sentences import sentences
from cdl.reporting.summary import differences
from cdl.runtime.artifacts import read_json

TEST = HeldOut(images=200, classes=8)


def test_a_missing_baseline_is_reported(tmp_path):
    results, *_ = make_study(tmp_path, methods=["l2p"])
    alone = results[results["distiller"] != "none"]
    cells = intervals_of(alone)
    assert cells["gain"].isna().all()
    assert "nothing to compare" in sentences(cells)[0]
    figure = figures.gain_over_baseline(cells, differences(alone), TEST)
    assert "no baseline" in figure.texts[0].get_text()


def test_the_small_print_names_data_pair_n_and_interval(tmp_path):
    results, curves, *_ = make_study(tmp_path)
    lines = figures.accuracy_over_tasks(curves, TEST)
    gains = figures.gain_over_baseline(intervals_of(results), differences(results), TEST)
    for figure, interval in ((lines, "band from lowest to highest seed"), (gains, "95 %")):
        note = figure.get_suptitle().replace("\n", " ")
        assert note.startswith("digits, 4 tasks; 200 test examples; big to small; n = 2 seeds; ")
        assert interval in note
    assert "chance at the end 12.5 %" in lines.get_suptitle().replace("\n", " ")
    for axis in lines.axes:  # no legend: names are at the ends of lines
        assert {text.get_text() for text in axis.texts} == {"teacher", "none", "kd", "dkd"}


def test_the_heat_map_shows_means_over_seeds_of_every_learner(tmp_path):
    results, *_ = make_study(tmp_path)
    matrices = {
        run: np.array(read_json(f"{run}/results.json")["matrix"], float) for run in results["run"]
    }
    figure = figures.forgetting(results, matrices, TEST)
    panels = [axis for axis in figure.axes if axis.images]
    assert [axis.get_title() for axis in panels] == ["teacher", "none", "kd", "dkd", *4 * [""]]
    mean = np.mean([matrices[f"{tmp_path}/apt/dkd/seed{s}"] for s in (0, 1)], axis=0)
    numbers = {text.get_position(): text.get_text() for text in panels[-1].texts}
    assert {(i, t): f"{mean[t, i]:.0f}" for t in range(4) for i in range(t + 1)} == numbers


def test_students_of_a_teacher_with_another_method_have_a_panel_of_their_own(tmp_path):
    results, *_ = make_study(tmp_path)
    taught = results["teacher"] != ""
    foreign = (results["method"] == "l2p") & taught
    others = results[foreign].assign(teacher_method="apt", run=results["run"] + "x")
    both = pd.concat([results, others], ignore_index=True)
    panels = {panel.title: panel.rows for panel in panels_of(both)}
    assert list(panels) == ["l2p\nbig to small", "apt\nbig to small", "l2p\nbig (apt) to small"]
    rows = panels["l2p\nbig (apt) to small"]
    assert set(rows[rows["role"] == "teacher"]["method"]) == {"apt"}
    assert set(rows[rows["distiller"] != "none"]["teacher_method"]) == {"apt"}
    assert len(rows) == 2 + 2 + 4  # teacher, none, two distillers; of two seeds
    gains = intervals_of(both, lambda run: predictions(run.removesuffix("x"))).dropna(subset="gain")
    assert gains.groupby("teacher_method").size().to_dict() == {"": 4, "apt": 2}


def test_the_teacher_of_several_methods_is_one_learner(tmp_path):
    results, *_ = make_study(tmp_path)
    titles = [panel.title for panel in learners_of(results)]
    assert titles == [f"{m}: {n}" for m in ("l2p", "apt") for n in ("teacher", "none", "kd", "dkd")]
    taught = (results["method"] == "apt") & (results["teacher"] != "")
    results.loc[taught, "teacher_method"] = "l2p"
    found = learners_of(results[(results["method"] == "l2p") | taught])
    assert sum("teacher" in panel.title for panel in found) == 1


def test_gain_and_cost_show_every_cell_at_its_value(tmp_path):
    results, _, cost, _ = make_study(tmp_path)
    table = intervals_of(results).dropna(subset="gain")
    gain = figures.gain_over_baseline(table, differences(results), TEST)
    costs = figures.cost_against_accuracy(results, cost)
    points = [line.get_xdata()[0] for line in gain.axes[1].lines if len(line.get_xdata()) == 1]
    assert points == pytest.approx(table[table["method"] == "apt"]["gain"].tolist())
    teacher = cost[(cost["method"] == "l2p") & (cost["role"] == "teacher")]
    drawn_at = costs.axes[0].containers[0].lines[0].get_xdata()[0]
    assert drawn_at == pytest.approx(teacher["training_seconds"].mean())
    for axis in costs.axes:
        for point in [container.lines[0] for container in axis.containers]:
            assert axis.get_xlim()[0] < point.get_xdata()[0] < 0.95 * axis.get_xlim()[1]
    assert [text.get_text() for text in costs.legends[0].texts] == ["teacher", "none", "kd", "dkd"]
    counted = cost.assign(tflops=2.0, total_tflops=5.0)
    axes = figures.cost_against_accuracy(results, counted).axes
    labels = [axis.get_xlabel() for axis in axes if axis.axison]
    assert [label.split()[0] for label in labels] == ["time", "10$^{12}$"] * 2
    shares = [c.get_segments() for c in axes[1].collections if c.get_label() == "_share"]
    assert [tuple(segments[0][:, 0]) for segments in shares] == [(2.0, 5.0)] * 4
