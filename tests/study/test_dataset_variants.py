"""Variants of a dataset with few labels, and the runs and files that they share."""

import pandas as pd
import pytest
from lab import make_grid

from cdl.reporting.panels import of_dataset
from cdl.spec import Labels
from cdl.study.configuration import ConfigError
from cdl.study.jobs import CACHES, flat
from cdl.study.learning_jobs import LearningJobs
from cdl.study.report_jobs import study_jobs
from cdl.study.specifications import in_use, row, specification


def few(n, variant, **options):
    return {"block": "digits", "variant": variant, "labels": {"per_class": n}, **options}


SMALLER = {"images_per_class": 9}
LEVELS = [few(n, f"l{n}") for n in (1, 5)]
FULL = [few(n, f"l{n}t", teacher_labels="all") for n in (1, 5)]


def grid_of(*datasets, **changes):
    grid = {"datasets": list(datasets), "distillers": ["none", "kd"]}
    return make_grid({"grid": grid, **changes})


def caches_of(jobs):
    return {path for job in jobs if job.rule in CACHES for path in flat(job.outputs)}


def learners(grid):
    return {run.folder.replace("/coda_prompt", "").removesuffix("/seed0") for run in grid.runs}


def test_a_teacher_that_sees_all_labels_is_trained_once():
    grid = grid_of("digits", *LEVELS, *FULL)
    teacher, alone = "teacher-vit_micro-q-vit_nano", "student-vit_nano-q-vit_nano"
    kd = "kd-vit_nano-from-vit_micro-q-vit_nano"
    sharing = {f"{d}/{x}" for d in ("digits", "digits+l1", "digits+l5") for x in (teacher, alone)}
    everywhere = ("digits", "digits+l1", "digits+l5", "digits+l1t", "digits+l5t")
    assert learners(grid) == sharing | {f"{d}/{kd}" for d in everywhere}
    rows = {run.folder: row(grid, run) for run in grid.runs}
    found = {r["dataset"]: r for r in rows.values() if r["distiller"] == "kd"}
    assert found["digits+l5t"]["teacher_run"] == found["digits"]["teacher_run"]
    assert found["digits+l5t"]["baseline_run"] == found["digits+l5"]["baseline_run"]
    assert found["digits+l5"]["teacher_run"] != found["digits"]["teacher_run"]
    levels = {d: (r["labels"], r["teacher_labels"]) for d, r in found.items()}
    assert levels["digits"] == ("all", "all") and levels["digits+l5t"] == ("5", "all")
    assert levels["digits+l1"] == ("1", "1")
    hashes = [str(found[d]["protocol"]) for d in everywhere]
    assert len(set(hashes)) == 5
    shown = {run.dataset for run in grid.runs_on("digits+l5t")}
    assert shown == {"digits", "digits+l5", "digits+l5t"}


def test_without_a_variant_with_all_labels_the_first_one_has_the_teacher():
    grid = grid_of(*FULL)
    teacher = next(run for run in grid.runs if run.role == "teacher")
    assert [run for run in grid.runs if run.role == "teacher"] == [teacher]
    assert teacher.dataset == "digits+l1t"
    plain = grid_of("digits")
    assert specification(grid, teacher) == specification(plain, plain.runs[0])


def test_data_queries_and_targets_are_shared():
    plain, grid = (LearningJobs(grid_of("digits", *more)) for more in ((), FULL))
    assert grid.user.data == plain.user.data
    assert caches_of(grid) == caches_of(plain)


def test_with_all_labels_the_specification_has_no_labels():
    grid = grid_of("digits", training={"unlabelled_ratio": 3})
    plain = grid_of("digits")
    for run, other in zip(grid.runs, plain.runs, strict=True):
        assert specification(grid, run) == specification(plain, other)
    (spec,) = (specification(g, g.runs[-1]) for g in [grid_of(few(2, "l2"))])
    assert (spec.labels, spec.training.unlabelled_ratio) == (Labels(per_class=2), 1.0)
    assert spec.teacher_labels is None and spec.distiller.options["confidence"] is None
    assert set(in_use(grid_of(few(2, "l2")))["datasets"]) == {"digits"}


def test_a_variant_replaces_the_kind_of_its_labels():
    share = {"block": "digits", "variant": "half", "labels": {"fraction": 0.5}}
    grid = grid_of(share, datasets={"digits": {"labels": {"per_class": 3}}})
    assert grid.datasets["digits+half"].options["labels"] == {"fraction": 0.5}
    assert row(grid, grid.runs[0])["labels"] == "50%"


ALIGNED = {"block": "coda_prompt", "variant": "a", "alignment": {"preset": "slca"}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"datasets": [few(17, "x")]},
            r"digits\+x\.labels\.per_class: invalid value 17; .* at most 16",
        ),
        ({"datasets": [few(2, "x"), few(3, "x")]}, r"grid\.datasets: 'digits\+x' is listed twice"),
        ({"datasets": ["nothing"]}, r"grid\.datasets: 'nothing' is not defined"),
        (
            {"datasets": [few(0, "x")]},
            r"digits\+x\.labels\.per_class: invalid value 0; .* needs labels",
        ),
        (
            {"datasets": [few(1, "x")], "methods": [ALIGNED]},
            r"\.statistic: invalid value 'covariance'",
        ),
        (
            {
                "methods": ["ranpac"],
                "distillers": [{"block": "kd", "variant": "c", "confidence": 0.5}],
            },
            r"kd\+c\.confidence: invalid value 0\.5",
        ),
    ],
)
def test_what_cannot_work_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        make_grid({"grid": {"distillers": ["none"], **changes}})


def test_figures_show_what_a_variant_shares():
    grid = grid_of("digits", *LEVELS, *FULL)
    runs = pd.DataFrame([row(grid, run) for run in grid.runs])
    shown = of_dataset("digits+l5t", runs, runs)
    assert set(shown["run"]) == {grid.files(run).folder for run in grid.runs_on("digits+l5t")}
    assert len(shown) == 3 and len(of_dataset("digits", runs, runs)) == 3


def test_combinations_are_left_out_by_all_that_an_entry_names():
    exclude = [{"dataset": "digits+l1"}, {"dataset": "digits+l5", "distiller": "none"}]
    base = {"datasets": ["digits", *LEVELS], "distillers": ["none", "kd"]}
    grid = make_grid({"grid": {**base, "exclude": exclude}})
    whole = make_grid({"grid": base})
    left = {run.folder for run in whole.runs} - {run.folder for run in grid.runs}
    assert {run.folder for run in grid.runs} < {run.folder for run in whole.runs}
    kept = "digits+l5/coda_prompt/student"
    assert all(path.startswith(("digits+l1/", kept)) for path in left) and len(left) == 4
    with pytest.raises(ConfigError, match=r"grid\.exclude: excludes all runs"):
        make_grid({"grid": {**base, "exclude": [{"method": "coda_prompt"}]}})
    with pytest.raises(ConfigError, match=r"grid\.exclude: 'digits\+l9' is not defined"):
        make_grid({"grid": {**base, "exclude": [{"dataset": "digits+l9"}]}})


def test_studies_of_one_source_share_caches_or_keep_them_apart():
    """A cache that two studies share has the same inputs in both, or each undoes the other."""
    blocks = make_grid({}).config["datasets"]
    changes = [
        {},
        {"name": "other", "grid": {"seeds": [1]}},
        {"datasets": {"dd": blocks["digits"]}, "grid": {"datasets": ["dd"]}},
        {"datasets": {"dd": blocks["digits"] | SMALLER}, "grid": {"datasets": ["dd"]}},
    ]
    made_from = {}
    shared = 0
    for change in changes:
        for job in study_jobs(make_grid(change)):
            if job.rule in ("queries", "test_queries", "prepare_dataset"):
                for path in flat(job.outputs):
                    shared += path in made_from
                    assert made_from.setdefault(path, job.inputs) == job.inputs, path
    assert shared
