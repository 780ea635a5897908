"""`cdl compare` of two cells or runs, found by folder or by names in tables."""

import json

import numpy as np
import pandas as pd
import pytest
from study import make_study
from typer.testing import CliRunner

from cdl.cli import app
from cdl.inventory import cells
from cdl.inventory.compare import compare
from cdl.layout import ResultsFolder
from cdl.reporting.crossed import Outcomes, estimate, holm, paired
from cdl.reporting.tables import read, write
from cdl.reporting.text import p_value
from cdl.runtime.artifacts import read_json, write_json
from cdl.runtime.errors import CdlError
from tools import claims, pages

KD, NONE = "digits/l2p/kd-small-from-big-q-small", "digits/l2p/student-small-q-small"
FOLDERS = {
    ("l2p", "big"): "digits/l2p/teacher-big-q-small",
    ("l2p", "none"): NONE,
    ("l2p", "kd"): KD,
    ("l2p", "dkd"): "digits/l2p/dkd-small-from-big-q-small",
}


def place(results, study, seeds=(0, 1)):
    """Write a study's runs below `results/STUDY`, and the table of them."""
    made, *_ = make_study(results / "made", methods=["l2p"], seeds=seeds)
    root = results / study
    for (method, name), folder in FOLDERS.items():
        for seed in seeds:
            run = root / folder / f"seed{seed}"
            run.parent.mkdir(parents=True, exist_ok=True)
            (results / "made" / method / name / f"seed{seed}").rename(run)
    for link in ("run", "baseline_run", "teacher_run"):
        made[link] = made[link].map(
            lambda run: (
                f"results/{study}/{FOLDERS[tuple(run.split('/')[-3:-1])]}/{run.split('/')[-1]}"
                if run
                else ""
            )
        )
    tables = root / "tables"
    tables.mkdir()
    write(made, tables / "results.csv")
    write_json(tables / "protocols.json", {}, files=[tables / "results.csv"])
    return made


@pytest.fixture
def results(tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    place(folder, "default")
    name_classes(folder)
    return ResultsFolder(folder)


def name_classes(folder):
    """Give every image a class, two in each task, in one order for all seeds."""
    for path in folder.glob("*/digits/*/*/seed*/predictions.parquet"):
        table = pd.read_parquet(path)
        table["class"] = (2 * table["task"] + table["image"] % 2).astype(str)
        table.to_parquet(path)
        record = path.with_name("results.json")
        write_json(record, strip(read_json(record)), files=[path])


def strip(content):
    return {k: v for k, v in content.items() if k != "files"}


def answers(results, cell, seed):
    table = pd.read_parquet(results.path / "default" / cell / f"seed{seed}" / "predictions.parquet")
    return Outcomes(*(table[name].to_numpy() for name in Outcomes._fields))


def test_a_comparison_is_the_paired_difference_of_the_two(results):
    found = compare(KD, NONE, results)
    sides = [[answers(results, cell, seed) for seed in (0, 1)] for cell in (KD, NONE)]
    expected = estimate(paired(*sides))
    assert (found.difference, found.low, found.high) == pytest.approx(expected.interval)
    assert found.p == pytest.approx(expected.p)
    assert (found.seeds, found.common_seeds, found.images) == (2, [0, 1], 200)
    assert [part.name for part in found.parts] == ["task 1", "task 2", "task 3", "task 4"]
    assert found.by == "task" and [part.images for part in found.parts] == [50] * 4
    assert np.mean([part.difference for part in found.parts]) == pytest.approx(found.difference)
    other = compare(NONE, KD, results)
    assert (other.difference, other.low) == pytest.approx((-found.difference, -found.high))


def test_tables_are_read_once(results, monkeypatch):
    paths = []
    monkeypatch.setattr(
        cells, "read", lambda path, record: paths.append(path) or read(path, record)
    )
    compare(KD, NONE, results)
    assert paths == [results.path / "default/tables/results.csv"]


@pytest.mark.parametrize(
    "name",
    [
        f"default/{KD}",
        f"results/default/{KD}",
        f"./results/default/{KD}/",
        "digits/l2p/kd",
        "digits / l2p / small / big / kd",
        "| digits | l2p | small | big | kd |",
        "| digits | all (teacher: all) | l2p | small | big | kd |",
        "default/digits/l2p/kd",
        "dig/kd-small",
    ],
)
def test_a_cell_has_many_names(results, name):
    assert compare(name, NONE, results).first == f"default/{KD}"


def test_the_words_of_the_page_are_a_name(results):
    table = results.path / "default" / "tables" / "results.csv"
    rows = pd.read_csv(table, keep_default_na=False)
    taught = {"kd": "alpha=0.9", "dkd": 'alpha=0.9, soft_columns="seen"'}
    rows["distiller_options"] = rows["distiller"].map(taught).fillna("")
    rows.loc[rows["distiller"] == "dkd", ["distiller", "variant"]] = ["kd", "seen_heads"]
    write(rows, table)
    write_json(table.with_name("protocols.json"), {}, files=[table])
    found = compare("digits/l2p/kd, all classes seen", NONE, results)
    assert found.first == f"default/{FOLDERS['l2p', 'dkd']}"


def test_protocols_that_differ_are_told_field_by_field(results):
    table = results.path / "default" / "tables" / "results.csv"
    rows = pd.read_csv(table, keep_default_na=False)
    rows["protocol"] = rows["distiller"].map({"kd": "a3b637dd"}).fillna("7df54a82")
    write(rows, table)
    known = {"a3b637dd": {"training": {"lr": 1, "epochs": 5}}, "7df54a82": {"training": {"lr": 1}}}
    write_json(table.with_name("protocols.json"), known, files=[table])
    found = compare(KD, NONE, results)
    assert found.protocol_differences == ["training.epochs (5 and null)"]
    told = "the protocols differ in training.epochs (5 and null): the difference is not of the le"
    assert told in found.text()
    assert not compare("l2p/dkd", NONE, results).protocol_differences


def test_the_default_study_is_meant_where_several_have_the_cell(results):
    place(results.path, "other")
    assert compare(KD, NONE, results).first == f"default/{KD}"
    assert compare(f"other/{KD}", NONE, results).first == f"other/{KD}"


def test_a_row_is_one_seed(results):
    assert compare(f"{KD}/seed1/results.json", NONE, results).seeds == 1
    found = compare(f"{KD}/seed1", NONE, results)
    assert (found.seeds, found.common_seeds, found.over) == (1, [1], "test examples")


def test_seeds_with_class_orders_of_their_own_are_compared_by_class(results):
    path = results.path / "default" / KD / "seed1" / "results.json"
    run = strip(read_json(path)) | {"classes": [str(7 - c) for c in range(8)]}
    write_json(path, run, files=[path.with_name("predictions.parquet")])
    found = compare(KD, NONE, results)
    assert found.by == "class"
    assert [(part.name, part.images) for part in found.parts] == [(str(c), 25) for c in range(8)]


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("kdd", NONE, "matches no cell with finished runs; expected one such as default/digits"),
        ("digits/l2p", NONE, "matches 4 cells"),
        (f"{KD}/seed7", NONE, "seed 7 is not finished; expected one of 0, 1"),
        (f"{KD}/seed0", f"{NONE}/seed1", "expected a common seed"),
        (f"wrong/default/{KD}", NONE, "matches no cell"),
        (NONE, "digits/l2p/none", "both names mean default/digits"),
    ],
)
def test_a_wrong_name_is_one_sentence(results, first, second, message):
    with pytest.raises(CdlError, match=message):
        compare(first, second, results)


def test_other_test_images_are_refused(results):
    path = results.path / "default" / KD / "seed1" / "results.json"
    run = strip(read_json(path)) | {"data": {"test": "c" * 64}}
    write_json(path, run, files=[path.with_name("predictions.parquet")])
    with pytest.raises(CdlError, match="were tested on different examples"):
        compare(KD, NONE, results)


def test_damaged_predictions_are_refused(results):
    path = results.path / "default" / KD / "seed1" / "predictions.parquet"
    pd.read_parquet(path).tail(9).to_parquet(path)
    with pytest.raises(CdlError, match="predictions"):
        compare(KD, NONE, results)


def test_an_empty_folder_says_what_to_do(tmp_path):
    with pytest.raises(CdlError, match="contains no finished run"):
        compare(KD, NONE, ResultsFolder(tmp_path))


def test_the_command_prints_one_json_object(results):
    command = ["compare", KD, NONE, "--results", str(results.path)]
    printed = CliRunner().invoke(app, [*command, "--json"]).stdout
    answer = json.loads(printed)
    wanted = {"difference", "low", "high", "p", "seeds", "images"}
    assert wanted <= answer.keys() and answer["seeds"] == 2
    text = CliRunner().invoke(app, command).stdout
    assert f"{answer['difference']:+.1f} points" in text and "task 4" in text
    assert "protocols differ" not in text


def test_an_absolute_path_is_a_name_too(results):
    assert compare(str(results.path / "default" / KD), NONE, results).first == f"default/{KD}"


def test_claims_of_the_docs_are_these_differences_with_holms_correction(results, tmp_path):
    pairs = {"kd": ["kd", "student"], "dkd": ["dkd", "student"]}
    content = {"panels": {"gain": {"cells": "default/digits/l2p", "differences": pairs}}}
    rows = claims.claims(content, results)
    found = {row.label: compare(f"default/digits/l2p/{row.label}", NONE, results) for row in rows}
    assert [row.found for row in rows] == list(found.values())
    assert [row.p for row in rows] == holm([one.p for one in found.values()])
    found, p = rows[0].found, p_value(rows[0].p).removeprefix("p ")
    points = f"{found.difference:+.1f} ({found.low:.1f} to {found.high:.1f})"
    over = f"{found.low_by_class:.1f} to {found.high_by_class:.1f}"
    assert rows[0].p > 0.05  # else the difference would be bold
    assert f"| gain | kd | {points} | {over} | {p} |" in pages.table(rows[0].cells)
    claims.figure(rows, "digits", str(tmp_path / "claims.svg"))
    drawn = (tmp_path / "claims.svg").read_text()
    for text in ("dkd", "gain", "digits; points: mean over 2 seeds, lines: 95 % intervals"):
        assert f"<!-- {text} -->" in drawn
