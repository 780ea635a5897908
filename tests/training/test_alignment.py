"""Alignment of heads: stored statistics, training, and the start of the next task."""

from dataclasses import replace

import pytest
import torch
from toys import learner

from cdl.methods.heads import LinearHead
from cdl.runtime import artifacts
from cdl.runtime.errors import CdlError
from cdl.study.configuration import ConfigError, alignment
from cdl.study.inputs import needs
from cdl.training.alignment import Alignment, align, drawing, restore_trained, statistics_of
from cdl.training.task import learn_task

PRESETS = ("slca", "hide", "vq_prompt")


def aligned(method="coda_prompt", preset="slca", **fields):
    block = {"block": method, "variant": "aligned", "alignment": {"preset": preset, **fields}}
    return {"grid": {"methods": [block], "distillers": ["none", "kd_prompt", "cdl_prompt"]}}


def clouds(n=40, classes=4, width=5):
    """Return features and labels of well separated classes, in random order."""
    source = torch.Generator().manual_seed(0)
    labels = torch.arange(classes).repeat(n)[torch.randperm(n * classes, generator=source)]
    centres = 3 * torch.randn(classes, width, generator=source)
    return centres[labels] + torch.randn(len(labels), width, generator=source), labels


@pytest.mark.parametrize(("preset", "lr"), [("slca", 0.1), ("hide", 0.1), ("vq_prompt", 5.0)])
def test_alignment_removes_a_bias_between_tasks(preset, lr):
    features, labels = clouds()
    head = LinearHead(5, 6, torch.Generator().manual_seed(0))
    with torch.no_grad():
        head.linear.bias[2:4] += 30  # every image is classified into the last task

    def accuracy():
        return float((head(features)[:, :4].argmax(1) == labels).float().mean())

    assert accuracy() <= 0.5
    how = Alignment(**(alignment({"preset": preset, "lr": lr, "samples": 64, "epochs": 60})))
    found = statistics_of(features, labels, how.statistic)
    losses = align(head, found, (2, 2), how, drawing((0,), (4, how.samples, 5)))
    assert losses.shape == (60, 4 if how.steps == "seen" else 2)
    assert losses[-1].mean() < losses[0].mean()
    assert accuracy() > 0.9


def test_draws_are_a_function_of_keys_and_epoch():
    one, same, other = (drawing(keys, (3, 4, 5)) for keys in ((0, "a"), (0, "a"), (0, "b")))
    for a, b in zip(one(1), same(1), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(one(1)[0], one(2)[0])
    assert not torch.equal(one(1)[0], other(1)[0])


def test_a_class_of_one_image_has_no_covariance():
    features, labels = torch.randn(3, 4), torch.tensor([0, 0, 1])
    with pytest.raises(CdlError, match=r"alignment\.statistic: covariance needs at least two"):
        statistics_of(features, labels, "covariance")
    assert not statistics_of(features, labels, "centroid")["spread"][1].any()


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_set_every_field_and_given_ones_win(preset):
    whole = alignment({"preset": preset, "samples": None, "lr": 0.5})
    assert Alignment(**whole).lr == 0.5
    assert whole.keys() == alignment({"preset": preset}).keys()


@pytest.mark.parametrize("kd", ["none", "kd_prompt", "cdl_prompt"])
def test_an_artifact_holds_statistics_of_all_classes_seen_and_heads_are_aligned(lab, kd):
    here = lab(aligned())
    run = here.student(kd)
    here.learn_all(run)
    assert here.spec(run).alignment.to_json() == alignment({"preset": "slca"})
    heads = ["head"] if kd == "none" else ["head", "distiller.kd_head"]
    tokens = ["feature"] + ["kd_token"] * (kd == "kd_prompt")
    for task, seen in enumerate((6, 10)):
        state, _ = artifacts.load(here.checkpoint(run, task))
        for token in tokens:
            mean, spread = (state[f"memory.{token}.{part}"] for part in ("mean", "spread"))
            assert mean.shape[0] == seen
            assert spread.shape == (seen, mean.shape[1], mean.shape[1])
        for head in heads:
            short = head.removeprefix("distiller.")
            before = state[f"memory.{short}.trained.linear.weight"]
            assert torch.equal(before, state[f"{head}.linear.weight"]) == (task == 0), head
    first, last = (artifacts.load(here.checkpoint(run, task))[0] for task in range(2))
    kept = last["memory.feature.mean"][:6]
    assert torch.equal(kept, first["memory.feature.mean"])
    results, _ = here.evaluate(run)
    assert results["metrics"]["final_average_accuracy"] > 0


def test_a_task_goes_on_from_the_heads_that_its_preset_names(toy_backbone):
    student = learner(toy_backbone(), "l2p")
    trained = {k: t + 1 for k, t in student.head.state_dict().items()}
    restore_trained(student, {f"head.trained.{k}": t for k, t in trained.items()})
    assert all(torch.equal(t, trained[k]) for k, t in student.head.state_dict().items())
    restore_trained(student, {"feature.mean": torch.zeros(1)})  # `aligned` stores no heads
    assert all(torch.equal(t, trained[k]) for k, t in student.head.state_dict().items())


@pytest.mark.parametrize("kd", ["kd_prompt", "cdl_prompt"])
def test_aligned_with_caches_equals_aligned_online(lab, kd):
    states = []
    for name, compute in (
        ("cached", {"targets": "cached", "targets_dtype": "float32"}),
        ("online", {"targets": "online"}),
    ):
        here = lab({**aligned(), "protocol": {"query": "self"}, "name": name, "compute": compute})
        run = here.student(kd)
        here.learn_all(run)
        states.append(artifacts.load(here.checkpoint(run, 1))[0])
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


def test_alignment_reads_queries_from_caches_that_all_aligned_learners_share(lab):
    own = {**aligned(), "protocol": {"query": "self"}}
    here = lab(own)
    teacher, none, mapping = (
        needs(here.grid, run)
        for run in (here.run(role="teacher"), here.student("none"), here.student("cdl_prompt"))
    )
    assert none.backbones == mapping.backbones == ["vit_nano"]
    assert mapping.aligning == [*teacher.aligning, *none.aligning]
    assert none.aligning[0] != none.queries
    longer = lab({**own, "training": {"epochs": 3}})  # other views, the same test views
    again = needs(longer.grid, longer.student("none"))
    assert again.aligning == none.aligning and again.queries != none.queries
    online = lab({**own, "compute": {"targets": "online"}})
    need = needs(online.grid, online.student("cdl_prompt"))
    assert (need.backbones, need.aligning) == (["vit_micro", "vit_nano"], [])
    plain = lab()
    assert needs(plain.grid, plain.student("cdl_prompt")).aligning == []


def test_queries_of_other_images_are_refused(lab):
    here = lab(aligned())
    run = here.student("none")
    inputs = here.task_inputs(run, 0)
    record = here.checkpoint(run, 0)
    others = replace(inputs, aligning=[inputs.queries])
    with pytest.raises(CdlError, match="was made with spec.views = null"):
        learn_task(here.spec(run), 0, others, record, record + ".csv")


def test_without_alignment_nothing_is_kept(lab):
    here = lab()
    run = here.student("none")
    here.learn(run, 0)
    state, metadata = artifacts.load(here.checkpoint(run, 0))
    assert not any(name.startswith("memory.") for name in state)
    assert "alignment" not in metadata["learner"]


def test_one_task_has_nothing_to_align(lab):
    changes = aligned()
    changes["grid"]["methods"][0]["joint"] = True
    with pytest.raises(
        ConfigError, match=r"coda_prompt\+aligned\.alignment: invalid value 'one task'"
    ):
        lab(changes)
