"""Conversion of specifications to and from JSON, and invalid JSON."""

import json
from dataclasses import replace

import pytest
from test_fingerprints import caches, jobs_of

from cdl.runtime.errors import CdlError
from cdl.spec import FORMAT, CacheSpec, Labels, LearnerSpec, Method, Training, precision_of
from cdl.study.specifications import specification

NAMES = ["default.yaml", "methods_digits.yaml", "paper/domainnet.yaml", "rare", "classes"]


@pytest.fixture
def spec():
    """Return the specification of a student whose distiller maps its teacher's prompts."""
    grid = jobs_of("methods_digits.yaml")[0].grid
    run = next(r for r in grid.runs if r.distiller.name == "cdl_prompt")
    return specification(grid, run)


@pytest.mark.parametrize("name", NAMES)
def test_json_and_back_is_the_same(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (inputs,) = jobs_of(name)
    specs = [specification(inputs.grid, run) for run in inputs.grid.runs]
    specs += [CacheSpec.from_json(value) for _, value in caches(inputs)]
    for one in specs:
        read = type(one).from_json(json.loads(json.dumps(one.to_json())))
        assert read == one
        assert repr(read.to_json()) == repr(one.to_json())


def test_caches_of_all_kinds_differ_and_name_their_kind(spec):
    teacher = replace(spec, role="teacher", teacher=None)
    views = ("train", "held_out")
    made = [spec.queries("vit_nano", v) for v in views] + [spec.test_queries("vit_nano", None)]
    made += [spec.targets(teacher, c, v) for c in ("task", "seen") for v in views]
    assert len({json.dumps(one.to_json()) for one in made}) == len(made)
    for one in made:
        assert CacheSpec.from_json(one.to_json()) == one
        assert one.kind == ("targets" if one.teacher else "queries")
    assert made[3].queries == made[0] and made[4].queries == made[1]


@pytest.mark.parametrize("value", [None, 1, FORMAT + 1])
def test_a_specification_of_another_form_is_refused_in_one_sentence(spec, value):
    stored = spec.to_json()
    assert next(iter(stored)) == "format"
    stored = {k: v for k, v in stored.items() if k != "format"} | (
        {"format": value} if value else {}
    )
    message = f"invalid value {value}; expected {FORMAT}: another version of cdl computed these"
    with pytest.raises(CdlError, match=f"^a.json: learner.format: {message} results; run"):
        LearnerSpec.from_json(stored, "a.json: learner")


def test_options_of_other_packages_pass_unchanged(spec):
    options = {"kind": "deep", "sizes": [1, [2.0, None]], "more": {"a": True}}
    other = replace(spec, method=Method("elsewhere", options), external={"elsewhere": 2})
    read = LearnerSpec.from_json(json.loads(json.dumps(other.to_json())))
    assert read == other and read.method.options == options


def test_the_teachers_query_is_outside_the_json(spec):
    assert spec.teacher_query == "vit_nano"
    assert "teacher_query" not in spec.to_json()
    read = LearnerSpec.from_json(spec.to_json())
    assert (read.teacher_query, read) == (None, spec)
    assert LearnerSpec.from_json(spec.to_json(), teacher_query="x").teacher_query == "x"
    teacher = replace(spec, role="teacher", teacher=None, query="vit_micro")
    assert spec.taught_by(teacher).teacher_query == "vit_micro"
    assert spec.taught_by(None).teacher_query is None
    kd = replace(spec, distiller=replace(spec.distiller, name="kd"))
    assert kd.taught_by(teacher).teacher_query is None


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("training.lr", "fast", "training.lr: invalid value 'fast'; expected a number"),
        ("training.epochs", 2.5, "training.epochs: invalid value 2.5; expected an integer"),
        ("training.epochs", True, "training.epochs: invalid value True; expected an integer"),
        ("training.betas", [0.9], r"training.betas: invalid value \[0.9\]; expected 2 values"),
        ("teacher", 1, "teacher: invalid value 1; expected text or null"),
        ("stream.tasks", "5", "tasks: invalid value '5'; expected an integer or a list or a mapp"),
        ("stream.tasks", [4, None], "stream.tasks.1: invalid value None; expected an integer"),
        ("stream.tasks", {"by": "domain"}, "stream.tasks.domains: is missing"),
        ("view", [], r"view: invalid value \[\]; expected a mapping"),
        ("method", {"length": 8}, "method.name: invalid value None; expected text"),
        ("sizes", {"vit_nano": "8"}, "sizes.vit_nano: invalid value '8'; expected an integer"),
        ("colour", "red", "colour: unknown field"),
        ("seed", ..., "seed: is missing"),
    ],
)
def test_what_is_no_specification_is_refused_by_field(spec, path, value, message):
    broken = json.loads(json.dumps(spec.to_json()))
    *parents, last = path.split(".")
    part = broken
    for parent in parents:
        part = part[parent]
    if value is ...:
        del part[last]
    else:
        part[last] = value
    with pytest.raises(CdlError, match=f"^a.json: learner.*{message}") as caught:
        LearnerSpec.from_json(broken, "a.json: learner")
    assert "\n" not in str(caught.value)


def test_what_is_no_mapping_is_refused():
    for value in (None, [], "x"):
        with pytest.raises(CdlError, match="^spec: invalid value .*; expected a mapping"):
            LearnerSpec.from_json(value)
        with pytest.raises(CdlError, match="^spec: invalid value .*; expected a mapping"):
            CacheSpec.from_json(value)


def test_numbers_keep_their_kind():
    given = {"batch_size": 8, "betas": [0, 1], "epochs": 1, "lr": 1, "schedule": "constant"}
    assert json.dumps(Training.from_json(given).to_json()) == json.dumps(given)
    assert Labels.from_json({"fraction": 0.5}).to_json() == {"fraction": 0.5}


def test_precision_is_one_word_or_one_of_each_backbone(spec):
    assert precision_of(spec, "vit_nano") == "fp32"
    mixed = replace(spec, precision={"vit_micro": "bf16", "vit_nano": "fp32"}, bf16=2)
    assert precision_of(mixed, "vit_micro") == "bf16"
    assert mixed.queries("vit_micro").precision == "bf16"
    assert mixed.queries("vit_nano").precision is None
