"""Trials: their values, their images, and the tuned values that follow from them."""

import math
from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import pandas as pd
import pytest
import yaml
from lab import make_grid

from cdl.reporting.tuning import write_kept, write_tuned
from cdl.runtime.artifacts import read_json, write_json
from cdl.study.configuration import ConfigError, merge, resolve
from cdl.study.grid import Grid
from cdl.study.jobs import Jobs
from cdl.study.learning_jobs import LearningJobs
from cdl.study.report_jobs import study_jobs
from cdl.study.specifications import in_use, specification
from cdl.study.trials import Trials, kept, results_of_kept

FIELDS = {
    "training.lr": {"low": 0.001, "high": 0.1, "log": True},
    "distillers.*.alpha": {"low": 0.1, "high": 0.9},
    "distillers.kd.temperature": {"low": 0.5, "high": 8, "log": True},
    "distillers.kd_prompt.kd_length": {"low": 2, "high": 10},
}
STUDY = {
    "datasets": {"digits": {"validation": {"per_class": 5}}},
    "grid": {"distillers": ["none", "kd", "kd_prompt"]},
    "tune": {"fields": FIELDS, "trials": 8, "first_tasks": 1},
}


def study(changes=None):
    return Trials(make_grid(merge(STUDY, changes or {}, {})))


def test_every_distiller_has_the_same_points_in_its_ranges():
    made = study()
    assert made.distillers == ["none", "kd", "kd_prompt"]
    by_label = {trial.label: trial for trial in made.every}
    assert len(by_label) == 24 and made.budget()["trials"] == 8
    for i in range(8):
        none, kd, kd_prompt = (by_label[f"{d}+t{i}"].values for d in made.distillers)
        assert set(none) == {"training.lr"}
        assert set(kd) == {"training.lr", "distillers.kd.alpha", "distillers.kd.temperature"}
        lr = none["training.lr"]
        assert lr == kd["training.lr"] == kd_prompt["training.lr"] and 0.001 <= lr <= 0.1
        assert kd["distillers.kd.alpha"] == kd_prompt["distillers.kd_prompt.alpha"]
        assert kd_prompt["distillers.kd_prompt.kd_length"] in {2, 4, 6, 8, 10}
    # eight points of a Sobol sequence: one in each eighth of every range, and known in advance
    eighths = {int(8 * math.log(t.values["training.lr"] / 0.001, 100)) for t in by_label.values()}
    assert eighths == set(range(8))
    assert [t.values for t in study().every] == [t.values for t in made.every]
    assert [t.values for t in study({"tune": {"seed": 1}}).every] != [t.values for t in made.every]


def test_a_trial_is_a_student_with_its_values_and_the_studys_teacher():
    made = study()
    trial = next(t for t in made.every if t.label == "kd+t3")
    (run,) = made.runs_of(trial)
    spec = specification(made.grid, run)
    assert spec.training.lr == trial.values["training.lr"]
    assert spec.distiller.options["temperature"] == trial.values["distillers.kd.temperature"]
    assert run.seed == 1000 and run.folder.startswith("digits+tune/coda_prompt/kd+t3-vit_nano")
    teacher = made.grid.teacher_of(run)
    lr = made.study.config["training"]["lr"]
    assert specification(made.grid, teacher).training.lr == lr
    assert len({made.grid.teacher_of(r) for r in made.runs if r.teacher}) == 1
    none = next(t for t in made.every if t.distiller == "none")
    (alone,) = made.runs_of(none)
    assert alone.learner == "student+t0-vit_nano-q-vit_nano"


def test_options_of_a_method_are_those_of_students_and_not_of_their_teacher():
    fields = {"training.lr": FIELDS["training.lr"]}
    fields["methods.coda_prompt.length"] = {"low": 2, "high": 8}
    tune = {"fields": fields, "trials": 4, "first_tasks": 1}
    pool = {"distillers": ["none", "kd", "cdl_prompt"]}
    made = Trials(make_grid(STUDY | {"tune": tune, "grid": pool}))
    lengths = {}
    for trial in made.every:
        (run,) = made.runs_of(trial)
        spec = specification(made.grid, run)
        assert run.method.label == "coda_prompt"
        lengths.setdefault(trial.distiller, set()).add(spec.method.options["length"])
        assert spec.method.options["length"] == trial.values.get("methods.coda_prompt.length", 8)
        if run.teacher:
            assert specification(made.grid, made.grid.teacher_of(run)).method.options["length"] == 8
    assert lengths["none"] == lengths["kd"] and len(lengths["kd"]) > 2
    assert lengths["cdl_prompt"] == {8}  # it maps the prompts of its teacher


def test_no_job_of_a_trial_reads_where_test_images_lie():
    made = study()
    folder = made.grid.packed("digits+tune").folder
    assert made.grid.source("digits+tune")["validation"]["evaluated"]
    jobs = Jobs(made.jobs())
    read = [path for job in jobs for path in job.inputs.get("data", [])]
    assert {job.rule for job in jobs} >= {"train", "distil", "evaluate", "evaluate_trial"}
    assert {path.rsplit("/", 1)[0] for path in read} == {folder}
    assert made.study.packed("digits").folder != folder
    own = [path for job in LearningJobs(made.study) for path in job.inputs.get("data", [])]
    assert {path.rsplit("/", 1)[0] for path in own} == {made.study.packed("digits").folder}
    cifar = {"source": {"cifar20": {}}, "tasks": [12, 8], "validation": None}
    own_images = study({"datasets": {"digits": cifar}}).grid.source("digits+tune")
    assert own_images["source"] == {"name": "cifar20", "test": "validation", "classes": None}


def test_what_the_study_does_not_combine_is_not_tried():
    exclude = [{"method": "l2p", "distiller": "kd"}, {"distiller": "kd_prompt"}]
    exclude += [{"dataset": "digits+few", "method": "coda_prompt"}]
    few = {"block": "digits", "variant": "few", "images_per_class": 4}
    grid = STUDY["grid"] | {"methods": ["coda_prompt", "l2p"], "datasets": ["digits", few]}
    made = Trials(make_grid(STUDY | {"grid": grid | {"exclude": exclude}}))
    assert made.distillers == ["none", "kd"]
    tried = {(r.dataset, r.method.label, r.distiller.name) for r in made.runs}
    assert ("digits+tune", "l2p", "none") in tried and ("digits+few.tune", "l2p", "none") in tried
    assert not {("digits+tune", "l2p", "kd"), ("digits+few.tune", "coda_prompt", "kd")} & tried


def test_the_study_is_the_same_with_and_without_trials():
    made, plain = study(), study({"tune": None})
    assert made.study.runs == plain.study.runs and plain.every == []
    both = [study_jobs(t.study) for t in (made, plain)]
    assert both[0].targets == both[1].targets
    assert in_use(made.study) == in_use(plain.study)
    with pytest.raises(ConfigError, match="tune: is missing"):
        plain.listed()


@cache
def learner():
    grid = study().grid
    return specification(grid, grid.runs[0])


def results(path, accuracy, seed=1000):
    path.parent.mkdir(parents=True, exist_ok=True)
    made = replace(learner(), seed=seed).to_json()
    content = {"metrics": {"final_average_accuracy": accuracy}, "learner": made}
    write_json(path, content | {"matrix": [[accuracy]], "test_images": [100]})


def best_of(made, listed):
    """Write the best values from `kept.json`; return the grid with them, and the figures."""
    figures = [f"{name}.svg" for name in made.distillers]
    out = SimpleNamespace(overlay="t.yaml", trials="t.csv", text="t.md", figures=figures)
    write_tuned(listed, made.budget(), made.renamed_grid(), "kept.json", out)
    return Grid(resolve(merge(made.study.config, yaml.safe_load(open("t.yaml"))))), figures


def test_the_best_go_on_and_the_overlay_holds_the_best_of_each(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = study()
    listed = made.listed()
    for trial in listed:  # after its first task trial 5 is best, then 6; after all 6
        for path in map(tmp_path.__truediv__, trial["first"]):
            results(path, {5: 80.0, 6: 79.0, 2: 77.0}.get(trial["index"], 40.0))
        for path in map(tmp_path.__truediv__, trial["all"]):
            results(path, {5: 60.0, 6: 61.0}.get(trial["index"], 99.0))
    write_kept(listed, made.budget(), "kept.json")
    assert read_json("kept.json")["kept"] == dict.fromkeys(made.distillers, [5, 6])
    assert len(results_of_kept("kept.json", listed)) == 6
    tuned, figures = best_of(made, listed)
    table = pd.read_csv("t.csv")
    assert table["accuracy"].notna().sum() == 6
    assert table.loc[table["best"], "trial"].tolist() == [6, 6, 6]
    kd = table[table["distiller"] == "kd"].set_index("trial")
    near = kd.loc[[2, 5, 6], "distillers.kd.temperature"]  # 4 points are one standard error
    text = (tmp_path / "t.md").read_text()
    line = next(x for x in text.splitlines() if "distillers.kd.temperature" in x)
    assert [part.strip() for part in line.split("|")[3:7]] == [
        *(f"{x:.4g}" for x in (kd.loc[6, "distillers.kd.temperature"], near.min(), near.max())),
        "3 of 8",
    ]
    assert "same budget: 8 trials" in text and "learnt 1 of 2 tasks; the best 2" in text
    assert all((tmp_path / name).stat().st_size > 5000 for name in figures)
    assert Trials(tuned).every == [] and [b.label for b in tuned.distillers] == [
        "none+tuned",
        "kd+tuned",
        "kd_prompt+tuned",
    ]
    run = next(r for r in tuned.runs if r.distiller.label == "kd+tuned")
    best = next(t for t in made.every if t.label == "kd+t6")
    assert specification(tuned, run).training.lr == best.values["training.lr"]
    assert tuned.baseline(run).learner == "student+tuned-vit_nano-q-vit_nano"


def test_the_overlay_excludes_the_same_combinations_under_the_new_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    heads = {"block": "kd", "variant": "heads", "alignment": None}
    excluded = [{"method": "l2p", "distiller": ["kd", "kd_prompt"]}, {"distiller": "kd+heads"}]
    methods = {"methods": ["coda_prompt", "l2p"], "distillers": ["none", "kd", "kd_prompt", heads]}
    made = study({"grid": {**methods, "exclude": excluded}})
    listed = made.listed()
    for path in {path for t in listed for path in (*t["first"], *t["all"])}:
        results(tmp_path / path, 50.0)
    write_kept(listed, made.budget(), "kept.json")
    tuned, _ = best_of(made, listed)
    assert {(r.method.label, r.distiller.label) for r in tuned.runs if r.role == "student"} == {
        ("coda_prompt", "none+tuned"),
        ("coda_prompt", "kd+tuned"),
        ("coda_prompt", "kd_prompt+tuned"),
        ("l2p", "none+tuned"),
    }


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"tune": {"seeds": [0]}}, "tune.seeds: 0 is also in grid.seeds"),
        ({"datasets": {"digits": {"validation": None}}}, "digits.validation: is missing"),
        ({"tune": {"first_tasks": 3}}, "tune.first_tasks: invalid value 3; expected at most 2"),
    ],
)
def test_trials_without_seeds_images_or_tasks_of_their_own_are_refused(changes, sentence):
    with pytest.raises(ConfigError, match=sentence):
        study(changes)


@pytest.mark.parametrize(
    ("field", "low", "high", "sentence"),
    [
        ("distillers.dkd.alpha", 0, 1, "none of the grid's distillers"),
        ("training.epochs", 1, 9, "training.lr, methods.NAME.OPTION, or distillers.NAME"),
        ("methods.l2p.pool", 5, 9, "'l2p' is not in grid.methods"),
        ("methods.coda_prompt.pol", 5, 9, "'pol' is unknown; expected one of"),
        ("distillers.kd.alpha", 0, 2, "greater than the maximum"),
        ("distillers.kd.alpha", 1, 1, "expected low < high"),
        ("distillers.kd.temperature", 1, 0.5, "expected low < high"),
        ("training.lr", 0, 1, "less than or equal to the minimum"),
        ("distillers.kd.standardize", 0, 1, "is not a number"),
    ],
)
def test_what_cannot_be_tuned_is_refused(field, low, high, sentence):
    with pytest.raises(ConfigError, match=sentence):
        study({"tune": {"fields": {field: {"low": low, "high": high, "log": False}}}})


def test_a_share_of_the_trials_goes_on():
    assert [kept(16, 0.25), kept(10, 0.25), kept(2, 0.1), kept(10, 0.3)] == [4, 3, 1, 3]


def test_tuned_variants_are_compared_with_the_baseline_that_was_tuned():
    heads = {"alignment": None}
    entries = [
        {"block": block, "variant": f"learnt.{name}", "training": {"lr": rate}, **heads}
        for block, name, rate in [("none", "tuned", 0.01), ("kd", "tuned", 0.02)]
    ]
    aligned = {"block": "coda_prompt", "variant": "a", "alignment": {"preset": "slca"}}
    grid = make_grid(
        {
            "grid": {
                "methods": [aligned],
                "distillers": entries,
                "baseline": "none+learnt.tuned",
            }
        }
    )
    teacher, none, kd = grid.runs
    assert (grid.baseline(kd), grid.baseline(none)) == (none, none)
    assert grid.teacher_of(kd) == teacher
