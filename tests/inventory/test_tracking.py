"""`cdl track`: what was sent is read back by the readers of the libraries themselves."""

import json
import math
import os
import struct
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest
from lab import make_grid
from runs import CONFIGS, ROOT

from cdl.inventory import tracking
from cdl.inventory.tracking import track
from cdl.reporting import trackers
from cdl.runtime.artifacts import read_json, write_json
from cdl.runtime.errors import CdlError
from cdl.study.specifications import specification

FOLDER = Path("tracking/tensorboard")


def needs(extra):
    absent = find_spec(trackers.TARGETS[extra].module) is None
    return pytest.mark.skipif(absent, reason=f"the extra {extra} is not installed")


@pytest.fixture
def here(copied, monkeypatch):
    monkeypatch.chdir(copied)


@pytest.fixture
def student():
    """Files and folder of the student that `kd` distils."""
    grid = make_grid({})
    run = next(run for run in grid.runs if run.distiller.name == "kd")
    return grid.files(run), run


def events(name, study="tiny"):
    """Values by tag and step, each as often as it is in the event files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(FOLDER / study / name), {"scalars": 0}).Reload()
    return {
        tag: [(event.step, event.value) for event in reader.Scalars(tag)]
        for tag in reader.Tags()["scalars"]
    }


def expected(files, n_tasks=2):
    """The same, from the files of a run."""
    found, start = {}, 0
    for task in range(n_tasks):
        losses = pd.read_csv(files.task(task).losses)
        for row in losses.itertuples():
            found.setdefault(f"loss/{row.part}", []).append((start + row.epoch, row.value))
            found.setdefault("training/learning_rate", []).append(
                (start + row.epoch, row.learning_rate)
            )
        epochs = losses["epoch"].max() + 1
        found.setdefault("training/task", []).extend((start + e, task) for e in range(epochs))
        start += epochs
    matrix = read_json(files.results)["matrix"]
    found["accuracy/average"] = [
        (t + 1, sum(row[: t + 1]) / (t + 1)) for t, row in enumerate(matrix)
    ]
    for t in range(n_tasks):
        found[f"accuracy/task{t + 1}"] = [(s + 1, matrix[s][t]) for s in range(t, n_tasks)]
    return {tag: sorted(set(curve)) for tag, curve in found.items()}


def assert_equal(found, wanted):
    assert found.keys() == wanted.keys()
    for tag, curve in wanted.items():
        assert [step for step, _ in found[tag]] == [step for step, _ in curve], tag
        for (_, a), (_, b) in zip(found[tag], curve, strict=True):
            assert math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-7), tag  # events have fp32


@needs("tensorboard")
def test_the_curves_of_every_run_are_sent_once(here, student):
    files, run = student
    first = track(make_grid({}), "tensorboard", FOLDER)
    again = track(make_grid({}), "tensorboard", FOLDER)
    assert (first.runs, again.runs, again.points) == (4, 4, 0)
    assert first.left_out == [] and first.points > 0
    assert len(list(FOLDER.glob("tiny/**/events.*"))) == 4
    assert_equal(events(run.folder), expected(files))


@needs("tensorboard")
def test_the_configuration_is_in_the_table_of_hyperparameters(here, student):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import metadata

    track(make_grid({}), "tensorboard", FOLDER)
    reader = EventAccumulator(str(FOLDER / "tiny" / student[1].folder)).Reload()
    start = reader.SummaryMetadata(metadata.SESSION_START_INFO_TAG)
    values = metadata.parse_session_start_info_plugin_data(start.plugin_data.content).hparams
    spec = specification(make_grid({}), student[1]).to_json()
    assert values["training.lr"].number_value == spec["training"]["lr"]
    assert values["distiller.name"].string_value == "kd"
    assert values["dataset"].string_value == student[1].dataset


@needs("tensorboard")
def test_a_later_call_adds_what_a_running_job_has_logged_since(here, student, monkeypatch):
    files, run = student
    task = files.task(1)
    kept = {path: Path(path).read_bytes() for path in (*task.outputs().values(), files.results)}
    whole = expected(files)
    epoch = 1 + max(step for step, _ in whole["loss/total"])
    for path in kept:
        Path(path).unlink()
    parts = {tag: curve[-1][1] for tag, curve in whole.items() if tag.startswith("loss/")}
    named = " ".join(f"{tag[5:]} {v:.4f}" for tag, v in parts.items() if tag != "loss/total")
    line = "2026-01-01 00:00:00,000 INFO cdl.training.loop: task 1 epoch 1/1 "
    log = Path(task.job(run.rule).log)

    log.write_text(f"{line}{named}\n")
    track(make_grid({}), "tensorboard", FOLDER)  # no process runs: its log may be of another run
    assert [step for step, _ in events(run.folder)["loss/total"]] == list(range(epoch - 1))
    assert "accuracy/average" not in events(run.folder)

    monkeypatch.setattr(tracking, "started", lambda: {task.losses})
    monkeypatch.setattr(tracking, "at_work", lambda: True)
    assert track(make_grid({}), "tensorboard", FOLDER).points == len(parts) + 1
    found = events(run.folder)
    for tag, value in parts.items():
        assert found[tag][-1] == (epoch - 1, pytest.approx(value, abs=2e-4))

    for path, content in kept.items():
        Path(path).write_bytes(content)
    track(make_grid({}), "tensorboard", FOLDER)
    assert {tag: [step for step, _ in curve] for tag, curve in events(run.folder).items()} == {
        tag: [step for step, _ in curve] for tag, curve in whole.items()
    }


@needs("tensorboard")
def test_a_run_that_was_computed_again_gets_a_name_of_its_own(here, student):
    files, run = student
    track(make_grid({}), "tensorboard", FOLDER)
    found = read_json(files.results)
    found["matrix"][1][0] += 5
    write_json(files.results, found, [files.predictions])
    assert track(make_grid({}), "tensorboard", FOLDER).points > 0
    assert_equal(events(f"{run.folder} (2)"), expected(files))
    assert track(make_grid({}), "tensorboard", FOLDER).points == 0


@needs("tensorboard")
def test_an_error_of_the_library_is_one_sentence_and_all_is_sent_later(here, student, monkeypatch):
    from tensorboardX import SummaryWriter

    def fail(*_, **__):
        raise ValueError("no login\nsee the manual")

    with monkeypatch.context() as patched:
        patched.setattr(SummaryWriter, "__init__", fail)
        with pytest.raises(CdlError, match=r"^tensorboard: .* could not be sent .no login.; "):
            track(make_grid({}), "tensorboard", FOLDER)
    track(make_grid({}), "tensorboard", FOLDER)
    assert_equal(events(student[1].folder), expected(student[0]))


@needs("tensorboard")
def test_damaged_losses_are_left_out_and_named(here, student):
    files, run = student
    path = Path(files.task(1).losses)
    path.write_text(path.read_text().replace("0.", "1.", 1))
    found = track(make_grid({}), "tensorboard", FOLDER)
    assert len(found.left_out) == 1 and str(path) in found.text()
    assert len(events(run.folder)["training/task"]) < len(expected(files)["training/task"])


def command(target, *more, **environment):
    arguments = ["track", *map(str, CONFIGS), "--to", target, "--json", *more]
    return subprocess.run(
        [sys.executable, "-m", "cdl", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), **environment},
    )


def sent_twice(target):
    """Call the command twice; return what both print."""
    results = [command(target), command(target)]
    assert [result.returncode for result in results] == [0, 0], results[0].stderr
    return [json.loads(result.stdout) for result in results]


def records_in(file):
    """The messages in a file of wandb, which since 0.31 has no reader of it in Python.

    Framed as a log of LevelDB: blocks of 32 KiB, chunks of checksum, length, type and content.
    """
    from wandb.proto.wandb_internal_pb2 import Record

    raw, at, whole, found = file.read_bytes(), 7, b"", []
    while at + 7 <= len(raw):
        if 32768 - at % 32768 < 7:  # the rest of a block has no room for a chunk
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", raw, at)
        whole += raw[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last chunk
            found.append(Record.FromString(whole))
            whole = b""
    return found


@needs("wandb")
def test_wandb_gets_offline_runs(here, student):
    first, again = sent_twice("wandb")
    assert (first["runs"], again["points"]) == (4, 0)
    files, run = student
    found, names = {}, []
    for file in Path("tracking/wandb").glob("*/wandb/offline-run-*/run-*.wandb"):
        records = records_in(file)
        (about,) = (record.run for record in records if record.WhichOneof("record_type") == "run")
        names.append(about.display_name)
        if about.display_name != run.folder:
            continue
        assert about.project == "tiny"
        configuration = {u.key: json.loads(u.value_json) for u in about.config.update}
        assert configuration["distiller"]["name"] == "kd"
        for record in records:
            row = {
                item.key or item.nested_key[0]: json.loads(item.value_json)
                for item in record.history.item
            }
            for tag in row.keys() & expected(files).keys():
                step = row["tasks" if tag.startswith("accuracy/") else "epoch"]
                found.setdefault(tag, []).append((step, row[tag]))
    assert len(names) == len(set(names)) == 4
    assert_equal(found, expected(files))


@needs("trackio")
def test_trackio_gets_a_local_database(here, student):
    first, again = sent_twice("trackio")
    assert (first["runs"], again["points"]) == (4, 0)
    files, run = student
    code = (
        "import json, trackio; from trackio.sqlite_storage import SQLiteStorage as S; "
        f"print(json.dumps([S.get_logs('tiny', {run.folder!r}), "
        f"S.get_run_config('tiny', {run.folder!r})]))"
    )
    environment = {**os.environ, "TRACKIO_DIR": "tracking/trackio"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    rows, configuration = json.loads(process.stdout.splitlines()[-1])
    assert configuration["distiller"]["name"] == "kd"
    wanted = expected(files)
    assert_equal({t: [(r["step"], r[t]) for r in rows if t in r] for t in wanted}, wanted)


@pytest.mark.parametrize("target", trackers.TARGETS)
def test_a_missing_extra_is_named_before_any_work(target, monkeypatch, tmp_path):
    monkeypatch.setattr(trackers, "find_spec", lambda _: None)
    with pytest.raises(CdlError, match=rf"pip install 'cdl-workbench\[{target}\]'"):
        track(make_grid({}), target, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_study_without_results_sends_nothing(tmp_path):
    result = command("tensorboard", "--directory", str(tmp_path))
    if find_spec("tensorboardX") is None:
        pytest.skip("the extra tensorboard is not installed")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["runs"] == 0


def test_an_unknown_tracker_is_refused(tmp_path):
    result = command("mlflow", "--directory", str(tmp_path))
    assert result.returncode == 2
    assert "'mlflow' is not one of 'tensorboard', 'wandb', 'trackio'" in result.stderr
