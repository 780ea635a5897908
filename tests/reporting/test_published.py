"""Comparison with the papers' numbers: matching, and words for missing values."""

import re
from pathlib import Path

import pandas as pd
import pytest
import yaml

from cdl.reporting.columns import METRICS as ALL_METRICS
from cdl.reporting.published import (
    METRICS,
    NOTE,
    compare,
    display_table,
    load,
    with_reasons,
    write_comparison,
)
from cdl.reporting.runs import results_of
from cdl.reporting.summary import NOT_RUN
from cdl.runtime.artifacts import read_json
from cdl.study.configuration import ConfigError, merge, resolve
from cdl.study.grid import Grid
from cdl.study.specifications import protocol, published, row, specification

ROOT = Path(__file__).parents[2]
PAIR = ("cifar100", "vit_base", "vit_small")


def grid(changes=None, name="cifar100"):
    config = yaml.safe_load((ROOT / "config" / "paper" / f"{name}.yaml").read_text())
    return Grid(resolve(merge(config, changes or {})))


def result(accuracy=80.0, forgetting=5.0):
    """The part of a run's results.json that tables read."""
    metrics = dict.fromkeys(ALL_METRICS, 0.0)
    metrics |= {METRICS["accuracy"]: accuracy, METRICS["forgetting"]: forgetting}
    return {
        "metrics": metrics,
        "data": {"train": "a", "test": "b"},
        "trainable_parameters": 7,
        "seen": {},
    }


def compared(made, of=PAIR, runs=lambda run: result()):
    mine = made.runs_of(*of)
    results, protocols = results_of([row(made, run) for run in mine], [runs(run) for run in mine])
    return compare(results, **published(made, *of)), results, protocols


def cell(table, method, distiller, paper):
    found = table[(table["method"] == method) & (table["distiller"] == distiller)]
    return found[found["paper"] == paper].squeeze(axis=0)


def test_the_data_are_310_results_of_four_versions_and_anchors_with_their_sources():
    everything = load()
    anchors = everything["dataset"].str.startswith("pilot_")
    published, anchors = everything[~anchors], everything[anchors]
    assert len(published) == 310 and len(anchors) == 14
    about = anchors[["source", "weights", "split", "metric"]]
    assert (about != "").all(axis=None) and anchors["accuracy"].between(70, 95).all()
    assert not anchors.duplicated(list(anchors.columns[:7])).any()
    counts = published["version"].value_counts().to_dict()
    assert counts == {"2024-07": 42, "2024-12": 72, "2025-03": 84, "2026-04": 112}
    assert not published.duplicated(list(published.columns[:7])).any()
    assert published[["accuracy", "forgetting"]].notna().all(axis=None)


@pytest.mark.parametrize("name", ["cifar100", "imagenet_r"])
def test_every_published_number_matches_a_run(name):
    made = grid(name=name)
    tables = [compared(made, of)[0] for of in made.comparisons.values()]
    ours = pd.concat(tables)
    ours = ours[ours["paper"].notna()].rename(columns={"paper": "version", "learner": "student"})
    ours["teacher"], ours["kd"] = ours["taught_by"].replace("-", ""), ours["distiller"]
    key = ["version", "method", "teacher", "student", "kd"]
    assert not ours.duplicated(key).any()
    papers = load().query("dataset == @name")
    both = papers.merge(ours, on=key, how="outer", indicator=True)
    alone = both[both["_merge"] != "both"]
    # the teacher of the largest pair reads its student's query, so it is not the papers' learner
    assert set(alone["student"]) == {"vit_large"}
    assert len(alone) == 3
    both = both[both["_merge"] == "both"]
    for metric in METRICS:
        assert (both[metric + "_x"] == both[f"{metric}_published"]).all()


def test_the_anchors_of_the_field_are_beside_the_runs_of_the_pilot():
    config, sgd = (
        yaml.safe_load((ROOT / "config" / "paper" / f"{name}.yaml").read_text())
        for name in ("pilot_cifar100", "pilot_sgd")
    )
    found = []
    for changes in ({}, sgd):
        made = Grid(resolve(merge(config, changes)))
        found += [compared(made, of)[0] for of in made.comparisons.values()]
    ours = pd.concat(found)
    matched = ours[ours["paper"].notna()]
    anchors = load().query("dataset.str.startswith('pilot_')")
    planned = anchors[~anchors["method"].isin(["slca", "hide_prompt"])]  # not offered as methods
    assert sorted(matched["accuracy_published"]) == sorted(planned["accuracy"])
    assert set(matched["learner"]) == {"vit_base_in1k", "vit_base_in21k"}
    words = with_reasons(found[0])
    assert (words["forgetting_published"] == "-").all() and words.notna().all(axis=None)


def test_difference_and_two_standard_deviations():
    base = cell(compared(grid())[0], "l2p", "kd", "2026-04")
    accuracy, forgetting = base["accuracy_published"], base["forgetting_published"]
    # standard deviation 1: half a point above is within two of them, three points below are not
    table, *_ = compared(
        grid(), runs=lambda run: result(accuracy + run.seed - 0.5, forgetting + run.seed - 4)
    )
    row = cell(table, "l2p", "kd", "2026-04")
    assert row["n"] == row["seeds"] == 3
    assert row["accuracy_std"] == pytest.approx(1)
    assert row["accuracy_difference"] == pytest.approx(0.5)
    assert row["accuracy_within_2_std"] == "yes"
    assert row["forgetting_difference"] == pytest.approx(-3)
    assert row["forgetting_within_2_std"] == "no"
    text = display_table(table).loc[row.name]
    assert text["accuracy", "ours"] == f"{accuracy + 0.5:.2f} ± 1.00"
    assert text["", "n"] == "3"


def test_one_seed_has_no_standard_deviation():
    table, *_ = compared(grid(), runs=lambda run: result() if run.seed == 0 else None)
    row = cell(table, "apt", "dkd", "2026-04")
    assert row["n"] == 1
    assert row["accuracy_within_2_std"] == "unknown"
    assert with_reasons(table).loc[row.name, "accuracy_std"] == "unknown"
    text = display_table(table).loc[row.name]
    assert text["accuracy", "ours"] == "80.00"
    assert text["", "n"] == "1 of 3"


def test_missing_values_have_a_reason():
    table, *_ = compared(grid(), runs=lambda run: None if run.distiller.name == "kd" else result())
    row = cell(table, "l2p", "kd", "2025-03").name
    words, text = with_reasons(table), display_table(table)
    for column in ("accuracy", "accuracy_std", "forgetting_difference", "protocol"):
        assert words.loc[row, column] == NOT_RUN
    assert words.loc[row, "accuracy_published"] > 50
    assert text.loc[row, ("accuracy", "ours")] == NOT_RUN
    assert text.loc[row, ("forgetting", "within 2 std")] == NOT_RUN
    teacher = words[words["distiller"] == "(teacher)"].iloc[0]
    assert (
        teacher["paper"] == teacher["accuracy_published"] == teacher["accuracy_difference"] == "-"
    )
    assert words.notna().all(axis=None)
    assert not text.isin(["", "nan", "None", "0.00 ± nan"]).any(axis=None)


def test_unpublished_cells_are_not_matched():
    variant = {"block": "kd", "variant": "tau4", "temperature": 4}
    changes = {"grid": {"methods": ["l2p"], "distillers": ["none", variant], "exclude": []}}
    table, *_ = compared(grid(changes))
    assert table[table["distiller"] == "kd (tau4)"]["paper"].isna().all()
    assert table[table["distiller"] == "none"]["paper"].notna().all()
    table, *_ = compared(grid({"datasets": {"cifar100": {"tasks": 5}}}))
    assert table["paper"].isna().all()
    table, *_ = compared(grid({"protocol": {"query": "self"}}))  # the papers' undistilled ViT-B
    assert table[table["distiller"] == "(teacher)"]["paper"].notna().all()


def test_four_forms_of_one_table(tmp_path):
    made = grid()
    _, results, protocols = compared(made, runs=lambda run: result() if run.seed else None)
    write_comparison(tmp_path / "t", results, protocols, **published(made, *PAIR))
    csv = pd.read_csv(tmp_path / "t.csv", na_values=["-", NOT_RUN, "unknown"])
    assert csv["accuracy"].dtype == csv["accuracy_difference"].dtype == float
    n = len(csv)
    md = (tmp_path / "t.md").read_text()
    assert md.count("\n| ") == n + 1
    tex = (tmp_path / "t.tex").read_text()
    rows = [line for line in tex.splitlines() if line.startswith(("l2p", "dual", "coda", "apt"))]
    assert len(rows) == n
    assert {line.count(" & ") for line in rows} == {14}
    assert all(rule in tex for rule in (r"\toprule", r"\midrule", r"\bottomrule"))
    assert r"80.00 $\pm$ 0.00" in tex
    assert "_" not in re.sub(r"\\_", "", "".join(rows))
    html = (tmp_path / "t.html").read_text()
    assert html.count("<tr>") == n + 2
    assert NOTE in html
    assert not re.search(r"https?:|src=|href=|\\_", html)
    protocols = read_json(tmp_path / "t.json")
    assert protocols.keys() == set(csv["protocol"].dropna()) - {NOT_RUN}
    assert all(protocol["training"]["epochs"] == 20 for protocol in protocols.values())
    for text in (md, tex.replace("\\_", "_"), html):
        assert "cifar100, 10 tasks, vit_base to vit_small" in text


def test_a_published_name_changes_no_number():
    named = grid()
    changes = {name: {"published": None} for name in named.config["backbones"]}
    plain = grid({"backbones": changes, "datasets": {"cifar100": {"published": None}}})
    assert named.comparisons
    assert not plain.comparisons
    assert [row(named, a) for a in named.runs] == [row(plain, b) for b in plain.runs]
    assert [specification(named, a) for a in named.runs] == [
        specification(plain, b) for b in plain.runs
    ]


def test_the_batch_of_the_largest_teacher():
    made = grid()
    for run in made.runs:
        large = "vit_large" in (run.backbone, run.teacher)
        assert specification(made, run).training.batch_size == (32 if large else 64)
        assert protocol(made, run)["training"]["batch_size"] == (32 if large else 64)


def test_a_protocol_does_not_depend_on_what_else_is_in_the_grid():
    made = grid()
    alone = grid({"grid": {"pairs": [{"teacher": "vit_base", "student": "vit_small"}]}})
    for run in alone.runs:
        assert protocol(made, run) == protocol(alone, run)
    weights = {name: made.backbone_source(name) for name in ("vit_base", "vit_small")}
    named = {run.role: protocol(made, run)["backbones"] for run in alone.runs}
    assert named == {"teacher": weights, "student": {"vit_small": weights["vit_small"]}}


def test_two_pairs_of_one_name_are_refused():
    tag = "vit_base_patch16_224.augreg_in21k_ft_in1k"
    with pytest.raises(
        ConfigError, match="the same table name 'cifar100_base-small'; rename 'base'"
    ):
        grid(
            {
                "backbones": {"base": {"timm": tag, "published": "vit_base"}},
                "grid": {
                    "pairs": [
                        {"teacher": "vit_base", "student": "vit_small"},
                        {"teacher": "base", "student": "vit_small"},
                    ]
                },
            }
        )


def test_an_unpublished_name_is_refused():
    with pytest.raises(ConfigError, match="backbones.vit_base.published: 'ViT-B' is not one of"):
        grid({"backbones": {"vit_base": {"published": "ViT-B"}}})
