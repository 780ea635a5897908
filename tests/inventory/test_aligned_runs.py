"""Status, verify, trace and tables of learners that differ in alignment alone."""

from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from scripts import perform
from statistics_study import HEADS, KD, LABELLED, NONE, OWN, SELF, TEACHER, changed, jobs_of

from cdl.inventory.state import DAMAGED, DONE, OUTDATED, States
from cdl.inventory.trace import trace
from cdl.inventory.verify import recorded_files, verify
from cdl.layout import ResultsFolder, RunFiles
from cdl.reporting.tables import read
from cdl.runtime import artifacts
from cdl.runtime.benchmarks import read_measured
from cdl.study.jobs import flat


@pytest.fixture
def here(statistics, tmp_path, monkeypatch):
    """The files of the finished study, linked; a test that changes one replaces it."""
    for path in statistics.rglob("*"):
        if path.is_file():
            link = tmp_path / path.relative_to(statistics)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.hardlink_to(path)
    monkeypatch.chdir(tmp_path)


def links_of(run):
    """The steps of the provenance of a run."""
    (traced,) = trace(run, ResultsFolder(Path("results"))).values()
    return traced.links


def not_done(grid):
    """The number of jobs by rule that would run again, and whose records differ."""
    jobs = jobs_of(grid)
    state_of = States(jobs)
    checked = [job for job in jobs if job.rule in RULES]
    return Counter(job.rule for job in checked if state_of(job).name != DONE), state_of, jobs


RULES = ("queries", "test_queries", "teacher_targets", "train", "distil", "align")
RULES += ("test_features", "evaluate")


def test_every_job_is_done_and_learners_share_their_training(here):
    counted, _, jobs = not_done(changed())
    assert not counted
    assert Counter(job.rule for job in jobs if job.rule in RULES) == {
        **{"queries": 4, "test_queries": 1, "teacher_targets": 2, "train": 4, "distil": 2},
        **{"align": 12, "test_features": 2, "evaluate": 7},
    }
    for run, other in ((SELF, NONE), (LABELLED, NONE), (OWN, KD)):
        assert not Path(run, "task0/learner.safetensors").exists()
        trained = artifacts.read_json(f"{run}/task1/aligned.json")["trained"]
        assert trained == f"../../../{Path(other).parent.name}/seed0/task1/learner.safetensors"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"self": {"alignment": {"labels": "self", "lr": 0.5}}}, {"align": 2, "evaluate": 1}),
        ({"taught": {"alignment": {"labels": "teacher"}}}, {"align": 2, "evaluate": 1}),
        ({"own": {"alignment": None}}, {"evaluate": 1}),
        ({"heads": {"alignment": {"drift": "sdc"}}}, {"align": 2, "evaluate": 1}),
        ({"own": {"alignment": {"labels": "own"}, "training": {"lr": 0.5}}}, {"distil": 2}),
    ],
)
def test_an_edit_of_an_alignment_runs_that_alignment_and_what_follows(here, fields, expected):
    counted, state_of, jobs = not_done(changed(**fields))
    if "distil" in expected:
        expected = expected | {"align": 2, "evaluate": 1}
    assert counted == expected
    outdated = [job for job in jobs.of(*expected) if state_of(job).name == OUTDATED]
    assert all(next(iter(fields)) in job.key["learner"] for job in outdated)


def test_an_edit_of_the_methods_alignment_leaves_training_without_a_teacher(here):
    from lab import make_grid
    from statistics_study import STUDY

    aligning = {"preset": "slca", "samples": 8, "epochs": 3}
    counted, _, _ = not_done(
        make_grid(STUDY | {"methods": {"coda_prompt": {"alignment": aligning}}})
    )
    again = {"align": 12, "teacher_targets": 2, "distil": 2, "test_features": 1, "evaluate": 7}
    assert counted == again


def test_an_aligned_cell_is_traced_to_what_was_trained(here):
    for run in (TEACHER, NONE, SELF, LABELLED, KD, OWN, HEADS):
        links = links_of(run)
        assert [link.text for link in links if not link.holds] == []
        texts = {link.what: link.text for link in links}
        trained = KD if run in (OWN, HEADS) else NONE if run in (SELF, LABELLED) else run
        assert texts["task 2"] == f"{trained}/task1/learner.safetensors"
        assert texts.get("aligned 2") == (
            None if run == HEADS else f"{run}/task1/aligned.safetensors"
        )
        assert ("targets 2" in texts) == (run in (LABELLED, KD, OWN, HEADS))


def test_targets_that_a_cell_does_not_read_are_not_traced(here):
    files = RunFiles(TEACHER).task(1)
    tensors, metadata = artifacts.load(files.targets)
    others = metadata["spec"] | {"columns": "seen"}  # for a student whose loss has other columns
    artifacts.save(files.targets_seen, tensors, metadata | {"spec": others})
    links = links_of(KD)
    texts = {link.what: link.text for link in links}
    assert texts["targets 2"] == files.targets


def test_a_damaged_trained_artifact_is_found_by_all_that_share_it(here):
    path = Path(NONE, "task0/learner.safetensors")
    raw = path.read_bytes()
    path.unlink()
    path.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    for run in (NONE, SELF, LABELLED):
        links = links_of(run)
        (fault,) = [link for link in links if not link.holds]
        assert fault.what == "task 1" and f"{path} has sha256" in fault.text
    links = links_of(KD)
    assert all(link.holds for link in links)
    (fault,) = [f for f in verify(recorded_files(jobs_of())).faults if f.state == DAMAGED]
    assert str(path) in fault.text


def test_an_aligned_artifact_of_another_training_is_refused_and_runs_again(here):
    record = Path(SELF, "task1/aligned.json")
    content = artifacts.read_json(record)
    content["inputs"]["trained"] = "0" * 64
    record.unlink()
    artifacts.write_json(record, content)
    links = links_of(SELF)
    (fault,) = [link for link in links if not link.holds]
    assert fault.what == "aligned 2" and "trained" in fault.text
    counted, _, _ = not_done(changed())
    assert counted == {"align": 1, "evaluate": 1}


def test_an_alignment_again_writes_the_same_bytes(here):
    jobs = jobs_of()
    for job in jobs.of("align"):
        before = [artifacts.fingerprint_file(path) for path in flat(job.outputs)]
        for path in job.paths:
            Path(path).unlink()
        perform(job)
        assert [artifacts.fingerprint_file(path) for path in flat(job.outputs)] == before


def test_tables_name_the_training_and_the_baseline_and_count_both_jobs(here):
    tables = Path("results/statistics/tables")
    table = read(tables / "results.csv", tables / "protocols.json").set_index("run")
    baseline = table["baseline_run"]
    assert baseline[OWN] == NONE and baseline[KD] == LABELLED
    assert baseline[SELF] == baseline[LABELLED] == baseline[NONE] == NONE
    trained = table["trained_run"].to_dict()
    assert trained[SELF] == trained[LABELLED] == trained[NONE] == NONE
    assert trained[OWN] == trained[HEADS] == trained[KD] == KD
    cost = pd.read_csv(tables / "cost.csv").set_index(table.index)
    for run, row in cost.iterrows():
        files = [*Path(trained[run]).glob("task*/[td]*.measured.json")]
        files += Path(run).glob("task*/align.measured.json")
        assert len(files) == (2 if run == HEADS else 4)
        seconds = sum(read_measured(file).seconds for file in files)
        assert row["training_seconds"] == pytest.approx(seconds, abs=0.1)
    assert cost.loc[SELF, "tflops"] > 0
    assert cost.loc[HEADS, "tflops"] < cost.loc[KD, "tflops"]
    assert cost.loc[LABELLED, "teacher_tflops"] == pytest.approx(cost.loc[KD, "teacher_tflops"])
