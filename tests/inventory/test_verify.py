"""Damage of single bits in the files of a run is detected or harmless."""

import json
import os
import random
import re
from functools import partial
from pathlib import Path

import pytest
from forked import run_module
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from lab import make_grid
from runs import CONFIGS
from toy_text import save

from cdl.backbones import pretrained
from cdl.backbones.fetch import fetch
from cdl.data.sources.archives import check
from cdl.evaluation.predictions import read_predictions
from cdl.inventory.finished import tabulate
from cdl.inventory.status import report
from cdl.inventory.trace import trace
from cdl.inventory.verify import recorded_files, sources_of, verify
from cdl.layout import ResultsFolder, backbone, record_of
from cdl.reporting.runs import read_results, tables_of
from cdl.reporting.tables import read
from cdl.runtime.artifacts import read_json, write_json
from cdl.runtime.errors import CdlError
from cdl.study.contents import UserFiles
from cdl.study.jobs import Jobs
from cdl.study.report_jobs import ReportJobs, study_jobs

KD = "digits/coda_prompt/kd-vit_nano-from-vit_micro-q-vit_nano/seed0"
SMALL = 300_000  # bytes
FLIPS = 3  # per small file


@pytest.fixture
def study(copied, monkeypatch):
    """Return the grid of the finished configuration, in a copy of its folder."""
    monkeypatch.chdir(copied)
    return make_grid({})


def published(grid):
    """Return the content of tables and page, or the error message."""
    job = Jobs(ReportJobs(grid)).find("collect", {})
    tables = grid.layout.report.tables
    try:
        rows, runs = job.params["rows"], job.inputs["results"]
        costs = job.params["costs"], job.params["records"]
        *frames, protocols = tables_of(rows, read_results(rows, runs), *costs)
        frames += [read(tables.results, tables.protocols), read(tables.curves, tables.protocols)]
        frames.append(read(tables.cost, tables.record("cost")))
        frames += [read_predictions(grid.files(run)) for run in grid.runs]
    except CdlError as error:
        return str(error)
    return [frame.to_csv() for frame in frames] + [protocols]


def harmless(path, before, after):
    """Return whether a changed file has the same meaning as before."""
    if path.suffix == ".json":
        return json.loads(before) == json.loads(after)
    if path.name in ("train.parquet", "test.parquet"):
        return True  # the rows are compared, not their encoding
    return path.suffix == ".tsv"  # written by Snakemake without a hash: only the format is checked


def test_a_flipped_bit_of_any_small_file_is_refused_or_harmless(study):
    items = list(recorded_files(study_jobs(study)))
    assert verify(items).faults == ()
    truth, rng, refused = published(study), random.Random(0), 0
    paths = sorted({Path(path) for item in items for path in item.paths if os.path.exists(path)})
    small = [path for path in paths if path.stat().st_size < SMALL]
    assert {path.suffix for path in small} >= {".json", ".csv", ".tsv", ".parquet", ".md", ".yaml"}
    kinds = {re.sub(r"\d+", "0", f"{path.parent.name}/{path.name}"): path for path in small}
    chosen = [*kinds.values()]  # one of each kind: files of other runs and tasks are read alike
    for path in chosen:
        whole = path.read_bytes()
        for _ in range(FLIPS):
            raw = bytearray(whole)
            raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
            path.write_bytes(raw)
            faults = verify(item for item in items if str(path) in item.paths).faults
            assert faults or harmless(path, whole, bytes(raw)), f"{path} is silently damaged"
            refused += bool(faults)
        if path.suffix != ".svg":  # with the last flip
            said = published(study)
            assert isinstance(said, str) or said == truth, f"{path} changes a table silently"
            tabulate(study)
            trace(KD, ResultsFolder(Path("results")))
            report(study, cores=1)
        path.write_bytes(whole)
    assert refused > FLIPS * len(chosen) / 2
    assert verify(items).faults == ()


def exchange(one, other):
    """Exchange the files of two lists."""
    for a, b in zip(one, other, strict=True):
        aside = f"{a}.aside"
        os.rename(a, aside)
        os.rename(b, a)
        os.rename(aside, b)


SAME_FOLDER = settings(
    max_examples=12,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@SAME_FOLDER
@given(data=st.data())
def test_files_in_the_place_of_others_with_their_record_are_named(study, data):
    """Learners of another task, seed or distiller, targets, queries, results, backbones."""
    items = [item for item in recorded_files(study_jobs(study)) if item.plan is not None]
    there = [item for item in items if item.files + item.body and os.path.exists(item.record)]
    item = data.draw(st.sampled_from(there))
    names = [Path(path).suffix for path in item.paths]
    others = [i for i in there if i != item and [Path(p).suffix for p in i.paths] == names]
    assume(others)
    other = data.draw(st.sampled_from(others))
    exchange(item.paths, other.paths)
    try:
        faults = verify(items).faults
        assert {item.record, other.record} <= {fault.path for fault in faults}
        assert {fault.state for fault in faults} <= {"outdated", "damaged"}
    finally:
        exchange(item.paths, other.paths)
    assert verify(items).faults == ()


def test_verify_names_the_place_and_no_file_that_was_made_from_it(study):
    tasks = [study.layout.run(KD).task(task) for task in (0, 1)]
    items = list(recorded_files(study_jobs(study)))
    exchange(tasks[0].outputs().values(), tasks[1].outputs().values())
    faults = verify(items).faults
    assert [fault.path for fault in faults] == [record_of(task.learner) for task in tasks]
    assert "was made with task 1, expected 0: it belongs to another place" in faults[0].text
    exchange(tasks[0].outputs().values(), tasks[1].outputs().values())
    teacher = KD.replace("kd-vit_nano-from-vit_micro", "teacher-vit_micro")
    targets = [study.layout.run(teacher).task(task).targets for task in (0, 1)]
    records = [record_of(path) for path in targets]
    exchange([targets[0], records[0]], [targets[1], records[1]])
    assert [fault.path for fault in verify(items).faults] == records


def test_verify_says_that_an_edited_configuration_overwrites_results(study):
    edited = make_grid({"distillers": {"kd": {"alpha": 0.9}}})
    faults = verify(recorded_files(study_jobs(edited))).faults
    assert {fault.state for fault in faults} == {"outdated"}
    assert {Path(fault.path).parts[4].split("-")[0] for fault in faults} == {"kd"}
    assert "was made with learner.distiller.alpha 0.5, expected 0.9" in faults[0].text
    learner = study.layout.run(KD).task(0).learner
    Path(learner).unlink()
    found = [f for f in verify(recorded_files(study_jobs(edited))).faults if "task0" in f.path]
    assert [(f.state, f.path) for f in found] == [("missing", learner)]


@pytest.mark.parametrize(
    "row",
    [
        "nan\t0:00:08\t1\t1\t1",
        "-8.0\t0:00:08\t1\t1\t1",
        "inf\t0:00:08\t1\t1\t1",
        "9.9e9\t0:00:08\t1\t1\t1",
        "38.1\t0:00:08\t1\t1\t1",
        "8.1\t0:00:08\t1\t1\t-1",
        "8.1\t0:00:08\t1\t1",
        "8.1\t0:00:08\t1\t1\t1\n8.1\t0:00:08\t1\t1\t1",
        "",
    ],
)
def test_a_damaged_benchmark_is_one_sentence(study, row):
    path = Path(Jobs(ReportJobs(study)).find("collect", {}).params["costs"][0][0])
    header = "s\th:m:s\tmax_rss\tmean_load\tcpu_time"
    path.write_text(f"{header}\n8.1\t0:00:08\t1\t1\t1\n")
    assert not isinstance(published(study), str)
    path.write_text(f"{header}\n{row}\n")
    assert published(study).startswith(f"{path} is not a valid benchmark file")
    path.write_text(header.replace("cpu_time", "cpu_tim") + "\n8.1\t0:00:08\t1\t1\t1\n")
    assert published(study).startswith(f"{path} is not a valid benchmark file ('cpu_time')")


def test_a_record_edited_with_its_hash_is_told_by_what_belongs_to_it(study):
    path = study.layout.run(KD).results
    made = read_json(path)
    write_json(path, made, files=[])  # the record no longer has the hash of the predictions
    assert "predictions.parquet has sha256" in published(study)


def cdl(*arguments):
    return run_module("cdl", *arguments)


def test_verify_names_what_is_damaged_or_missing(copied):
    answer = cdl("verify", *CONFIGS, "--directory", copied)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert answer.stdout.endswith("files compared: all as recorded\n")
    run = copied / "results/tiny" / KD
    harmed = [
        run / "task0/learner.safetensors",
        run / "task1/losses.csv",
        run / "predictions.parquet",
        next((copied / "results/queries").glob("*/task0.safetensors")),
        next((copied / "results/data").glob("*/test.pixels")),
        next((copied / "results/backbones").glob("vit_nano-*.safetensors")),
        copied / "results/tiny/tables/summary.md",
        copied / "results/tiny/index.html",
        copied / "results/tiny/figures/gain_digits.svg",
    ]
    for path in harmed:
        raw = bytearray(path.read_bytes())
        raw[-1] ^= 1
        path.write_bytes(raw)
    gone = run / "task1/learner.safetensors"
    gone.unlink()
    answer = cdl("verify", *CONFIGS, "--directory", copied, "--json")
    assert (answer.returncode, answer.stderr) == (1, "")
    faults = json.loads(answer.stdout)["faults"]
    lost = [fault["path"] for fault in faults if fault["state"] == "missing"]
    assert lost == [str(gone.relative_to(copied))]
    messages = [fault["text"] for fault in faults if fault["state"] == "damaged"]
    for path in harmed:
        assert any(str(path.relative_to(copied)) in text for text in messages), path
    assert len(faults) == len(harmed) + 1


def test_a_damaged_archive_is_found_and_a_deleted_one_is_no_fault(tmp_path):
    read = partial(check, name="cifar100", root=str(tmp_path))
    assert verify([], {"source of x": read}).faults == ()
    (tmp_path / "cifar-100-binary.tar.gz").write_text("not it")
    (fault,) = verify([], {"source of x": read}).faults
    assert (fault.state, fault.path) == ("damaged", "source of x")
    assert "cifar-100-binary.tar.gz has md5" in fault.text


@pytest.mark.parametrize("name", [*pretrained.FILES, pretrained.POOLING])
def test_a_changed_file_of_an_encoders_folder_is_found(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "model")
    fetch(backbone("it"), "folder", "model")
    sources = sources_of(UserFiles({}, {"it": {"source": "folder", "model": "model"}}))
    assert not verify([], sources).faults
    (tmp_path / "model" / name).write_bytes((tmp_path / "model" / name).read_bytes() + b" ")
    (fault,) = verify([], sources).faults
    assert f"model/{name} was changed since" in str(fault)
