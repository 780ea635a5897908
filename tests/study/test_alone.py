"""Distillers that use no teacher, pairs without one, and learning rates of a method."""

import pytest
from lab import make_grid

from cdl.study.configuration import ConfigError
from cdl.study.learning_jobs import LearningJobs
from cdl.study.specifications import row, specification

FEW = {"digits": {"labels": {"per_class": 4}}}
ALONE = {"teacher": None, "student": "vit_nano"}
WITH = {"block": "lwf", "variant": "taught", "alpha": 0.5}
SLCA = {"block": "lora", "variant": "slca", "alignment": {"preset": "slca"}}


def grid(distillers, pairs=None, methods=("lora",), **changes):
    entries = {"methods": list(methods), "distillers": list(distillers), "bounds": []}
    return make_grid({"grid": entries | ({"pairs": pairs} if pairs else {}), **changes})


def learners(made):
    return [run.learner for run in made.runs]


def test_a_distiller_that_weighs_no_teacher_is_trained_without_one():
    made = grid(["none", "lwf", WITH])
    assert learners(made) == [
        "teacher-vit_micro-q-vit_nano",
        "student-vit_nano-q-vit_nano",
        "lwf-vit_nano-q-vit_nano",
        "lwf+taught-vit_nano-from-vit_micro-q-vit_nano",
    ]
    alone, taught = (run for run in made.runs if run.distiller.name == "lwf")
    assert specification(made, alone).teacher is None and alone.rule == "train"
    assert specification(made, taught).teacher == "vit_micro" and taught.rule == "distil"
    assert row(made, alone)["teacher"] == "" and row(made, alone)["teacher_run"] == ""
    assert row(made, alone)["baseline_run"].endswith("/student-vit_nano-q-vit_nano/seed0")


@pytest.mark.parametrize("weight", [{"alpha": 0.5, "soft_weight": 0.0}, {"alpha": 0.0}])
def test_se2d_without_a_soft_loss_is_alone(weight):
    block = {"block": "se2d", "variant": "own", **weight}
    made = grid([block], datasets=FEW)
    assert learners(made)[1:] == ["se2d+own-vit_nano-q-vit_nano"]
    with pytest.raises(ConfigError, match=r"se2d\+own.self_distillation: invalid value False"):
        grid([block])


def test_a_pair_without_a_teacher_trains_none():
    own = {"block": "se2d", "variant": "own", "alpha": 0}
    made = grid(["none", "lwf", own], [ALONE], datasets=FEW)
    assert {run.role for run in made.runs} == {"student"} and len(made.runs) == 3
    backbones = {job.key["fetched"] for job in LearningJobs(made) if job.rule == "fetch_backbone"}
    assert len(backbones) == 1


@pytest.mark.parametrize("distiller", ["kd", "se2d", WITH])
def test_a_distiller_that_reads_a_teacher_is_refused_in_a_pair_without_one(distiller):
    name = distiller if isinstance(distiller, str) else "lwf+taught"
    right = f"grid.pairs.teacher: invalid value null with the distiller {name!r}; expected a "
    with pytest.raises(ConfigError) as error:
        grid(["none", distiller], [ALONE], datasets=FEW)
    assert right in str(error.value)


def test_a_pair_without_a_teacher_has_no_method_of_one():
    with pytest.raises(ConfigError, match=r"grid.pairs.teacher_method: invalid value 'ranpac'"):
        grid(["none"], [ALONE | {"teacher_method": "ranpac"}])


def test_a_teacher_may_label_the_statistics_of_a_student_that_is_trained_alone():
    labelled = {"block": "lwf", "variant": "labelled", "alignment": {"labels": "teacher"}}
    made = grid(["lwf", labelled], methods=[SLCA], datasets=FEW)
    own, other = (run for run in made.runs if run.distiller.name == "lwf")
    assert (own.statistics, other.statistics) == ("own", "teacher")
    assert made.trained(own) == made.trained(other) and made.trained(own).teacher is None
    assert made.teacher_of(own) is None and made.teacher_of(other).role == "teacher"


def test_variants_for_the_teacher_alone_share_a_student_that_is_trained_without_one():
    few = {"labels": {"per_class": 4}}
    variants = [{"block": "digits", "variant": "same", **few}]
    variants += [{"block": "digits", "variant": "all", **few, "teacher_labels": "all"}]
    entries = {"datasets": variants, "methods": ["lora"], "distillers": ["lwf"], "bounds": []}
    made = make_grid({"grid": entries})
    assert [run.dataset for run in made.runs if run.role == "student"] == ["digits+same"]


def test_a_method_has_its_own_learning_rate_and_a_distiller_overrides_it():
    slow = {"block": "none", "variant": "slow", "training": {"lr": 0.0001}}
    fast = {"block": "lora", "variant": "fast", "training": {"lr": 0.2}}
    entries = {"methods": ["lora", "adapter", fast], "distillers": ["none", "kd", slow]}
    methods = {"lora": {"training": {"lr": 0.05}}}
    made = make_grid({"grid": entries, "methods": methods, "training": {"lr": 0.002}})
    rates = {
        (run.method.label, run.distiller.label, run.role): specification(made, run).training.lr
        for run in made.runs
    }
    for label, rate in {"lora": 0.05, "adapter": 0.002, "lora+fast": 0.2}.items():
        assert {rates[label, "none", role] for role in ("teacher", "student")} == {rate}
        assert rates[label, "kd", "student"] == rate
        assert rates[label, "none+slow", "student"] == 0.0001
    assert "training" not in specification(made, made.runs[0]).method.options
    options = {row(made, run)["method_options"] for run in made.runs}
    assert {"training.lr=0.05", "training.lr=0.2", ""} <= options
    with pytest.raises(ConfigError, match=r"grid.methods.x.training: unknown key .epochs."):
        grid(["none"], methods=[{"block": "lora", "variant": "x", "training": {"epochs": 2}}])
