"""What belongs to no class is unknown, and updates say and limit which answers they break."""

import csv
import io
import json

import numpy as np
import pytest
from learners import draw_images, tokens_of, write_learner, write_photos

import cdl
from cdl.cli import student as commands
from cdl.device.belonging import thresholds_after
from cdl.device.images import Student
from cdl.device.kept import EACH
from cdl.device.main import main
from cdl.runtime.errors import CdlError


@pytest.fixture(params=["ridge", "fecam", "aligned"])
def folder(request, tmp_path):
    return write_learner(tmp_path / "student", request.param, examples=True)


def images(*names, n=10, seed=2):
    return {name: list(draw_images(name, n, seed)) for name in names}


def share_unknown(folder, name):
    found = cdl.load(folder).predict(draw_images(name, 40, 9), unknown=True)
    return np.mean([one == "unknown" for one in found])


def test_a_class_is_unknown_until_it_is_learnt_and_after_it_is_forgotten(folder):
    assert share_unknown(folder, "yellow") > 0.9 and share_unknown(folder, "red") < 0.3
    before = cdl.load(folder).scores(draw_images("red", 3))
    student = Student(folder)
    student.learn(images("yellow", n=20))
    assert share_unknown(folder, "yellow") < 0.3 and share_unknown(folder, "black") > 0.9
    student.forget("yellow")
    assert share_unknown(folder, "yellow") > 0.9
    np.testing.assert_allclose(cdl.load(folder).scores(draw_images("red", 3)), before, atol=1e-6)


def test_the_threshold_is_a_quantile_of_the_scores_of_own_items_outside_the_mean():
    rng = np.random.default_rng(0)
    features, labels = rng.standard_normal((9, 4)) + 2, np.array([0] * 5 + [1] * 3 + [2])
    means = np.stack([features[labels == c].mean(0) for c in range(3)])
    found = thresholds_after(np.zeros(0), features, labels, means, np.array([5, 3, 1]))
    for c in (0, 1):
        own = features[labels == c]
        scores = []
        for i, item in enumerate(own):
            others = [*np.delete(means, c, 0), np.delete(own, i, 0).mean(0)]
            norms = np.linalg.norm(item) * np.linalg.norm(others, axis=1)
            scores.append(max(others @ item / norms))
        assert found[c] == pytest.approx(np.quantile(scores, 0.05), abs=1e-6)
    assert found[2] == pytest.approx(found[:2].mean())
    again = thresholds_after(found, features[:2], np.zeros(2, int), means, np.array([7, 3, 1]))
    np.testing.assert_array_equal(again[1:], found[1:])
    assert again[0] != found[0]
    single = thresholds_after(np.zeros(0), features[:1], np.zeros(1, int), means[:1], np.ones(1))
    assert single.tolist() == [-1]


def test_predict_says_what_is_unknown_beside_the_classes(folder, tmp_path, capsys):
    photo = write_photos(tmp_path / "photos", ["yellow"], 1) / "yellow" / "00.png"

    def said(**options):
        commands.predict(folder, [str(photo)], **{"top": 1, **options})
        return capsys.readouterr().out.strip()

    first, end = said().split("; ")
    assert end.startswith("unknown (") and " below 0." in end
    assert said(unknown=False) == first
    line = json.loads(said(as_json=True))
    assert line["unknown"] is True and line["score"] < line["threshold"]
    rows = list(csv.DictReader(io.StringIO(said(top=2, as_csv=True))))
    assert [row["unknown"] for row in rows] == ["True"] * 2
    assert float(rows[0]["score"]) == line["score"]
    assert main(Student, ["predict", str(photo), "--threshold", "-1", "--top", "1"], folder) == 0
    assert capsys.readouterr().out.strip() == first
    plain = cdl.load(folder).predict(photo)
    assert plain == [line["predictions"][0]["class"]]
    assert cdl.load(folder).predict(photo, threshold=-1) == plain


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--threshold", "0.5"], "0.5 cannot be used: this student keeps no thresholds of its"),
        (["--threshold", "2"], "threshold: invalid value 2.0; expected a cosine, -1 to 1"),
        (["--threshold", "0.5", "--no-unknown"], "excludes no-unknown; give one of them"),
    ],
)
def test_a_threshold_that_nothing_uses_is_refused(tmp_path, capsys, options, message):
    folder = write_learner(tmp_path / "student")
    photo = write_photos(tmp_path / "photos", ["red"], 1) / "red" / "00.png"
    assert main(Student, ["predict", str(photo)], folder) == 0
    assert "unknown" not in capsys.readouterr().out
    assert main(Student, ["predict", str(photo), *options], folder) == 1
    assert message in capsys.readouterr().err
    with pytest.raises(CdlError, match="unknown: this student keeps no thresholds"):
        cdl.load(folder).predict(photo, unknown=True)


def test_at_most_ten_examples_of_a_class_are_kept_and_leave_with_it(folder):
    student = Student(folder)
    student.learn(images("yellow", n=4))
    student.learn(images("yellow", "black", n=12))
    owners = student._memory().tensors["owners"]
    assert np.bincount(owners.astype(int)).tolist() == [EACH] * 5
    student.forget("green")
    tensors = student._memory().tensors
    assert np.bincount(tensors["owners"].astype(int)).tolist() == [EACH] * 4
    blue = tensors["examples"][tensors["owners"] == 1]
    np.testing.assert_allclose(blue, tokens_of(draw_images("blue", 20, 1))[:EACH], atol=1e-6)
    bare = Student(write_learner(folder.parent / "bare"))
    bare.learn(images("yellow"))
    assert not {"examples", "owners", "threshold"} & set(bare._memory().tensors)


def test_negative_flips_are_counted_on_kept_examples_or_on_given_images(tmp_path):
    student = Student(write_learner(tmp_path / "student", examples=True))
    wrong = {"yellow": list(draw_images("red", 30, 1))}  # a new class that looks like an old one
    test = images("red", n=8, seed=7)
    update = student.learn(wrong, check=test)
    now = student.predict(test["red"])
    assert update.flips == (sum(name != "red" for name in now), 8) and update.flips[0] > 0
    assert f"negative flips: {update.flips[0]} of 8 examples" in update.text()
    student.undo()
    broken, n = student.learn(wrong).flips
    assert n == 3 * EACH and broken > 0
    assert student.forget("red").flips[1] == 3 * EACH
    with pytest.raises(CdlError, match="check: 'white' is not a class of this student"):
        student.forget("blue", images("white"))
    with pytest.raises(CdlError, match="there is none of 'blue'; expected at least one"):
        student.learn(wrong, check={"blue": []})


@pytest.mark.parametrize("kind", ["mean", "fecam"])
def test_an_update_that_keeps_earlier_classes_leaves_their_order_and_limits_what_moves(
    tmp_path, kind
):
    student = Student(write_learner(tmp_path / "student", kind, examples=True))
    some, wrong = draw_images("red", 50, 9), {"yellow": list(draw_images("red", 30, 1))}
    before = student._memory().logits(student.features(some))
    update = student.learn(wrong, keep_earlier=10.0)
    assert 0 < update.moved <= 3 == 3 * EACH // 10
    np.testing.assert_allclose(student.logits(some)[:, :3], before, atol=1e-5)
    old = student._memory().tensors
    some = student.preprocess(some)
    before = student.logits(some)[:, :4]
    student.learn(images("black"), unlabelled=draw_images("red", 20, 5), keep_earlier=0.0)
    np.testing.assert_allclose(student.logits(some)[:, :4], before, atol=1e-5)
    new = student._memory().tensors
    np.testing.assert_array_equal(new["weight"][:4], old["weight"])
    np.testing.assert_array_equal(new["bias"][:4], old["bias"])
    assert old["bias"][3] < 0
    student.forget("green")
    student.learn(images("white"))
    assert "bias" not in student._memory().tensors  # all columns are solved again


def test_the_limit_holds_on_other_examples_too(tmp_path, capsys):
    folder = write_learner(tmp_path / "student", "mean", examples=True)
    student, wrong = Student(folder), {"yellow": list(draw_images("red", 30, 1))}
    free = student.learn(wrong, keep_earlier=100.0)
    student.undo()
    test = images("red", n=30, seed=1)
    assert free.moved > 3
    update = student.learn(wrong, keep_earlier=10.0, check=test)
    assert 0 < update.moved <= 3 and update.flips[1] == 30
    kept = student._memory()
    moved = kept.logits(kept.tensors["examples"]).argmax(1) >= 3
    assert moved[kept.tensors["owners"] < 3].sum() <= 3
    photos = write_photos(tmp_path / "photos", ["black"], 3)
    assert main(Student, ["learn", str(photos), "--keep-earlier", "0"], folder) == 0
    assert "negative flips: 0 of " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("kind", "examples", "name", "percent", "message"),
    [
        ("aligned", True, "black", 1.0, "is not possible with aligned heads, whose rows"),
        ("ridge", True, "red", 1.0, "'red' is an earlier class, whose answers would change"),
        ("ridge", False, "black", 1.0, "keeps no examples; give examples with check"),
        ("ridge", True, "black", 101.0, "invalid value 101.0; expected a percentage, 0 to 100"),
        ("ridge", True, "black", "1", "invalid value '1'; expected a percentage, 0 to 100"),
    ],
)
def test_a_promise_that_cannot_be_kept_is_refused(tmp_path, kind, examples, name, percent, message):
    student = Student(write_learner(tmp_path / "student", kind, examples=examples))
    with pytest.raises(CdlError, match=f"keep_earlier: .*{message}"):
        student.learn(images(name), keep_earlier=percent)
    assert student.version == 0
