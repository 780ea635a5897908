"""Learning and evaluation of tasks, in process, on a few images of digits."""

from pathlib import Path

import pandas as pd
import pytest
import torch

from cdl.backbones.fetch import fetch
from cdl.runtime import artifacts
from cdl.runtime.errors import CdlError
from cdl.training import targets
from cdl.training.align_task import align_task
from cdl.training.task import learn_task

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("kd", "query"), [("kd", "student"), ("cdl_prompt", "self")])
def test_both_queries_train_and_evaluate(lab, query, kd):
    here = lab({"protocol": {"query": query}, "training": {"epochs": 4}})
    run = next(r for r in here.grid.runs if r.distiller.name == kd)
    here.learn_all(run)
    results, _ = here.evaluate(run)
    assert results["metrics"]["final_average_accuracy"] > 20  # chance is 10
    widths = artifacts.read_json(Path(here.checkpoint(run, 1)).with_suffix(".json"))["widths"]
    assert widths == {"query": 96, "teacher_query": 96 if query == "student" else 192}


@pytest.mark.parametrize("part", ["learn", "align"])
def test_a_file_of_an_unknown_name_is_refused(lab, part):
    here = lab({})
    run = here.run(role="student", teacher=None)
    paths = {"data": here.data, "backbones": {}, "targetz": "x"}
    with pytest.raises(TypeError, match="^unknown file 'targetz'; expected one of data, backbon"):
        if part == "learn":
            learn_task(here.spec(run), 0, "learner", "losses", **paths)
        else:
            align_task(here.spec(run), 0, "aligned", trained_spec=here.spec(run), **paths)


def test_every_image_counts_whatever_the_batch(lab, monkeypatch):
    here = lab({"datasets": {"digits": {"test_images_per_class": None}}})
    run = here.run(role="student", teacher=None)
    here.learn_all(run)
    found = []
    for batch in (200, 7):  # 360 images: both leave a partial batch
        monkeypatch.setitem(targets.TEST_BATCH, "cpu", batch)
        found.append(here.evaluate(run))
    (results, predictions), (again, same) = found
    assert len(predictions) == 360
    assert set(predictions["class"]) == {str(d) for d in range(10)}
    assert (predictions["predicted"] == same["predicted"]).all()
    assert results["matrix"] == again["matrix"]
    assert sum(results["test_images"]) == 360
    by_task = predictions.groupby("task")["correct"].mean() * 100
    assert by_task.tolist() == pytest.approx(results["matrix"][-1])


def test_unequal_tasks_and_the_order_of_classes(lab):
    here = lab({"datasets": {"digits": {"tasks": [5, 2, 3]}}})
    run = here.run(role="student", teacher=None)
    here.learn_all(run)
    results, predictions = here.evaluate(run)
    assert [len([x for x in row if x is not None]) for row in results["matrix"]] == [1, 2, 3]
    order = results["classes"]
    assert sorted(order) == [str(d) for d in range(10)]
    owners = predictions.groupby("task")["class"].unique()
    assert [set(owners[t]) for t in range(3)] == [set(order[:5]), set(order[5:7]), set(order[7:])]


def test_a_joint_run_is_one_task(lab):
    joint = {"block": "coda_prompt", "variant": "joint", "joint": True}
    here = lab({"grid": {"bounds": [joint]}})
    run = next(r for r in here.grid.runs if r.method.joint and r.role == "student")
    here.learn_all(run)
    results, _ = here.evaluate(run)
    assert len(results["matrix"]) == 1
    assert results["metrics"]["backward_transfer"] is None


def test_a_student_starts_like_the_undistilled_one_but_not_like_its_teacher(lab):
    here = lab({"protocol": {"query": "self"}, "distillers": {"kd": {"alpha": 0.0}}})
    none = here.run(role="student", teacher=None)
    taught = next(r for r in here.grid.runs if r.distiller.name == "kd")
    here.learn_all(taught)
    here.learn_all(none)
    a, b = (artifacts.load(here.checkpoint(run, 1))[0] for run in (none, taught))
    assert all(torch.equal(a[k], b[k]) for k in a)  # with alpha 0, bit for bit


def test_a_loss_that_is_not_finite_writes_nothing(lab):
    here = lab({"training": {"epochs": 3}})
    here.grid.config["training"]["lr"] = 1e30  # above the maximum of the schema
    run = here.run(role="student", teacher=None)
    with pytest.raises(CdlError, match=r"not finite in task 1, epoch \d, batch \d+: ce"):
        here.learn(run, 0)
    assert not list((here.folder / run.folder).rglob("*.*"))
    assert not list((here.folder / "state").rglob("*.*"))


def test_checkpoints_of_another_seed_task_or_backbone_are_refused(lab, inputs):
    here = lab({"grid": {"seeds": [0, 1]}})
    one, two = (here.run(role="student", teacher=None, seed=seed) for seed in (0, 1))
    here.learn(one, 0)
    here.learn(two, 0)
    for suffix in (".safetensors", ".json"):
        source = Path(here.checkpoint(two, 0)).with_suffix(suffix)
        Path(here.checkpoint(one, 0)).with_suffix(suffix).write_bytes(source.read_bytes())
    with pytest.raises(CdlError, match="with learner.seed = 1, expected 0"):
        here.learn(one, 1)
    with pytest.raises(CdlError, match="with task = 0, expected 1"):
        artifacts.load(here.checkpoint(two, 0), task=1)
    fetch(here.folder / "other.safetensors", "embedded", "vit_nano_patch4_32")
    state, metadata = artifacts.load(here.folder / "other.safetensors")
    state["norm.bias"] += 1
    artifacts.save(here.folder / "other.safetensors", state, metadata | {"fingerprint": "changed"})
    here.backbone = lambda _: str(here.folder / "other.safetensors")
    with pytest.raises(CdlError, match='with backbones.vit_nano = .*expected "changed"'):
        here.evaluate(two)
    with pytest.raises(CdlError, match='with backbones.vit_nano = .*expected "changed"'):
        here.learn(two, 1)


def test_apts_teacher_is_read_as_the_protocol_says(lab):
    soft = {}
    for protocol in ("merged", "previous"):
        here = lab(
            {
                "name": protocol,
                "protocol": {"apt_teacher": protocol},
                "grid": {"methods": ["apt"], "distillers": ["kd"]},
            }
        )
        run = next(r for r in here.grid.runs if r.distiller.name == "kd")
        teacher = here.grid.teacher_of(run)
        here.learn(teacher, 0)
        here.learn(run, 0)
        curve = pd.read_csv(Path(here.checkpoint(run, 0)).parent / "losses.csv")
        soft[protocol] = curve[curve["part"] == "soft"]["value"].tolist()
        assert here.spec(teacher).apt_teacher is None  # its training does not depend on it
    assert soft["merged"] != soft["previous"]


@pytest.mark.parametrize("method", ["coda_prompt", "dual_prompt"])
def test_the_first_tasks_are_the_same_bytes_whatever_follows(lab, method):
    found = []
    for tasks in ([3, 2], [3, 2, 4]):
        here = lab(
            {
                "datasets": {"digits": {"tasks": tasks}},
                "methods": {"coda_prompt": {"pool_per_task": 4}},
                "distillers": {"cdl_prompt": {"pool_per_task": 3}},
                "grid": {"methods": [method], "distillers": ["cdl_prompt"]},
            }
        )
        student = here.student("cdl_prompt")
        runs = (here.grid.teacher_of(student), student)
        paths = [here.checkpoint(run, task) for run in runs for task in (0, 1)]
        for task in (0, 1):
            for run in runs:
                here.learn(run, task)
        found.append([artifacts.load(path) for path in paths])
    for (one, made), (two, again) in zip(*found, strict=True):
        assert all(torch.equal(one[name], two[name]) for name in one.keys() | two.keys())
        assert made | {"state": ""} == again | {"state": ""}
    seen = [len(state["head.linear.weight"]) for state, _ in found[0]]
    assert seen == [3, 5, 3, 5]
    states = [state["distiller.kd_head.linear.bias"] for state, _ in found[0][2:]]
    assert [len(bias) for bias in states] == [3, 5]
    name, per_task = {"coda_prompt": ("pool.key", 4), "dual_prompt": ("key", 1)}[method]
    for i, of in ((0, "prompts"), (2, "distiller.teacher_prompts")):
        rows = [state[f"{of}.{name}"].shape[1] for state, _ in found[0][i : i + 2]]
        assert rows == [per_task, 2 * per_task]
