"""Intervals, contrasts and their summary in words, from made-up runs."""

import re

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from study import intervals_of, make_study, predictions

from cdl.reporting.crossed import holm
from cdl.reporting.intervals import CONFOUNDED, contrasts
from cdl.reporting.sentences import sentences


def reading(cells):
    return " ".join(sentences(cells))


def test_every_mean_has_an_interval_around_it(tmp_path):
    results, *_ = make_study(tmp_path)
    table = intervals_of(results)
    means = results.groupby(["method", "role", "distiller"], sort=False)[
        "final_average_accuracy"
    ].mean()
    assert table["accuracy"].to_numpy() == pytest.approx(means.to_numpy())
    assert (table["accuracy_low"] < table["accuracy"]).all()
    assert (table["accuracy"] < table["accuracy_high"]).all()
    assert set(table["over"]) == {"seeds and test examples"} and set(table["n"]) == {2}
    distilled = table["teacher"] != ""
    assert table["gain"].notna().tolist() == distilled.tolist()
    by_cell = table.set_index(["method", "distiller", "role"])["accuracy"]
    gain = by_cell["apt", "dkd", "student"] - by_cell["apt", "none", "student"]
    assert table["gain"].iloc[-1] == pytest.approx(gain)


def test_one_seed_has_an_interval_over_test_images(tmp_path):
    results, *_ = make_study(tmp_path, methods=["l2p"], seeds=[0], tasks=3, images=40)
    row = intervals_of(results).dropna(subset="gain").iloc[0]
    assert row["over"] == "test examples"
    own, none = (predictions(f"{tmp_path}/l2p/{name}/seed0") for name in ("kd", "none"))
    difference = (own["correct"].astype(int) - none["correct"].astype(int)).to_numpy()
    assert row["gain"] == pytest.approx(100 * difference.mean())
    standard_error = 100 * difference.std(ddof=1) / len(difference) ** 0.5
    half = stats.t.ppf(0.975, len(difference) - 1) * standard_error
    assert row["gain_high"] - row["gain"] == pytest.approx(half)
    assert row["gain"] - row["gain_low"] == pytest.approx(half)


def test_gains_are_corrected_within_a_dataset(tmp_path):
    results, *_ = make_study(tmp_path)
    table = intervals_of(results).dropna(subset="gain_p")
    assert len(table) == 4  # two methods with two distillers each: one family
    assert table["gain_p_holm"].to_list() == pytest.approx(holm(table["gain_p"].to_list()))
    elsewhere = results.assign(labels=np.where(results["method"] == "apt", "10", "all"))
    alone = intervals_of(elsewhere).dropna(subset="gain_p")
    for _, family in alone.groupby("labels"):
        assert family["gain_p_holm"].to_list() == pytest.approx(holm(family["gain_p"].to_list()))


def test_any_two_cells_with_the_same_test_images_are_compared(tmp_path):
    results, *_ = make_study(tmp_path, methods=["l2p"])
    tested = dict.fromkeys(results["run"], "b" * 64)
    table = contrasts(results, predictions, tested).set_index(["first", "second"])
    assert len(table) == 6
    row = table.loc[(f"{tmp_path}/l2p/none", f"{tmp_path}/l2p/kd")]
    gain = intervals_of(results).set_index(["distiller", "role"]).loc[("kd", "student")]
    assert -row["difference"] == pytest.approx(gain["gain"])
    assert (-row["high"], -row["low"]) == pytest.approx((gain["gain_low"], gain["gain_high"]))
    assert row["p"] == pytest.approx(gain["gain_p"])
    assert table["p_holm"].to_list() == pytest.approx(holm(table["p"].to_list()))
    assert (row["seeds"], row["images"]) == (2, 200)
    frames = [[predictions(f"{tmp_path}/l2p/{n}/seed{s}") for s in (0, 1)] for n in ("none", "kd")]
    none, kd = (pd.concat(f).groupby("class")["correct"].mean() for f in frames)
    expected = stats.t.interval(0.95, len(kd) - 1, (none - kd).mean(), stats.sem(none - kd))
    ends = row[["low_by_class", "high_by_class"]].to_list()
    assert ends == pytest.approx([100 * end for end in expected])
    same = {"class": "same"}
    one_class = contrasts(results, lambda run: predictions(run).assign(**same), tested)
    assert one_class["low_by_class"].isna().all() and one_class["low"].notna().all()
    other = {run: "c" * 64 if "/big/" in run else "b" * 64 for run in tested}
    assert len(contrasts(results, predictions, other)) == 3


def study_of(tmp_path, shares, labels="all"):
    """Intervals of one method whose learners classify these shares of 400 images correctly.

    Correct images of students are nested; those of the teacher are independent of them.
    """
    results, *_ = make_study(tmp_path, methods=["l2p"], seeds=[0], tasks=2, images=200)
    orders = [np.random.default_rng(seed).permutation(400) for seed in (0, 1)]

    def made(run):
        name = run.split("/")[-2]
        return predictions(run).assign(correct=orders[name == "big"] < 400 * shares[name])

    return intervals_of(results.assign(labels=labels), made)


def test_a_loss_that_is_not_significant_after_correction_is_not_called_worse(tmp_path):
    cells = study_of(tmp_path, {"big": 0.8, "none": 0.4, "kd": 0.5, "dkd": 0.38})
    row = cells["distiller"] == "dkd"
    cells.loc[row, "gain_p_holm"] = 0.08
    text = reading(cells)
    assert "worse" not in text
    assert re.search(r"Not significantly different: dkd from .*? points, p = 0.080\)\.", text)


def test_the_reading_reports_gains_losses_and_shares(tmp_path):
    cells = study_of(tmp_path, {"big": 0.8, "none": 0.4, "kd": 0.5, "dkd": 0.38})
    kd = cells[cells["distiller"] == "kd"].iloc[0]
    assert kd["closed"] == pytest.approx(25, abs=1)
    assert kd["closed_low"] < kd["closed"] < kd["closed_high"]
    text = reading(cells)
    gain = f"({kd['gain_low']:.1f} to {kd['gain_high']:.1f}), p < 0.001"
    assert text.startswith(f"kd is 10.0 points better than the undistilled student {gain}")
    share = f"{kd['closed']:.0f} % ({kd['closed_low']:.0f} to {kd['closed_high']:.0f})"
    assert f"closes {share} of the gap to the teacher" in text
    assert "dkd is 2.0 points worse than the undistilled student (" in text
    assert "over test examples, 1 seed" in text


def test_a_gain_names_the_student_that_it_is_over(tmp_path):
    results, *_ = make_study(tmp_path, methods=["l2p"], seeds=[0], tasks=2, images=200)
    dkd, none = results["distiller"] == "dkd", f"{tmp_path}/l2p/none/seed0"
    results.loc[dkd, ["distiller", "variant", "teacher"]] = ["none", "self", ""]
    cells = intervals_of(results).set_index(["distiller", "variant", "role"])
    assert cells.loc[("kd", "", "student"), "baseline"] == "none"
    assert cells.loc[("none", "", "student"), "baseline"] == ""
    assert pd.isna(cells.loc[("none", "", "student"), "gain"])
    varied = cells.loc[("none", "self", "student")]  # no teacher, but another student
    assert varied["baseline"] == "none" and pd.notna(varied["gain"])
    results.loc[results["distiller"] == "kd", "baseline_run"] = results.loc[dkd, "run"].iloc[0]
    again = intervals_of(results)
    assert again.loc[again["distiller"] == "kd", "baseline"].item() == "none (self)"
    assert "none (self)" in reading(again) and none in {*results["baseline_run"]}


def test_the_reading_never_claims_a_share_for_a_distiller_that_does_not_help(tmp_path):
    cells = study_of(tmp_path, {"big": 0.8, "none": 0.4, "kd": 0.401, "dkd": 0.3})
    text = reading(cells)
    assert text.startswith("No distiller beats the undistilled student here. The teacher is")
    assert "dkd is 10.0 points worse" in text
    assert "Not significantly different: kd from the undistilled student (+0.2 points, p" in text
    assert "closes" not in text and "%" not in text.replace("95 %", "")


def test_a_teacher_that_is_not_significantly_better_has_no_share(tmp_path):
    cells = study_of(tmp_path, {"big": 0.41, "none": 0.4, "kd": 0.5, "dkd": 0.38})
    assert cells["closed"].isna().all() and cells["gap"].notna().any()
    reasons = set(cells.loc[cells["gap"].notna(), "not_closed"])
    assert reasons == {"the gap to the teacher is below 4 standard errors"}
    assert "not significantly better than the undistilled student" in reading(cells)
    assert "closes" not in reading(cells)


def test_the_reading_names_confounds_at_few_labels(tmp_path):
    shares = {"big": 0.8, "none": 0.4, "kd": 0.5, "dkd": 0.38}
    cells = study_of(tmp_path, shares)
    assert "without a label" not in reading(cells)
    few = study_of(tmp_path / "few", shares, labels="10")
    assert "also see the examples without a label" in reading(few).split(".")[0]
    assert few["closed"].isna().all() and "closes" not in reading(few)
    assert set(few.loc[few["gap"].notna(), "not_closed"]) == {CONFOUNDED}
