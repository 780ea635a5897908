"""What no machine could do is refused when it is planned, with an estimate; what one can is not."""

import re
from pathlib import Path

import pytest

from cdl.backbones.shape import BackboneShape
from cdl.study.configuration import ConfigError, merge, read, resolve
from cdl.study.estimate import cache_gb, step_bytes, task_days
from cdl.study.grid import Grid
from cdl.study.inputs import needs
from cdl.training import targets

ROOT = Path(__file__).parents[2]
DEFAULT = read(ROOT / "config" / "digits.yaml")
ONLINE = {"compute": {"targets": "online"}}
OWN = {"datasets": {"digits": {"source": {"folder": {"path": "pictures"}}}}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"datasets": {"digits": {"view": {"size": 40000}}}},
            "datasets.digits.view.size: 40000 cannot work; needed is a smaller number: a step of "
            "teacher-vit_micro-q-vit_nano would take about 59,290 GB of memory, and at most 1,000",
        ),
        ({"methods": {"l2p": {"pool": 10**12}}}, "methods.l2p.pool: 1000000000000 cannot work"),
        ({"methods": {"l2p": {"length": 10**12}}}, "methods.l2p.length: 1000000000000"),
        ({"distillers": {"kd_prompt": {"kd_length": 10**12}}}, "distillers.kd_prompt.kd_length"),
        ({"training": {"batch_size": 10**9}}, "training.batch_size: 1000000000 cannot work"),
        ({"backbones": {"vit_micro": {"batch_size": 10**9}}}, "backbones.vit_micro.batch_size: 1"),
        (
            {"training": {"epochs": 10**9}},
            "training.epochs: 1000000000 cannot work; needed is a smaller number: a task of "
            "teacher-vit_micro-q-vit_nano would take about 405 days, and at most 10",
        ),
        (merge(ONLINE, {"training": {"epochs": 10**9}}), "training.epochs: 1000000000"),
        (merge(OWN, {"training": {"epochs": 10**9}}), "would take about 12 days or more, and at"),
        ({"training": {"teacher": {"epochs": 10**9}}}, "training.teacher.epochs: 1000000000"),
        ({"datasets": {"digits": {"short_side": 10**9}}}, "digits.short_side: 1000000000 cannot"),
        (
            {"training": {"epochs": 10**6}},
            "compute.targets_max_gb: 10.0 cannot work; needed is about 276 for the queries of all "
            "tasks of digits; raise it, or set compute.targets to online",
        ),
    ],
)
def test_an_absurd_size_is_refused_with_its_estimate(changes, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        Grid(resolve(merge(DEFAULT, changes)))


@pytest.mark.parametrize(
    "changes",
    [
        {"datasets": {"digits": {"view": {"size": 1024}}}},
        {"methods": {"l2p": {"pool": 10**6}}},
        {"training": {"batch_size": 10**4}},
        merge(ONLINE, {"training": {"epochs": 10**6}}),
        {"training": {"epochs": 10**6}, "compute": {"targets_max_gb": 500}},
    ],
)
def test_what_is_only_large_is_planned(changes):
    assert Grid(resolve(merge(DEFAULT, changes))).runs


def test_the_estimates_follow_their_formulas():
    shape = BackboneShape(10, 2, 4)
    tokens = 2 * 2 + 1
    image = 3 * 8 * 8 + 2 * tokens * 8 * 10 + 6 * 10
    assert step_bytes(shape, 8, 5, 100, 6) == 4 * (400 + 5 * image)
    assert cache_gb(1000, 20, 384, 2) == 1000 * 20 * 384 * 2 / 1e9
    assert task_days(6400, 10, 64) == 10 * 100 * 1e-3 / 86400
    assert task_days(10, 10, 64) == 10 * 1e-3 / 86400


def test_the_disk_is_what_the_job_computes(lab, monkeypatch):

    bench = lab({"compute": {"targets_dtype": "float32"}, "training": {"epochs": 3}})
    said = []
    monkeypatch.setattr(targets.log, "info", lambda *words: said.append(words))
    run = next(run for run in bench.grid.runs if run.role == "teacher")
    bench.queries(needs(bench.grid, run).queries, 1)
    (needed,) = (words[3] for words in said if "tasks 0 to 1" in words)
    assert needed == pytest.approx(cache_gb(160, 3, bench.grid.shape(run.query).width, 4))
