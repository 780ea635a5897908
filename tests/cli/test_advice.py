"""Advice at the end of a run: the best student, and heads that should be aligned."""

import pandas as pd
import pytest

from cdl.cli.advice import advice, best_cell
from cdl.reporting.columns import CELL


def table(*rows):
    """Return a table of runs: role, distiller, seed, accuracy, forgetting."""
    columns = ["role", "distiller", "seed", "final_average_accuracy", "forgetting_max"]
    found = pd.DataFrame(rows, columns=columns)
    found["run"] = [f"results/s/{r[1]} {r[2]}" for r in rows]
    others = {name: "l2p+deep" if name == "method" else "" for name in CELL if name not in found}
    return found.assign(**others)


RUNS = table(
    ("teacher", "none", 0, 90.0, 5.0),
    ("student", "none", 0, 60.0, 30.0),
    ("student", "none", 1, 20.0, 40.0),
    ("student", "kd", 1, 49.0, 3.0),
    ("student", "kd", 0, 51.0, 3.0),
)


def test_the_student_with_the_best_mean_is_exported_not_the_best_run():
    assert list(best_cell(RUNS)["distiller"]) == ["kd", "kd"]
    found = advice(RUNS, (), "cdl")
    assert found["Best"] == "kd with l2p+deep, 50.0 % (2 seeds: too few for a claim)"
    assert found["Next"] == "cdl export 'results/s/kd 1' -o student"
    assert "Hint" not in found


def test_without_students_the_best_learner_is_exported():
    assert advice(RUNS[:1], (), "cdl")["Best"] == "l2p+deep, 90.0 % (1 seed: too few for a claim)"


@pytest.mark.parametrize(
    ("unaligned", "hinted"), [(RUNS["run"][1:3], True), (RUNS["run"][3:], False)]
)
def test_forgetting_without_alignment_names_the_option(unaligned, hinted):
    found = advice(RUNS, set(unaligned), "cdl")
    assert ("Hint" in found) == hinted
    if hinted:
        assert "35 points" in found["Hint"]
        assert "methods: {l2p: {alignment: {preset: slca}}}" in found["Hint"]
