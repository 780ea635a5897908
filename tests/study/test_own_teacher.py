"""Pairs whose teacher is a file of answers: what is planned, and what is refused before any job."""

import pytest
from lab import make_grid

from cdl.runtime.errors import CdlError
from cdl.spec import LearnerSpec
from cdl.study.answers import check_every_answer
from cdl.study.configuration import ConfigError
from cdl.study.report_jobs import study_jobs
from cdl.study.specifications import specification

ANSWERS = "name,0,1\na,1,0\n"
UNLABELLED = {"datasets": {"digits": {"labels": {"per_class": 0}}}}


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """Return the grid of a pair with a teacher of answers."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.csv").write_text(ANSWERS)

    def planned(distillers=("none", "kd"), pair=None, **changes):
        pair = {"teacher": {"answers": "mine.csv"}, "student": "vit_nano"} | (pair or {})
        grid = {"pairs": [pair], "distillers": [*distillers]} | changes.pop("grid", {})
        return make_grid({"grid": grid, **changes})

    return planned


def test_a_file_replaces_the_jobs_of_a_teacher(plan):
    rules = {job.rule for job in study_jobs(plan())}
    assert {"answers", "distil", "train"} <= rules
    assert not {"teacher_targets", "teacher_targets_seen", "teacher_targets_test"} & rules
    assert [run.role for run in plan().runs] == ["student", "student"]


def test_another_content_is_another_learner_and_other_targets(plan, tmp_path):
    def planned():
        grid = plan()
        (kd,) = (run for run in grid.runs if run.distiller.name == "kd")
        made = {job.outputs["targets"] for job in study_jobs(grid) if job.rule == "answers"}
        return specification(grid, kd), made

    spec, targets = planned()
    assert LearnerSpec.from_json(spec.to_json()) == spec
    (tmp_path / "mine.csv").write_text(ANSWERS + "b,0,1\n")
    other, changed = planned()
    assert other != spec
    assert len(targets) == 2 and not targets & changed


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"distillers": ["fitnets"]}, "'fitnets', which reads the blocks of its teacher"),
        ({"distillers": ["reviewkd"]}, "'reviewkd', which reads the blocks"),
        ({"distillers": ["cdl_prompt"]}, "'cdl_prompt', which reads the prompts"),
        ({"pair": {"teacher_method": "l2p"}}, "without a backbone as the teacher"),
        ({"pair": {"teacher": {"answers": "none.csv"}}}, "'none.csv' is not a file"),
        ({"pair": {"teacher": {}}}, "answers"),
        (
            UNLABELLED,
            "labels.per_class: invalid value 0; expected 1 or more: coda_prompt with none",
        ),
        ({**UNLABELLED, "distillers": ["kd"]}, "coda_prompt with kd needs labels"),
    ],
)
def test_what_needs_more_than_answers_is_refused(plan, changes, sentence):
    with pytest.raises(ConfigError, match=sentence):
        plan(**changes)


@pytest.mark.parametrize("distiller", ["kd", "dkd", "dist"])
def test_distillers_of_outputs_are_planned(plan, distiller):
    assert {run.distiller.name for run in plan([distiller]).runs} == {distiller}


def test_the_file_is_checked_before_any_job(plan, tmp_path):
    check_every_answer(plan())
    (tmp_path / "mine.csv").write_text("name,0,1\na,0.5,0.1\n")
    with pytest.raises(CdlError, match=r"grid.pairs.teacher.answers: mine.csv: 'a' has a sum"):
        check_every_answer(plan())


def test_two_files_of_one_name_are_refused(plan, tmp_path):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "mine.csv").write_text(ANSWERS)
    pairs = [
        {"teacher": {"answers": path}, "student": "vit_nano"}
        for path in ("mine.csv", "more/mine.csv")
    ]
    with pytest.raises(ConfigError, match="the same name in tables"):
        plan(grid={"pairs": pairs})


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (["n/a.png,1,0", "n/b.png,0,1"], "answers for 'n/a.png', which is not the name of a train"),
        (
            ["train/cat/0.png,1,0", "train/cat/1.png,0,1"],
            "has no answer for 'train/dog/0.png'; expected one for eac",
        ),
    ],
)
def test_missing_items_of_own_photos_are_refused_before_any_job(plan, tmp_path, rows, sentence):
    for split in ("train", "test"):
        for name in ("cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png"):
            file = tmp_path / "photos" / split / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"")
    (tmp_path / "mine.csv").write_text("\n".join(["name,cat,dog", *rows]))
    photos = {"source": {"folder": {"path": "photos"}}, "tasks": 1, "view": {"size": 16}}
    changes = {"datasets": {"photos": photos}, "grid": {"datasets": ["photos"]}}
    with pytest.raises(ConfigError, match=sentence):
        check_every_answer(plan(**changes))
    allowed = {"answers": "mine.csv", "missing": "unlabelled"}
    if rows[0].startswith("train"):
        check_every_answer(plan(pair={"teacher": allowed}, **changes))
