"""Shipped configurations are valid; an invalid one is reported with its field."""

import datetime
from pathlib import Path

import pytest
import yaml
from overlays import OVERLAYS, write_stand_ins

from cdl.study.configuration import ConfigError, merge, resolve, schema
from cdl.study.grid import Grid
from cdl.study.specifications import specification

ROOT = Path(__file__).parents[2]
SHIPPED = sorted(ROOT.glob("config/**/*.yaml"))


def default():
    return yaml.safe_load((ROOT / "config" / "digits.yaml").read_text())


def grid(changes=None):
    return Grid(resolve(merge(default(), changes or {})))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: str(p.relative_to(ROOT)))
def test_shipped_configurations_are_accepted(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = yaml.safe_load(path.read_text())
    below = OVERLAYS.get(path.name, OVERLAYS.get(path.parent.name))
    if below:
        config = merge(yaml.safe_load((ROOT / "config" / below[0]).read_text()), config)
    write_stand_ins(config)
    assert Grid(resolve(config)).runs


def leaves(part, path=""):
    for key, inner in part.get("properties", {}).items():
        here = f"{path}.{key}"
        if inner.get("type") == "object":
            yield from leaves(inner, here)
        else:
            yield here, inner, key in part.get("required", ())
    named = part.get("additionalProperties")
    if isinstance(named, dict):
        yield from leaves(named, f"{path}.*")


@pytest.mark.parametrize(("path", "leaf", "required"), list(leaves(schema())))
def test_every_leaf_has_type_default_and_description(path, leaf, required):
    assert "type" in leaf, path
    assert "description" in leaf, path
    assert required != ("default" in leaf), path


def test_every_object_refuses_unknown_keys():
    def objects(part):
        if isinstance(part, dict):
            if part.get("type") == "object" and "description" in part:
                yield part
            for inner in part.values():
                yield from objects(inner)
        elif isinstance(part, list):
            for inner in part:
                yield from objects(inner)

    found = list(objects(schema()))
    assert len(found) > 20
    assert all("additionalProperties" in part for part in found)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"datasets": {"digits": {"view": {"test_resize": 8}}}}, "test_resize: invalid value 8"),
        ({"datasets": {"digits": {"tasks": 4}}}, "tasks: invalid value 4; expected a divisor of"),
        ({"datasets": {"digits": {"tasks": [4, 7]}}}, "sizes that sum to 10 or less"),
        ({"grid": {"bounds": ["l2p"]}}, "grid.methods: 'l2p' is listed twice"),
        ({"grid": {"seeds": [2**40]}}, "grid.seeds.0: .* greater than the maximum"),
        ({"training": {"lr": float("nan")}}, "invalid value nan; expected a finite number"),
        ({"deploy": {"runs": ["*/kd"]}}, r"deploy.runs: '\*/kd' matches no run .* such as digits/"),
        (
            {
                "deploy": {"runs": ["*/cdl_prompt-*"]},
                "protocol": {"query": "self"},
                "grid": {"methods": ["coda_prompt"], "distillers": ["cdl_prompt"]},
            },
            "deploy.runs: .* needs its teacher's ViT 'vit_micro' at prediction",
        ),
        ({"name": datetime.date(2026, 1, 1)}, "put dates in quotes"),
        ({"trainning": {}}, "unknown key 'trainning'"),
        ({"distillers": {"kd": {"alhpa": 0.3}}}, "distillers.kd: unknown key 'alhpa'.*alpha"),
        ({"distillers": {"kd": {"alpha": 2}}}, "distillers.kd.alpha: 2 is greater than"),
        ({"training": {"lr": "1e-3"}}, "training.lr: '1e-3'.*YAML reads 1e-3 as text; write 0.001"),
        ({"training": {"epochs": 2.5}}, "training.epochs: 2.5 is not of type 'integer'"),
        ({"name": "../escape"}, "name: '../escape' does not match"),
        ({"name": "tables"}, "name: 'tables' is reserved; choose another"),
        ({"name": "index.html"}, "name: 'index.html' is reserved; choose another"),
        ({"methods": {"coda_prompt": {"length": 7}}}, "length: 7 is not a multiple of 2"),
        ({"methods": {"coda_prompt": {"pool": 97}}}, "coda_prompt.pool: invalid value 97.*96"),
        (
            {"methods": {"coda_prompt": {"pool": 2}}},
            "coda_prompt.pool: invalid value 2; expected 3",
        ),
        (
            {"methods": {"coda_prompt": {"layers": [6]}}},
            "layers: invalid value 6; expected blocks 0 to 5",
        ),
        ({"methods": {"l2p": {"top_k": 40}}}, "l2p.top_k: invalid value 40; expected at most"),
        (
            {"distillers": {"cdl_prompt": {"pool": 193}}},
            "cdl_prompt.pool: invalid value 193; .*192",
        ),
        (
            {"grid": {"distillers": ["kdd"]}},
            r"grid.distillers: 'kdd' is not defined \(did you mean 'kd'\?\); expected one of",
        ),
        ({"grid": {"pairs": [{"teacher": "vit_big", "student": "vit_nano"}]}}, "'vit_big'"),
        (
            {"datasets": {"digits": {"view": {"size": 18}}}},
            "view.size: invalid value 18; expected a multiple of 4",
        ),
        (
            {"backbones": {"vit_nano": {"embedded": "vit_pico"}}},
            "invalid value 'vit_pico'; expected one of",
        ),
        (
            {"backbones": {"vit_nano": {"embedded": "vit_nano_patch4_32", "file": "x"}}},
            "give exactly one of",
        ),
        (
            {"backbones": {"vit_nano": {"embedded": None, "timm": "vit_base_patch16_224"}}},
            "'vit_base_patch16_224' is not a full tag",
        ),
        (
            {"grid": {"distillers": [{"block": "kd", "variant": "a"}, "none", "none"]}},
            "non-unique elements",
        ),
        ({"grid": {"distillers": [{"block": "kd", "variant": "a/b"}]}}, "does not match"),
        (
            {"grid": {"distillers": [{"block": "kd", "variant": "a", "tau": 4}]}},
            "unknown key 'tau'",
        ),
        (
            {"grid": {"methods": ["apt"]}},
            "distillers.cdl_prompt: invalid value 'methods.apt'; expected a method with prefixes",
        ),
        (
            {"methods": {"dual_prompt": {"pool": 2}}, "grid": {"methods": ["dual_prompt"]}},
            "pool: invalid value 2",
        ),
        (
            {"distillers": {"kd_prompt": {"kd_layers": 7}}},
            "kd_prompt.kd_layers: invalid value 7; expected at most the 6 blocks",
        ),
        (
            {"datasets": {"digits": {"tasks": [9, 1]}}, "grid": {"distillers": ["dkd"]}},
            "datasets.digits.tasks: invalid value .9, 1.; expected two classes or more",
        ),
        (
            {
                "backbones": {"large": {"timm": "vit_tiny_patch16_224.augreg_in21k"}},
                "datasets": {"digits": {"view": {"size": 16}}},
                "grid": {
                    "pairs": [{"teacher": "large", "student": "vit_nano"}],
                    "distillers": ["fitnets"],
                },
            },
            "distillers.fitnets: .* equally many patches, not 1 x 1 and 4 x 4",
        ),
    ],
)
def test_what_is_wrong_is_named(changes, message):
    with pytest.raises(ConfigError, match=message) as caught:
        grid(changes)
    assert "\n" not in str(caught.value)


def test_numbers_are_normalised_by_their_type():
    a, b = (grid({"training": {"lr": lr, "epochs": e}}) for lr, e in ((1, 3), (1.0, 3)))
    assert repr(specification(a, a.runs[0])) == repr(specification(b, b.runs[0]))


def test_the_order_of_keys_does_not_matter():
    config = default()
    turned = {key: config[key] for key in reversed(config)}
    a, b = Grid(resolve(config)), Grid(resolve(turned))
    assert [repr(specification(a, r)) for r in a.runs] == [
        repr(specification(b, r)) for r in b.runs
    ]


def test_a_preset_fills_what_is_not_given():
    released = resolve(default() | {"protocol": {"preset": "released", "schedule": "constant"}})
    assert released["protocol"]["normalization"] == "unit"
    assert released["protocol"]["class_order"] == "natural"
    assert released["protocol"]["schedule"] == "constant"
    assert resolve(default())["protocol"]["normalization"] == "backbone"


def test_the_released_preset_reaches_the_modules_arguments():
    methods = ["l2p", "dual_prompt", "coda_prompt", "apt"]
    asked = {"methods": methods, "distillers": ["none", "kd"]}
    made = grid({"protocol": {"preset": "released"}, "grid": asked})
    specs = {
        (run.method.name, run.distiller.name, run.role): specification(made, run)
        for run in made.runs
    }
    student = {method: specs[method, "kd", "student"] for method in methods}
    assert student["dual_prompt"].method.options["dual_candidates"] == "all"
    assert student["coda_prompt"].method.options["coda_growth"] == "gram_schmidt"
    assert student["apt"].apt_teacher == "previous"
    for method in ("l2p", "dual_prompt"):
        assert student[method].method.options["prompt_loss_reduction"] == "mean"
    for spec in specs.values():
        assert spec.training.schedule == "cosine_lagged"
        assert spec.normalization == "unit"
        assert spec.stream.class_order == "natural"
        assert spec.query == "vit_nano"


@pytest.mark.parametrize("preset", ["clean", "released"])
def test_presets_are_complete(preset):
    values = yaml.safe_load((ROOT / "cdl" / "study" / "presets" / f"{preset}.yaml").read_text())
    fields = set(schema()["properties"]["protocol"]["properties"]) - {"preset"}
    assert set(values["protocol"]) == fields


def test_the_grid_has_each_teacher_once():
    made = grid({"grid": {"seeds": [0, 1]}})
    teachers = [run for run in made.runs if run.role == "teacher"]
    assert len(teachers) == 2 * 2  # methods x seeds
    assert len(made.runs) == 2 * 2 * (1 + 4)


def test_a_shared_undistilled_student_runs_once():
    made = grid(
        {
            "backbones": {"other": {"embedded": "vit_micro_patch4_32"}},
            "grid": {
                "methods": ["l2p"],
                "pairs": [
                    {"teacher": "vit_micro", "student": "vit_nano"},
                    {"teacher": "other", "student": "vit_nano"},
                ],
                "distillers": ["none", "kd"],
            },
        }
    )
    assert len(made.runs) == 2 + 1 + 2  # teachers, none, kd


def test_query_self_gives_every_learner_its_own():
    made = grid({"protocol": {"query": "self"}})
    for run in made.runs:
        assert run.query == run.backbone
        assert run.teacher_query == run.teacher


def test_a_variant_is_a_few_lines():
    made = grid(
        {
            "grid": {
                "methods": ["l2p"],
                "distillers": ["none", "kd", {"block": "kd", "variant": "tau4", "temperature": 4}],
            }
        }
    )
    found = {run.distiller.label: specification(made, run).distiller.options for run in made.runs}
    assert found["kd"]["temperature"] == 2.0
    assert found["kd+tau4"]["temperature"] == 4.0
    assert found["kd+tau4"]["alpha"] == 0.5


def test_joint_is_a_variant_of_a_method():
    made = grid({"grid": {"methods": ["l2p", {"block": "l2p", "variant": "joint", "joint": True}]}})
    joint = [run for run in made.runs if run.method.variant == "joint"]
    assert {run.n_tasks for run in joint} == {1}
    assert specification(made, joint[0]).stream.tasks == (10,)
    assert "joint" not in specification(made, joint[0]).method.options


def test_bounds_are_not_distilled_nor_teachers_and_exclusions_are_not_run():
    made = grid(
        {
            "grid": {
                "methods": ["l2p", "apt"],
                "bounds": ["head_only"],
                "exclude": [{"method": "apt", "distiller": "cdl_prompt"}],
            }
        }
    )
    counts = {
        name: [run.distiller.name for run in made.runs if run.method.name == name]
        for name in ("l2p", "apt", "head_only")
    }
    assert counts["l2p"] == ["none", "none", "kd", "kd_prompt", "cdl_prompt"]
    assert counts["apt"] == ["none", "none", "kd", "kd_prompt"]
    assert counts["head_only"] == ["none"]


def test_protocol_fields_reach_only_the_methods_they_concern():
    a, b = grid(), grid({"protocol": {"coda_growth": "gram_schmidt"}})
    changed = {
        run.method.name
        for run, twin in zip(a.runs, b.runs, strict=True)
        if specification(a, run) != specification(b, twin) and run.distiller.name != "cdl_prompt"
    }
    assert changed == {"coda_prompt"}


def test_outputs_of_two_configurations_do_not_collide():
    a, b = grid({"name": "default"}), grid({"name": "other"})
    assert a.layout.report.root == "results"
    assert b.layout.report.root == "results/other"
    assert a.layout.root != b.layout.root
    assert a.packed("digits") == b.packed("digits")
