"""Variance components: against their definition, and the coverage of their intervals."""

from pathlib import Path

import numpy as np
import pytest

from cdl.runtime.errors import CdlError
from tools.variance import components, read, table_of

ORDER, START, LEFT = 2.0, 0.7, 0.8


def layouts(n, rng, rows=10, columns=3):
    """Yield two-way layouts with known standard deviations."""
    for _ in range(n):
        y = ORDER * rng.standard_normal((rows, 1)) + START * rng.standard_normal(columns)
        yield 50 + y + LEFT * rng.standard_normal((rows, columns))


def test_components_are_unbiased_and_their_intervals_cover():
    found = np.array([components(y) for y in layouts(1500, np.random.default_rng(0))])
    true = np.array([ORDER, START, LEFT]) ** 2
    np.testing.assert_allclose(found[:, :, 0].mean(0), true, rtol=0.08)
    inside = (found[:, :, 1] <= true) & (true <= found[:, :, 2])
    assert (inside.mean(0) > 0.935).all() and (inside.mean(0) < 0.97).all()


def test_a_layout_of_two_rows_by_hand():
    y = np.array([[1.0, 2.0, 3.0], [3.0, 4.0, 8.0]])
    rows, columns, left = components(y)
    assert left.value == pytest.approx(1.5)  # of [0.5, 0.5, -1] and its negative
    assert rows.value == pytest.approx((13.5 - left.value) / 3)
    assert columns.value == pytest.approx((6.5 - left.value) / 2)


def test_the_table_of_a_study_separates_orders_labels_and_images():
    rng, images = np.random.default_rng(1), 400
    hard = rng.random(images)
    variants = [f"order{i}" for i in range(10)] + ["labels1", "labels2", "labels3"]
    shift = {name: 0.02 * rng.standard_normal() * name.startswith("order") for name in variants}
    answers = {
        (name, seed): 100.0 * (hard + shift[name] < 0.6) for name in variants for seed in range(3)
    }
    found = table_of(answers)
    assert found["start"].value == found["order and start together"].value == 0
    assert found["class order"].value > 1
    assert found["test images"].value == pytest.approx(100 * (0.24 / images) ** 0.5, rel=0.1)


def test_the_study_is_read_from_the_results_of_its_configuration(tmp_path, monkeypatch):
    root = Path(__file__).parents[1]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CdlError):
        read(root)
