"""Identity columns: one order in all tables, and tables with the former names are read."""

import pandas as pd
from study import make_study

from cdl.reporting.columns import FORMER_NAMES, IDENTITY
from cdl.reporting.intervals import answers_of, intervals
from cdl.reporting.summary import summarise
from cdl.reporting.tables import read, write
from cdl.runtime.artifacts import write_json


def former(table, path, record):
    """Write a table as version 0.2 did."""
    before = {name: old for old, name in FORMER_NAMES.items()}
    old = table.rename(columns=before)
    if "backward_transfer" in old:
        old = old.assign(forgetting=-old.pop("backward_transfer"))
    write(old, path)
    write_json(record, {}, files=[path])


def test_tables_begin_with_the_identity_columns(tmp_path):
    results, curves, cost, _ = make_study(tmp_path, methods=["l2p"])
    for table in (results, curves, cost):
        assert list(table.columns[: len(IDENTITY)]) == IDENTITY
    cell = [name for name in IDENTITY if name != "seed"]
    answers = answers_of(lambda run: pd.read_parquet(f"{run}/predictions.parquet"))
    for table in (summarise(results), intervals(results, answers)):
        assert list(table.columns[: len(cell)]) == cell


def test_tables_with_the_former_names_are_read(tmp_path):
    results, curves, cost, _ = make_study(tmp_path, methods=["l2p"])
    results = results.assign(distiller_options="10")  # text, also where it looks like a number
    csv, record = tmp_path / "table.csv", tmp_path / "table.json"
    for table in (results, curves, cost):
        former(table, csv, record)
        assert {*FORMER_NAMES} <= {*pd.read_csv(csv).columns}
        found = read(csv, record)
        pd.testing.assert_frame_equal(
            found[IDENTITY], table[IDENTITY].reset_index(drop=True), check_dtype=False
        )
        assert not {*FORMER_NAMES} & {*found.columns}
        assert found["distiller_options"].map(type).eq(str).all()
