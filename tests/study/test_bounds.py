"""Sanity bounds of the schema, and the limit on the size of caches."""

import re
from pathlib import Path

import pytest

from cdl.study.configuration import ConfigError, merge, read, resolve
from cdl.study.grid import Grid
from cdl.training import targets

ROOT = Path(__file__).parents[2]
DEFAULT = read(ROOT / "config" / "digits.yaml")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"datasets": {"digits": {"view": {"size": 40000}}}},
            "datasets.digits.view.size: 40000 is greater than the maximum of 10000",
        ),
        (
            {"datasets": {"digits": {"view": {"test_resize": 10**9}}}},
            "view.test_resize: 1000000000",
        ),
        ({"datasets": {"digits": {"short_side": 10**9}}}, "digits.short_side: 1000000000 is"),
        ({"backbones": {"vit_micro": {"size": 10**9}}}, "backbones.vit_micro.size: 1000000000 is"),
        ({"backbones": {"vit_micro": {"batch_size": 10**9}}}, "backbones.vit_micro.batch_size: 1"),
        ({"training": {"batch_size": 10**9}}, "training.batch_size: 1000000000 is greater than"),
        ({"training": {"epochs": 10**9}}, "training.epochs: 1000000000 is greater than"),
        ({"training": {"teacher": {"epochs": 10**9}}}, "training.teacher.epochs: 1000000000"),
        ({"training": {"teacher": {"batch_size": 10**9}}}, "training.teacher.batch_size: 10"),
    ],
)
def test_a_value_above_its_bound_is_refused(changes, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        resolve(merge(DEFAULT, changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"datasets": {"digits": {"view": {"size": 1024}}}},
        {"methods": {"l2p": {"pool": 10**6}}},
        {"training": {"batch_size": 10**2}},
        {"training": {"epochs": 10**6}},
    ],
)
def test_a_large_value_is_accepted(changes):
    assert Grid(resolve(merge(DEFAULT, changes))).runs


def test_the_size_that_is_compared_with_the_limit_is_that_of_all_tasks(lab, monkeypatch):
    epochs, itemsize = 3, 4
    bench = lab({"compute": {"targets_dtype": "float32"}, "training": {"epochs": epochs}})
    logged = []
    monkeypatch.setattr(targets.log, "info", lambda *words: logged.append(words))
    run = next(run for run in bench.grid.runs if run.role == "teacher")
    bench.cache(bench.planned.learning(run, 1)["queries"])
    (needed,) = (words[3] for words in logged if "tasks 1 to 2" in words)
    width = bench.grid.shape(run.query).width
    assert needed == pytest.approx(160 * epochs * width * itemsize / 1e9)
