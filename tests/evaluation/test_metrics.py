"""Metrics of predictions after one task."""

import math

import numpy as np
import pandas as pd
import pytest

from cdl.evaluation.metrics import (
    accuracy_by,
    calibration_error,
    negative_flips,
    own_task_predictions,
    prediction_metrics,
    separation,
    task_confusion,
)


def test_only_the_classes_of_an_images_own_task_can_be_predicted():
    scores = np.array([[1.0, 2.0, 9.0], [5.0, 4.0, 3.0], [0.0, 1.0, -9.0]])
    own = own_task_predictions(scores, np.array([0, 1, 0]), [2, 1, 4])
    assert own.tolist() == [1, 2, 1]


def test_a_group_without_images_has_no_accuracy():
    found = accuracy_by(np.array([0, 0, 2]), np.array([True, False, True]), 3)
    assert found[0] == 50 and found[2] == 100 and math.isnan(found[1])


def test_calibration_error_is_zero_where_probability_is_accuracy():
    correct = np.array([True] * 3 + [False])
    assert calibration_error(np.full(4, 0.75), correct) == pytest.approx(0)
    assert calibration_error(np.full(4, 1.0), correct) == pytest.approx(25)
    # two bins: 0.5 with accuracy 1 and 1.0 with accuracy 0, each half of the images
    halves = calibration_error(np.array([0.5, 1.0]), np.array([True, False]))
    assert halves == pytest.approx(100 * (0.5 + 1) / 2)


def test_confusion_counts_every_image_once():
    counts = task_confusion(np.array([0, 0, 1]), np.array([0, 1, 1]), 2)
    assert counts == [[1, 1], [0, 1]]


def test_predictions_of_an_older_version_lack_task_incremental_accuracy():
    table = pd.DataFrame(
        {
            "task": [0, 0, 1, 1],
            "class": ["a", "b", "c", "c"],
            "predicted": ["a", "c", "c", "a"],
            "probability": [0.9, 0.8, 0.7, 0.6],
        }
    )
    old = prediction_metrics(table, ["a", "b", "c"], [2, 1])
    assert old["metrics"]["task_incremental_accuracy"] is None
    assert old["per_class"] == {"a": 100, "b": 0, "c": 50}
    assert old["task_confusion"] == [[1, 1], [1, 1]]
    table["predicted_in_task"] = ["a", "a", "c", "c"]
    new = prediction_metrics(table, ["a", "b", "c"], [2, 1])
    assert new["metrics"]["task_incremental_accuracy"] == 75
    assert new["metrics"]["calibration_error"] == old["metrics"]["calibration_error"]


def test_a_run_reports_them_and_its_predictions_give_them_again(lab):
    here = lab()
    run = here.student("none")
    here.learn_all(run)
    results, predictions = here.evaluate(run)
    again = prediction_metrics(
        predictions, results["classes"], results["learner"]["stream"]["tasks"]
    )
    assert again["metrics"].items() <= results["metrics"].items()
    assert {key: results[key] for key in ("per_class", "task_confusion")} == {
        key: again[key] for key in ("per_class", "task_confusion")
    }
    within = np.array(results["task_incremental_matrix"], float)
    over_all = np.array(results["matrix"], float)
    seen = ~np.isnan(over_all)
    assert (within[seen] >= over_all[seen] - 1e-9).all()
    assert results["metrics"]["task_incremental_accuracy"] == pytest.approx(within[-1].mean())
    counts = np.array(results["task_confusion"])
    assert counts.sum(axis=1).tolist() == results["test_images"]


def test_a_flip_is_right_before_an_update_and_wrong_after_it():
    before, after = np.array([True, True, False, False]), np.array([True, False, True, False, True])
    assert negative_flips([before, after]) == 25
    assert negative_flips([before, after, np.ones(6, bool)]) == 12.5  # mean over updates
    assert math.isnan(negative_flips([before]))


def test_separation_is_the_share_of_pairs_in_order():
    rng = np.random.default_rng(0)
    known, unknown = rng.normal(1, 1, 200).round(1), rng.normal(0, 1, 150).round(1)
    pairs = known[:, None] - unknown[None]
    found = separation(known, unknown)
    assert found["auroc"] == pytest.approx(100 * ((pairs > 0) + 0.5 * (pairs == 0)).mean())
    passed = [100 * (unknown >= at).mean() for at in known if (known >= at).mean() >= 0.95]
    assert found["fpr95"] == pytest.approx(min(passed))
    assert separation(np.ones(3), np.zeros(2)) == {"auroc": 100, "fpr95": 0}
    assert math.isnan(separation(known, np.zeros(0))["auroc"])
