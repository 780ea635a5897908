"""Tasks and evaluations from artifacts to artifacts, in process, on a few embedded digits."""

from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from configuration import merge, resolve
from grid import Grid

from cdl import artifacts, evaluation
from cdl.backbones import fetch
from cdl.data import prepare
from cdl.errors import CdlError
from cdl.evaluation import evaluate_run
from cdl.task import learn_task

ROOT = Path(__file__).parent.parent


def make_grid(changes):
    files = (ROOT / "config" / "default.yaml", ROOT / "config" / "test" / "tiny.yaml")
    config, tiny = (yaml.safe_load(file.read_text()) for file in files)
    return Grid(resolve(merge(merge(config, tiny), changes)))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    prepare(folder / "data", {"name": "digits"})
    names = {"vit_micro": "vit_micro_patch4_32", "vit_nano": "vit_nano_patch4_32"}
    for name, model in names.items():
        fetch(folder / f"{name}.safetensors", "embedded", model)
    return folder


class Lab:
    """Runs of a grid, below a folder of its own."""

    def __init__(self, grid, inputs, folder):
        self.grid, self.inputs, self.folder = grid, inputs, folder

    def run(self, **fields):
        return next(r for r in self.grid.runs if all(getattr(r, k) == v for k, v in fields.items()))

    def checkpoint(self, run, task):
        return str(self.folder / run.folder / f"task{task}" / "learner.safetensors")

    def backbones(self, *names):
        return {n: str(self.inputs / f"{n}.safetensors") for n in names if n is not None}

    def learn(self, run, task, **changes):
        spec = merge(self.grid.spec(run), changes)
        teacher = self.grid.teacher_of(run)
        output = self.checkpoint(run, task)
        learn_task(
            spec=spec,
            task=task,
            data=str(self.inputs / "data"),
            backbones=self.backbones(run.backbone, run.query, run.teacher, run.teacher_query),
            previous=self.checkpoint(run, task - 1) if task else None,
            teacher=self.checkpoint(teacher, task) if teacher else None,
            teacher_spec=self.grid.spec(teacher) if teacher else None,
            output=output,
            losses=output.replace("learner.safetensors", "losses.csv"),
        )

    def learn_all(self, run):
        teacher = self.grid.teacher_of(run)
        for learner in (teacher, run) if teacher else (run,):
            for task in range(run.n_tasks):
                self.learn(learner, task)

    def evaluate(self, run):
        folder = self.folder / run.folder
        evaluate_run(
            spec=self.grid.spec(run),
            checkpoints=[self.checkpoint(run, task) for task in range(run.n_tasks)],
            data=str(self.inputs / "data"),
            backbones=self.backbones(run.backbone, run.query, run.mapped_query),
            teacher_query=run.mapped_query,
            images_per_class=None,
            results=str(folder / "results.json"),
            predictions=str(folder / "predictions.parquet"),
        )
        results = artifacts.read_json(folder / "results.json")
        return results, pd.read_parquet(folder / "predictions.parquet")


@pytest.fixture
def lab(inputs, tmp_path):
    return lambda changes=None: Lab(make_grid(changes or {}), inputs, tmp_path)


@pytest.mark.parametrize("query", ["student", "self"])
@pytest.mark.parametrize("kd", ["kd", "cdl_prompt"])
def test_both_queries_train_and_evaluate(lab, query, kd):
    here = lab({"protocol": {"query": query}, "training": {"epochs": 4}})
    run = next(r for r in here.grid.runs if r.distiller.name == kd)
    here.learn_all(run)
    results, _ = here.evaluate(run)
    assert results["metrics"]["final_average_accuracy"] > 20  # chance is 10
    widths = artifacts.read_json(Path(here.checkpoint(run, 1)).with_suffix(".json"))["widths"]
    assert widths == {"query": 96, "teacher_query": 96 if query == "student" else 192}


def test_every_image_counts_whatever_the_batch(lab, monkeypatch):
    here = lab()
    run = here.run(role="student", teacher=None)
    here.learn_all(run)
    found = []
    for batch in (200, 7):  # 360 images: both leave a partial batch
        monkeypatch.setattr(evaluation, "BATCH", batch)
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
    assert results["metrics"]["forgetting"] is None


def test_a_student_starts_like_the_undistilled_one_but_not_like_its_teacher(lab):
    here = lab({"protocol": {"query": "self"}, "distillers": {"kd": {"alpha": 0.0}}})
    none = here.run(role="student", teacher=None)
    taught = next(r for r in here.grid.runs if r.distiller.name == "kd")
    here.learn_all(taught)
    here.learn_all(none)
    a, b = (artifacts.load(here.checkpoint(run, 1))[0] for run in (none, taught))
    assert all(torch.equal(a[k], b[k]) for k in a)  # alpha 0: bit by bit


def test_a_loss_that_is_not_finite_writes_nothing(lab):
    here = lab()
    run = here.run(role="student", teacher=None)
    with pytest.raises(CdlError, match=r"not finite in task 0, epoch \d, batch \d+: ce"):
        here.learn(run, 0, training={"lr": 1e30, "epochs": 3})
    assert not list(here.folder.rglob("*.safetensors"))
    assert not list(here.folder.rglob("*.csv"))


def test_checkpoints_of_another_seed_task_or_backbone_are_refused(lab, inputs):
    here = lab({"grid": {"seeds": [0, 1]}})
    one, two = (here.run(role="student", teacher=None, seed=seed) for seed in (0, 1))
    here.learn(one, 0)
    here.learn(two, 0)
    for suffix in (".safetensors", ".json"):
        source = Path(here.checkpoint(two, 0)).with_suffix(suffix)
        Path(here.checkpoint(one, 0)).with_suffix(suffix).write_bytes(source.read_bytes())
    with pytest.raises(CdlError, match="its learner.seed is 1, needed is 0"):
        here.learn(one, 1)
    with pytest.raises(CdlError, match="its task is 0, needed is 1"):
        artifacts.load(here.checkpoint(two, 0), task=1)
    fetch(here.folder / "other.safetensors", "embedded", "vit_nano_patch4_32")
    state, metadata = artifacts.load(here.folder / "other.safetensors")
    state["norm.bias"] += 1
    artifacts.save(here.folder / "other.safetensors", state, metadata | {"fingerprint": "changed"})
    here.backbones = lambda *_: {"vit_nano": str(here.folder / "other.safetensors")}
    with pytest.raises(CdlError, match='its vit_nano is .*needed is "changed"'):
        here.evaluate(two)
    with pytest.raises(CdlError, match='its backbones.vit_nano is .*needed is "changed"'):
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
        assert "apt_teacher" not in here.grid.spec(teacher)  # its training does not depend on it
    assert soft["merged"] != soft["previous"]
