"""How sure the numbers are: intervals of made-up runs."""

import numpy as np
import pandas as pd
import pytest
from study import make_study

from cdl.report.intervals import intervals, reading
from cdl.tables.bootstrap import Answers, accuracies, interval


def predictions(run):
    return pd.read_parquet(f"{run}/predictions.parquet")


def answers(*tasks):
    """Answers of a run, given for each task which of its images are right."""
    owner = np.repeat(np.arange(len(tasks)), list(map(len, tasks)))
    return Answers(np.arange(owner.size), owner, np.concatenate(tasks))


def test_every_mean_has_an_interval_around_it(tmp_path):
    results, *_ = make_study(tmp_path)
    table = intervals(results, predictions)
    means = results.groupby(["method", "role", "kd"], sort=False)["final_average_accuracy"].mean()
    assert table["accuracy"].to_numpy() == pytest.approx(means.to_numpy())
    assert (table["accuracy_low"] < table["accuracy"]).all()
    assert (table["accuracy"] < table["accuracy_high"]).all()
    assert set(table["over"]) == {"seeds and test images"} and set(table["n"]) == {2}
    distilled = table["teacher"] != ""
    assert table["gain"].notna().tolist() == distilled.tolist()
    by_cell = table.set_index(["method", "kd", "role"])["accuracy"]
    gain = by_cell["apt", "dkd", "student"] - by_cell["apt", "none", "student"]
    assert table["gain"].iloc[-1] == pytest.approx(gain)
    assert table.equals(intervals(results, predictions))  # drawn with a seed


def test_one_seed_has_an_interval_over_test_images(tmp_path):
    results, *_ = make_study(tmp_path, methods=["l2p"], seeds=[0], tasks=3, images=40)
    row = intervals(results, predictions).dropna(subset="gain").iloc[0]
    assert row["over"] == "test images"
    own, none = (predictions(f"{tmp_path}/l2p/{name}/seed0") for name in ("kd", "none"))
    difference = (own["correct"].astype(int) - none["correct"].astype(int)).to_numpy()
    assert row["gain"] == pytest.approx(100 * difference.mean())
    rng = np.random.default_rng(0)  # a stratified bootstrap over images, paired
    draws = rng.integers(0, 40, (4000, 3, 40)) + 40 * np.arange(3)[:, None]
    spread = 100 * difference[draws].mean(axis=(1, 2)).std()
    assert (row["gain_high"] - row["gain_low"]) / (2 * 1.96) == pytest.approx(spread, rel=0.06)


def test_pairing_leaves_only_what_differs():
    right = np.arange(400) % 2 == 0
    better = right | (np.arange(400) % 10 == 1)
    drawn = accuracies([{"own": answers(better), "none": answers(right)}])
    alone = np.std(drawn["own"][1:])
    assert (drawn["own"] - drawn["none"])[0] == pytest.approx(10)
    assert np.std((drawn["own"] - drawn["none"])[1:]) < 0.7 * alone


@pytest.mark.parametrize("n", [2, 3, 5])
def test_seeds_spread_the_mean_as_their_variance_says(n):
    """Without differences between images, what is left is the variance of a mean of n seeds."""
    reached = [float(s % 2 == 0) for s in range(n)]
    drawn = accuracies([{"own": answers(np.full(5, r))} for r in reached])["own"]
    assert drawn[0] == pytest.approx(100 * np.mean(reached))
    assert np.var(drawn[1:]) == pytest.approx(1e4 * np.var(reached, ddof=1) / n, rel=0.1)


def test_seeds_may_be_tested_on_different_images():
    first = answers(np.ones(4, bool), np.zeros(4, bool))
    second = first._replace(image=first.image + 2)
    value, low, high = interval(accuracies([{"own": first}, {"own": second}])["own"])
    assert (value, low, high) == pytest.approx((50, 50, 50))


def study_of(tmp_path, shares):
    """Intervals of one method whose learners answer these shares of 400 images.

    Students answer one within the other, the teacher independently of them.
    """
    results, *_ = make_study(tmp_path, methods=["l2p"], seeds=[0], tasks=2, images=200)
    orders = [np.random.default_rng(seed).permutation(400) for seed in (0, 1)]

    def made(run):
        name = run.split("/")[-2]
        return predictions(run).assign(correct=orders[name == "big"] < 400 * shares[name])

    return intervals(results, made)


def test_the_reading_says_what_share_of_the_gap_every_distiller_closes(tmp_path):
    cells = study_of(tmp_path, {"big": 0.8, "none": 0.4, "kd": 0.5, "dkd": 0.38})
    kd = cells[cells["kd"] == "kd"].iloc[0]
    assert kd["closed"] == pytest.approx(25, abs=1)
    assert kd["closed_low"] < kd["closed"] < kd["closed_high"]
    sentence = reading(cells)
    share = f"{kd['closed']:.0f} % ({kd['closed_low']:.0f} to {kd['closed_high']:.0f})"
    assert (
        f"distillation closes: kd {share}, dkd −" in sentence
    )  # what does not help stands there too
    assert sentence.endswith("; 95 % intervals, 1 seed.")


def test_a_teacher_that_is_not_surely_better_leaves_no_gap_to_close(tmp_path):
    cells = study_of(tmp_path, {"big": 0.41, "none": 0.4, "kd": 0.5, "dkd": 0.38})
    assert cells["closed"].isna().all() and cells["gap"].notna().any()
    assert reading(cells).startswith("The teacher is not surely better")
    assert ": kd +10.0 (+" in reading(cells)
