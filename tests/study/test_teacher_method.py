"""Teachers with another method than their students."""

import pytest
from lab import make_grid

from cdl.study.configuration import ConfigError
from cdl.study.inputs import Inputs
from cdl.study.specifications import in_use, row, specification

PAIR = {"teacher": "vit_micro", "student": "vit_nano"}
CHEAP = PAIR | {"teacher_method": "ranpac"}


def grid(*pairs, methods=("coda_prompt",), distillers=("none", "kd", "kd_prompt")):
    entries = {"pairs": list(pairs), "methods": list(methods), "distillers": list(distillers)}
    return make_grid({"grid": entries, "methods": {"ranpac": {"logit_scale": 10}}})


def test_two_teachers_of_one_backbone_are_two_and_share_the_undistilled_student():
    made = grid(PAIR, CHEAP)
    folders = [run.folder for run in made.runs]
    assert folders == [
        "digits/coda_prompt/teacher-vit_micro-q-vit_nano/seed0",
        "digits/coda_prompt/student-vit_nano-q-vit_nano/seed0",
        "digits/coda_prompt/kd-vit_nano-from-vit_micro-q-vit_nano/seed0",
        "digits/coda_prompt/kd_prompt-vit_nano-from-vit_micro-q-vit_nano/seed0",
        "digits/ranpac/teacher-vit_micro-q-vit_nano/seed0",
        "digits/coda_prompt/kd-vit_nano-from-vit_micro+ranpac-q-vit_nano/seed0",
        "digits/coda_prompt/kd_prompt-vit_nano-from-vit_micro+ranpac-q-vit_nano/seed0",
    ]
    taught = [run for run in made.runs if run.teacher]
    assert [made.teacher_of(run).method.name for run in taught] == ["coda_prompt"] * 2 + [
        "ranpac"
    ] * 2
    assert len({made.baseline(run) for run in taught}) == 1
    rows = [row(made, run) for run in taught]
    assert [r["teacher_method"] for r in rows] == ["", "", "ranpac", "ranpac"]
    assert len({str(r["protocol"]) for r in rows}) == 1  # so they may be compared
    assert {"coda_prompt", "ranpac"} == set(in_use(made)["methods"])


def test_only_a_foreign_teacher_is_named_in_a_specification():
    own, other = grid(PAIR), grid(PAIR, CHEAP)
    assert {run.folder for run in own.runs} < {run.folder for run in other.runs}
    for run in own.runs:
        (same,) = (r for r in other.runs if r.folder == run.folder)
        assert specification(other, same) == specification(own, run)
    named = [specification(other, run).teacher_method for run in other.runs]
    assert [part.name for part in named if part] == ["ranpac", "ranpac"]


def test_one_cache_of_logits_serves_students_of_all_methods_and_reads_no_query():
    made = grid(CHEAP, methods=["coda_prompt", "l2p", "ranpac"], distillers=["none", "kd"])
    planned = Inputs(made)
    taught = [planned.learning(run, 0) for run in made.runs if run.teacher]
    (targets,) = {inputs["targets"].path: inputs["targets"] for inputs in taught}.values()
    assert targets.folder.endswith("digits/ranpac/teacher-vit_micro-q-vit_nano/seed0")
    assert len(taught) == 3 and not any("teacher" in inputs for inputs in taught)
    assert "queries" not in planned.of(targets)


def test_a_variant_teaches_and_the_own_method_named_is_no_other():
    aligned = {"block": "coda_prompt", "variant": "aligned", "alignment": {"preset": "slca"}}
    named = PAIR | {"teacher_method": "coda_prompt+aligned"}
    made = grid(named, methods=["head_only", aligned], distillers=["none", "kd"])
    students = {run.learner for run in made.runs if run.teacher}
    assert students == {
        "kd-vit_nano-from-vit_micro+coda_prompt+aligned-q-vit_nano",
        "kd-vit_nano-from-vit_micro-q-vit_nano",
    }
    assert all(made.teacher_of(run).method.alignment for run in made.runs if run.teacher)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"distillers": ["cdl_prompt"]},
            "distillers.cdl_prompt: invalid value 'teacher_method: ranpac'",
        ),
        (
            {"pairs": [PAIR | {"teacher_method": "ranpak"}]},
            r"'ranpak' is not defined \(did you mean 'ranpac'\?\); expected one of",
        ),
        (
            {"methods": [{"block": "l2p", "variant": "joint", "joint": True}]},
            "grid.pairs.teacher_method: invalid value 'ranpac' for 'l2p\\+joint'",
        ),
        (
            {"methods": ["ranpac"], "pairs": [PAIR | {"teacher_method": "l2p"}]},
            "kd_prompt: invalid value 'methods.ranpac'",
        ),
    ],
)
def test_what_cannot_be_taught_is_refused_in_one_sentence(changes, sentence):
    entries = {"pairs": [CHEAP], "methods": ["coda_prompt"], "distillers": ["kd_prompt"]}
    with pytest.raises(ConfigError, match=sentence):
        make_grid({"grid": entries | changes})


RIDGE = {"grid": {"pairs": [CHEAP], "methods": ["coda_prompt"], "bounds": []}}


def taught(distiller, **changes):
    """A student of a ridge."""
    grid = RIDGE["grid"] | {"distillers": [distiller]} | changes.pop("grid", {})
    return make_grid({**changes, "grid": grid})


@pytest.mark.parametrize("name", ["kd", "dkd", "dist", "kd_token", "kd_prompt", "cls_feature"])
def test_the_logits_of_a_ridge_are_not_softened_as_they_are(name):
    sentence = (
        rf"^distillers.{name}.standardize: invalid value False; expected true, or "
        r"methods.ranpac.logit_scale above 1, such as 10: the logits of the teacher's method ranpac"
    )
    with pytest.raises(ConfigError, match=sentence):
        taught(name, methods={"ranpac": {"logit_scale": 1}})
    assert taught({"block": name, "variant": "z", "standardize": True}).runs
    assert taught(name, methods={"ranpac": {"logit_scale": 10}}).runs


def test_a_ridge_that_learns_from_a_ridge_needs_a_scale_too_and_from_prompts_none():
    with pytest.raises(ConfigError, match="distillers.kd.standardize: invalid value False"):
        taught("kd", grid={"pairs": [PAIR], "methods": ["ranpac"]})
    prompts = PAIR | {"teacher_method": "coda_prompt"}
    assert taught("kd", grid={"pairs": [prompts], "methods": ["ranpac"]}).runs


@pytest.mark.parametrize(
    "distiller",
    [
        {"block": "kd", "variant": "x", "targets": "hard"},
        {"block": "kd", "variant": "x", "alpha": 0.0},
        {"block": "lwf", "variant": "x"},
        "tf_kd",
        "none",
    ],
)
def test_what_does_not_soften_needs_neither(distiller):
    assert taught(distiller).runs


def test_means_of_a_ridges_projection_are_cosines():
    means = {"ranpac": {"prototypes": "mean"}}
    assert taught("kd", methods=means).runs
