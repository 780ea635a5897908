"""The state of jobs, as shown by status and used by tables."""

import os
from pathlib import Path

import pytest
from lab import make_grid

from cdl.inventory.state import DAMAGED, DONE, MISSING, OUTDATED, States
from cdl.inventory.status import Status, report
from cdl.study.jobs import Jobs
from cdl.study.learning_jobs import LearningJobs

LEARNERS = ("teacher", "student", "kd", "cdl_prompt")


@pytest.fixture
def here(copied, monkeypatch):
    monkeypatch.chdir(copied)


def evaluations(changes):
    """Return the state of the evaluation of each learner."""
    jobs = Jobs(LearningJobs(make_grid(changes)))
    state_of = States(jobs)
    return {job.key["learner"].split("-")[0]: state_of(job) for job in jobs.of("evaluate")}


def path_of(rule, learner, name, task=None):
    """Return the path of a file of a job of the finished configuration."""
    jobs = Jobs(LearningJobs(make_grid({})))
    return next(
        Path(job.outputs[name])
        for job in jobs.of(rule)
        if job.key["learner"].startswith(learner) and job.key.get("task") == task
    )


def test_a_finished_run_is_done(here):
    assert evaluations({}) == dict.fromkeys(LEARNERS, (DONE, "", "", ""))


def test_students_of_a_teacher_with_other_values_are_outdated(here):
    changes = {"training": {"teacher": {"epochs": 2}}}
    found = evaluations(changes)
    assert found["teacher"] == (OUTDATED, "learner.training.epochs", "1", "2")
    assert found["teacher"].why == "training.epochs was 1, is 2"
    assert found["student"].name == DONE
    for learner in ("kd", "cdl_prompt"):
        assert (found[learner].name, found[learner].what) == (OUTDATED, "checkpoints")
    assert report(make_grid(changes), cores=1).cells["done"] == 1


def test_a_deleted_checkpoint_is_missing_and_its_evaluation_is_done(here):
    path_of("distil", "kd", "learner", "1").unlink()
    assert evaluations({})["kd"].name == DONE
    status = report(make_grid({}), cores=1)
    assert (status.cells["done"], status.jobs["missing"]) == (4, 1)


def test_status_of_finished_runs_says_whether_tables_and_figures_are_left(here):
    grid = make_grid({})
    made = "all runs are finished, and their tables and figures are made"
    assert report(grid, 1).time_left == made
    Path(grid.layout.report.page).unlink()
    assert report(grid, 1, "cdl run x.yaml").time_left == (
        "all runs are finished; jobs of tables and figures that are left: 1; run `cdl run x.yaml`"
    )


@pytest.mark.parametrize("what", ["a newer run", "a run that is not planned"])
def test_tables_of_other_runs_are_left(here, what):
    grid = make_grid({})
    if what == "a newer run":
        os.utime(path_of("evaluate", "kd", "results"))
    else:
        with open(grid.layout.report.tables.results, "a") as table:
            table.write("digits,results/tiny/another\n")
    assert "; jobs of tables and figures that are left: " in report(grid, 1).time_left


def test_deleted_or_damaged_results_are_not_done(here):
    path_of("evaluate", "kd", "predictions").unlink()
    results = path_of("evaluate", "student", "results")
    results.write_text(results.read_text().replace("learner", "learned"))
    found = evaluations({})
    assert found["kd"].name == MISSING
    assert found["student"].name == DAMAGED and str(results) in found["student"].what


def test_status_shows_totals_and_five_cells_failed_ones_first():
    unfinished = [f"missing  d/m/l{n}/seed0: 0 of 4 jobs done" for n in range(6)]
    notes = ["no results here", *(f"  train of {n}.json: failed" for n in range(7))]
    failed = "failed   d/m/last/seed0: 3 of 4 jobs done"
    counts = {"done": 1, "running": 0, "failed": 1, "missing": 6}
    status = Status("s", counts, counts, [*unfinished, failed], notes, "time left: unknown")
    lines = status.text().splitlines()
    assert lines[:2] == ["no results here", "s: 8 cells, 8 jobs"]
    assert lines[6:] == [
        *(failed, *unfinished[:4], "and 2 more cells; --all shows a line for each"),
        *(*notes[1:6], "and 2 more jobs with a note; --all shows a line for each"),
        "time left: unknown",
    ]
    whole = status.text(every=True).splitlines()
    assert {*unfinished, failed, *notes} <= {*whole} and "--all" not in status.text(every=True)


def test_without_the_packed_data_nothing_is_known_to_fit(here):
    for manifest in Path("results/data").glob("*/manifest.json"):
        manifest.unlink()
    assert {(state.name, state.what) for state in evaluations({}).values()} == {(OUTDATED, "data")}
