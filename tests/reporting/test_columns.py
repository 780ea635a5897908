"""Identity columns: one order in all tables, and text stays text."""

import pandas as pd
from study import intervals_of, make_study, predictions

from cdl.reporting.columns import IDENTITY
from cdl.reporting.summary import summarise
from cdl.reporting.tables import read, write
from cdl.runtime.artifacts import write_json


def test_tables_begin_with_the_identity_columns(tmp_path):
    results, curves, cost, _ = make_study(tmp_path, methods=["l2p"])
    for table in (results, curves, cost):
        assert list(table.columns[: len(IDENTITY)]) == IDENTITY
    cell = [name for name in IDENTITY if name != "seed"]
    for table in (summarise(results, predictions), intervals_of(results)):
        assert list(table.columns[: len(cell)]) == cell


def test_text_that_looks_like_a_number_stays_text(tmp_path):
    results, curves, cost, _ = make_study(tmp_path, methods=["l2p"])
    results = results.assign(distiller_options="10")
    csv, record = tmp_path / "table.csv", tmp_path / "table.json"
    for table in (results, curves, cost):
        write(table, csv)
        write_json(record, {}, files=[csv])
        found = read(csv, record)
        pd.testing.assert_frame_equal(
            found[IDENTITY], table[IDENTITY].reset_index(drop=True), check_dtype=False
        )
        assert found["distiller_options"].map(type).eq(str).all()
