"""The folder is the program: it predicts, learns, forgets and undoes without torch and cdl."""

import ast
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from exported import NAMES, write_student
from learners import NEW, draw_images, tokens_of, write_learner, write_photos
from PIL import Image

import cdl
from cdl.cli import student as commands
from cdl.cli.results import verify
from cdl.data.modalities import MODALITIES
from cdl.deployment import manifest
from cdl.deployment.bundle import program
from cdl.deployment.demo import site
from cdl.device import versions
from cdl.device.images import Student
from cdl.device.main import main
from cdl.device.memory import Memory
from cdl.device.process import peak_memory
from cdl.runtime.artifacts import read_json
from cdl.runtime.errors import CdlError

ALL = (*NAMES, *NEW)
KINDS = [("ridge", "ridge", "variance"), ("fecam", None, "variance")]
KINDS += [("aligned", None, kind) for kind in ("variance", "centroid", "covariance")]
KINDS += [("aligned", "ridge", "covariance")]
# runs student.py where torch and cdl are refused, as on a device
DEVICE = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        allowed = {"numpy", "PIL", "onnxruntime", "safetensors"}
        if name.split(".")[0] in {"torch", "cdl", "timm", "pandas", "scipy", "tqdm", "jsonschema"}:
            raise ImportError(f"{name} is not on the device")
sys.meta_path.insert(0, Refuse())
folder, *rest = sys.argv[1:]
sys.path.insert(0, folder)
import student
for command in " ".join(rest).split(" , "):
    print("$", command, flush=True)
    code = student.main(student.Student, command.split())
    print("=", code, flush=True)
"""


@pytest.fixture(params=["ridge", "aligned"])
def folder(request, tmp_path):
    return write_learner(tmp_path / "student", request.param)


def images(names=NEW, n=10, seed=2):
    return {name: list(draw_images(name, n, seed)) for name in names}


def accuracy(student, names, n=30, seed=9):
    right = [p == name for name in names for p in student.predict(draw_images(name, n, seed))]
    return float(np.mean(right))


def on_a_device(folder, *commands, cwd):
    """Return exit code and output of each command."""
    line = " , ".join(" ".join(map(str, command)) for command in commands)
    done = subprocess.run(
        [sys.executable, "-c", DEVICE, str(folder), *line.split(" ")],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    parts = [part.split("\n", 1)[1].rsplit("= ", 1) for part in done.stdout.split("$ ")[1:]]
    return [(int(code), text) for text, code in parts], done.stderr


PACKAGES = {"images": "PIL", "text": "tokenizers"}


@pytest.mark.parametrize("kind", ["ridge", "aligned"])
@pytest.mark.parametrize("modality", MODALITIES)
def test_the_program_is_one_file_without_cdl_in_which_no_name_is_defined_twice(modality, kind):
    tree = ast.parse(program(MODALITIES[modality], kind))
    imported = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    imported |= {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    outside = {name.split(".")[0] for name in imported} - set(sys.stdlib_module_names)
    assert outside == {"numpy", "onnxruntime", "safetensors", PACKAGES[modality]}
    kinds = ast.FunctionDef | ast.ClassDef
    names = Counter(node.name for node in tree.body if isinstance(node, kinds))
    for node in tree.body:
        if isinstance(node, ast.Assign):
            names.update(n.id for t in node.targets for n in ast.walk(t) if isinstance(n, ast.Name))
    assert [name for name, n in names.items() if n > 1] == []


@pytest.mark.parametrize("kind", Memory.kinds)
@pytest.mark.parametrize("modality", MODALITIES)
def test_the_program_has_what_it_uses_and_nothing_else(modality, kind):
    text = program(MODALITIES[modality], kind)
    tree = ast.parse(text)
    top = [n for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
    names = Counter(n.id for n in ast.walk(tree) if isinstance(n, ast.Name))
    unused = {node.name for node in top if not names[node.name]}
    memory = Memory.kinds[kind]
    assert unused <= {"main", memory.__name__}  # the memory is found by its kind
    memories = [found.__name__ for found in memory.mro() if issubclass(found, Memory)]
    assert [node.name for node in top if node.name.endswith("Memory")] == memories[::-1]
    assert "class CsvPrinter" not in text
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
            assert len(ast.get_docstring(node).splitlines()) == 1, node.name
    limits = {"mean": 1750, "ridge": 1865, "fecam": 1855, "aligned": 2135}
    assert len(text.splitlines()) < limits[kind]


def test_it_works_without_torch_and_cdl_from_any_folder(folder, tmp_path, capsys):
    photos, tests = write_photos(tmp_path / "photos"), write_photos(tmp_path / "tests", ALL, 6, 7)
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    answers, errors = on_a_device(
        folder,
        ("predict", photos, "--top", 2, "--json"),
        ("learn", photos, "--test", tests, "--json"),
        ("predict", tests, "--top", 1, "--json"),
        ("forget", "white"),
        ("undo",),
        ("undo", "--json"),
        ("predict", photos, "--top", 2, "--json"),
        ("undo",),
        ("learn", photos / "white"),
        ("info",),
        ("costs",),
        ("predict", bad),
        cwd=tmp_path,
    )
    assert [code for code, _ in answers] == [0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 1]
    first, learnt, second, forgot, _, undone, again, _, _, info, costs, _ = (
        text for _, text in answers
    )
    commands.predict(folder, [str(photos)], 2, as_json=True)
    assert capsys.readouterr().out == first
    found = json.loads(learnt)
    assert (found["version"], found["learnt"], found["count"]) == (1, sorted(NEW), 30)
    assert found["items_per_second"] > 0 and found["milliseconds"] > 0 and found["bytes"] > 0
    assert found["peak_memory_mb"] > 1
    before, after = (found["accuracy"][f"earlier_{when}"] for when in ("before", "after"))
    assert before == 100 and after >= 90 and found["accuracy"]["new"] >= 75
    lines = [json.loads(line) for line in second.splitlines()]
    assert all(set(line) == {"file", "predictions"} for line in lines)
    right = [Path(x["file"]).parent.name == x["predictions"][0]["class"] for x in lines]
    assert len(right) == 36 and np.mean(right) >= 0.85
    assert "forgot white" in forgot and "5 classes" in forgot
    assert json.loads(undone)["classes"] == 3 and again == first
    assert json.loads(info)["classes"] == list(NAMES)
    measured = json.loads(costs)
    assert measured["predict_milliseconds"] > 0
    assert [row["count"] for row in measured["learn"]] == [1, 10, 100]
    assert all(value > 0 for row in measured["learn"] for value in row.values())
    each = json.loads(info)["bytes_per_class"]
    assert measured["bytes"]["100"] == json.loads(info)["bytes"] + 100 * each
    assert "as it was exported, so there is nothing to undo" in errors
    assert "is not in the folder of a class" in errors and "bad.png is not a readable" in errors


@pytest.mark.parametrize(("kind", "head", "statistic"), KINDS)
def test_classes_are_learnt_together_or_one_by_one(tmp_path, kind, head, statistic):
    folder = write_learner(tmp_path / "student", kind, statistic)
    student = Student(folder)
    assert student.predict(draw_images("blue", 2)) == ["blue"] * 2
    graph = student.logits(draw_images("red", 3))
    heads = student._memory().logits(student.features(draw_images("red", 3)))
    np.testing.assert_allclose(heads, graph, atol=1e-4)
    update = student.learn(images(), head=head)
    assert update.learnt == NEW and student.classes == ALL and update.accuracy["held_out"] >= 80
    together = accuracy(student, NEW), accuracy(student, NAMES)
    assert min(together) >= 0.9
    student.undo()
    for name in NEW:
        student.learn(images([name]), head=head)
    assert student.version == 4 and min(accuracy(student, NEW), accuracy(student, NAMES)) >= 0.85
    update = student.learn(images(["red"], 3), head=head)
    assert (update.learnt, update.extended) == ((), ("red",))
    assert student.info()["counts"]["red"] == 23
    assert accuracy(student, ALL) >= 0.85
    student.forget("white")
    assert "white" not in student.classes and "white" not in student.predict(
        draw_images("white", 5)
    )
    assert accuracy(student, set(ALL) - {"white"}) >= 0.85


@pytest.mark.parametrize(
    ("kind", "head"), [("mean", "ridge"), ("fecam", "ridge"), ("ridge", "aligned")]
)
def test_a_head_that_the_student_cannot_have_is_refused(tmp_path, kind, head):
    student = Student(write_learner(tmp_path / "student", kind))
    with pytest.raises(CdlError, match=f"^head: {head} is invalid; .* is {kind}; omit head$"):
        student.learn(images(), head=head)
    assert student.version == 0


def test_one_image_is_enough(folder):
    student = Student(folder)
    for name in NEW:
        student.learn(images([name], 1))
    assert accuracy(student, NEW) >= 0.6 and accuracy(student, NAMES) >= 0.85
    again = cdl.load(folder)
    assert again.classes == ALL and again.predict(draw_images("black", 1)) == ["black"]


def test_unlabelled_images_refine_the_statistics(folder):
    student = Student(folder)
    more = list(draw_images("yellow", 20, 5))
    update = student.learn(images(n=4), unlabelled=more)
    assert update.count == 32
    assert student.info()["counts"]["yellow"] > 4 + 15


def test_versions_are_bounded_and_undone_in_turn(folder):
    student = Student(folder)
    sizes = [student.info()["bytes"]]
    for _ in range(3):
        student.learn(images(["red"], 2))
        sizes.append(student.info()["bytes"])
    assert len(set(sizes[1:])) == 1  # the state does not grow with the images
    for _ in range(3):
        student.learn(images(["red"], 2))
    kept = sorted(int(path.name) for path in (folder / "versions").iterdir())
    assert kept == [3, 4, 5, 6] and versions.current_version(folder) == 6
    for version in (5, 4, 3):
        assert student.undo().version == version
    with pytest.raises(CdlError, match="no version before 3 is kept"):
        student.undo()
    student.learn(images(["red"], 2))
    assert student.version == 7
    kept = sorted(int(path.name) for path in (folder / "versions").iterdir())
    assert kept == [3, 7]


def test_a_killed_update_leaves_the_last_version(tmp_path):
    """The process is killed before each of its steps that change the folder, one after another."""
    folder = write_learner(tmp_path / "student")
    before = Student(folder)
    before.learn(images(["yellow"]))
    expected = before.predict_proba(draw_images("yellow", 3))
    for step in range(30):
        child = os.fork()
        if not child:
            _learn_and_die(folder, step)
        killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
        student = cdl.load(folder)
        if student.version != 1:
            break
        assert killed
        np.testing.assert_array_equal(student.predict_proba(draw_images("yellow", 3)), expected)
    assert step > 5 and "black" in student.classes
    student.learn(images(["white"]))
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    assert not [path for path in (folder / "versions").iterdir() if not path.name.isdecimal()]


def _learn_and_die(folder, step):
    """Learn in a forked process that kills itself before its change number `step`."""
    left = step

    def count(event, arguments):
        nonlocal left
        writes = event == "open" and set(str(arguments[1])) & set("wax+")
        inside = arguments and str(folder) in str(arguments[0])
        if inside and (writes or event in ("os.rename", "os.mkdir", "os.remove", "shutil.rmtree")):
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    try:
        student = Student(folder)
        sys.addaudithook(count)
        student.learn(images(["black"]))
    finally:
        os._exit(0)


def test_two_processes_do_not_mix_their_updates(folder):
    one, two = Student(folder), Student(folder)
    one.learn(images(["white"]))
    with pytest.raises(CdlError, match="another process changes or changed the student"):
        two.learn(images(["black"]))
    assert Student(folder).classes == (*NAMES, "white")


def test_cdl_loads_and_verifies_the_current_version(folder, capsys):
    student = cdl.load(folder)
    student.learn(images())
    loaded = cdl.load(folder)
    some = draw_images("white", 4)
    np.testing.assert_array_equal(loaded.predict_proba(some), Student(folder).predict_proba(some))
    assert set(manifest.compare(folder)) > {
        "versions/1/classes.txt",
        "versions/1/memory.safetensors",
    }
    assert not any(manifest.compare(folder).values())
    made = read_json(folder / "versions" / "1" / "manifest.json")["made_from"]
    assert (made["version"], made["parent"]) == (1, 0)
    names = folder / "versions" / "1" / "classes.txt"
    text = names.read_text()
    names.write_text("".join(reversed(text.splitlines(keepends=True))))
    for use in (cdl.load, Student):
        with pytest.raises(CdlError, match=r"versions/1/classes.txt: was damaged or changed"):
            use(folder)
    names.write_text(text)
    (folder / "student.py").write_text("# of a user\n")  # cdl never runs it
    assert cdl.load(folder).classes == ALL
    assert manifest.compare(folder)["student.py"]


def flip(raw):
    """Yield contents that differ in one bit."""
    for bit in range(0, 8 * len(raw), 5):
        changed = bytearray(raw)
        changed[bit // 8] ^= 1 << bit % 8
        yield bytes(changed)


def test_any_change_of_the_pointer_is_noticed_and_repaired_by_the_command_in_the_message(
    tmp_path, capsys
):
    folder = write_learner(tmp_path / "a student")
    for name in ("white", "black"):
        Student(folder).learn(images([name]))
    file = folder / "current"
    whole = file.read_bytes()
    plain = [b"", b"0", b"3", b"-1", b"../..", b"1" * 40, b"\xff", b"{}", b"[1]"]
    for content in [None, *plain, *flip(whole)]:
        file.unlink() if content is None else file.write_bytes(content)
        for use in (cdl.load, Student, site):
            with pytest.raises(CdlError, match=r"`echo 2 > .*/current'` returns to") as caught:
                use(folder)
        assert str(caught.value).isprintable()
    with pytest.raises(CdlError, match="current"):
        verify([folder])
    assert sorted(path.name for path in (folder / "versions").iterdir()) == ["1", "2"]
    command = str(caught.value).split("`")[1]
    subprocess.run(command, shell=True, check=True)
    again = Student(folder)
    assert again.classes == (*NAMES, "white", "black")
    again.learn(images(["yellow"]))  # seals the pointer
    verify([folder])
    assert "all as recorded" in capsys.readouterr().out and file.read_bytes().startswith(b"{")


@pytest.mark.parametrize("number", [1, 2])
def test_a_plain_number_of_an_earlier_export_is_read(folder, number):
    for name in ("white", "black"):
        Student(folder).learn(images([name]))
    (folder / "current").write_text(f"{number}\n")
    student = cdl.load(folder)
    assert student.version == number
    student.learn(images(["yellow"]))  # which of the others were undone is not known
    assert sorted(path.name for path in (folder / "versions").iterdir()) == ["1", "2", "3"]


def test_an_update_removes_only_versions_that_were_undone_or_are_too_old(folder):
    for name in ("white", "black"):
        Student(folder).learn(images([name]))
    shutil.copytree(folder / "versions" / "1", folder / "versions" / "7")
    (folder / "versions" / "notes.txt").write_text("mine")
    (folder / "versions" / "backup").mkdir()
    Student(folder).undo()
    Student(folder).learn(images(["yellow"]))
    found = sorted(path.name for path in (folder / "versions").iterdir())
    assert found == ["1", "7", "8", "backup", "notes.txt"]  # 2 was undone


def test_names_that_look_the_same_are_one_class(folder, tmp_path):
    student, some = Student(folder), list(draw_images("white", 4))
    photos = write_photos(tmp_path / "photos", ["white"], 4)
    (photos / "white").rename(photos / "e\u0301te\u0301")
    assert main(Student, ["learn", str(photos)], folder) == 0
    student = Student(folder)
    assert student.learn({" été": some, "e\u0301té": some}).extended == ("été",)
    assert student.info()["counts"]["été"] == 12
    assert student.forget("été ").forgotten == ("été",)


WRONG = [
    ({"a\u202eb": ["x"]}, r"invalid class name 'a\\u202eb'"),
    ({}, "images: there is none of any class"),
    ({"white": []}, "images: there is none of 'white'"),
    ({"": ["x"]}, "invalid class name ''"),
    ({"a/b": ["x"]}, "invalid class name 'a/b'"),
    ({".a": ["x"]}, "invalid class name '.a'"),
    ({"a\nb": ["x"]}, "invalid class name"),
    ({"white": ["none.png"]}, "none.png: cannot be read"),
]


@pytest.mark.parametrize(("given", "message"), WRONG)
def test_wrong_images_change_nothing(folder, given, message):
    student = Student(folder)
    with pytest.raises(CdlError, match=message):
        student.learn(given)
    assert not (folder / "versions").exists() and student.classes == NAMES


def test_wrong_options_are_refused(folder):
    student = Student(folder)
    for options, message in (
        ({"head": "deep"}, "head: invalid value 'deep'; expected aligned or ridge"),
        ({"ridge": "x"}, "ridge: invalid value 'x'; expected all or last"),
        ({"test": images(["yellow"])}, "test: 'yellow' is not a class of this student"),
    ):
        with pytest.raises(CdlError, match=message):
            student.learn(images(["white"]), **options)
    with pytest.raises(CdlError, match="'mug': is not a class of this student"):
        student.forget("mug")
    for name in NAMES[:2]:
        student.forget(name)
    with pytest.raises(CdlError, match="'blue': is the last class"):
        student.forget("blue")


def test_a_folder_without_features_predicts_and_does_not_learn(tmp_path):
    student = cdl.load(write_student(tmp_path / "old"))
    assert student.predict(draw_images("red", 1)) == ["red"]
    with pytest.raises(CdlError, match="has no memory.safetensors, so it cannot learn"):
        student.learn(images())
    with pytest.raises(CdlError, match="has no features"):
        student.features(draw_images("red", 1))


def content_of(folder):
    return {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}


LIMITED = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import student
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), -1))  # Python ignores SIGXFSZ
sys.exit(student.main(student.Student, sys.argv[3:]))
"""


@pytest.mark.parametrize("limit", [0, 100, 2_000])
@pytest.mark.parametrize("command", ["learn", "forget", "undo"])
def test_a_full_disk_is_one_sentence_and_changes_nothing(folder, tmp_path, command, limit):
    Student(folder).learn(images(["yellow"]))
    given = {"learn": [write_photos(tmp_path / "new")], "forget": ["red"], "undo": []}[command]
    line = [sys.executable, "-B", "-c", LIMITED, folder, str(limit), command, *given]
    before = content_of(folder)
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path)
    if command == "undo" and limit == 2_000:  # the pointer is small
        assert done.returncode == 0
        return
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert "File too large" in done.stderr and "the last version was kept" in done.stderr
    assert content_of(folder) == before


def test_a_full_disk_at_the_last_step_changes_nothing(folder, monkeypatch):
    def replace_nothing(source, target):
        if read_json(source)["version"] == 1:
            raise OSError(28, "No space left on device")
        replace(source, target)

    replace = os.replace
    monkeypatch.setattr(os, "replace", replace_nothing)
    with pytest.raises(CdlError, match="No space left on device.*the last version was kept"):
        Student(folder).learn(images())
    monkeypatch.undo()
    assert Student(folder).classes == NAMES and not [*(folder / "versions").iterdir()]


def test_a_learner_that_finds_another_at_work_says_so_in_a_sentence(folder):
    student = Student(folder)
    with open(folder / "manifest.json", "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        (folder / ".new").mkdir()  # of the other one
        for change in (lambda: student.learn(images(["white"])), lambda: student.forget("red")):
            with pytest.raises(CdlError, match="another process changes .*; repeat the command"):
                change()
        assert (folder / ".new").is_dir()
    assert student.learn(images(["white"])).version == 1


def test_cdl_learn_teaches_an_exported_student(folder, tmp_path, capsys):
    photos = write_photos(tmp_path / "photos")
    commands.learn(folder, photos, as_json=True)
    assert json.loads(capsys.readouterr().out)["learnt"] == list(NEW)
    with pytest.raises(CdlError, match="--output: mine is only used for runs; omit it"):
        commands.learn(folder, photos, "mine")


def test_a_terminal_shows_how_many_images_are_done(folder, tmp_path, capsys, monkeypatch):
    photos = write_photos(tmp_path / "photos", ["white"], 40)
    assert main(Student, ["learn", str(photos)], folder) == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert main(Student, ["learn", str(photos)], folder) == 0
    assert capsys.readouterr().err == "32 of 40 images\r40 of 40 images\n"


def test_the_command_line_reports_in_text(folder, tmp_path, capsys):
    photos = write_photos(tmp_path / "photos", n=5)
    assert main(Student, ["learn", str(photos), "--no-balance", "--ridge", "last"], folder) == 0
    text = capsys.readouterr().out
    assert text.startswith("version 1, 6 classes; learnt black, white, yellow\n15 images at ")
    assert (
        "\nright: 3 of 3 held out (every fifth of the images, after learning the others)\n" in text
    )
    undo = f"{folder} was changed; undo: python {folder}/student.py undo"
    assert text.splitlines()[-1] == undo
    (photos / "blue").mkdir()
    assert main(Student, ["learn", str(photos)], folder) == 1
    assert "contains no image" in capsys.readouterr().err
    shutil.rmtree(photos)
    assert main(Student, ["learn", str(photos)], folder) == 1
    assert "photos: cannot be read (No such file" in capsys.readouterr().err


def test_the_features_of_images_of_several_sizes_are_in_their_order(folder):
    some = [*draw_images("red", 2), *draw_images("blue", 2, side=6), *draw_images("green", 1)]
    found = Student(folder).features(some)
    expected = np.concatenate([tokens_of(image[None]) for image in some])
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert versions.KEPT == 4


def test_the_peak_memory_is_that_of_the_process_alone():
    code = "from cdl.device.process import peak_memory; print(peak_memory())"
    big = bytearray(300 * 10**6)  # of this process, not of its child
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert 3 < float(found.stdout) < 100 and peak_memory() > 300 and len(big)


def test_a_large_png_is_classified_within_300_megabytes(folder, tmp_path):
    Image.new("RGBA", (4096, 4096), (220, 30, 30, 255)).save(tmp_path / "red.png")
    code = """
import resource, sys
sys.path.insert(0, sys.argv[1])
import numpy, student
used = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
model = student.Student(sys.argv[1])
model.predict(numpy.zeros((32, 32, 3), numpy.uint8))
before = used()
print(*model.predict(sys.argv[2]), used() - before)
"""
    command = [sys.executable, "-c", code, folder, tmp_path / "red.png"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    name, megabytes = done.stdout.split()
    assert name == "red" and float(megabytes) < 300


def test_a_reader_that_goes_away_is_no_error(folder):
    reading, writing = os.pipe()
    os.close(reading)
    line = [sys.executable, folder / "student.py", "info"]
    done = subprocess.run(line, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_photographs_are_read_a_few_at_a_time(folder, monkeypatch):
    sizes = []
    student = Student(folder)
    run = student._graph.run
    counted = lambda batch, output: sizes.append(len(batch)) or run(batch, output)  # noqa: E731
    monkeypatch.setattr(student, "_graph", replace(student._graph, run=counted))
    large = np.full((1500, 1500, 3), 200, np.uint8)  # two exceed the pixels of a batch
    some = [*[large] * 3, *draw_images("red", 40), large]
    assert len(student.features(some)) == 44
    assert sizes == [2, 32, 2, 8]
