"""A run's specification has the settings that its method reads, and no others."""

from lab import make_grid

from cdl.spec import LearnerSpec
from cdl.study.specifications import specification

READS = {"training": {"lr": 0.01, "betas": [0.8, 0.9]}, "protocol": {"schedule": "constant"}}
BOUND = {"grid": {"bounds": ["ranpac"]}}


def specifications(changes, **options):
    made = make_grid(BOUND | changes | {"methods": {"ranpac": {"projection": 64, **options}}})
    return {run.folder: specification(made, run) for run in made.runs}


def test_a_learning_rate_changes_no_solve_without_steps():
    before, after = specifications({}), specifications(READS)
    solved = [folder for folder in before if "/ranpac/" in folder]
    assert len(solved) == 1
    for folder, spec in before.items():
        assert (spec == after[folder]) == (folder in solved), folder
    read = before[solved[0]].to_json()
    assert read["training"].keys() == {"epochs", "batch_size"}
    assert LearnerSpec.from_json(read) == before[solved[0]]


def test_a_first_session_reads_the_learning_rate():
    before, after = (specifications(changes, first_session="adapter") for changes in ({}, READS))
    assert all(spec != after[folder] for folder, spec in before.items())
