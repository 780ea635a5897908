"""Decoding of image files: upright, 8-bit, on white, or one error message."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cdl.data.packing import prepare
from cdl.device.decoding import LARGEST_PIXELS, LARGEST_SIDE, decode
from cdl.runtime.errors import CdlError

RGB = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
DEEP = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)


def encoded(pixels, kind="PNG", **options):
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(orientation):
    """How viewers show RGB with an EXIF orientation."""
    flip, turns = {
        **{1: (0, 0), 2: (1, 0), 3: (0, 2), 4: (1, 2)},
        **{5: (1, 1), 6: (0, 3), 7: (1, 3), 8: (0, 1)},
    }[orientation]
    return np.rot90(RGB[:, ::-1] if flip else RGB, turns)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_is_applied(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    pixels = decode(encoded(RGB, kind, exif=exif, **options), "x")
    assert np.array_equal(pixels, turned(orientation))


def test_a_photograph_is_turned_and_broken_exif_is_ignored():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(encoded(RGB, "JPEG", exif=exif), "x").shape == (8, 6, 3)
    broken = encoded(RGB, "JPEG", exif=b"Exif\0\0II*\0garbage\xff\xff")
    assert np.array_equal(decode(broken, "x"), decode(encoded(RGB, "JPEG"), "x"))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_greyscale_is_scaled(kind):
    assert np.array_equal(decode(encoded(DEEP, kind), "x"), GREY[..., None].repeat(3, -1))


def test_white_of_a_tiff_is_defined_by_its_tags():
    raw = encoded(DEEP, "TIFF", tiffinfo={262: 0})  # PhotometricInterpretation: WhiteIsZero
    assert np.array_equal(decode(raw, "x")[..., 0], 255 - GREY)


def test_a_transparent_grey_of_16_bits_is_white():
    assert decode(encoded(DEEP, transparency=0), "x")[0, :3, 0].tolist() == [255, 1, 2]


def test_floating_point_is_scaled_from_0_to_1_and_other_ranges_are_refused():
    ramp = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    assert np.array_equal(decode(encoded(ramp, "TIFF"), "x")[..., 0], GREY)
    for value in (7.0, -1.0, float("nan")):
        with pytest.raises(CdlError, match="a.tif contains floating-point numbers outside 0 to 1"):
            decode(encoded(np.full((4, 4), value, np.float32), "TIFF"), "a.tif")
    with pytest.raises(CdlError, match="a.tif contains signed or 32-bit integers"):
        decode(encoded(DEEP.astype(np.int32), "TIFF"), "a.tif")


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_transparency_is_composited_on_white(kind):
    pixels = np.zeros((2, 3, 4), np.uint8)
    pixels[:, :, 3] = [0, 255, 128]
    pixels[:, :, 0] = 200
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    found = decode(encoded(pixels, kind, **options), "x")
    assert found[0].tolist() == [[255, 255, 255], [200, 0, 0], [227, 127, 127]]


def test_transparency_of_a_palette_and_of_grey_is_composited_too():
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    palette.putpalette([0, 0, 0, 10, 20, 30])
    for kind in ("PNG", "GIF"):
        found = decode(encoded(palette, kind, transparency=0), "x")
        assert found.tolist() == [[[255] * 3, [10, 20, 30]]]
    grey = Image.fromarray(np.array([[[0, 0], [9, 255]]], np.uint8), "LA")
    assert decode(encoded(grey), "x")[0, :, 0].tolist() == [255, 9]


def test_the_first_image_of_an_animation_is_used():
    frames = [Image.fromarray(np.full((4, 4, 3), v, np.uint8)) for v in (10, 200)]
    for kind in ("GIF", "WEBP", "TIFF", "PNG"):
        raw = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        assert np.abs(decode(raw, "x").astype(int) - 10).max() <= 2, kind


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_plain_images_equal_pillows_conversion(kind):
    raw = encoded(RGB, kind)
    with Image.open(io.BytesIO(raw)) as image:
        assert np.array_equal(decode(raw, "x"), np.asarray(image.convert("RGB")))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_damaged_bytes_are_pixels_or_one_error(kind):
    whole, rng = encoded(RGB, kind), np.random.default_rng(0)
    for _ in range(200):
        raw = bytearray(whole)
        for place in rng.integers(len(raw), size=3):
            raw[place] ^= 1 << rng.integers(8)
        try:
            assert decode(bytes(raw), "x").dtype == np.uint8
        except CdlError as error:
            assert str(error).startswith("x ")
            assert " object at 0x" not in str(error)


@pytest.mark.parametrize(
    ("size", "kind", "exif", "found"),
    [
        ((8660, 5773), "JPEG", 6, (4330, 2887)[::-1]),  # 50 megapixels, turned by EXIF
        ((16400, 40), "JPEG", 1, (8200, 20)),
        ((4096, 4096), "PNG", 1, (4096, 4096)),
        ((4096, 4097), "PNG", 1, None),
        ((16385, 1), "PNG", 1, None),
        ((1, 16385), "TIFF", 1, None),
        ((65000, 1), "JPEG", 1, None),
    ],
)
def test_a_large_jpeg_is_decoded_smaller_and_other_formats_are_refused(size, kind, exif, found):
    tags = Image.Exif()
    tags[0x0112] = exif
    raw = encoded(Image.new("RGB", size, (200, 100, 50)), kind, exif=tags)
    if found is not None:
        pixels = decode(raw, "x")
        assert pixels.shape[1::-1] == found
        assert abs(pixels[1, 1].astype(int) - [200, 100, 50]).max() < 3
        assert decode(raw, "x", 2**20).size <= 3 * 2**20
        return
    width, height = size
    with pytest.raises(
        CdlError, match=f"x is refused: it has {width} x {height} pixels, .* 48 MiB"
    ):
        decode(raw, "x")


@pytest.mark.parametrize(
    ("size", "mode", "name", "found"),
    [
        ((8660, 5773), "RGB", "photo.jpg", (1444, 2165)),
        ((4096, 4096), "RGB", "plain.png", (2048, 2048)),
        ((4096, 4096), "RGBA", "clear.png", (2048, 2048)),
        ((4096, 4096), "I;16", "grey.png", (2048, 2048)),
        ((4096, 4096), "P", "palette.png", (2048, 2048)),
    ],
)
def test_a_large_image_is_read_within_300_megabytes(tmp_path, size, mode, name, found):
    Image.new(mode, size, 90).save(tmp_path / name)
    code = """
import sys
from cdl.device.images import read
from cdl.device.process import peak_memory
print(*read(sys.argv[1]).shape)
assert peak_memory() < 300, peak_memory()
"""
    command = [sys.executable, "-c", code, tmp_path / name]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.split() == [*map(str, found), "3"]


def test_pixels_that_are_averaged_are_opaque_on_white():
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[:2, :2] = 200, 100, 50, 255
    pixels[:2, 2:3] = 10, 20, 30, 255  # the other half of the block is transparent black
    found = decode(encoded(pixels), "x", 4)
    assert np.abs(found[0].astype(int) - [[200, 100, 50], [132, 137, 142]]).max() <= 1
    assert (found[1] == 255).all()
    for grey in (np.full((4, 4), 90 * 257, np.uint16), np.full((4, 4), 90, np.uint8)):
        assert (decode(encoded(grey), "x", 4) == np.full((2, 2, 3), 90)).all()


WHOLE = {kind: encoded(RGB, kind) for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")}


@pytest.mark.filterwarnings("ignore")
@given(
    kind=st.sampled_from([*WHOLE, ""]),
    changes=st.lists(st.tuples(st.integers(0, 60), st.binary(min_size=1, max_size=4)), max_size=3),
    end=st.none() | st.integers(0, 200),
    raw=st.binary(max_size=40),
)
def test_any_bytes_are_an_image_of_bounded_size_or_one_error(kind, changes, end, raw):
    """The changes are in the header, which has the size."""
    content = bytearray(WHOLE.get(kind, raw))
    for place, values in changes:
        content[place : place + len(values)] = values
    try:
        pixels = decode(bytes(content[:end]), "x")
    except CdlError as error:
        assert str(error).startswith("x ") and " object at 0x" not in str(error)
        return
    assert pixels.size <= 3 * LARGEST_PIXELS and max(pixels.shape) <= LARGEST_SIDE


def make_folder(root):
    for split in ("train", "test"):
        for c, name in enumerate(("ant", "bee")):
            (root / split / name).mkdir(parents=True)
            Image.fromarray(RGB + np.uint8(2 * c + (split == "test"))).save(
                root / split / name / "0.png"
            )
    return {"name": "folder", "path": str(root)}


def test_every_format_in_a_folder_is_packed(tmp_path):
    source, ant = make_folder(tmp_path / "raw"), tmp_path / "raw" / "train" / "ant"
    for i, suffix in enumerate("jpg jpeg jfif png webp bmp gif tif tiff PNG".split()):
        kind = {"jpg": "JPEG", "jfif": "JPEG", "tif": "TIFF"}.get(suffix, suffix)
        (ant / f"more{i}.{suffix}").write_bytes(encoded(RGB, kind))
    prepare(tmp_path / "p", source)
    manifest = json.loads((tmp_path / "p" / "manifest.json").read_text())
    assert manifest["splits"]["train"]["images"] == 12
    assert manifest["skipped"] == {}


def test_skipped_files_are_counted_by_suffix_in_manifest_and_log(tmp_path, caplog):
    source, train = make_folder(tmp_path / "raw"), tmp_path / "raw" / "train"
    for name in ("ant/a.txt", "bee/b.TXT", "notes.csv", "ant/Makefile", ".DS_Store"):
        (train / name).touch()
    (train / ".ipynb_checkpoints").mkdir()
    (train / ".ipynb_checkpoints" / "0-checkpoint.png").write_bytes(encoded(RGB))
    prepare(tmp_path / "p", source)
    manifest = json.loads((tmp_path / "p" / "manifest.json").read_text())
    assert manifest["skipped"] == {".csv": 1, ".txt": 2, "hidden": 2, "without suffix": 1}
    assert manifest["classes"] == ["ant", "bee"]
    assert (
        "skipped files that are not images: 1 .csv, 2 .txt, 2 hidden, 1 without suffix"
        in caplog.text
    )


@pytest.mark.parametrize("name", ["photo.heic", "page.SVG", "scan.jp2"])
def test_image_formats_without_a_decoder_are_refused_and_not_skipped(tmp_path, name):
    source = make_folder(tmp_path / "raw")
    (tmp_path / "raw" / "train" / "ant" / name).touch()
    with pytest.raises(
        CdlError, match=f"{name}: invalid format .*; convert or remove.*magick mogrify"
    ):
        prepare(tmp_path / "p", source)


def test_all_unreadable_images_are_listed_with_their_reasons(tmp_path):
    source, train = make_folder(tmp_path / "raw"), tmp_path / "raw" / "train"
    whole = encoded(RGB)
    (train / "ant" / "1.png").write_bytes(whole[:-40])
    (train / "ant" / "2.png").write_bytes(b"<html>not found</html>")
    (train / "bee" / "3.png").write_bytes(b"")
    (tmp_path / "raw" / "test" / "bee" / "4.tif").write_bytes(
        encoded(np.full((4, 4), 7, np.float32), "TIFF")
    )
    with pytest.raises(CdlError) as caught:
        prepare(tmp_path / "p", source)
    message = str(caught.value)
    assert message.startswith("4 images cannot be used: ")
    assert "ant/1.png is not a readable image (" in message
    assert "ant/2.png is not a readable image (expected one of the formats JPEG, PNG, " in message
    assert "bee/3.png is not a readable image (" in message
    assert "bee/4.tif contains floating-point numbers" in message
    assert "<" not in message and "object at" not in message
    assert not list((tmp_path / "p").iterdir()), "no partial files remain"


def test_the_first_twenty_unreadable_images_are_listed_and_the_rest_counted(tmp_path):
    source, train = make_folder(tmp_path / "raw"), tmp_path / "raw" / "train"
    for i in range(25):
        (train / "ant" / f"bad{i:02}.png").write_bytes(b"no image")
    with pytest.raises(CdlError, match="^25 images cannot be used.*bad19.png.*; and 5 more$") as e:
        prepare(tmp_path / "p", source)
    assert "bad20" not in str(e.value)
