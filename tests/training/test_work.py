"""Recorded work of a task, compared with torch's count of operations in the job."""

from pathlib import Path

import pytest
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from cdl.backbones import packing
from cdl.runtime import artifacts
from cdl.training.ranpac import RIDGES

pytestmark = pytest.mark.slow  # each trains

ALIGNED = {
    "block": "coda_prompt",
    "variant": "aligned",
    "alignment": {"preset": "slca", "epochs": 2, "samples": 8},
}
ONLINE = {"compute": {"targets": "online"}}
CHEAP = {"pairs": [{"teacher": "vit_micro", "student": "vit_nano", "teacher_method": "ranpac"}]}


@pytest.fixture
def products_that_torch_counts(monkeypatch):
    monkeypatch.setattr(packing, "available", lambda: False)  # torch does not count packed weights


def work(lab, run, task):
    return artifacts.read_json(Path(lab.checkpoint(run, task)).with_suffix(".json"))["work"]


@pytest.mark.parametrize(
    ("changes", "kd", "answers"),
    [
        ({}, "kd", 64),
        (ONLINE | {"protocol": {"query": "self"}}, "cdl_prompt", 0),
        (ONLINE | {"grid": {"distillers": ["kd_prompt"], **CHEAP}}, "kd_prompt", 0),
    ],
)
def test_operations_are_what_torch_counts(products_that_torch_counts, lab, changes, kd, answers):
    here = lab({"datasets": {"digits": {"view": {"size": 16}}}, "methods": RANPAC} | changes)
    run = here.student(kd)
    teacher = here.grid.teacher_of(run)
    for learner, task in [(r, t) for r in (teacher, run) if r for t in (0, 1)]:
        inputs = here.task_inputs(learner, task)  # computes the caches outside the count
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            here.learn(learner, task)
        assert inputs["data"]
    found = work(here, run, 1)
    assert found["images"] == 64 and found["answers"] == answers  # 4 classes of 16, one epoch
    # the formula omits prompts, heads and losses, a small share; it is a lower bound
    assert 0.9 * counter.get_total_flops() < found["operations"] <= counter.get_total_flops()


FEW = {"datasets": {"digits": {"view": {"size": 16}, "labels": {"per_class": 3}}}}
SELF = {"protocol": {"query": "self"}}
TAUGHT = {"block": "none", "variant": "taught", "alignment": {"labels": "teacher"}}
AT_TEST = {"block": "none", "variant": "test"}
AT_TEST["alignment"] = TAUGHT["alignment"] | {"answers": "test"}
DRIFT = {"block": "none", "variant": "drift", "alignment": {"drift": "sdc"}}


@pytest.mark.parametrize(
    ("changes", "entry", "answers"),
    [
        ({}, "kd", 0),  # counted by its training
        ({}, TAUGHT, 64),
        (ONLINE | SELF, TAUGHT, 0),
        (ONLINE | SELF, AT_TEST, 0),
        ({}, DRIFT, 0),
    ],
)
def test_operations_of_an_alignment_are_what_torch_counts(
    products_that_torch_counts, lab, changes, entry, answers
):
    here = lab(FEW | changes | {"grid": {"methods": [ALIGNED], "distillers": ["none", entry]}})
    run = here.grid.runs[-1]
    for learner in filter(None, (here.grid.teacher_of(run), run)):
        here.learn(learner, 0)
    if run.teacher:
        here.learn(here.grid.teacher_of(run), 1)
    here.train(run, 1)
    here.align_inputs(run, 1)  # computes the caches outside the count
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        here.align(run, 1)
    found = work(here, run, 1)
    assert found["images"] == 0 and found["answers"] == answers
    assert 0.9 * counter.get_total_flops() < found["operations"] <= counter.get_total_flops()


RANPAC = {"ranpac": {"projection": 128, "logit_scale": 10.0}}


def test_operations_of_a_solve_are_what_torch_counts_and_the_solves(
    products_that_torch_counts, lab
):
    here = lab({"methods": RANPAC, "grid": {"methods": ["ranpac"], "distillers": ["none", "kd"]}})
    run = here.run(role="teacher")
    here.learn(run, 0)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        here.learn(run, 1)
    whole, judged = (2 * m**3 / 3 + 2 * m**2 * 10 for m in (128, 51))  # 51 images are fitted
    solves = whole + len(RIDGES) * judged  # torch does not count solves
    found = work(here, run, 1)
    assert found["operations"] - solves == pytest.approx(counter.get_total_flops(), rel=0.01)
    student = here.student("kd")
    for task in (0, 1):
        here.learn(student, task)
    assert work(here, student, 1)["answers"] == 64


def test_packed_weights_are_counted_too(lab, monkeypatch):
    found = []
    for packed in (True, False):
        here = lab({"name": f"packed{packed}"})
        if not packed:
            monkeypatch.setattr(packing, "available", lambda: False)
        run = here.run(role="student", teacher=None)
        here.learn(run, 0)
        found.append(work(here, run, 0)["operations"])
    assert found[0] == found[1] > 6e8  # 96 images, six blocks of width 96, both ways
