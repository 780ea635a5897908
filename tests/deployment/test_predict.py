"""`cdl predict` on readable and unreadable files, without torch."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from exported import write_student
from PIL import Image

from cdl.device.classifier import Classifier as Student
from cdl.device.images import Images
from cdl.device.predict import CsvPrinter, JsonPrinter, TextPrinter, print_predictions
from cdl.runtime.errors import CdlError

ROOT = Path(__file__).parents[2]


class Corner(Student):
    """Predict the brightest channel of the upper left pixel."""

    classes, items = ("red", "green", "blue"), Images()

    def preprocess(self, images):
        return np.stack(images)

    def logits(self, batch):
        return batch[:, 0, 0].astype(np.float32) / 10


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    pixels = np.zeros((2, 3, 3), np.uint8)
    pixels[0, 0] = 50, 0, 0
    Image.fromarray(pixels).save(folder / "a.png")
    turned = np.zeros((2, 3, 3), np.uint8)
    turned[1, 0] = 0, 0, 50  # upper left after the rotation that EXIF demands
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(turned).save(folder / "deep" / "b.png", exif=exif)
    (folder / "c.jpg").write_bytes(b"no image")
    (folder / "notes.txt").write_text("no image either")
    return folder


def test_folders_files_and_stdin_are_listed(photos):
    stdin = io.StringIO(f"{photos}/deep/b.png\n\nnowhere.png\n")
    found = Images().listed([str(photos), "-", "x.gif"], stdin)
    inside = [str(photos / name) for name in ("a.png", "c.jpg", "deep/b.png")]
    assert found == [*inside, str(photos / "deep/b.png"), "nowhere.png", "x.gif"]
    (photos / "empty").mkdir()
    with pytest.raises(CdlError, match="empty: contains no image; expected JPEG, PNG"):
        Images().listed([str(photos / "empty")], stdin)


def test_unreadable_images_are_reported_and_the_others_classified(photos, capsys):
    files = [str(photos / name) for name in ("c.jpg", "a.png", "deep/b.png", "nowhere.png")]
    assert not print_predictions(Corner(), files, 2, TextPrinter())
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        f"{photos}/a.png: red 0.987, green 0.007",
        f"{photos}/deep/b.png: blue 0.987, red 0.007",
    ]
    first, second = err.splitlines()
    assert "c.jpg is not a readable image" in first and "nowhere.png: cannot be read" in second
    assert print_predictions(Corner(), files[1:3], 2, TextPrinter())


def test_json_and_csv_contain_the_same_predictions(photos, capsys):
    print_predictions(Corner(), [str(photos / "a.png")], 3, JsonPrinter("file"))
    line = json.loads(capsys.readouterr().out)
    print_predictions(Corner(), [str(photos / "a.png")], 3, CsvPrinter("file"))
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["class"] for row in rows] == [p["class"] for p in line["predictions"]]
    assert [float(row["probability"]) for row in rows] == [
        p["probability"] for p in line["predictions"]
    ]
    assert {row["file"] for row in rows} == {line["file"]} == {str(photos / "a.png")}
    assert sum(float(row["probability"]) for row in rows) == pytest.approx(1)


@pytest.fixture
def exported(tmp_path):
    return write_student(tmp_path / "student")


def cdl(*arguments, code=""):
    program = f"import sys\nsys.argv = {['cdl', *map(str, arguments)]}\n"
    program += "from cdl.cli import main\ntry:\n    main()\nfinally:\n"
    program += "    heavy = {'torch', 'timm', 'pandas', 'scipy', 'sklearn', 'onnx'}\n"
    program += "    assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def test_an_exported_student_predicts_without_torch(exported, photos):
    answer = cdl("predict", exported, photos, "-k", 1, "--csv")
    assert answer.returncode == 1
    assert [row["class"] for row in csv.DictReader(io.StringIO(answer.stdout))] == ["red", "blue"]
    (line,) = answer.stderr.splitlines()
    assert line.startswith("cdl: ") and "c.jpg" in line
    (photos / "c.jpg").unlink()
    assert cdl("predict", exported, photos).returncode == 0


def test_a_folder_without_a_model_is_rejected_in_one_line(photos):
    answer = cdl("predict", photos, photos / "a.png")
    assert answer.returncode == 2
    assert answer.stderr.startswith(f"cdl: {photos}: is not a finished run")
    assert len(answer.stderr.splitlines()) == 1
