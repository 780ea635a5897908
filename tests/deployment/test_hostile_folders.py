"""Any content of an exported folder is a student or one sentence, also without the manifest."""

import io
import json
import unicodedata

import numpy as np
import pytest
from exported import write_student
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import cdl
from cdl.cli import student as commands
from cdl.runtime.errors import CdlError

IMAGES = np.zeros((2, 4, 4, 3), np.uint8) + np.uint8([9, 5, 1])
SIZES = st.lists(st.integers(-1, 9) | st.floats() | st.booleans(), max_size=4)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | SIZES,
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["input", "most"]), inner),
)
ABOUT = st.one_of(
    VALUES,
    st.fixed_dictionaries({"input": VALUES}),
    st.fixed_dictionaries({"input": st.fixed_dictionaries({"most": SIZES | VALUES})}),
)
CONTENTS = st.one_of(
    ABOUT.map(lambda value: json.dumps(value).encode()),
    st.binary(),
    st.text().map(lambda text: text.encode(errors="surrogatepass")),
)
NAMES = st.lists(st.text(st.characters(exclude_categories=())), min_size=2, max_size=4)


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    return write_student(tmp_path_factory.mktemp("exported") / "student")


def use(folder):
    """Return the predictions of a folder; None if it is refused in one sentence."""
    try:
        return cdl.load(folder, verify=False).predict(list(IMAGES))
    except CdlError as error:
        assert str(error).isprintable() and len(str(error)) < 600, str(error)
        return None


@given(CONTENTS)
def test_any_preprocessing_is_a_limit_or_refused_in_one_sentence(student, content):
    file = student / "preprocessing.json"
    before = file.read_bytes()
    try:
        file.write_bytes(content)
        assert use(student) in (None, ["red", "red"])
    finally:
        file.write_bytes(before)


@given(NAMES.map(lambda names: "\n".join(names).encode(errors="surrogatepass")) | st.binary())
def test_any_list_of_classes_is_three_names_or_refused_in_one_sentence(student, content):
    file = student / "classes.txt"
    before = file.read_bytes()
    try:
        file.write_bytes(content)
        predicted = use(student)
    finally:
        file.write_bytes(before)
    if predicted is not None:
        names = [unicodedata.normalize("NFC", x).strip() for x in content.decode().splitlines()]
        assert len(set(names)) == 3 and predicted == names[:1] * 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", r"preprocessing.json cannot be read \(expected a JSON object, found '\[\]'\)"),
        ('{"input": 1}', "preprocessing.json: invalid input: 1 is not of type 'object'"),
        ('{"input": {"most": 1}}', "invalid input.most: 1 is not of type 'array'"),
        ('{"input": {"most": [1, 2]}}', r"invalid input.most: \[1, 2\] is too short"),
        ('{"input": {"most": [1, 4, 4]}}', r"are \(2, 4, 4\); model.pte takes up to \(1, 4, 4\)"),
    ],
)
def test_what_is_wrong_in_the_preprocessing_is_said(tmp_path, text, message):
    folder = write_student(tmp_path / "student")
    (folder / "preprocessing.json").write_text(text)
    with pytest.raises(CdlError, match=message):
        cdl.load(folder, verify=False).predict(IMAGES)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"names": ("red", "red", "blue")}, "classes.txt: contains a class twice; export the"),
        ({"names": ("red", "blue")}, "contains 2 classes, model.onnx has 3; export the student"),
        ({"outputs": ("batch", 3, 1)}, "model.onnx: cannot be read"),
        ({"outputs": ("a", "b", "c")}, "model.onnx: cannot be read"),
        ({"scale": float("nan")}, "the model's output is not finite"),
        ({"scale": float("inf")}, "the model's output is not finite"),
        ({"channels": 1}, r"student: the model cannot be run \(.*\); export the student"),
    ],
)
def test_a_graph_that_does_not_fit_is_refused_in_one_sentence(tmp_path, given, message):
    folder = write_student(tmp_path / "student", **given)
    with pytest.raises(CdlError, match=message) as caught:
        cdl.load(folder).predict(list(IMAGES))
    assert str(caught.value).isprintable()


def test_an_output_of_another_shape_is_refused(student, monkeypatch):
    loaded = cdl.load(student)
    monkeypatch.setattr(loaded, "_run", lambda batch, output: np.zeros((len(batch), 2)))
    with pytest.raises(CdlError, match=r"output has shape \(2, 2\), expected \(2, 3\); export the"):
        loaded.predict(IMAGES)


def test_no_images_have_no_input(student):
    assert cdl.load(student).predict([]) == []
    with pytest.raises(CdlError, match="images: there is none; expected at least one"):
        cdl.load(student).preprocess([])


def test_equal_probabilities_are_in_the_order_of_the_classes(student):
    grey = np.zeros((4, 4, 3), np.uint8)
    loaded = cdl.load(student)
    assert [name for name, _ in loaded.best(grey, 3)] == ["red", "green", "blue"]
    assert loaded.predict(grey) == ["red"]


def test_names_on_stdin_may_be_any_bytes(student, tmp_path, monkeypatch):
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "x.png")
    (tmp_path / "x.png").rename(tmp_path / "caf\udce9.png")
    names = f"{tmp_path}/caf".encode() + b"\xe9.png\na\0b.png\n\xff.png\n"
    streams = {name: io.TextIOWrapper(io.BytesIO(), "utf-8") for name in ("stdout", "stderr")}
    streams["stdin"] = io.TextIOWrapper(io.BytesIO(names), "utf-8")
    for name, stream in streams.items():
        monkeypatch.setattr(f"sys.{name}", stream)
    with pytest.raises(commands.typer.Exit) as ended:
        commands.predict(student, ["-"], top=1)
    assert ended.value.exit_code == 1
    out, err = (streams[name] for name in ("stdout", "stderr"))
    for stream in (out, err):
        stream.flush()
    assert out.buffer.getvalue() == names.split(b"\n")[0] + b": red 0.333\n"
    first, second = err.buffer.getvalue().splitlines()
    assert first == rb"cdl: 'a\x00b.png': cannot be read (embedded null byte)"
    assert second == b"cdl: \xff.png: cannot be read (No such file or directory)"
