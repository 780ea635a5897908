"""Figures and intervals from made-up runs."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from study import make_study

from cdl.report import figures
from cdl.report.paired_gains import paired_gains
from cdl.report.tables import differences
from cdl.runtime.artifacts import read_json


def predictions(run):
    return pd.read_parquet(f"{run}/predictions.parquet")


@pytest.fixture
def drawn(monkeypatch):
    """The figures drawn, instead of files."""
    caught = []
    monkeypatch.setattr(figures, "_save", lambda figure, outputs: caught.append(figure))
    return caught


def test_gains_over_seeds_are_students_interval_of_paired_differences(tmp_path):
    results, *_ = make_study(tmp_path, methods=["l2p"], seeds=[0, 1, 2])
    table = paired_gains(results, predictions)
    assert table["kd"].tolist() == ["kd", "dkd"]
    assert set(table["n"]) == {3} and set(table["over"]) == {"seeds"}
    by_seed = results.set_index(["role", "kd", "seed"])["final_average_accuracy"]["student"]
    expected = stats.ttest_1samp((by_seed["kd"] - by_seed["none"]).to_numpy(), 0)
    row = table.iloc[0]
    assert row["gain"] == pytest.approx((by_seed["kd"] - by_seed["none"]).mean())
    assert (row["low"], row["high"]) == pytest.approx(tuple(expected.confidence_interval(0.95)))


def test_one_seed_has_an_interval_over_test_images(tmp_path):
    results, *_ = make_study(tmp_path, methods=["l2p"], seeds=[0], tasks=3, images=40)
    row = paired_gains(results, predictions).iloc[0]
    assert row["over"] == "test images"
    own, none = (predictions(f"{tmp_path}/l2p/{name}/seed0") for name in ("kd", "none"))
    difference = (own["correct"].astype(int) - none["correct"].astype(int)).to_numpy()
    assert row["gain"] == pytest.approx(100 * difference.mean())
    rng = np.random.default_rng(0)  # a stratified bootstrap over images, paired
    draws = rng.integers(0, 40, (4000, 3, 40)) + 40 * np.arange(3)[:, None]
    spread = 100 * difference[draws].mean(axis=(1, 2)).std()
    assert (row["high"] - row["low"]) / (2 * 1.96) == pytest.approx(spread, rel=0.05)


def test_nothing_to_compare_with_is_said(tmp_path, drawn):
    results, *_ = make_study(tmp_path, methods=["l2p"])
    alone = results[results["kd"] != "none"]
    assert paired_gains(alone, predictions).empty
    figures.gain_over_none(paired_gains(alone, predictions), differences(alone), [])
    assert "no distilled student" in drawn[0].texts[0].get_text()


def test_the_heat_map_shows_means_over_seeds_of_every_learner(tmp_path, drawn):
    results, *_ = make_study(tmp_path)
    matrices = {
        run: np.array(read_json(f"{run}/results.json")["matrix"], float) for run in results["run"]
    }
    figures.forgetting(results, matrices, [])
    panels = [axis for axis in drawn[0].axes if axis.images]
    assert [axis.get_title() for axis in panels] == ["teacher", "none", "kd", "dkd", *4 * [""]]
    mean = np.mean([matrices[f"{tmp_path}/apt/dkd/seed{s}"] for s in (0, 1)], axis=0)
    numbers = {text.get_position(): text.get_text() for text in panels[-1].texts}
    assert {(i, t): f"{mean[t, i]:.0f}" for t in range(4) for i in range(t + 1)} == numbers


def test_gain_and_cost_show_every_cell_at_its_value(tmp_path, drawn):
    results, _, cost, _ = make_study(tmp_path)
    table = paired_gains(results, predictions)
    figures.gain_over_none(table, differences(results), [])
    figures.cost_against_accuracy(results, cost, [])
    gain, costs = drawn
    assert "interval over seeds" in gain.get_supxlabel()
    points = [line.get_xdata()[0] for line in gain.axes[1].lines if len(line.get_xdata()) == 1]
    assert points == pytest.approx(table[table["method"] == "apt"]["gain"].tolist())
    teacher = cost[(cost["method"] == "l2p") & (cost["role"] == "teacher")]
    drawn_at = costs.axes[0].containers[0].lines[0].get_xdata()[0]
    assert drawn_at == pytest.approx(teacher["training_seconds"].mean())
    for axis in costs.axes:
        for point in [container.lines[0] for container in axis.containers]:
            assert axis.get_xlim()[0] < point.get_xdata()[0] < 0.95 * axis.get_xlim()[1]
    assert [text.get_text() for text in costs.legends[0].texts] == ["teacher", "none", "kd", "dkd"]
    styles = figures._styles(results)
    looks = {(style["marker"], style["linestyle"]) for style in styles.values()}
    assert len(looks) == len(styles)  # told apart without colour
