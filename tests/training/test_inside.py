"""Methods that enter the blocks: their tasks, their jobs, and the student's own past."""

from pathlib import Path

import pandas as pd
import pytest
import torch
import toys

from cdl.backbones.vit import Injection
from cdl.methods.ease import EaseHead
from cdl.methods.heads import CosineHead
from cdl.methods.inf_lora import update_memory
from cdl.runtime import artifacts
from cdl.runtime.errors import CdlError, Interrupted
from cdl.study.configuration import ConfigError
from cdl.training import loop
from cdl.training.alignment import shifted_means

METHODS = {
    "lora": {"rank": 2},
    "inf_lora": {"rank": 2},
    "ssiat": {"bottleneck": 4},
    "aper": {"bottleneck": 4},
    "ease": {"bottleneck": 4},
    "ranpac": {"projection": 32, "first_session": "ssf", "logit_scale": 10.0},
}


def study(method, learners=("none",), **changes):
    grid = {"methods": [method], "distillers": list(learners), "bounds": [], "exclude": []}
    block = METHODS.get(method, {})
    return {"methods": {method: block} if block else {}, "grid": grid, **changes}


def perturb(module, seed=0):
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter += 0.2 * torch.randn(parameter.shape, generator=source)


def features(learner, images, task):
    with torch.no_grad():
        return learner.eval()(images, None, task).tokens[:, 0]


@pytest.mark.parametrize("as_released", [False, True])
def test_sd_lora_jumps_between_tasks_only_as_released(toy_backbone, monkeypatch, as_released):
    options = {"ranks": [3, 2], "as_released": as_released}
    monkeypatch.setitem(toys.METHODS, "sd_lora", options)
    learner = toys.learner(toy_backbone(12, 3), "sd_lora")
    images, _ = toys.batch()
    for task in (1, 2):
        perturb(learner.prompts, task)
        before = features(learner, images, task - 1)
        learner.start_task(task, 0, 0)
        same = torch.allclose(before, features(learner, images, task), atol=1e-5)
        assert same != as_released
        assert len(learner.prompts.magnitudes) == task + 1
        kept = torch.equal(learner.prompts.magnitudes, torch.full((task + 1,), 0.8))
        assert kept == as_released
    assert learner.prompts.past_down.shape[2] == 3 + 2 and learner.prompts.down.shape[2] == 2


def test_a_branch_of_sd_lora_that_stayed_at_zero_stays_there(toy_backbone):
    learner = toys.learner(toy_backbone(12, 3), "sd_lora")
    learner.start_task(1, 0, 0)
    assert all(tensor.isfinite().all() for tensor in learner.state().values())


def test_inf_lora_leaves_the_directions_of_earlier_tasks_alone(toy_backbone, monkeypatch):
    monkeypatch.setitem(toys.METHODS, "inf_lora", {"rank": 2, "first_share": 0.7})
    learner = toys.learner(toy_backbone(12, 3), "inf_lora")
    prompts, read = learner.prompts, toys.reading(learner, n=2)
    perturb(prompts)
    prompts.after_training(0, read)
    learner.start_task(1, 0, 0)
    prompts.before_training(1, toys.reading(learner, n=6))
    outside = torch.eye(12) - prompts.projector
    assert not prompts.retain.any()
    for down, other in zip(prompts.down[0], outside, strict=True):
        torch.testing.assert_close(down @ other, down, atol=1e-5, rtol=0)
        assert other.trace() < 12 and down.any()
    assert torch.equal(prompts.down[0], prompts.down[1])
    assert not prompts.up.any() and prompts.past_down.shape[2] == 2


def test_the_released_memory_of_inf_lora_is_smaller_than_that_of_the_data():
    source = torch.Generator().manual_seed(0)
    data = torch.randn(200, 16, generator=source) * torch.linspace(2, 0.2, 16)
    moments = data.mT @ data / len(data)
    ranks = {}
    for released in (False, True):
        p, _ = update_memory(
            moments, torch.zeros(16, 16), False, 0.95, first=True, as_released=released
        )
        ranks[released] = round(float(p.trace()))
    values = torch.linalg.svdvals(data).square()  # GPM on the data
    assert ranks[False] == int((values.cumsum(0) / values.sum() < 0.95).sum())
    assert ranks[True] < ranks[False] < 16


def test_dropout_repeats_after_a_resumed_state_and_differs_between_steps(toy_backbone):
    learner = toys.learner(toy_backbone(12, 3), "adapter")
    perturb(learner.prompts)
    images, _ = toys.batch()

    def step(own):
        with torch.no_grad():
            return own.train()(images, None, 0).tokens

    state = {name: tensor.clone() for name, tensor in learner.state().items()}
    first, second = step(learner), step(learner)
    assert not torch.equal(first, second)
    twin = toys.learner(toy_backbone(12, 3), "adapter")
    twin.load_state(state)
    assert torch.equal(step(twin), first) and torch.equal(step(twin), second)
    assert torch.equal(features(learner, images, 0), features(twin, images, 0))


def test_a_margin_lowers_the_logit_of_the_label_in_cross_entropy_alone(toy_backbone, monkeypatch):
    monkeypatch.setitem(toys.METHODS, "ssiat", {"bottleneck": 3, "margin": 0.1})
    student, teacher = toys.pair(toy_backbone, "ssiat", "kd")
    images, labels = toys.batch()
    classes = toys.TASKS[0]
    output = student.train()(images, None, 0)
    assert isinstance(student.head, CosineHead) and output.logits.abs().max() <= 20
    found = student.losses(output, teacher(images, None, 0, classes), labels, classes)
    logits = output.logits[:, classes].clone()
    logits[torch.arange(len(labels)), labels] -= 20 * 0.1
    expected = torch.nn.functional.cross_entropy(logits, labels)
    torch.testing.assert_close(found["ce"], 0.5 * expected)


def test_far_classes_move_with_the_mean_drift_and_near_ones_with_their_neighbours():
    old = torch.cat([torch.zeros(3, 4), torch.full((3, 4), 30.0)])
    new = old + torch.tensor([1.0] * 3 + [-1.0] * 3)[:, None]
    means = torch.stack([torch.zeros(4), torch.full((4,), 30.0), torch.full((4,), -900.0)])
    shift = shifted_means(means, old, new, 16.0) - means
    expected = torch.tensor([1.0, -1.0, 0.0])[:, None].expand(3, 4)
    torch.testing.assert_close(shift, expected, atol=1e-3, rtol=0)
    assert torch.equal(shifted_means(means, old, old, 16.0), means)  # pairs without drift


def test_ease_learns_tasks_and_completes_earlier_classes(toy_backbone):
    width, images = 6, torch.rand(8, 2 * 6, generator=torch.Generator().manual_seed(0))
    head = EaseHead(width, 0, torch.Generator(), alpha=0.1, scale=20.0)
    targets = torch.eye(4)[torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])]
    head.grow(2, torch.Generator())
    head.learn(images[:4, :6], targets[:4, :2])
    first = head.weight.clone()
    head.grow(2, torch.Generator())
    head.learn(images[4:], targets[4:])
    assert head.weight.shape == (4, 12) and head.sizes.tolist() == [2, 2]
    assert torch.equal(head.weight[:2, :6], first) and head.weight[:2, 6:].all()
    twin = EaseHead(width, 0, torch.Generator(), alpha=0.1, scale=20.0)
    twin.load_state_dict(head.state_dict())
    assert torch.equal(twin(images), head(images)) and twin(images).shape == (8, 4)


@pytest.mark.parametrize("method", ["inf_lora", "ssiat", "aper", "ease", "ranpac"])
def test_tasks_are_learnt_evaluated_and_resumed(lab, method, monkeypatch):
    here = lab(study(method, training={"epochs": 2}))
    run = here.student("none")
    for task in range(run.n_tasks):
        here.learn(run, task)
    results, _ = here.evaluate(run)
    assert results["metrics"]["final_average_accuracy"] > 12  # chance is 10
    path = here.checkpoint(run, 1 if here.spec(run).method.facts.trains else 0)
    state, record = artifacts.load(path)
    Path(path).unlink()
    saves = iter(range(100))

    def stop(*arguments):
        save(*arguments)
        if next(saves) == 1:
            raise Interrupted("stopped")

    save = loop._save
    for file in (here.folder / "state").glob("*"):
        file.unlink()
    monkeypatch.setattr(loop, "_save", stop)
    with pytest.raises(Interrupted):
        here.learn(run, record["task"])
    monkeypatch.setattr(loop, "_save", save)
    here.learn(run, record["task"])
    again, _ = artifacts.load(path)
    assert state.keys() == again.keys()
    assert all(torch.equal(state[name], again[name]) for name in state)


def test_a_first_session_tunes_task_0_alone_and_its_head_is_discarded(lab):
    here = lab(study("ranpac", training={"epochs": 2}))
    run = here.student("none")
    for task in (0, 1):
        here.learn(run, task)
    states = [artifacts.load(here.checkpoint(run, task))[0] for task in (0, 1)]
    module = [name for name in states[0] if name.startswith("prompts.module.")]
    assert module and all(torch.equal(states[0][name], states[1][name]) for name in module)
    assert not any("session" in name or name == "head.scale" for name in states[0])
    curve = pd.read_csv(Path(here.checkpoint(run, 0)).parent / "losses.csv")
    assert set(curve["part"]) >= {"ce", "validation"} and curve["epoch"].max() == 2
    later = pd.read_csv(Path(here.checkpoint(run, 1)).parent / "losses.csv")
    assert "ce" not in set(later["part"])


def test_a_session_uses_the_objective_of_the_distiller(lab):
    here = lab(study("ranpac", ["none", "kd"]))
    run = here.student("kd")
    teacher = here.grid.teacher_of(run)
    for own in (teacher, run):
        here.learn(own, 0)
    curve = pd.read_csv(Path(here.checkpoint(run, 0)).parent / "losses.csv")
    assert {"ce", "soft", "validation"} <= set(curve["part"])


@pytest.mark.parametrize("distiller", ["lwf", "se2d"])
def test_the_past_is_the_student_after_the_previous_task(lab, distiller):
    few = {"digits": {"labels": {"per_class": 4}}}
    here = lab(study("lora", [distiller], datasets=few, distillers={"lwf": {"alpha": 0.5}}))
    run = here.student(distiller)
    teacher = here.grid.teacher_of(run)
    parts = []
    for task in (0, 1):
        for own in (teacher, run):
            here.learn(own, task)
        curve = pd.read_csv(Path(here.checkpoint(run, task)).parent / "losses.csv")
        parts.append(curve.set_index("part")["value"])
    assert (parts[0]["past"] == 0).all() and (parts[1]["past"] > 0).all()
    assert {"ce", "soft", "past"} <= set(parts[1].index)


def test_without_a_teacher_the_past_teaches_unlabelled_images_from_the_second_task_on(lab):
    few = {"digits": {"labels": {"per_class": 4}}}
    here = lab(study("inf_lora", ["lwf"], datasets=few))
    run = here.student("lwf")
    here.learn_all(run)
    assert here.grid.teacher_of(run) is None
    seen = [artifacts.load(here.checkpoint(run, task))[1]["seen"] for task in (0, 1)]
    assert [s["unlabelled"] for s in seen] == [0, 4 * (16 - 4)]
    curves = [Path(here.checkpoint(run, task)).parent / "losses.csv" for task in (0, 1)]
    first, second = (pd.read_csv(curve).set_index("part")["value"] for curve in curves)
    assert set(second.index) == {"ce", "past", "prompt", "total"}
    assert (first["past"] == 0).all() and (second["past"] > 0).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"methods": ["aper"], "distillers": ["lwf"]},
            r"distillers.lwf: invalid value 'methods.aper'; expected none or kd",
        ),
        (
            {"methods": ["lora"], "distillers": ["se2d"]},
            r"distillers.se2d.self_distillation: invalid value False; expected true, or a dataset",
        ),
        (
            {"methods": ["lora"], "distillers": ["cdl_prompt"]},
            r"distillers.cdl_prompt: invalid value 'methods.lora'; expected a method with prefixes",
        ),
    ],
)
def test_combinations_without_sense_are_refused(lab, changes, message):
    with pytest.raises((ConfigError, CdlError), match=message):
        lab({"grid": {"bounds": [], "exclude": [], **changes}})


def test_a_backbone_without_the_entrance_is_refused(lab):
    post_norm = "vit_base_patch16_18x2_224.x"
    source = {"timm": post_norm}
    with pytest.raises(ConfigError, match="vit_nano"):
        lab(study("lora", backbones={"vit_nano": source}))


def test_queries_do_not_see_what_enters(toy_backbone):
    learner = toys.learner(toy_backbone(12, 3), "lora")
    images, _ = toys.batch()
    query = learner.backbone.query(images)
    perturb(learner.prompts)
    output = learner.train()(images, None, 0)
    assert torch.equal(learner.backbone.query(images), query)
    output.logits.sum().backward()
    (inside,) = learner.prompts(None, 0).inside
    assert not torch.allclose(
        learner.backbone.encode(images, Injection(inside=inside)).features[:, 0], query
    )
