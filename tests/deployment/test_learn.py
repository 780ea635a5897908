"""A finished run learns more tasks, with or without a teacher; old checkpoints stay the same."""

import os
import re
import signal
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import cdl
from cdl.cli import main
from cdl.deployment.learn import learn
from cdl.runtime.artifacts import load, read_json
from cdl.runtime.errors import CdlError
from cdl.runtime.folders import new_folder
from cdl.runtime.jobs import Execution
from cdl.training.checkpointing import State

RUNS = "results/tiny/digits/coda_prompt"
ALONE = f"{RUNS}/student-vit_nano-q-vit_nano/seed0"
KD = f"{RUNS}/kd-vit_nano-from-vit_micro-q-vit_nano/seed0"
TEACHER = f"{RUNS}/teacher-vit_micro-q-vit_nano/seed0"
CPU = Execution(device="cpu")


def photos(folder, *names, n=10):
    """Write a folder of images for each class, each class in another colour."""
    rng = np.random.default_rng(len(names[0]))
    for name in names:
        (folder / name).mkdir(parents=True)
        colour = rng.integers(0, 256, 3)
        for i in range(n):
            pixels = np.clip(colour + rng.integers(-40, 40, (9, 8, 3)), 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{i}.png")
    return folder


def test_two_more_tasks_in_a_row(copied, tmp_path):
    first = learn(copied / ALONE, photos(tmp_path / "a", "red", "green"), "more", execution=CPU)
    assert first.classes == ("green", "red")
    assert (len(first.before), len(first.after)) == (2, 3)
    assert f"task 1: {first.before[0]:.2f} % before, {first.after[0]:.2f} % now" in first.text()
    runs = (copied / ALONE, Path(first.run))
    old, new = (pd.read_parquet(run / "predictions.parquet").set_index("image") for run in runs)
    was, now = (
        100 * frame.groupby("class")["correct"].mean() for frame in (old, new.loc[old.index])
    )
    assert {*first.fell} == {name for name in was.index if now[name] < was[name]}
    for name, accuracies in first.fell.items():
        assert accuracies == pytest.approx((was[name], now[name]))
        assert f"{name} {was[name]:.1f} to {now[name]:.1f} %" in first.text()
    run = Path(first.run)
    assert run == copied / "results/more/digits/coda_prompt/student-vit_nano-q-vit_nano/seed0"
    second = learn(run, photos(tmp_path / "b", "violet", "orange"), "yet_more", execution=CPU)
    assert (len(second.before), len(second.after)) == (3, 4)
    assert second.before == pytest.approx(first.after)  # old tasks are evaluated in the same way
    old, new = cdl.load(copied / ALONE), cdl.load(second.run)
    assert new.classes == (*old.classes, "green", "red", "orange", "violet")
    assert cdl.load(second.run, task=1).classes == old.classes
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    before = cdl.load(second.run, task=1).predict_proba(images)
    np.testing.assert_array_equal(before, old.predict_proba(images))
    for task in (0, 1):
        file = f"task{task}/learner.safetensors"
        was, now = (Path(folder, file) for folder in (copied / ALONE, second.run))
        tensors, record = load(now)
        assert all(torch.equal(tensor, tensors[name]) for name, tensor in load(was)[0].items())
        assert record["learnt_as"]["learner"] == read_json(was.with_suffix(".json"))["learner"]
    (test,) = (copied / "results" / "data").glob("yet_more-*")
    manifest = read_json(test / "manifest.json")
    assert manifest["splits"]["train"]["images"] == 16  # only of the new classes
    assert read_json(f"{second.run}/results.json")["learner"]["training"]["batch_size"] == 2
    assert new.predict(tmp_path / "b/violet/0.png")[0] in new.classes


def test_a_distilled_run_learns_more_with_its_teacher(copied, tmp_path):
    folder = photos(tmp_path / "a", "red", "green")
    with pytest.raises(
        CdlError, match="--teacher: is missing; this run was distilled from vit_micro with kd"
    ):
        learn(copied / KD, folder, "more")
    with pytest.raises(CdlError, match="has not learnt the new task"):
        learn(copied / KD, folder, "more", teacher=copied / TEACHER)
    tutor = learn(copied / TEACHER, folder, "more", execution=CPU).run
    with pytest.raises(CdlError, match="this run has no teacher"):
        learn(copied / ALONE, folder, "more", teacher=Path(tutor))
    with pytest.raises(CdlError, match="is not a run of the teacher vit_micro"):
        learn(copied / KD, folder, "more", teacher=copied / ALONE)
    further = photos(tmp_path / "further", "whatever", n=5)
    with pytest.raises(CdlError, match="--unlabelled: is only used with a teacher"):
        learn(copied / ALONE, folder, "more", unlabelled=further)
    how = {"teacher": Path(tutor), "execution": CPU}
    learnt = learn(copied / KD, folder, "more", unlabelled=further, **how)
    record = read_json(Path(learnt.run, "task2/learner.json"))
    assert record["teacher_shape"] == {"width": 192, "depth": 6}
    assert len(learnt.after) == 3 and "unlabelled" in record["inputs"]
    other = photos(tmp_path / "b", "violet", "orange")
    tutor = learn(Path(tutor), other, "yet_more", execution=CPU).run
    again = learn(Path(learnt.run), other, "yet_more", teacher=Path(tutor), execution=CPU)
    assert again.before == pytest.approx(learnt.after)
    was = read_json(Path(again.run, "task2/learner.json"))["learnt_as"]
    assert was["inputs"]["unlabelled"] == record["inputs"]["unlabelled"]


def test_test_images_can_be_given(copied, tmp_path):
    train, test = (
        photos(tmp_path / k, "red", "green", n=n) for k, n in (("train", 1), ("test", 6))
    )
    learnt = learn(copied / ALONE, train, "more", test=test, execution=CPU)
    assert read_json(Path(learnt.run, "results.json"))["test_images"][2] == 12
    (test / "red").rename(test / "blue")
    with pytest.raises(CdlError, match="test: class '(blue|red)' is not in both"):
        learn(copied / ALONE, train, "other", test=test)


def spoil_known(folder):
    photos(folder, "7", "new")


def spoil_single(folder):
    photos(folder, "one", n=1)


def spoil_files(folder):
    photos(folder, "new")
    for name in ("0.png", "3.png"):
        (folder / "new" / name).write_bytes(b"no image")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_known, "'7': learnt already"),
        (spoil_single, "new/one: contains one image; expected at least two"),
        (spoil_files, "2 images are unreadable: .*new/new/0.png.*new/new/3.png"),
        (lambda folder: folder.mkdir(), "contains no class"),
        (lambda folder: photos(folder, "one"), "contains one class, one; expected two or more"),
    ],
)
def test_invalid_images_are_rejected_before_any_work(finished, tmp_path, spoil, message):
    spoil(tmp_path / "new")
    before = sorted(finished.rglob("*"))
    with pytest.raises(CdlError, match=message) as caught:
        learn(finished / ALONE, tmp_path / "new", "more")
    assert "\n" not in str(caught.value)
    assert sorted(finished.rglob("*")) == before


def test_existing_and_reserved_names_are_rejected(finished, tmp_path):
    folder = photos(tmp_path / "a", "red")
    for name, message in (
        ("tiny", "already exists"),
        ("data", "invalid name 'data'"),
        ("../x", "invalid name"),
    ):
        with pytest.raises(CdlError, match=message):
            learn(finished / ALONE, folder, name)


def test_a_run_that_another_process_has_made_meanwhile_is_kept(copied, tmp_path, monkeypatch):
    folder = photos(tmp_path / "a", "red", "green")
    first = Path(learn(copied / ALONE, folder, "more", execution=CPU).run)
    before = {path: path.stat().st_mtime_ns for path in first.rglob("*")}
    # the second process looked for the folder before the first one made it
    monkeypatch.setattr("cdl.deployment.learn._new_run_folder", lambda run, name: first)
    with pytest.raises(CdlError, match="already exists; choose another name"):
        learn(copied / ALONE, folder, "more", execution=CPU)
    assert {path: path.stat().st_mtime_ns for path in first.rglob("*")} == before


def test_while_one_process_learns_a_second_of_that_name_exits_with_1(copied, tmp_path, capsys):
    folder = photos(tmp_path / "a", "red", "green")
    run = copied / "results/more/digits/coda_prompt/student-vit_nano-q-vit_nano/seed0"
    arguments = ["cdl", "learn", str(copied / ALONE), "--task", str(folder), "-o", "more"]
    with new_folder(run) as learning, pytest.MonkeyPatch.context() as patch:
        (learning / "x").touch()
        patch.setattr(sys, "argv", arguments)
        with pytest.raises(SystemExit) as ended:
            main()
    assert ended.value.code == 1
    expected = rf"cdl: {run}: is being made by process {os.getpid()} on .*; wait for its end.*\n"
    assert re.fullmatch(expected, capsys.readouterr().err)
    assert [path.name for path in run.iterdir()] == ["x"]  # the second removed nothing


def test_a_student_that_is_not_there_is_told_where_it_comes_from(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    monkeypatch.setattr(sys, "argv", ["cdl", "learn", "student", "--task", "new"])
    with pytest.raises(SystemExit):
        main()
    assert "student: no such folder; write it with `cdl export`" in capsys.readouterr().err


def test_a_killed_process_goes_on_with_the_same_command(copied, tmp_path, monkeypatch):
    folder = photos(tmp_path / "a", "red", "green")
    often = Execution(device="cpu", save_minutes=0.0)
    child = os.fork()
    if child == 0:
        save, saved = State.save, []

        def save_and_die(self, *content):
            save(self, *content)
            saved.append(content)
            if len(saved) == 2:
                os.kill(os.getpid(), signal.SIGKILL)

        monkeypatch.setattr(State, "save", save_and_die)
        learn(copied / ALONE, folder, "more", execution=often)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    found = []
    load_state = State.load

    def load_and_note(self):
        found.append(load_state(self))
        return found[-1]

    monkeypatch.setattr(State, "load", load_and_note)
    resumed = Path(learn(copied / ALONE, folder, "more", execution=CPU).run)
    assert found[-1] is not None  # it did not begin anew
    whole = Path(learn(copied / ALONE, folder, "whole", execution=CPU).run)
    for file in ("task2/learner.safetensors", "predictions.parquet"):
        assert (resumed / file).read_bytes() == (whole / file).read_bytes()
    assert not list((copied / "results").rglob(".*"))
    assert not list((copied / "results/state").iterdir())


def test_a_failed_task_leaves_no_files(copied, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise CdlError("the loss is not finite")

    folder = photos(tmp_path / "a", "red", "green")
    before = sorted((copied / "results").rglob("*"))
    monkeypatch.setattr("cdl.deployment.one_more_task.learn_task", fail)
    with pytest.raises(CdlError, match="not finite"):
        learn(copied / ALONE, folder, "more")
    assert sorted((copied / "results").rglob("*")) == before


def test_a_teacher_of_other_classes_or_images_is_refused_and_kept(copied, tmp_path):
    folder = photos(tmp_path / "a", "red", "green")
    tutor = Path(learn(copied / TEACHER, folder, "tutor", execution=CPU).run)
    others = photos(tmp_path / "b", "red", "blue")
    images = photos(tmp_path / "c", "red", "green", n=7)
    before = sorted((copied / "results").rglob("*"))
    for task, message in (
        (
            others,
            "has not learnt 'blue'; expected a run with the classes .*, 'blue', 'red' in this",
        ),
        (images, "task2/learner.safetensors was trained on other images of the new classes"),
    ):
        with pytest.raises(CdlError, match=f"--teacher: .*{message}") as caught:
            learn(copied / KD, task, "more", teacher=tutor, execution=CPU)
        assert "delete" not in str(caught.value)
        assert sorted((copied / "results").rglob("*")) == before
