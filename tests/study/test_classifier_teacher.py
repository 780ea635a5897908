"""Pairs whose teacher is a classifier: what is planned, and what is refused before any job."""

import json

import pytest
from lab import make_grid

from cdl.study.answers import check_every_answer
from cdl.study.configuration import ConfigError
from cdl.study.report_jobs import study_jobs

CONFIG = {"architecture": "resnet18", "num_classes": 10}


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """Return the grid of a pair with a classifier of timm, checked as a workflow does."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")

    def planned(given=None, distiller="kd", labels=tuple("0123456789"), teacher=None, **changes):
        (folder / "config.json").write_text(json.dumps(CONFIG | {"label_names": [*labels]}))
        teacher = teacher or {"classifier": {"timm": "own"} if given is None else given}
        pair = {"teacher": teacher, "student": "vit_nano"}
        grid = make_grid({"grid": {"pairs": [pair], "distillers": [distiller]}, **changes})
        check_every_answer(grid)
        return grid

    return planned


def test_one_job_answers_for_all_tasks_and_seeds(plan):
    jobs = [job for job in study_jobs(plan()) if job.rule in ("classify", "answers")]
    assert [job.rule for job in jobs] == ["classify", "answers", "answers"]
    (table, _record) = jobs[0].outputs.values()
    assert all(table in job.inputs["table"] for job in jobs[1:])


def test_images_without_a_label_are_answered_if_they_are_of_the_data_itself(plan):
    grid = plan(datasets={"digits": {"labels": {"per_class": 4}}})
    (job,) = (job for job in study_jobs(grid) if job.rule == "classify")
    assert job.params["images_per_class"] == {"train": 16, "test": 8}  # not 4


@pytest.mark.parametrize("changed", ["model.safetensors", "config.json", "map.csv"])
def test_another_content_is_another_learner(plan, tmp_path, changed):
    given = {"timm": "own", "classes": "map.csv"}
    rows = "model,data\n" + "".join(f"{i},{i}\n" for i in range(10))
    (tmp_path / "map.csv").write_text(rows)
    before = plan(given).runs[0].answers
    file = next(tmp_path.rglob(changed))
    if changed == "config.json":
        after = plan(given, labels="abcdefghij").runs[0].answers
    else:
        file.write_bytes(file.read_bytes() + b"\n")
        after = plan(given).runs[0].answers
    assert after.name == before.name == "classifier_own" and after.sha256 != before.sha256


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"given": {}}, "expected one of timm, hf, onnx, student, found none"),
        ({"given": {"timm": "own", "hf": "own"}}, r"found \['timm', 'hf'\]"),
        ({"given": {"timm": "none"}}, "'none' is not a folder, nor a tag such as resnet18.a1_in1k"),
        ({"given": {"timm": "resnet18.a1_in1k"}}, "run `cdl backbones fetch --classifier resnet18"),
        ({"given": {"timm": "own", "revision": "main"}}, "revision: only valid with hf"),
        ({"given": {"student": "none"}}, "'none' is not a folder"),
        ({"given": {"onnx": "none.onnx"}}, "size: is missing"),
        ({"given": {"timm": "own", "size": 8}}, "size: only valid with onnx"),
        ({"given": {"timm": "own", "classes": "none.csv"}}, "none.csv: cannot be read"),
        ({"distiller": "fitnets"}, "'fitnets', which reads the blocks of its teacher"),
        ({"distiller": "cdl_prompt"}, "'cdl_prompt', which reads the prompts"),
        (
            {"datasets": {"digits": {"unlabelled": {"source": {"digits": {}}}}}},
            r"datasets.digits.unlabelled, whose images have no answer; .* labels: {per_class: N}",
        ),
        ({"teacher": {"answers": "a.csv", "classifier": {"timm": "own"}}}, "expected one of"),
    ],
)
def test_what_cannot_teach_is_refused(plan, given, sentence):
    with pytest.raises(ConfigError, match=sentence):
        plan(**given)


def test_classes_are_compared_with_those_of_a_folder(plan, tmp_path):  # `plan` makes the model
    from PIL import Image

    for name in ("cat", "dog"):
        for split in ("train", "test"):
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(tmp_path / "photos" / split / name / "a.png")
    own = {"source": {"folder": {"path": "photos"}}, "tasks": [2], "view": {"size": 32}}
    data = {"datasets": {"photos": own}}
    mapped = {"timm": "own", "classes": "map.json"}

    def with_map(pairs):
        (tmp_path / "map.json").write_text(json.dumps(pairs))

    grid = {"pairs": [{"teacher": {"classifier": mapped}, "student": "vit_nano"}]}
    grid |= {"distillers": ["kd"], "datasets": ["photos"]}
    (tmp_path / "own" / "config.json").write_text(
        json.dumps(CONFIG | {"label_names": ["cat", *"bcdefghij"]})
    )
    for pairs, sentence in (
        ({"cat": "cat"}, "map.json: has no class for 'dog'"),
        ({"cat": "cat", "1": "dog", "2": "cow"}, "names 'cow', which is no class of the data"),
        ({"cow": "cat"}, "'cow' is not a class of own"),
    ):
        with_map(pairs)
        with pytest.raises(ConfigError, match=sentence):
            check_every_answer(make_grid({"grid": grid, **data}))
    with_map({"cat": "cat", "1": "dog"})
    check_every_answer(make_grid({"grid": grid, **data}))
