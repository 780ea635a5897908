"""Agreement of students with their teachers, from their predictions."""

import pandas as pd
from study import make_study

from cdl.layout import RunFiles
from cdl.reporting.runs import with_agreement
from cdl.runtime.artifacts import read_json, write_json


def test_agreement_needs_finished_runs(tmp_path):
    results, *_ = make_study(tmp_path, methods=("l2p",), seeds=(0,), tasks=2)
    rows, runs = results.to_dict("records"), []
    for row in rows:
        files = RunFiles(row["run"])
        table = pd.read_parquet(files.predictions)
        table.assign(predicted=table["correct"].map(str)).to_parquet(files.predictions)
        runs.append(read_json(files.results) | {"per_class": {}})
        write_json(files.results, runs[-1], files=[files.predictions])

    def names(runs):
        found = with_agreement(rows, runs, RunFiles)
        return [run and {n for n in run["metrics"] if n in both} for run in found]

    both = {"teacher_agreement", "baseline_teacher_agreement"}
    teacher, none, *distilled = runs
    assert names(runs) == [set(), set(), both, both]
    assert names([teacher, None, *distilled]) == [set(), None, *[{"teacher_agreement"}] * 2]
    assert names([None, none, *distilled]) == [None, set(), set(), set()]
