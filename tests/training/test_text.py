"""Learners of texts: all methods and distillers that make sense, refused combinations, jobs."""

import numpy as np
import pytest
import torch
from text_lab import OTHERS, text_config, text_lab, write_inputs
from toy_text import save
from toys import DISTILLERS, MAPPABLE, METHODS, N_CLASSES, TASKS, learner, possible

from cdl.backbones.encoders import Encoder
from cdl.data.batches import Batch, Batches
from cdl.data.text import encoded
from cdl.distillers import DISTILLERS as FACTS
from cdl.methods import PROMPTS
from cdl.models.teacher import Teacher
from cdl.study.configuration import ConfigError, resolve
from cdl.study.grid import Grid
from cdl.training.step import Step

TOKENWISE = ("fitnets", "reviewkd")
TEXTS = ["book a table", "cancel", "where is my parcel please", "one two three", "refund"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return write_inputs(tmp_path_factory.mktemp("texts"))


IN_TWO_BLOCKS = {  # options of methods that prompt more blocks than the small encoder has
    "dual_prompt": {"g_layers": [0], "e_layers": [1]},
    "coda_prompt": {"layers": [0, 1]},
    "one_prompt": {"g_layers": [0], "e_layers": [1]},
    "vq_prompt": {"layers": [0, 1]},
}


def combinations():
    pairs = [(m, "kd_prompt") for m in METHODS] + [("l2p", d) for d in DISTILLERS]
    return [(m, d) for m, d in pairs if possible(m, d) and d not in TOKENWISE]


@pytest.mark.parametrize(("method", "distiller"), combinations())
def test_a_step_trains_on_texts_of_two_tokenizers(inputs, method, distiller, monkeypatch):
    monkeypatch.setitem(METHODS, method, METHODS[method] | IN_TWO_BLOCKS.get(method, {}))
    large, small = (
        Encoder.load(inputs / f"{name}.safetensors", 16, "backbone") for name in ("large", "small")
    )
    tutor = make(large, method, query=small, seed=1)
    student = make(small, method, distiller, teacher=large)
    student.distiller.read_teacher(tutor.prompts.state_dict())
    views, labels = encoded(TEXTS), torch.tensor([0, 1, 2, 3, 1])
    batch = Batch(views, labels, 0, torch.arange(5))
    query = small.query(small.prepare(views))
    given = Teacher(tutor)(views, query, 0, TASKS[0], student.compared_blocks)
    step = Step(student, task=0, classes=TASKS[0], lr=0.01, betas=(0.9, 0.999))
    frozen = {k: v.clone() for k, v in small.state_dict().items()}
    losses = [float(step(batch, query, given).sum()) for _ in range(8)]
    assert losses[-1] < losses[0]
    assert all(torch.equal(v, frozen[k]) for k, v in small.state_dict().items())
    with torch.no_grad():
        output = student(small.prepare(views), query, 0, given.query)
    assert student.predict(output, N_CLASSES).shape == (5, N_CLASSES)


def make(backbone, method, distiller="none", **options):
    return learner(backbone, method, distiller, inputs=backbone.prepare(encoded(TEXTS)), **options)


def test_runs_of_texts_learn_from_caches_as_online(inputs, tmp_path):
    found = {}
    for targets in ("cached", "online"):
        compute = {"device": "cpu", "targets": targets}
        lab = text_lab(inputs, tmp_path / targets, compute=compute)
        for run in lab.grid.runs:
            for task in range(run.n_tasks):
                lab.learn(run, task)
        student = lab.student("kd")
        results, predictions = lab.evaluate(student)
        found[targets] = results["matrix"], predictions["predicted"].tolist()
        assert results["test_images"] == [24, 24]
    np.testing.assert_allclose(*[np.array(m, float) for m, _ in found.values()])
    assert found["cached"][1] == found["online"][1]


def test_what_is_the_same_in_every_epoch_is_computed_once(inputs, tmp_path, monkeypatch):
    config, seen = text_config(inputs), []
    tickets = {**config["datasets"]["tickets"], "view": {"tokens": 16}}
    lab = text_lab(inputs, tmp_path, datasets={"tickets": tickets})
    batches = Batches.all_images
    monkeypatch.setattr(Batches, "all_images", lambda *a: seen.append(a[1]) or batches(*a))
    run = lab.student("kd")
    lab.learn_all(run)
    assert seen and set(seen) == {0}
    online = text_lab(
        inputs,
        tmp_path / "online",
        datasets={"tickets": tickets},
        compute={"device": "cpu", "targets": "online"},
    )
    online.learn_all(online.student("kd"))
    found = [made.evaluate(made.student("kd"))[0]["matrix"] for made in (lab, online)]
    assert found[0] == found[1]


def test_a_ridge_taught_by_a_ridge_learns_texts_with_few_labels(inputs, tmp_path):
    config = text_config(inputs)
    tickets = {**config["datasets"]["tickets"], "labels": {"per_class": 3}}
    grid = {**config["grid"], "methods": ["ranpac"]}
    lab = text_lab(inputs, tmp_path, datasets={"tickets": tickets}, grid=grid)
    student = lab.student("kd")
    lab.learn_all(student)
    results, _ = lab.evaluate(student)
    assert np.mean(results["matrix"][-1]) > 50 and results["seen"]["labelled"] == 12


def plan(inputs, **changes):
    return Grid(resolve(text_config(inputs, **changes)))


def test_what_compares_tokens_is_refused_across_tokenizers_by_name(inputs):
    config = text_config(inputs)
    for name in TOKENWISE:
        given = {"distillers": {name: {}}}
        given["grid"] = {**config["grid"], "distillers": ["none", name]}
        with pytest.raises(ConfigError, match=f"distillers.{name}: .* expected one tokenizer, not"):
            plan(inputs, **given)
        pairs = [{"teacher": "small", "student": "small"}]
        assert plan(inputs, **{**given, "grid": {**given["grid"], "pairs": pairs}}).runs


@pytest.mark.parametrize("session", ["ssf", "vpt"])
def test_what_enters_a_vit_alone_is_refused(inputs, session):
    grid = {**text_config(inputs)["grid"], "methods": ["ranpac"]}
    with pytest.raises(ConfigError, match=f"{session} needs a (plain )?ViT"):
        plan(inputs, methods={"ranpac": {"first_session": session}}, grid=grid)


@pytest.mark.parametrize("method", ["inf_lora", "sd_lora"])
def test_methods_that_enter_the_blocks_learn_texts_with_a_teacher(inputs, tmp_path, method):
    grid = {**text_config(inputs)["grid"], "methods": [method]}
    lab = text_lab(inputs, tmp_path, grid=grid, training={"epochs": 8, "batch_size": 8, "lr": 0.03})
    student = lab.student("kd")
    lab.learn_all(student)
    results, _ = lab.evaluate(student)
    assert results["matrix"][0][0] > 60


def test_jobs_are_forked_from_a_process_with_the_modules_of_the_modality(inputs):
    assert plan(inputs).modules == ["cdl.backbones.encoders"]


def test_modalities_of_dataset_and_backbone_must_agree(inputs):
    config = text_config(inputs)
    images = {"backbones": {**config["backbones"], "small": {"embedded": "vit_nano_patch4_32"}}}
    with pytest.raises(ConfigError, match="backbones.small: invalid value 'a backbone for images'"):
        plan(inputs, **images)
    digits = {"digits": {"source": {"digits": {}}, "tasks": 2, "view": {"size": 8}}}
    with pytest.raises(ConfigError, match="backbones.large: invalid value 'a backbone for text'"):
        plan(inputs, datasets=digits)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"view": {"size": 8}},
            "datasets.tickets.view: unknown key 'size'; expected one of drop, ",
        ),
        (
            {"class_order": "seeded_tasks", "tasks": [2, 2]},
            r"datasets.tickets.tasks: invalid value \[2, 2\]; expected a number of equal tasks",
        ),
        ({"view": {"tokens": 2}}, "datasets.tickets.view.tokens: 2 is less than the minimum of 4"),
        (
            {"view": {"tokens": 41}},
            "datasets.tickets.view.tokens: invalid value 41; expected at most 38, the number of "
            "positions of 'large'",
        ),
        ({"short_side": 32}, "short_side: invalid value 32; expected null: texts are stored as"),
        (
            {"unlabelled": {"source": {"digits": {}}}},
            "unlabelled.source: invalid value 'a source of images'; expected a source of texts",
        ),
    ],
)
def test_options_of_images_are_refused_for_texts(inputs, change, message):
    tickets = {**text_config(inputs)["datasets"]["tickets"], **change}
    with pytest.raises(ConfigError, match=message):
        plan(inputs, datasets={"tickets": tickets})


def test_the_view_of_texts_has_defaults_and_a_specification(inputs, tmp_path):
    save(tmp_path / "large", "mpnet", words=OTHERS, max_position_embeddings=130)
    save(tmp_path / "small", "bert", max_position_embeddings=128)
    config = text_config(inputs)
    tickets = config["datasets"]["tickets"]
    del tickets["view"]
    folders = {name: {"folder": str(tmp_path / name)} for name in ("large", "small")}
    grid = plan(inputs, datasets={"tickets": tickets}, backbones=folders)
    assert grid.dataset(grid.runs[0])["view"] == {"drop": 0.0, "tokens": 64}


def test_every_method_and_distiller_is_known_here():
    assert set(METHODS) >= set(MAPPABLE) and set(METHODS) <= set(PROMPTS)
    assert set(DISTILLERS) == set(FACTS)
