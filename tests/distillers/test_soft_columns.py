"""The soft loss over the classes of the task, or over all classes seen so far."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from lab import make_grid
from torch.nn import functional as F
from toys import N_CLASSES, TASKS, batch, pair

from cdl.distillers.base import TeacherOutput
from cdl.distillers.kd import kd_loss
from cdl.runtime import artifacts
from cdl.study.configuration import ConfigError
from cdl.study.learning_jobs import LearningJobs
from cdl.study.specifications import specification

NAMES = ["kd", "kd_token", "kd_prompt", "cdl_prompt"]
ALIGNED = {
    "block": "coda_prompt",
    "variant": "a",
    "alignment": {"preset": "slca", "statistic": "centroid", "epochs": 1},
}
FEW = {"block": "digits", "variant": "few", "labels": {"per_class": 3}, "teacher_labels": "all"}


def seen(block):
    return {"block": block, "variant": "seen", "soft_columns": "seen"}


@pytest.mark.parametrize("name", NAMES)
def test_all_classes_seen_are_compared_and_cross_entropy_stays_on_the_task(toy_backbone, name):
    student, teacher = pair(toy_backbone, "l2p", name, {"soft_columns": "seen"}.items())
    images, labels = batch(5, task=1)
    query = student.backbone.query(images)
    taught = teacher(images, query, 1, slice(0, N_CLASSES))
    output = student(images, query, 1, taught.query)
    found = student.losses(output, taught, labels, TASKS[1])
    soft = student.distiller.soft_logits(output)[:, :N_CLASSES]
    torch.testing.assert_close(found["soft"], 0.5 * kd_loss(soft, taught.logits, 2.0))
    local = F.cross_entropy(output.logits[:, TASKS[1]], labels - TASKS[1].start)
    torch.testing.assert_close(found["ce"], 0.5 * local)
    head = student.distiller.heads().get("kd_head", (student.head, 0))[0]
    found["soft"].backward()
    assert (head.linear.weight.grad.abs().sum(1) > 0).all()  # old columns learn, too


@pytest.mark.parametrize("name", NAMES)
def test_in_the_first_task_both_are_the_same(toy_backbone, name):
    losses = []
    for columns in ("task", "seen"):
        student, teacher = pair(toy_backbone, "l2p", name, {"soft_columns": columns}.items())
        images, labels = batch(5)
        query = student.backbone.query(images)
        taught = teacher(images, query, 0, TASKS[0])
        assert isinstance(taught, TeacherOutput)
        output = student(images, query, 0, taught.query)
        losses.append(student.losses(output, taught, labels, TASKS[0])["soft"])
    assert torch.equal(*losses)


def learnt(lab, name, **compute):
    changes = {"grid": {"methods": [ALIGNED], "distillers": ["none", seen(name)]}}
    made = lab({**changes, "name": "_".join(map(str, compute.values())), "compute": compute})
    run = made.student(name)
    made.learn_all(run)
    curves = Path(made.trained(run, 1)).parent / "losses.csv"
    return artifacts.load(made.checkpoint(run, 1))[0], pd.read_csv(curves)


@pytest.mark.parametrize("name", ["kd", pytest.param("cdl_prompt", marks=pytest.mark.slow)])
def test_the_cache_equals_the_teacher_itself(lab, name):
    online = learnt(lab, name, targets="online")
    cached = learnt(lab, name, targets="cached", targets_dtype="float32")
    assert online[0].keys() == cached[0].keys()
    assert all(torch.equal(online[0][k], cached[0][k]) for k in online[0])
    pd.testing.assert_frame_equal(online[1], cached[1], check_exact=True)


def test_the_targets_are_those_of_the_aligned_teacher_for_all_classes_seen(lab):
    made = lab({"grid": {"methods": [ALIGNED], "distillers": ["none", "kd", seen("kd")]}})
    plain, other = (r for r in made.grid.runs if r.teacher)
    for run in (plain, other):
        made.learn_all(run)
    files = made.grid.files(made.grid.teacher_of(plain))
    for task, (narrow, wide) in enumerate([(6, 6), (4, 10)]):
        found = [
            artifacts.load(made.path(path))
            for path in (files.task(task).targets, files.task(task).targets_seen)
        ]
        values = [tensors["values"] for tensors, _ in found]
        assert [v.shape[-1] for v in values] == [narrow, wide]
        assert torch.equal(values[0], values[1][..., -narrow:])
        aligned = made.checkpoint(made.grid.teacher_of(plain), task)
        teachers = {record["inputs"]["teacher"] for _, record in found}
        assert teachers == {artifacts.read_json(Path(aligned).with_suffix(".json"))["sha256"]}
    first, second = (artifacts.load(made.trained(run, 1))[0] for run in (plain, other))
    old = slice(0, 6)
    weights = [state["head.linear.weight"] for state in (first, second)]
    before = artifacts.load(made.trained(other, 0))[0]["head.linear.weight"]
    assert torch.equal(weights[0][old], before)
    assert not torch.equal(weights[1][old], before)


def test_each_kind_of_targets_is_computed_once_and_alignment_reads_those_of_the_task():
    grid = {"datasets": [FEW], "methods": [ALIGNED]}
    at_test = {"variant": "at_test", "alignment": {"answers": "test"}}
    grid["distillers"] = ["none", "kd", "kd_prompt", *map(seen, NAMES)]
    grid["distillers"] += [{"block": name, **at_test} for name in ("kd", "kd_prompt")]
    both = {"answers": "test", "label_classes": "seen"}
    grid["distillers"].append({"block": "kd", "variant": "both", "alignment": both})
    made = make_grid({"grid": grid})
    jobs = list(LearningJobs(made))
    rules = [job.rule for job in jobs if job.rule.startswith("teacher_targets")]
    kinds = ("teacher_targets", "teacher_targets_seen", "teacher_targets_test")
    kinds = (*kinds, "teacher_targets_test_seen")
    assert [rules.count(kind) for kind in kinds] == [2, 2, 2, 2]
    files = {job.rule: job.outputs["targets"] for job in jobs if "targets" in job.outputs}
    assert {rule: Path(file).name for rule, file in files.items()} == {
        "teacher_targets": "targets.safetensors",
        "teacher_targets_seen": "targets_seen.safetensors",
        "teacher_targets_test": "targets_test.safetensors",
        "teacher_targets_test_seen": "targets_test_seen.safetensors",
    }
    read = {
        (job.rule, job.key["learner"].split("-")[0]): Path(job.inputs["targets"]).name
        for job in jobs
        if "targets" in job.inputs
    }
    for name in NAMES:
        assert read["distil", f"{name}+seen"] == "targets_seen.safetensors"
        assert read["align", f"{name}+seen"] == "targets.safetensors"
    assert read["distil", "kd"] == "targets.safetensors"
    assert read["align", "kd+at_test"] == read["align", "kd_prompt+at_test"]
    assert read["align", "kd+at_test"] == "targets_test.safetensors"
    assert read["align", "kd+both"] == "targets_test_seen.safetensors"


def test_specifications_and_caches_name_the_columns():
    made = make_grid({"grid": {"distillers": ["none", "kd", seen("kd")]}})
    plain, other = (specification(made, run) for run in made.runs if run.teacher)
    assert (plain.soft_columns, other.soft_columns) == ("task", "seen")
    made_for = [spec.targets(spec, spec.soft_columns).to_json() for spec in (plain, other)]
    assert [one["columns"] for one in made_for] == ["task", "seen"]


def test_a_solve_refuses_it():
    grid = {"methods": ["ranpac"], "bounds": [], "distillers": ["none", seen("kd")]}
    with pytest.raises(ConfigError, match=r"kd\+seen\.soft_columns: invalid value 'seen'.*ranpac"):
        make_grid({"grid": grid})


@pytest.mark.parametrize("remedy", [{"logit_scale": 10}, {}])
def test_a_ridge_teaches_prompts_about_all_classes_seen(lab, remedy):
    pair = {"teacher": "vit_micro", "student": "vit_nano", "teacher_method": "ranpac"}
    kd = seen("kd") | ({} if remedy else {"standardize": True})
    grid = {"pairs": [pair], "methods": ["coda_prompt"], "distillers": [kd], "bounds": []}
    here = lab({"methods": {"ranpac": {"projection": 64, **remedy}}, "grid": grid})
    run = here.student("kd")
    here.learn_all(run)
    values = artifacts.load(here.task_inputs(run, 1)["targets"])[0]["values"]
    assert values.shape[-1] == 10  # of the ridge, for the images of the second task
    curves = pd.read_csv(Path(here.trained(run, 1)).parent / "losses.csv")
    soft = curves.loc[curves["part"] == "soft", "value"]
    assert len(soft) and soft.gt(0).all()
    assert here.evaluate(run)[0]["metrics"]["final_average_accuracy"] > 0
