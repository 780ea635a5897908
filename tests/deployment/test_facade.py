"""The student that `cdl.load` returns: one interface to images in any form, runs and exports."""

import shutil
import sys

import numpy as np
import pytest
import torch
from exported import write_student
from learnable import finish
from learners import draw_images, write_learner
from PIL import Image

import cdl
from cdl.deployment.pictures import pictures

COLOURS = np.zeros((3, 4, 5, 3), np.uint8) + np.eye(3, dtype=np.uint8)[:, None, None] * 200
GREY = np.full((4, 5), 51, np.uint8)
CLEAR = np.concatenate([COLOURS[1], np.full((4, 5, 1), 255, np.uint8)], axis=2)


@pytest.fixture
def student(tmp_path):
    """A student whose classes are the channels red, green and blue."""
    return cdl.load(write_student(tmp_path / "student"))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (COLOURS, ["red", "green", "blue"]),
        (COLOURS[2], ["blue"]),
        (list(COLOURS), ["red", "green", "blue"]),
        (COLOURS / 255, ["red", "green", "blue"]),
        ((COLOURS / 255).astype(np.float16), ["red", "green", "blue"]),
        (torch.tensor(COLOURS).permute(0, 3, 1, 2), ["red", "green", "blue"]),
        (torch.tensor(COLOURS[1]).permute(2, 0, 1) / 255, ["green"]),
        ([torch.tensor(COLOURS[1]).permute(2, 0, 1), COLOURS[0]], ["green", "red"]),
        (CLEAR, ["green"]),
        (Image.fromarray(COLOURS[2]), ["blue"]),
        ([Image.fromarray(COLOURS[2]), COLOURS[0][:2]], ["blue", "red"]),
        ((Image.fromarray(one) for one in COLOURS), ["red", "green", "blue"]),
        ([], []),
        (np.zeros((0, 4, 5, 3), np.uint8), []),
    ],
)
def test_images_are_taken_in_every_usual_form(student, given, expected):
    assert student.predict(given) == expected


@pytest.mark.parametrize(
    ("given", "n"),
    [
        (GREY, 1),
        (GREY[..., None], 1),
        (GREY / 255, 1),
        (np.stack([GREY] * 3), 3),
        (torch.tensor(GREY), 1),
        (torch.tensor(GREY)[None], 1),
        (torch.tensor(GREY)[None, None].expand(2, 1, 4, 5), 2),
    ],
)
def test_grey_images_get_three_equal_channels(given, n):
    found = pictures(given)
    assert len(found) == n and all(one.shape == (4, 5, 3) for one in found)
    assert all((one == 51).all() and one.dtype == np.uint8 for one in found)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (COLOURS / 100, "values from 0 to 2, as after a normalisation; expected paths, Pillow"),
        (COLOURS[0] * np.nan, "values from nan to nan"),
        (COLOURS[0] / -255, "values from -0.784 to -0"),
        (COLOURS.astype(np.int64), "invalid type int64"),
        (COLOURS > 0, "invalid type bool"),
        (np.zeros(7, np.uint8), r"invalid shape \[7\]"),
        (np.zeros((1, 1, 4, 5, 3), np.uint8), r"invalid shape \[1, 1, 4, 5, 3\]"),
        (torch.zeros(5, 8, 8), r"invalid shape \[5, 8, 8\]"),
        ([COLOURS], r"invalid shape \[3, 4, 5, 3\] inside a list"),
        (b"PNG", "bytes of length 3"),
        (5, "are of type int"),
        (None, "are of type NoneType"),
        ([None], "is of type NoneType"),
        ({"a": 1, 5: 6}, "is of type int"),
        ("no/such.png", "no/such.png: cannot be read"),
        (["\0"], "cannot be read"),
        (np.zeros((0, 5, 3), np.uint8), "invalid array"),
    ],
)
def test_what_is_no_image_is_refused_in_a_sentence(student, given, sentence):
    with pytest.raises(cdl.CdlError, match=sentence):
        student.predict(given)


def test_the_best_classes_and_the_representation(student, tmp_path):
    (found,) = student.predict(COLOURS[1], top=2)
    assert [name for name, _ in found] == ["green", "red"] and found[0][1] > found[1][1]
    assert len(student.predict(COLOURS, top=9)[0]) == 3
    for top in (0, True, "2", 1.5):
        with pytest.raises(cdl.CdlError, match="top: invalid value .*expected a whole number"):
            student.predict(COLOURS, top=top)
    text = f"<Student of 3 classes (red, green, blue); version 0; {tmp_path / 'student'}>"
    assert repr(student) == text
    assert student.card == (tmp_path / "student" / "card.md").read_text()
    inner = {name for name in dir(student) if not name.startswith("_")}
    assert inner == {
        *(
            "classes",
            "version",
            "card",
            "predict",
            "predict_proba",
            "scores",
            "features",
            "evaluate",
        ),
        *("learn", "forget", "undo", "info", "costs"),
    }


def test_a_folder_of_classes_is_evaluated(student, tmp_path):
    for name, image in zip(("red", "green"), COLOURS[:2], strict=True):
        (tmp_path / "test" / name).mkdir(parents=True)
        for i in range(2):
            Image.fromarray(image).save(tmp_path / "test" / name / f"{i}.png")
    Image.fromarray(COLOURS[2]).save(tmp_path / "test" / "red" / "1.png")
    assert student.predict(tmp_path / "test") == ["green", "green", "red", "blue"]
    found = student.evaluate(tmp_path / "test")
    assert (found.accuracy, found.by_class, found.count) == (75, {"red": 50, "green": 100}, 4)
    assert repr(found).splitlines()[:2] == ["75.00 % of 4 images of 2 classes", "  red    50.0 %"]
    assert student.evaluate({"blue": COLOURS[2] / 255}).accuracy == 100
    (tmp_path / "test" / "red").rename(tmp_path / "test" / "rot")
    with pytest.raises(cdl.CdlError, match=r"1 class \(rot\): not among the 3 classes \(red, "):
        student.evaluate(tmp_path / "test")
    for wrong in ({}, {"red": []}):
        with pytest.raises(cdl.CdlError, match="there are no images"):
            student.evaluate(wrong)
    with pytest.raises(cdl.CdlError, match="are of type int; expected FOLDER/CLASS/IMAGE, or a"):
        student.evaluate(5)


def test_a_student_with_a_memory_learns_from_arrays_forgets_and_undoes(tmp_path):
    student = cdl.load(write_learner(tmp_path / "student"))
    images = {"white": torch.tensor(np.stack(draw_images("white", 5))).permute(0, 3, 1, 2) / 255}
    update = student.learn(images, unlabelled=draw_images("white", 2))
    assert update.learnt == ("white",) and student.version == update.version == 1
    assert student.predict(draw_images("white", 1, 9)) == ["white"]
    assert student.features(draw_images("red", 2)).ndim == 2
    assert student.forget("white").forgotten == ("white",)
    assert student.undo().version == 1 and student.info()["version"] == 1
    with pytest.raises(cdl.CdlError, match="images: are of type list; expected FOLDER/CLASS"):
        student.learn([1])


def test_a_terminal_shows_how_far_learning_is_and_no_prediction(tmp_path, monkeypatch, capsys):
    student = cdl.load(write_learner(tmp_path / "student"))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    student.learn({"white": draw_images("white", 5)})
    assert "5 of 5 images" in capsys.readouterr().err
    student.predict(draw_images("white", 5))
    assert capsys.readouterr().err == ""


@pytest.fixture(scope="module")
def run(inputs, tmp_path_factory):
    return finish(tmp_path_factory.mktemp("run"), inputs, "ranpac")


def test_a_run_has_the_same_interface_and_says_how_to_teach_it(run, tmp_path):
    student = cdl.load(run)
    assert repr(student).startswith("<Student of 10 classes (") and "; a run; " in repr(student)
    assert student.version is None and student.card.startswith("---\n")
    images = np.random.default_rng(0).random((3, 9, 9, 3))
    features = student.features(images)
    assert features.shape == (3, 96) and student.features([]).shape == (0, 96)
    np.testing.assert_allclose(student.features(images[1]), features[1:2], atol=1e-5)
    for use in (lambda: student.learn({}), lambda: student.forget("a"), student.undo):
        with pytest.raises(cdl.CdlError, match=r"is a run, .* cdl.export\('.*', 'student'\); cdl"):
            use()
    found = cdl.export(run, tmp_path / "student")
    assert repr(found) == found.text() and found.parity.holds
    exported = cdl.load(tmp_path / "student")
    assert exported.predict(images) == student.predict(images)
    np.testing.assert_allclose(exported.features(images), features, atol=1e-4)
    shutil.rmtree(tmp_path / "student")
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "model.safetensors").touch()
    with pytest.raises(cdl.CdlError, match="exported for timm, which loads it: timm.create_model"):
        cdl.load(tmp_path / "student")
