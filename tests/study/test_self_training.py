"""A backbone that teaches itself: runs, labels and figures tell the teacher from its student."""

import pandas as pd
import pytest
from lab import make_grid

from cdl.reporting.names import names_of
from cdl.reporting.panels import panels_of
from cdl.study.configuration import ConfigError
from cdl.study.learning_jobs import LearningJobs
from cdl.study.specifications import row, specification

OWN = {"teacher": "vit_nano", "student": "vit_nano"}
BIG = {"teacher": "vit_micro", "student": "vit_nano"}


def grid(*pairs, **changes):
    entries = {"pairs": list(pairs), "methods": ["coda_prompt"], "distillers": ["none", "kd"]}
    return make_grid({"grid": entries, **changes})


def test_teacher_and_student_of_one_backbone_are_two_learners():
    made = grid(BIG, OWN, deploy={"runs": ["*/kd-vit_nano-from-vit_nano-*"]})
    folders = [run.folder.removeprefix("digits/coda_prompt/") for run in made.runs]
    assert folders == [
        "teacher-vit_micro-q-vit_nano/seed0",
        "student-vit_nano-q-vit_nano/seed0",
        "kd-vit_nano-from-vit_micro-q-vit_nano/seed0",
        "teacher-vit_nano-q-vit_nano/seed0",
        "kd-vit_nano-from-vit_nano-q-vit_nano/seed0",
    ]
    _, none, _, teacher, taught = made.runs
    assert (made.teacher_of(taught), made.baseline(taught)) == (teacher, none)
    assert made.deployed == [teacher, taught]
    assert made.runs_of("digits", "vit_nano", "vit_nano") == [none, teacher, taught]
    keys = [specification(made, run).keys for run in (none, teacher, taught)]
    assert keys[0] == keys[2] != keys[1]  # students start from equal parameters, not the teacher


def test_every_job_of_both_pairs_is_planned_once():
    jobs = [(job.rule, *job.key.items()) for job in LearningJobs(grid(BIG, OWN))]
    assert len(jobs) == len({*jobs})
    assert {*jobs} == {(job.rule, *job.key.items()) for job in LearningJobs(grid(OWN, BIG))}


def test_figures_have_a_panel_per_pair_with_its_own_teacher():
    made = grid(BIG, OWN)
    table = pd.DataFrame([row(made, run) for run in made.runs])
    small, own = panels_of(table)
    assert (small.title, own.title) == (
        "coda_prompt\nvit_micro to vit_nano",
        "coda_prompt\nvit_nano to vit_nano",
    )
    assert [*small.rows["backbone"]] == ["vit_micro", "vit_nano", "vit_nano"]
    assert [*own.rows["run"].str.split("/").str[-2]] == [
        "student-vit_nano-q-vit_nano",
        "teacher-vit_nano-q-vit_nano",
        "kd-vit_nano-from-vit_nano-q-vit_nano",
    ]
    shown = {tuple(names_of(line).values()) for line in table.to_dict("records")}
    assert len(shown) == len(table)  # no two rows of the tables look alike


def test_one_backbone_has_one_precision():
    mixed = {"teacher": "bf16", "student": "fp32"}
    with pytest.raises(ConfigError, match=r"^compute\.precision: invalid value .*vit_nano.*second"):
        grid(OWN, compute={"precision": mixed})
    assert grid(BIG, compute={"precision": mixed}).runs
    assert grid(OWN, compute={"precision": dict.fromkeys(mixed, "fp32")}).runs
