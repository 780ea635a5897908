"""The job that aligns heads: artifacts, labels, drift, caches, and the start of the next task."""

import pytest
import torch
from safetensors.torch import load_file

from cdl.data.labels import UNLABELLED
from cdl.reporting.runs import results_of
from cdl.runtime import artifacts
from cdl.runtime.errors import CdlError
from cdl.study.configuration import ConfigError, alignment
from cdl.study.inputs import caches_in
from cdl.study.specifications import row
from cdl.training import align_task
from cdl.training.alignment import compensated
from cdl.training.context import TaskContext
from cdl.training.features import query_of, read_features

pytestmark = pytest.mark.slow  # each trains

QUICK = {"epochs": 2, "samples": 8}
MEANS = {"preset": "class_means"}
FEW = {"datasets": {"digits": {"labels": {"per_class": 3}}}}
PLAIN_VIEW = {"crop_scale": [1, 1], "crop_ratio": [1, 1], "flip": 0}


def aligned(method="coda_prompt", preset="slca", distillers=("none", "kd_prompt", "cdl_prompt")):
    block = {"block": method, "variant": "aligned", "alignment": {"preset": preset, **QUICK}}
    return {"grid": {"methods": [block], "distillers": list(distillers)}}


def entry(block, variant, **fields):
    return {"block": block, "variant": variant, "alignment": fields}


OWN, SELF = entry("kd", "own", labels="own"), entry("none", "self", labels="self")
NEAREST = entry("none", "nearest", labels="nearest")
TAUGHT = entry("none", "taught", labels="teacher")
AT_TEST = entry("none", "test", labels="teacher", answers="test")
DRIFT = entry("none", "drift", drift="sdc")


def variant(here, name):
    return next(run for run in here.grid.runs if run.distiller.variant == name)


@pytest.mark.parametrize("kd", ["none", "kd_prompt", "cdl_prompt"])
def test_an_artifact_has_the_learner_with_aligned_heads_and_statistics(lab, kd):
    here = lab(aligned())
    run = here.student(kd)
    here.learn_all(run)
    assert here.spec(run).alignment == alignment({"preset": "slca", **QUICK})
    assert here.spec(here.grid.trained(run)).alignment is None
    heads = ["head"] if kd == "none" else ["head", "distiller.kd_head"]
    tokens = ["feature"] + ["kd_token"] * (kd == "kd_prompt")
    for task, seen in enumerate((6, 10)):
        state, record = artifacts.load(here.checkpoint(run, task))
        trained, before = artifacts.load(here.trained(run, task))
        assert record["inputs"]["trained"] == before["sha256"]
        for token in tokens:
            mean, spread = (state.pop(f"memory.{token}.{part}") for part in ("mean", "spread"))
            assert mean.shape[0] == seen
            assert spread.shape == (seen, mean.shape[1], mean.shape[1])
        assert state.keys() == trained.keys()
        changed = {name for name in state if not torch.equal(state[name], trained[name])}
        own = {name for name in state if name.rpartition(".linear")[0] in heads}
        assert changed == (own if task else set())
    first, last = (artifacts.load(here.checkpoint(run, task))[0] for task in range(2))
    assert torch.equal(last["memory.feature.mean"][:6], first["memory.feature.mean"])
    results, _ = here.evaluate(run)
    files = [f"task{task}/aligned.safetensors" for task in (0, 1)]
    assert results["checkpoint_files"] == files
    assert results["metrics"]["final_average_accuracy"] > 0


def test_learners_that_differ_in_alignment_alone_have_one_training(lab):
    here = lab(FEW | aligned(distillers=["none", SELF, TAUGHT, DRIFT, "kd", OWN]))
    none, kd = here.student("none"), here.student("kd")
    for run, variants in ((none, ("self", "taught", "drift")), (kd, ("own",))):
        for name in variants:
            own = variant(here, name)
            assert here.grid.trained(own) == here.grid.trained(run)
            assert here.trained(own, 0) == here.trained(run, 0)
            assert here.checkpoint(own, 0) != here.checkpoint(run, 0)
    here.learn(none, 0)
    before = artifacts.fingerprint_file(here.trained(none, 0))
    here.align(variant(here, "self"), 0)
    here.align(variant(here, "self"), 0)
    assert artifacts.fingerprint_file(here.trained(none, 0)) == before


@pytest.mark.parametrize(("preset", "start"), [("slca", "trained"), ("hide", "aligned")])
def test_a_task_goes_on_from_the_heads_that_its_preset_names(lab, preset, start):
    here = lab(aligned(preset=preset, distillers=["none"]))
    run = here.student("none")
    here.learn(run, 0)
    previous = {"trained": here.trained(run, 0), "aligned": here.checkpoint(run, 0)}[start]
    assert here.task_inputs(run, 1)["previous"] == previous
    state, metadata = artifacts.load(previous)
    column = "head.linear.bias"
    state[column][:] = 7  # a head that the next task shows, since its loss is that of new classes
    artifacts.save(previous, state, {k: v for k, v in metadata.items() if k != "sha256"}, [])
    here.train(run, 1)
    assert (load_file(here.trained(run, 1))[column][:6] == 7).all()
    spec = here.spec(here.grid.trained(run))
    assert (spec.alignment is None) == (start == "trained")


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        (aligned(), "kd_prompt"),
        (aligned(), "cdl_prompt"),
        (FEW | aligned(distillers=["none", TAUGHT]), "taught"),
        (FEW | aligned(distillers=["none", AT_TEST]), "test"),
        (FEW | aligned("head_only", distillers=["kd", "fitnets"]), "fitnets"),
    ],
)
def test_aligned_with_caches_equals_aligned_online(lab, changes, name):
    states = []
    for how in ({"targets": "cached", "targets_dtype": "float32"}, {"targets": "online"}):
        compute = {"protocol": {"query": "self"}, "name": how["targets"], "compute": how}
        here = lab({**changes, **compute})
        run = next(r for r in here.grid.runs if name in (r.distiller.name, r.distiller.variant))
        here.learn_all(run)
        states.append(artifacts.load(here.checkpoint(run, 1))[0])
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


def test_blocks_and_logits_of_one_teacher_read_targets_of_one_dtype(lab):
    changes = {"compute": {"targets_dtype": "float16"}}
    here = lab(FEW | aligned("head_only", distillers=["kd", "fitnets"]) | changes)
    kd, fitnets = here.student("kd"), here.student("fitnets")
    assert "targets" not in here.planned.learning(fitnets, 0)
    aligned_with = here.planned.aligning(fitnets, 0)["targets"]
    assert aligned_with == here.planned.learning(kd, 0)["targets"]
    here.learn_all(kd)
    here.learn(fitnets, 0)


def test_alignment_reads_queries_from_caches_that_all_aligned_learners_share(lab):
    own = {**aligned(), "protocol": {"query": "self"}}
    here = lab(own)
    runs = (here.run(role="teacher"), here.student("none"), here.student("cdl_prompt"))
    teacher, none, mapping = (here.planned.aligning(run, 0) for run in runs)
    assert list(none["backbones"]) == list(mapping["backbones"]) == ["vit_nano"]
    assert mapping["queries"] == teacher["queries"] | none["queries"]
    trained_with = here.planned.learning(here.student("none"), 0)["queries"]
    assert trained_with not in none["queries"].values()
    longer = lab({**own, "training": {"epochs": 3}})  # other views, the same test views
    run = longer.student("none")
    assert longer.planned.aligning(run, 0)["queries"] == none["queries"]
    assert longer.planned.learning(run, 0)["queries"] != trained_with
    online = lab({**own, "compute": {"targets": "online"}})
    run = online.student("cdl_prompt")
    inputs = online.planned.aligning(run, 0)
    assert list(inputs["backbones"]) == ["vit_micro", "vit_nano"]
    assert not [*caches_in(inputs), *caches_in(online.planned.evaluating(run))]


def test_queries_of_other_images_are_refused(lab):
    here = lab(aligned())
    run = here.student("none")
    here.learn(run, 0)
    wrong = {"vit_nano": here.task_inputs(run, 0)["queries"]}
    inputs = here.align_inputs(run, 0) | {"queries": wrong} | here.align_specs(run)
    with pytest.raises(CdlError, match='was made with spec.views = "train"'):
        align_task.align_task(here.spec(run), 0, here.checkpoint(run, 0), **inputs)


def test_a_trained_learner_of_another_configuration_is_refused(lab):
    here, other = lab(aligned()), lab({**aligned(), "training": {"lr": 0.123}})
    here.train(here.student("none"), 0)
    with pytest.raises(CdlError, match=r"learner.safetensors .*was made with learner.training.lr"):
        other.align(other.student("none"), 0)


def test_without_alignment_nothing_is_kept(lab):
    here = lab()
    run = here.student("none")
    here.learn(run, 0)
    state, metadata = artifacts.load(here.checkpoint(run, 0))
    assert not any(name.startswith("memory.") for name in state)
    assert "alignment" not in metadata["learner"]


@pytest.fixture
def classified(monkeypatch):
    """The classes of the images of each alignment."""
    found, compute = [], align_task.statistics_of

    def record(rows, labels, statistic):
        found.append(labels)
        return compute(rows, labels, statistic)

    monkeypatch.setattr(align_task, "statistics_of", record)
    return found


def test_an_image_without_a_label_has_the_class_that_the_option_names(lab, classified):
    here = lab(FEW | aligned(distillers=["none", SELF, TAUGHT]))
    teacher, none = here.run(role="teacher"), here.student("none")
    for task in (0, 1):
        here.learn(teacher, task)
        here.train(none, task)
        here.align(variant(here, "self"), task)
        here.align(none, task)
        here.align(variant(here, "taught"), task)
    own, itself, teachers = (classified[-i] for i in (2, 3, 1))
    assert own.tolist() == sorted(own.tolist()) and own.bincount()[6:].tolist() == [3] * 4
    assert len(itself) == len(teachers) == 64
    assert set(itself.tolist()) <= set(range(6, 10)) >= set(teachers.tolist())
    targets = artifacts.load(here.align_inputs(variant(here, "taught"), 1)["targets"])[0]
    expected = targets["values"].float().softmax(-1).mean(0).argmax(-1) + 6
    assert itself.tolist() != teachers.tolist()
    unknown = [i for i, x in enumerate(_labels(here, none, 1)) if x == UNLABELLED]
    assert teachers[unknown].tolist() == expected[unknown].tolist()
    known = [i for i in range(64) if i not in unknown]
    assert itself[known].tolist() == teachers[known].tolist() == own.tolist()


def test_class_means_label_the_examples_without_a_label(lab, classified):
    here = lab(FEW | aligned("head_only", distillers=["none", NEAREST]))
    run, none = variant(here, "nearest"), here.student("none")
    for task in (0, 1):
        here.learn(run, task)
        here.align(none, task)
    nearest, own = classified[-2], classified[-1]
    known = [i for i, x in enumerate(_labels(here, none, 1)) if x != UNLABELLED]
    assert len(nearest) == 64 and set(nearest.tolist()) <= set(range(6, 10))
    assert nearest[known].tolist() == own.tolist()
    truth = _true_labels(here, none, 1)
    assert (nearest == truth).double().mean() > 0.5  # chance is a quarter


def test_results_have_the_share_of_right_labels_among_those_that_the_alignment_assigned(
    lab, classified
):
    here = lab(FEW | aligned("head_only", distillers=["none", NEAREST]))
    run, none = variant(here, "nearest"), here.student("none")
    right = 0
    for task in (0, 1):
        here.learn(run, task)
        unknown = [i for i, x in enumerate(_labels(here, run, task)) if x == UNLABELLED]
        right += int((classified[-1] == _true_labels(here, run, task))[unknown].sum())
        here.align(none, task)
    found = {one: here.evaluate(one)[0] for one in (run, none)}
    given = 16 * 10 - 3 * 10  # images of each class, three of which have a label
    assert found[run]["seen"]["pseudo_labels"] == given
    assert found[run]["seen"]["pseudo_labels_right"] == right
    rows = [row(here.grid, one) | {"protocol": {}} for one in (run, none)]
    table, _ = results_of(rows, list(found.values()))
    share, nothing = table["pseudo_label_accuracy"]
    assert share == pytest.approx(100 * right / given) and 25 < share < 100
    assert nothing != nothing  # NaN: no label was assigned


def _true_labels(here, run, task):
    paths = {"backbones": {}, "data": here.data, "execution": here.execution}
    context = TaskContext.open(here.spec(run), task, **paths)
    return context.stream.labels(context.train)[context.indices(task)[0]]


def _labels(here, run, task):
    paths = {"backbones": {}, "data": here.data, "execution": here.execution}
    return TaskContext.open(here.spec(run), task, **paths).labels.tolist()


@pytest.mark.parametrize("outputs", ["cached", "online"])
def test_answers_at_the_test_view_are_the_teachers(lab, classified, outputs):
    changes = {"datasets": {"digits": {"labels": {"per_class": 3}, "view": PLAIN_VIEW}}}
    changes |= {"compute": {"targets": outputs}}
    here = lab(changes | aligned(distillers=["none", TAUGHT, AT_TEST]))
    here.learn(here.run(role="teacher"), 0)
    here.learn(here.student("none"), 0)
    inputs = here.align_inputs(variant(here, "test"), 0)
    cached = outputs == "cached"  # then no job but that of the cache opens the teacher
    assert ("targets" in inputs, "teacher" not in inputs) == (cached, cached)
    assert ("vit_micro" in inputs["backbones"]) is not cached
    for name in ("taught", "test"):  # training views are test views
        here.align(variant(here, name), 0)
    assert classified[-1].tolist() == classified[-2].tolist()
    record = artifacts.read_json(here.checkpoint(variant(here, "test"), 0)[:-11] + "json")
    teacher = artifacts.load(here.checkpoint(here.run(role="teacher"), 0))[1]
    assert record["inputs"]["teacher"] == teacher["sha256"]


def test_means_of_earlier_classes_move_with_the_features(lab):
    here = lab(aligned(distillers=["none", DRIFT]))
    run = variant(here, "drift")
    for task in (0, 1):
        here.learn(run, task)
    first, last = (artifacts.load(here.checkpoint(run, task))[0] for task in (0, 1))
    kept, moved = first["memory.feature.mean"], last["memory.feature.mean"][:6]
    assert not torch.equal(kept, moved)
    assert torch.equal(first["memory.feature.spread"], last["memory.feature.spread"][:6])
    old, new = (_features(here, run, after) for after in (0, 1))
    statistics = {"mean": kept, "spread": first["memory.feature.spread"]}
    torch.testing.assert_close(moved, compensated(statistics, old, new, "covariance"))


def _features(here, run, after):
    """Features of the images of task 1, before it or after it."""
    inputs = here.align_inputs(run, 1)
    spec = here.spec(here.grid.trained(run))
    context = TaskContext.open(here.spec(run), 1, here.data, inputs["backbones"], here.execution)
    learner, _ = align_task._learner(
        context, spec.until(after), here.trained(run, after), after, "learner"
    )
    query = query_of(context, "vit_nano")
    images = torch.arange(64)
    found = read_features(context, learner, images, (0,), after, query=query)
    return found.tokens[0]


def test_frozen_features_have_no_drift(lab):
    here = lab(aligned("head_only", distillers=["none", DRIFT]))
    states = []
    for run in (here.student("none"), variant(here, "drift")):
        for task in (0, 1):
            here.learn(run, task)
        states.append(artifacts.load(here.checkpoint(run, 1))[0])
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


def test_as_released_the_means_of_ssiat_move_without_drift_since_images_are_not_paired(lab):
    variants = [entry("none", name, drift=name) for name in ("ssiat", "ssiat_as_released")]
    here = lab(aligned("head_only", distillers=["none", *variants]))
    moved = {}
    for run in (here.student("none"), *(variant(here, v["variant"]) for v in variants)):
        for task in (0, 1):
            here.learn(run, task)
        means = [
            artifacts.load(here.checkpoint(run, task))[0]["memory.feature.mean"] for task in (0, 1)
        ]
        moved[run.distiller.variant] = float((means[1][:6] - means[0]).abs().max())
    assert moved == {"": 0, "ssiat": 0, "ssiat_as_released": moved["ssiat_as_released"]}
    assert moved["ssiat_as_released"] > 1e-3


@pytest.mark.parametrize("kd", ["none", "kd_prompt", "cdl_prompt"])
def test_class_means_replace_all_heads_after_every_task_and_training_goes_on_without(lab, kd):
    method = {"block": "coda_prompt", "variant": "means", "alignment": MEANS}
    here = lab({"grid": {"methods": [method], "distillers": [kd]}})
    run = here.student(kd)
    here.learn_all(run)
    heads = {"head": "feature"}
    if kd != "none":
        heads["distiller.kd_head"] = "kd_token" if kd == "kd_prompt" else "feature"
    for task, seen in enumerate((6, 10)):
        state, record = artifacts.load(here.checkpoint(run, task))
        trained, _ = artifacts.load(here.trained(run, task))
        for head, token in heads.items():
            assert torch.equal(state[f"{head}.weight"], state[f"memory.{token}.mean"])
            assert len(state[f"{head}.weight"]) == seen == len(trained[f"{head}.linear.weight"])
            assert f"{head}.linear.weight" not in state
        assert record["counts"] == [16] * (6, 4)[task]
        same = [k for k in state if k in trained]
        assert same and all(torch.equal(state[k], trained[k]) for k in same)
    first = artifacts.load(here.checkpoint(run, 0))[0]["head.weight"]
    assert torch.equal(state["head.weight"][:6], first)  # stored when a class was learnt
    assert here.evaluate(run)[0]["metrics"]["final_average_accuracy"] > 0


def test_class_means_of_one_labelled_image_with_pseudo_labels_and_drift(lab):
    one = {"datasets": {"digits": {"labels": {"per_class": 1}}}}
    method = {"block": "coda_prompt", "variant": "means", "alignment": MEANS}
    nearest = entry("none", "nearest", labels="nearest", drift="sdc")
    here = lab(one | {"grid": {"methods": [method], "distillers": ["none", nearest]}})
    none, moved = here.student("none"), variant(here, "nearest")
    for run in (none, moved):
        here.learn_all(run)
    first, last = (artifacts.load(here.checkpoint(none, task))[0] for task in (0, 1))
    assert not first["memory.feature.spread"].any()  # of a single image
    assert torch.equal(last["head.weight"][:6], first["head.weight"])
    first, last = (artifacts.load(here.checkpoint(moved, task))[0] for task in (0, 1))
    assert not torch.equal(last["head.weight"][:6], first["head.weight"])
    assert torch.equal(last["head.weight"], last["memory.feature.mean"])


def test_a_head_that_is_not_made_by_the_method_is_refused_in_a_sentence(lab, monkeypatch):
    method = {"block": "coda_prompt", "variant": "means", "alignment": MEANS}
    here = lab({"grid": {"methods": [method], "distillers": ["none"]}})
    run = here.student("none")
    here.train(run, 0)
    wide = align_task.statistics_of

    def doubled(*given):
        return {k: torch.cat([v, v], 1) for k, v in wide(*given).items()}

    monkeypatch.setattr(align_task, "statistics_of", doubled)
    with pytest.raises(CdlError, match="class_means cannot replace the heads of methods.coda_pro"):
        here.align(run, 0)


def test_one_task_has_nothing_to_align(lab):
    changes = aligned()
    changes["grid"]["methods"][0]["joint"] = True
    with pytest.raises(
        ConfigError, match=r"coda_prompt\+aligned\.alignment: invalid value 'one task'"
    ):
        lab(changes)
