"""Any content of an exported folder is a student or one sentence, also without the manifest."""

import contextlib
import io
import json
import shutil
import unicodedata

import numpy as np
import pytest
from exported import write_student
from hypothesis import given
from hypothesis import strategies as st
from learners import draw_images, write_learner
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file

import cdl
from cdl.cli import student as commands
from cdl.deployment import manifest
from cdl.deployment.demo import site
from cdl.deployment.hub import Upload
from cdl.device import texts
from cdl.device.items import by_name
from cdl.device.main import main
from cdl.device.sealed import sealed, sha256_of
from cdl.device.stored import MEMORY
from cdl.device.update import Update
from cdl.device.versions import place_of, pointer_to, versions_of
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
    loaded = cdl.load(student)._student
    monkeypatch.setattr(loaded, "_run", lambda batch, output: [np.zeros((len(batch), 2))])
    with pytest.raises(CdlError, match=r"output has shape \(2, 2\), expected \(2, 3\); export the"):
        loaded.predict(IMAGES)


class Listening(texts.Student):
    """A student of texts that records the arguments of `learn`."""

    def __init__(self, folder, threads):
        self.items = texts.Texts(None)

    def learn(self, items, **options):
        found = by_name(items, self.items)
        assert all(name and all(some) for name, some in found.items())
        return Update(1, len(found))


CELLS = st.sampled_from(
    ["text", "label", "a", "é", '"', '""', "\n", "\r", ",", "\0", "\u202e", " "]
)
ROWS = st.lists(st.lists(CELLS | st.text(), max_size=4).map(",".join))
FILES = ROWS.map(lambda rows: "\n".join(["text,label", *rows])) | ROWS.map("\r\n".join)
CSVS = FILES.map(lambda text: text.encode(errors="surrogatepass"))
CSVS = (
    CSVS | CSVS.map(lambda raw: b"\xef\xbb\xbf" + raw) | st.tuples(CSVS, st.binary()).map(b"".join)
)


@given(CSVS)
def test_any_csv_file_is_learnt_or_refused_in_one_sentence(tmp_path_factory, content):
    file = tmp_path_factory.getbasetemp() / "hostile.csv"
    file.write_bytes(content)
    said, printed = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(printed):
        code = main(Listening, ["learn", str(file)], file.parent)
    if code == 0:
        assert said.getvalue() == "" and printed.getvalue().startswith("version 1, ")
        return
    (line,) = said.getvalue().split("\n")[:-1]
    assert line.startswith("student: ") and str(file) in line and len(line) < 900


def test_no_images_have_no_input(student):
    assert cdl.load(student).predict([]) == []
    with pytest.raises(CdlError, match="images: there is none; expected at least one"):
        cdl.load(student)._student.preprocess([])


def test_equal_probabilities_are_in_the_order_of_the_classes(student):
    grey = np.zeros((4, 4, 3), np.uint8)
    loaded = cdl.load(student)._student
    assert [name for name, _ in loaded.most_probable(loaded.predict_proba(grey)[0], 3)] == [
        "red",
        "green",
        "blue",
    ]
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


def resealed(file, change):
    """Change a sealed file as somebody who knows its format."""
    content = {k: v for k, v in json.loads(file.read_bytes()).items() if k != "_record"}
    file.write_text(sealed(content | change(content)))


def reparented(parent):
    return lambda found: {"made_from": found["made_from"] | {"parent": parent}}


FORGED = {
    "files is a list": lambda found: {"files": []},
    "NUL": lambda found: {"files": {"a\0b": "0"}},
    "outside": lambda found: {"files": {"../../../x": "0" * 64}},
    "absolute": lambda found: {"files": {"/etc/passwd": "0" * 64}},
    "no name": lambda found: {"files": {"": "0" * 64}},
    "hash": lambda found: {"files": {"classes.txt": 5}},
    "made_from": lambda found: {"made_from": "x"},
    "no parent": lambda found: {"made_from": {}},
    "parent itself": reparented(1),
    "parent later": reparented(2),
    "parent negative": reparented(-1),
    "parent text": reparented("0"),
    "parent list": reparented([0]),
    "parent true": reparented(True),
}


def refusals(folder):
    """Do all that reads an exported folder; return the sentence of each use that refuses it."""
    some = {"white": list(draw_images("white", 3))}
    uses = {
        "predict": lambda: cdl.load(folder).predict(IMAGES),
        "info": lambda: cdl.load(folder).info(),
        "learn": lambda: cdl.load(folder).learn(some),
        "forget": lambda: cdl.load(folder).forget("red"),
        "push": lambda: Upload.of(folder, "me/student", private=True),
        "compare": lambda: manifest.compare(folder),
        "undo": lambda: cdl.load(folder).undo(),
    }
    found = {}
    for name, use in uses.items():
        try:
            use()
        except CdlError as error:
            assert str(error).isprintable() and len(str(error)) < 700, str(error)
            found[name] = str(error)
    return found


@pytest.fixture
def learnt(tmp_path):
    """A student with a version after the export."""
    folder = write_learner(tmp_path / "student")
    cdl.load(folder).learn({"yellow": list(draw_images("yellow", 3))})
    return folder


CASES = [(1, name) for name in FORGED]
CASES += [(0, name) for name in FORGED if "parent" not in name]


@pytest.mark.parametrize(("version", "name"), CASES)
def test_a_forged_manifest_is_refused_in_one_sentence(learnt, version, name):
    file = place_of(learnt, version) / "manifest.json"
    resealed(file, FORGED[name])
    (learnt / "current").write_text(pointer_to(learnt, 1))
    found = refusals(learnt)
    assert len(found) == 7 and all(str(file) in text for text in found.values()), found


def test_a_chain_of_versions_ends_where_one_was_removed_and_is_never_a_circle(learnt):
    student = cdl.load(learnt)
    for _ in range(2):
        student.learn({"yellow": list(draw_images("yellow", 1))})
    resealed(learnt / "versions" / "2" / "manifest.json", reparented(3))
    for use in (versions_of, site, lambda folder: cdl.load(folder).undo()):
        with pytest.raises(CdlError, match="2/manifest.json: .*parent: invalid value 3; .* remove"):
            use(learnt)
    assert cdl.load(learnt).version == 3
    shutil.rmtree(learnt / "versions" / "2")
    assert versions_of(learnt) == [3]


POINTERS = [{"version": "1"}, {"version": -1}, {"version": 10**12}, {"version": True}]
POINTERS += [{"unused": 1}, {"unused": [[]]}, {"unused": [0]}, {"unused": [1]}, {"manifest": 0}]
POINTERS += [{"manifest": "0" * 64}, {"version": None}, {"version": {}}]


@pytest.mark.parametrize("change", POINTERS, ids=str)
def test_a_forged_pointer_is_refused_in_one_sentence(learnt, change):
    resealed(learnt / "current", lambda found: change)
    found = refusals(learnt)
    assert len(found) == 7 and all("`echo 1 > " in text for text in found.values()), found


def nan(tensor):
    return np.full_like(tensor, np.nan)


OF_ALIGNED = [{"kind": 1}, {"updates": "x"}, {"updates": -1}, {"kind": ["aligned"]}]
OF_ALIGNED += [{"sizes": value} for value in (1, [], [-1, 5], [10**30], ["x"], [3.0], None)]
OF_ALIGNED += [{"heads": value} for value in (1, [], [[]], [{}], None)]
OF_ALIGNED += [{"alignment": value} for value in (1, {}, None)]
OF_ALIGNED += [{"kind": "ridge"}, {"closed": 1}]
HOW = [{"epochs": v} for v in (10**12, 0, -1, "x", 1.5, None)] + [{"samples": 10**12}]
HOW += [{"lr": "x"}, {"lr": float("nan")}, {"lr": 1e300}, {"momentum": []}, {"statistic": "x"}]
HOW += [{"mean_shrink": None}, {"logit_norm": "x"}]
HEADS = [{"token": v} for v in (9, "x", None)] + [{"part": 1}, {"name": "x"}, {"factor": "x"}]
HEADS += [{"factor": float("inf")}, {"part": "x"}]
OF_RIDGE = [{"kind": "aligned"}, {"kind": "mean", "parts": 1}, {"parts": [[0, "x"]]}]
OF_RIDGE += [{"parts": [[7, 1.0]]}, {"parts": []}, {"parts": [[0, 1.0]] * 7}, {"updates": -1}]
TENSORS = [lambda t: t[:-1], lambda t: t[None], nan, lambda t: t.astype(np.int64)]
MEMORIES = [("aligned", lambda about, tensors, c=c: about.update(c)) for c in OF_ALIGNED]
MEMORIES += [("ridge", lambda about, tensors, c=c: about.update(c)) for c in OF_RIDGE]
MEMORIES += [("aligned", lambda about, tensors, c=c: about["alignment"].update(c)) for c in HOW]
MEMORIES += [("aligned", lambda about, tensors, c=c: about["heads"][0].update(c)) for c in HEADS]
MEMORIES += [
    (kind, lambda about, tensors, n=name, c=c: tensors.update({n: c(tensors[n])}))
    for kind, names in (
        ("ridge", ("counts", "images", "sums", "weight", "gram", "losses")),
        ("ridge", ("threshold", "owners", "examples")),
        ("fecam", ("precision", "deviations")),
        (
            "aligned",
            ("counts", "feature.mean", "feature.spread", "head.bias", "head.trained.weight"),
        ),
    )
    for name in names
    for c in TENSORS
]
WRONG = [("threshold", lambda t: t + 2), ("owners", lambda t: t + 1), ("owners", lambda t: t / 2)]
MEMORIES += [
    (kind, lambda about, tensors, n=name, c=c: tensors.update({n: c(tensors[n])}))
    for kind in ("ridge", "aligned")
    for name, c in WRONG
]
OF_FECAM = [{"alpha1": "x"}, {"alpha2": -1.0}, {"tukey": [1]}]
MEMORIES += [("fecam", lambda about, tensors, c=c: about.update(c)) for c in OF_FECAM]
MEMORIES += [(k, lambda about, tensors, n=n: tensors.pop(n)) for k, n in (("ridge", "images"),)]


@pytest.mark.parametrize(("kind", "change"), MEMORIES, ids=map(str, range(len(MEMORIES))))
def test_a_forged_memory_is_refused_in_one_sentence_and_changes_nothing(learners, kind, change):
    for version, folder in enumerate(learners[kind]):
        files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        forge(folder, version, change)
        try:
            found = refusals(folder)
            assert "learn" in found, found
        finally:
            for path in folder.rglob("*"):
                if path.is_file():
                    path.unlink()
            for path, content in files.items():
                path.write_bytes(content)


@pytest.fixture(scope="module")
def learners(tmp_path_factory):
    """Students of several kinds, without and with a version after the export."""
    found = {}
    for kind in ("ridge", "fecam", "aligned"):
        found[kind] = [
            write_learner(tmp_path_factory.mktemp(kind) / f"student{version}", kind, examples=True)
            for version in (0, 1)
        ]
        cdl.load(found[kind][1]).learn({"yellow": list(draw_images("yellow", 3))})
    return found


def forge(folder, version, change):
    """Change the memory of the current version, and seal everything again."""
    file = place_of(folder, version) / MEMORY
    with safe_open(file, framework="numpy") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        about = json.loads(opened.metadata()["cdl"])
    change(about, tensors)
    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    save_file(contiguous, file, {"cdl": json.dumps(about)})
    resealed(
        place_of(folder, version) / "manifest.json",
        lambda found: {"files": found["files"] | {MEMORY: sha256_of(file)}},
    )
    if version:
        (folder / "current").write_text(pointer_to(folder, 1))
