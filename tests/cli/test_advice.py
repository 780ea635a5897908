"""The lines at the end of a run: whether it is good, and what to do next."""

import pandas as pd
import pytest

from cdl.cli.summary import _legend, advice
from cdl.reporting.best import best_cell
from cdl.reporting.columns import CELL
from cdl.reporting.names import named


def table(*rows):
    """Return a table of runs: role, distiller, seed, accuracy."""
    columns = ["role", "distiller", "seed", "final_average_accuracy"]
    found = pd.DataFrame(rows, columns=columns)
    found["run"] = [f"results/s/{r[1]} {r[2]}" for r in rows]
    others = {name: "l2p+deep" if name == "method" else "" for name in CELL if name not in found}
    return found.assign(**others, labelled_seen=160, baseline_run="", teacher_run="")


RUNS = table(
    ("teacher", "none", 0, 90.0),
    ("student", "none", 0, 60.0),
    ("student", "none", 1, 20.0),
    ("student", "kd", 1, 49.0),
    ("student", "kd", 0, 51.0),
)


def cell(method, accuracy, n, **fields):
    """Return a row of a table of cells, with intervals of 2 points to each side."""
    row = dict.fromkeys(CELL, "") | {"method": method, "distiller": "none", "role": "student"}
    row |= {"n": n, "over": "seeds and test examples" if n > 1 else "test examples"}
    row |= {"accuracy": accuracy, "accuracy_low": accuracy - 2, "accuracy_high": accuracy + 2}
    gain = fields.pop("gain", float("nan"))
    row |= {"gain": gain, "gain_low": gain - 2, "gain_high": gain + 2, "baseline": ""}
    return row | fields


def cells(n, *more):
    """Return the cells of `RUNS` with a number of seeds, and others."""
    kd = {"distiller": "kd", "teacher": "", "baseline": "none", "gain": 10.0}
    rows = [cell("l2p+deep", 90.0, n, role="teacher"), cell("l2p+deep", 40.0, n)]
    return named(pd.DataFrame([*rows, cell("l2p+deep", 50.0, n, **kd), *more]))


def test_the_student_with_the_best_mean_is_exported_not_the_best_run():
    assert list(best_cell(RUNS)["distiller"]) == ["kd", "kd"]
    assert advice(RUNS, cells(2), 10, "cdl")["Next"] == "cdl export 'results/s/kd 1' -o student"


def test_without_students_the_best_learner_is_shown():
    best = advice(RUNS[:1], cells(1)[:1], 10, "cdl")["Best"]
    assert best.startswith(
        "l2p+deep (teacher), 90.0 % (1 seed: too few for an interval over seeds); chance"
    )


def test_the_best_student_has_chance_class_means_and_a_ridge_beside_it():
    lacking = advice(RUNS, cells(3), 10, "cdl")["Best"]
    assert lacking == (
        "l2p+deep (kd), 50.0 % (48.0 to 52.0, 3 seeds); chance 10.0 %; for class means and a "
        "ridge: grid.bounds: [simple_cil, ranpac]"
    )
    bounds = cell("simple_cil", 45.0, 3), cell("ranpac", 47.0, 3)
    beside = advice(RUNS, cells(3, *bounds), 10, "cdl")["Best"]
    assert beside.endswith("chance 10.0 %, class means 45.0 %, a ridge 47.0 %")


def test_a_bound_that_is_best_has_the_best_trained_student_beside_it():
    runs = pd.concat([RUNS, table(("student", "none", 0, 70.0)).assign(method="ranpac")])
    best = advice(runs, cells(3, cell("ranpac", 70.0, 3)), 10, "cdl")["Best"]
    assert best.startswith("a ridge (ranpac), 70.0 % (68.0 to 72.0, 3 seeds); chance 10.0 %, ")
    assert "trained at best 50.0 %, l2p+deep (kd)" in best


@pytest.mark.parametrize(
    ("n", "gain", "sentence"),
    [
        (3, 3.0, "kd is better than none, +3.0 points (+1.0 to +5.0)"),
        (3, 1.0, "kd is not shown to be better than none, +1.0 points (−1.0 to +3.0): take none"),
        (3, -3.0, "kd is worse than none, −3.0 points (−5.0 to −1.0): take none instead"),
        (2, 3.0, "kd minus none: +3.0 points, for a claim run 5 seeds"),
    ],
)
def test_the_teacher_is_judged_by_one_criterion_and_not_with_few_seeds(n, gain, sentence):
    taught = {"distiller": "kd", "teacher": "big", "baseline": "none", "gain": gain}
    rows = named(pd.DataFrame([cell("l2p+deep", 50.0, n), cell("l2p+deep", 53.0, n, **taught)]))
    said = advice(RUNS[1:2], rows, 10, "cdl")["Teacher"]
    assert said.startswith(sentence) and "significant" not in said


def test_a_baseline_has_its_own_name_beside_other_methods():
    learnt = {"distiller_options": "alignment=null", "variant": "learnt"}
    taught = {"distiller": "kd", "teacher": "big", "gain": 3.0, "baseline": "none"}
    rows = [cell("l2p+deep", 40.0, 3, **learnt), cell("l2p+deep", 50.0, 3)]
    bound = cell("ranpac", 45.0, 3)
    table = named(pd.DataFrame([*rows, cell("l2p+deep", 53.0, 3, **taught), bound]))
    own = table["label"][1]
    assert own.startswith("none, ")
    assert advice(RUNS[1:2], table, 10, "cdl")["Teacher"].startswith(f"kd is better than '{own}'")
    assert _legend(table).endswith(f"gain over {own}")


def test_what_would_be_better_is_said_in_one_line():
    found = advice(RUNS, cells(3), 10, "cdl", embedded=[""])
    assert list(found) == ["Best", "Better", "Next"]
    better = "more examples of a class than 16; a pretrained ViT (cdl list backbones)"
    assert found["Better"] == better
    assert "Better" not in advice(RUNS.assign(labelled_seen=5000), cells(3), 10, "cdl")
