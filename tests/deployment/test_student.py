"""A student loaded from a finished run predicts what was evaluated, for images in any form."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import cdl
from cdl.data.packed import Packed
from cdl.device.classifier import Classifier as Student
from cdl.device.images import Images, read
from cdl.runtime.artifacts import load, save
from cdl.runtime.errors import CdlError

RUNS = "results/tiny/digits/coda_prompt"
KD = f"{RUNS}/kd-vit_nano-from-vit_micro-q-vit_nano/seed0"


class Brightness(Student):
    """Predict from the mean of all pixels; record the sizes of the batches."""

    classes, items = ("dark", "bright"), Images()

    def __init__(self):
        self.batches = []

    def preprocess(self, images):
        return np.stack(images)

    def logits(self, batch):
        self.batches.append(batch.shape)
        mean = batch.mean((1, 2, 3)) - 127.5
        return np.stack([-mean, mean], axis=1)


def grey(value, height=4, width=4):
    return np.full((height, width, 3), value, np.uint8)


def test_predictions_are_in_the_order_of_the_images():
    student = Brightness()
    images = [grey(0), grey(255, 6, 4), grey(254), grey(10, 6, 4)]
    assert student.predict(images) == ["dark", "bright", "bright", "dark"]
    assert student.batches == [(2, 4, 4, 3), (2, 6, 4, 3)]
    assert student.predict_proba([]).shape == (0, 2)
    np.testing.assert_allclose(student.predict_proba(images).sum(1), 1, rtol=1e-6)


def test_a_single_image_is_accepted(tmp_path):
    Image.fromarray(grey(255)).save(tmp_path / "white.png")
    student = Brightness()
    for image in (grey(255), Image.fromarray(grey(255)), tmp_path / "white.png"):
        assert student.predict(image) == ["bright"]
    assert student.predict(np.stack([grey(255), grey(0)])) == ["bright", "dark"]


def test_images_are_rotated_upright_and_not_modified(tmp_path):
    wide = np.zeros((2, 3, 3), np.uint8)
    wide[0, 0] = 200
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    Image.fromarray(wide).save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as image:
        np.testing.assert_array_equal(read(image), np.rot90(wide, -1))
        assert image.size == (3, 2)
    np.testing.assert_array_equal(read(tmp_path / "turned.png"), np.rot90(wide, -1))


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((2, 2, 3)), r"float64 \[2, 2, 3\]; expected uint8 \[height, width, 3\]"),
        (np.zeros((2, 2), np.uint8), r"uint8 \[2, 2\]"),
        ("no/such.png", "no/such.png: cannot be read"),
    ],
)
def test_invalid_images_are_rejected(image, words):
    with pytest.raises(CdlError, match=words):
        read(image)


def test_a_truncated_image_that_pillow_has_opened_is_rejected(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "x.jpg")
    (tmp_path / "x.jpg").write_bytes((tmp_path / "x.jpg").read_bytes()[:900])
    with pytest.raises(CdlError, match="the image cannot be read"):
        read(Image.open(tmp_path / "x.jpg"))


@pytest.mark.parametrize("threads", [0, -1])
def test_an_invalid_number_of_threads_is_rejected(tmp_path, threads):
    with pytest.raises(CdlError, match=f"threads: invalid value {threads}; expected at least 1"):
        cdl.load(tmp_path, threads=threads)


def test_importing_cdl_imports_nothing_of_torch_or_pillow():
    code = "import sys, cdl; assert not {'torch', 'PIL', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def pictures(finished, run):
    """Return the test images of a run as arrays, and the predictions."""
    (data,) = (finished / "results" / "data").iterdir()
    frame = pd.read_parquet(finished / run / "predictions.parquet")
    pixels = Packed(data, "test").pixels(torch.tensor(frame["image"].to_numpy()))
    ((images, _, _),) = pixels.parts(torch.arange(len(frame)))
    return list(images.permute(0, 2, 3, 1).numpy()), frame


@pytest.mark.parametrize(
    "learner",
    ["kd-vit_nano-from-vit_micro-q-vit_nano", "cdl_prompt-vit_nano-from-vit_micro-q-vit_nano"]
    + ["student-vit_nano-q-vit_nano", "teacher-vit_micro-q-vit_nano"],
)
def test_a_loaded_run_predicts_what_was_evaluated(finished, learner):
    run = f"{RUNS}/{learner}/seed0"
    student = cdl.load(finished / run)
    images, frame = pictures(finished, run)
    assert student.predict(images) == frame["predicted"].tolist()
    probabilities = student.predict_proba(images)
    np.testing.assert_allclose(probabilities.max(1), frame["probability"], atol=1e-4)
    assert set(student.classes) == set(frame["class"])
    assert student._student.preprocess(images[0]).shape == (1, 3, 8, 8)


def test_an_earlier_task_has_fewer_classes_and_threads_are_restored(finished):
    student = cdl.load(finished / KD, task=0)
    assert student.classes == cdl.load(finished / KD).classes[:6]
    torch.set_num_threads(2)
    try:
        assert student.predict_proba(grey(9)).shape == (1, 6)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_a_run_is_loaded_by_the_names_that_export_takes(copied, monkeypatch, capsys):
    monkeypatch.chdir(copied)
    assert repr(cdl.load("kd/seed0")).endswith(f"; {KD}>")
    best = cdl.load("results/tiny/tables/configuration.yaml")
    assert f"configuration.yaml: {repr(best).split('; ')[-1][:-1]}\n" in capsys.readouterr().err
    with pytest.raises(CdlError, match="nowhere: is not a finished run; expected one of results"):
        cdl.load("nowhere")


def test_missing_files_are_reported_in_a_sentence(copied):
    with pytest.raises(
        CdlError, match="task: invalid value 2 for .*seed0; expected 0 to 1, counted from 0"
    ):
        cdl.load(copied / KD, task=2)
    with pytest.raises(CdlError, match="is not a finished run: results.json is missing"):
        cdl.load(copied / RUNS)
    with pytest.raises(CdlError, match="is not a folder"):
        cdl.load(copied / "nowhere")
    for file in (copied / "results" / "backbones").glob("vit_nano-*"):
        file.unlink()
    with pytest.raises(CdlError, match="weights of backbone 'vit_nano' .*found none"):
        cdl.load(copied / KD)


def test_a_checkpoint_that_was_not_evaluated_is_rejected(copied):
    record = copied / KD / "task1" / "learner.safetensors"
    state, metadata = load(record)
    metadata.pop("sha256")
    save(record, {name: 2 * tensor for name, tensor in state.items()}, metadata)
    with pytest.raises(CdlError, match="learner.safetensors was made with sha256 = .*, expected"):
        cdl.load(copied / KD)
    assert "Linear" not in repr(cdl.load(copied / KD, task=0))


def test_other_weights_of_the_same_name_are_rejected(copied):
    (own,) = (copied / "results" / "backbones").glob("vit_nano-*.safetensors")
    (other,) = (copied / "results" / "backbones").glob("vit_micro-*.safetensors")
    for suffix in (".safetensors", ".json"):
        other.with_suffix(suffix).replace(own.with_suffix(suffix))
    with pytest.raises(CdlError, match="'vit_nano' of this run are missing .*found other weights"):
        cdl.load(copied / KD)
