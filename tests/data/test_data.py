"""Sources, packing, streams and views."""

import io
import struct
import zlib

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as reference

from cdl.data.batches import Batches
from cdl.data.packed import Packed
from cdl.data.packing import prepare
from cdl.data.stream import Stream
from cdl.data.views import Views, _one_by_one, _products, _sample
from cdl.runtime.artifacts import read_json, write_json
from cdl.runtime.errors import CdlError
from cdl.runtime.seeds import permutation, uniform


def encoded(pixels, kind="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def picture(seed, height=10, width=12):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write_parquet(folder, train, test):
    for split, rows in (("train", train), ("test", test)):
        pd.DataFrame(rows, columns=["bytes", "y", "name", "path"]).to_parquet(
            folder / f"{split}-0.parquet"
        )
    return {
        "name": "parquet",
        "path": str(folder),
        "image": "bytes",
        "label": "y",
        "class_name": "name",
        "file": "path",
    }


def rows(split, labels=(0, 1, 1), names=("cat", "dog")):
    return [
        (encoded(picture(i + 100 * (split == "test"))), y, names[min(y, 1)], f"{split}/{i}.png")
        for i, y in enumerate(labels)
    ]


TEN = tuple("0123456789")


def batch(data, *indices):
    """Return some images of a split in one part, with their sizes and keys."""
    (part,) = data.pixels(torch.tensor(indices)).parts(torch.arange(len(indices)))
    return part


def test_digits(tmp_path):
    prepare(tmp_path, {"name": "digits"})
    train, test = Packed(tmp_path, "train"), Packed(tmp_path, "test")
    assert (len(train), len(test)) == (1437, 360)
    assert train.classes == [str(d) for d in range(10)]
    images, sizes, keys = batch(train, 3, 0)
    assert keys.tolist() == train.keys[[3, 0]].tolist()
    assert images.shape == (2, 3, 8, 8)
    assert images.dtype == torch.uint8
    assert images.max() > 200  # 16 grey levels are spread over 0 to 255
    assert sizes.tolist() == [[8, 8], [8, 8]]


def test_parquet_is_packed_losslessly(tmp_path):
    source = write_parquet(tmp_path, rows("train"), rows("test"))
    prepare(tmp_path / "packed", source)
    train = Packed(tmp_path / "packed", "train")
    assert train.classes == ["cat", "dog"]
    assert train.labels.tolist() == [0, 1, 1]
    expected = torch.from_numpy(picture(1)).permute(2, 0, 1)
    assert torch.equal(batch(train, 1)[0][0], expected)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (rows("train", (0, 0)), "train split has no image of class 1 .'dog'."),
        (rows("train", (0, -1)), "label -1"),
        (rows("train", (0, 2), ("cat", "fox")), "no.* has label 1|class 1"),
        (rows("test"), "test/0.png is in both the training and the test split"),
        ([(b"no image", 0, "cat", "broken.png"), *rows("train")], "broken.png is not a readable"),
        ([], "train split is empty"),
    ],
)
def test_bad_parquet_is_one_error_naming_the_file(tmp_path, train, message):
    source = write_parquet(tmp_path, train, rows("test"))
    with pytest.raises(CdlError, match=message):
        prepare(tmp_path / "packed", source)
    assert not (tmp_path / "packed" / "manifest.json").exists()


def test_an_invalid_parquet_file_and_a_column_without_images(tmp_path):
    source = write_parquet(tmp_path, rows("train"), rows("test"))
    with pytest.raises(CdlError, match="contains str; expected the bytes of an image"):
        prepare(tmp_path / "packed", source | {"image": "name"})
    (tmp_path / "train-0.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(CdlError, match="train-0.parquet cannot be read as Parquet"):
        prepare(tmp_path / "packed", source)


def test_a_missing_column_and_a_missing_file(tmp_path):
    source = write_parquet(tmp_path, rows("train"), rows("test"))
    with pytest.raises(CdlError, match="has no column 'picture'"):
        prepare(tmp_path / "packed", source | {"image": "picture"})
    with pytest.raises(CdlError, match="no test file matches 'val"):
        prepare(tmp_path / "packed", source | {"test": "val*.parquet"})


def test_equal_pixels_in_both_splits_are_counted_not_refused(tmp_path, caplog):
    twin = rows("train")[0][0]
    test = [(twin, 0, "cat", "test/twin.png"), *rows("test")[1:]]
    prepare(tmp_path / "packed", write_parquet(tmp_path, rows("train"), test))
    assert "1 images have identical copies" in caplog.text


def make_folder(root, splits=("train", "test")):
    for split in splits:
        for c, name in enumerate(("ant", "bee")):
            for i in range(2):
                file = root / split / name / f"{split}{i}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture(c * 7 + i, 20 + 10 * i, 30)).save(file)
    return root


def test_a_folder_of_images_of_mixed_size(tmp_path):
    prepare(tmp_path / "p", {"name": "folder", "path": str(make_folder(tmp_path / "raw"))}, 16)
    train = Packed(tmp_path / "p", "train")
    assert train.classes == ["ant", "bee"]
    images, sizes, _ = batch(train, 0, 1)
    assert sizes.tolist() == [[16, 24], [16, 16]]  # short side 16, proportions kept
    assert images.shape == (2, 3, 16, 24)
    assert not images[1, :, :, 16:].any()
    views = Views(8, test_resize=10).test(images, sizes)
    alone = Views(8, test_resize=10).test(*batch(train, 1)[:2])
    torch.testing.assert_close(views[1], alone[0])  # padding is never read


def test_a_folder_with_split_files(tmp_path):
    root = make_folder(tmp_path / "raw", ("all",)) / "all"
    (root / "train.txt").write_text("ant/all0.png\nbee/all0.png\n")
    (root / "test.txt").write_text("ant/all1.png\nbee/all1.png\n")
    source = {"name": "folder", "path": str(root), "train": "train.txt", "test": "test.txt"}
    prepare(tmp_path / "p", source)
    assert Packed(tmp_path / "p", "test").names.tolist() == ["ant/all1.png", "bee/all1.png"]
    (root / "test.txt").write_text("ant/all0.png\nbee/all1.png\n")
    with pytest.raises(CdlError, match="ant/all0.png is in both the training and the test split"):
        prepare(tmp_path / "q", source)
    (root / "test.txt").write_text("/etc/ant/all1.png\n")
    with pytest.raises(CdlError, match="invalid line .*; expected class/name.jpg"):
        prepare(tmp_path / "q", source)
    (root / "test.txt").write_text("ant/gone.png\nbee/all1.png\n")
    with pytest.raises(CdlError, match="gone.png cannot be read: No such file"):
        prepare(tmp_path / "q", source)


def test_images_of_mixed_size_are_padded_a_few_at_a_time(tmp_path):
    root = make_folder(tmp_path / "raw")
    for i in range(20):
        Image.fromarray(picture(i, 9 + i, 30 - i)).save(root / "train" / "ant" / f"more{i}.png")
    prepare(tmp_path / "p", {"name": "folder", "path": str(root)})
    train = Packed(tmp_path / "p", "train")
    positions = torch.arange(len(train)).flip(0)
    parts = list(train.pixels(torch.arange(len(train))).parts(positions))
    assert max(len(images) for images, _, _ in parts) == 8
    assert torch.equal(torch.cat([keys for _, _, keys in parts]), train.keys[positions])
    some = torch.tensor([7, 2, 11])
    for ours, theirs in zip(
        train.pixels(some).resident("cpu").parts(torch.arange(3)),
        train.pixels(some).parts(torch.arange(3)),
        strict=True,
    ):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    rows = iter(positions.tolist())
    for images, sizes, _ in parts:
        assert list(images.shape[2:]) == sizes.amax(0).tolist()
        for image, size in zip(images, sizes, strict=True):
            ((alone, own, _),) = train.pixels(torch.tensor([next(rows)])).parts(torch.tensor([0]))
            assert torch.equal(own[0], size)
            assert torch.equal(alone[0], image[:, : size[0], : size[1]])


@pytest.mark.parametrize("name", ["train.pixels", "train.parquet", "manifest.json"])
def test_truncated_and_missing_packed_data_are_refused(tmp_path, name):
    prepare(tmp_path, {"name": "digits"})
    file = tmp_path / name
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(CdlError, match=f"{name}.*delete .* and run again"):
        Packed(tmp_path, "train").pixels(torch.arange(1437))
    file.unlink()
    with pytest.raises(CdlError, match=f"{name} cannot be read .*No such file"):
        Packed(tmp_path, "train")


def test_a_flipped_bit_in_packed_data_is_detected(tmp_path):
    prepare(tmp_path, {"name": "digits"})
    file = tmp_path / "train.pixels"
    raw = bytearray(file.read_bytes())
    raw[200 * 192 + 5] ^= 4
    file.write_bytes(raw)
    train = Packed(tmp_path, "train")
    train.pixels(torch.arange(200))  # only images that are read are verified
    with pytest.raises(CdlError, match=r"train.pixels: the image .* damaged or changed"):
        train.pixels(torch.tensor([7, 200]))


def test_a_changed_index_is_detected_and_another_encoding_of_it_accepted(tmp_path):
    prepare(tmp_path, {"name": "digits"})
    file = tmp_path / "train.parquet"
    index, before = pd.read_parquet(file), Packed(tmp_path, "train").fingerprint
    index.to_parquet(file, index=False, compression="gzip")
    assert Packed(tmp_path, "train").fingerprint == before
    index.loc[0, "label"] += 1
    index.to_parquet(file, index=False)
    with pytest.raises(CdlError, match="train.parquet has sha256 .* damaged or changed"):
        Packed(tmp_path, "train")


def test_packed_data_of_another_split_or_without_its_manifest_entries_are_refused(tmp_path):
    prepare(tmp_path, {"name": "digits"})
    (tmp_path / "test.pixels").replace(tmp_path / "train.pixels")
    with pytest.raises(CdlError, match="train.pixels: the image"):
        Packed(tmp_path, "train").pixels(torch.arange(10))
    (tmp_path / "test.parquet").replace(tmp_path / "train.parquet")
    with pytest.raises(CdlError, match="train.parquet has sha256"):
        Packed(tmp_path, "train")
    manifest = tmp_path / "manifest.json"
    record = read_json(manifest)
    write_json(manifest, {("splitz" if key == "splits" else key): record[key] for key in record})
    with pytest.raises(CdlError, match="manifest.json has no 'splits'"):
        Packed(tmp_path, "train")


def png_header(width, height):
    """A PNG whose header gives its size and which has almost no data."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + pixels


@pytest.mark.parametrize("side", [10_000, 100_000])  # above Pillow's limit, and far above it
def test_an_image_of_absurd_size_is_refused_before_it_is_decoded(tmp_path, side):
    train = [*rows("train"), (png_header(side, side), 0, "cat", "bomb.png")]
    source = write_parquet(tmp_path, train, rows("test"))
    with pytest.raises(CdlError, match=f"bomb.png is refused.*(exceeds|{side} x {side} pixels)"):
        prepare(tmp_path / "packed", source)


def test_only_formats_of_images_are_decoded(tmp_path):
    postscript = encoded(picture(0), "EPS")  # Pillow would start another program to decode it
    train = [*rows("train"), (postscript, 0, "cat", "page.png")]
    source = write_parquet(tmp_path, train, rows("test"))
    with pytest.raises(
        CdlError, match="page.png is not a readable image .expected one of the formats"
    ):
        prepare(tmp_path / "packed", source)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    prepare(folder, {"name": "digits"})
    return Packed(folder, "train")


def test_tasks_partition_the_data(digits):
    stream = Stream.build(TEN, [4, 3, 3], "seeded", seed=1)
    parts = [stream.indices(digits, task) for task in range(3)]
    assert sorted(torch.cat(parts).tolist()) == list(range(len(digits)))
    labels = stream.labels(digits)
    for task, part in enumerate(parts):
        classes = stream.classes(task)
        assert set(labels[part].tolist()) == set(range(classes.start, classes.stop))
    assert stream.order != Stream.build(TEN, [4, 3, 3], "seeded", seed=2).order
    assert Stream.build(TEN, 5, "natural", seed=2).order == tuple(range(10))
    given = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]
    assert Stream.build(TEN, 2, given, seed=0).order == tuple(given)


def test_equal_tasks_are_shuffled_as_a_whole():
    orders = {Stream.build(TEN, 5, "seeded_tasks", seed).order for seed in range(8)}
    for order in orders:
        pairs = [order[i : i + 2] for i in range(0, 10, 2)]
        assert sorted(pairs) == [(i, i + 1) for i in range(0, 10, 2)]
    assert len(orders) > 4


@pytest.mark.parametrize("order", ["natural", "seeded", [7, "3", 5, 0, 1, 2, 4]])
def test_a_stream_is_a_prefix_of_every_longer_one(digits, order):
    short, long = (Stream.build(TEN, tasks, order, seed=1) for tasks in ([2, 3], [2, 3, 2]))
    assert long.order[:5] == short.order
    assert len(short.order) == 5
    for task in range(2):
        assert torch.equal(short.indices(digits, task), long.indices(digits, task))
    assert short.labels(digits).max() == 4
    assert (short.labels(digits) == -1).any()


def test_the_digest_of_a_class_is_independent_of_other_classes(tmp_path):
    root = make_folder(tmp_path / "raw")
    source = {"name": "folder", "path": str(root)}
    prepare(tmp_path / "before", source)
    for split in ("train", "test"):
        (root / split / "aardvark").mkdir()
        Image.fromarray(picture(9)).save(root / split / "aardvark" / "new.png")
    prepare(tmp_path / "after", source)
    before, after = (Packed(tmp_path / name, "train") for name in ("before", "after"))
    assert after.classes == ["aardvark", "ant", "bee"]
    assert {name: after.about["classes"][name] for name in ("ant", "bee")} == before.about[
        "classes"
    ]
    assert torch.equal(after.keys[1:], before.keys)
    assert after.fingerprint != before.fingerprint


def test_images_per_class_is_the_same_choice_for_every_seed(digits):
    chosen = [
        Stream.build(TEN, 1, order, seed).indices(digits, 0, 5)
        for order, seed in (("natural", 0), ("seeded", 7))
    ]
    assert torch.equal(*(indices.sort().values for indices in chosen))
    assert torch.bincount(digits.labels[chosen[0]]).tolist() == [5] * 10


@pytest.mark.parametrize(
    ("tasks", "order", "message"),
    [
        (3, "natural", "tasks: invalid value 3 for 10 classes; expected a divisor of 10"),
        (
            [4, 4, 3],
            "natural",
            "needs 11 classes; expected at most 10, the number of classes in order",
        ),
        ([2, 2], [0, 1, 2], "needs 4 classes; expected at most 3, the number of classes in order"),
        ([2], [0, 10], "10 is not a class"),
        ([2], ["one", 2], "'one' is not a class"),
        ([2], [1, "1"], "'1' is listed twice"),
    ],
)
def test_impossible_streams(tasks, order, message):
    with pytest.raises(CdlError, match=message):
        Stream.build(TEN, tasks, order, seed=0)


def test_too_many_images_per_class(digits):
    with pytest.raises(CdlError, match="images_per_class: 1000 is too large: class '0' has"):
        Stream.build(TEN, 1, "natural", 0).indices(digits, 0, 1000)


def test_a_view_depends_on_seed_image_and_epoch_only(digits):
    views = Views(12, crop_scale=(0.3, 1.0))
    rows = torch.tensor([5, 900, 17])

    def view(rows, seed=0, epoch=0):
        return views.train(*batch(digits, *rows.tolist()), seed, epoch)

    together = view(rows)
    torch.testing.assert_close(view(rows.flip(0)).flip(0), together)
    torch.testing.assert_close(torch.cat([view(rows[:1]), view(rows[1:])]), together)
    assert not torch.allclose(view(rows, epoch=1), together)
    assert not torch.allclose(view(rows, seed=1), together)
    assert together.min() >= 0
    assert together.max() <= 1


@pytest.mark.parametrize("sampled", [_sample, _products, _one_by_one])
def test_views_equal_torchvision_crop_flip_and_antialiased_resize(sampled):
    images = torch.randint(0, 256, (2, 3, 40, 50), dtype=torch.uint8)
    for size in (24, 64):  # shrinking and enlarging
        boxes = torch.tensor([[3, 5, 30, 31], [0, 0, 40, 50]]).double()
        found = sampled(images, boxes, boxes, torch.tensor([False, True]), size)
        for i, flip in enumerate((False, True)):
            crop = reference.crop(images[i].float() / 255, *boxes[i].int().tolist())
            expected = reference.resize(crop, [size, size], antialias=True)
            expected = expected.flip(-1) if flip else expected
            torch.testing.assert_close(found[i], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("height", "width", "resize", "size"),
    [(40, 50, 32, 24), (21, 30, 25, 24), (90, 61, 44, 40), (61, 90, 77, 40)],
)
def test_the_test_view_equals_torchvision_resize_and_centre_crop(height, width, resize, size):
    images = torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8)
    sizes = torch.tensor([[height, width]] * 2)
    expected = reference.center_crop(
        reference.resize(images.float() / 255, resize, antialias=True), [size, size]
    )
    found = Views(size, test_resize=resize).test(images, sizes)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("side", "size"), [(8, 16), (32, 32), (28, 32), (33, 16), (32, 48)])
def test_small_views_equal_products_and_large_ones_are_close(side, size, monkeypatch):
    images = torch.randint(0, 256, (64, 3, side, side - 1), dtype=torch.uint8)
    sizes = torch.tensor([[side, side - 1]]).expand(64, 2)
    views = Views(size, test_resize=size + 2)
    found = views.train(images, sizes, torch.arange(64), 0, 0), views.test(images, sizes)
    monkeypatch.setattr("cdl.data.views._one_by_one", _products)
    products = views.train(images, sizes, torch.arange(64), 0, 0), views.test(images, sizes)
    for ours, theirs in zip(found, products, strict=True):
        assert torch.equal(ours, theirs) == (max(side, size) <= 32)
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_crops_follow_their_ranges():
    views = Views(8, crop_scale=(0.2, 0.5), crop_ratio=(0.5, 2.0))
    sizes = torch.tensor([[100, 100]]).expand(500, 2)
    draws = uniform((1,), torch.arange(500), 40).unflatten(1, (10, 4))
    top, left, height, width = views._crops(sizes, draws).unbind(1)
    share, ratio = height * width / 10000, width / height
    assert 0.19 < share.min() < 0.25
    assert 0.45 < share.max() < 0.51
    assert 0.48 < ratio.min() < 0.6
    assert 1.7 < ratio.max() < 2.1
    assert ((top + height) <= 100).all()
    assert ((left + width) <= 100).all()


def test_a_crop_that_never_fits_falls_back_to_the_centre():
    views = Views(8, crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0))
    draws = torch.full((1, 10, 4), 0.5, dtype=torch.float64)
    assert views._crops(torch.tensor([[10, 40]]), draws).tolist() == [[0, 15, 10, 10]]


def test_random_numbers_are_uniform_and_independent():
    numbers = uniform((3, 4), torch.arange(20000), 2)
    assert abs(numbers.mean() - 0.5) < 0.01
    assert abs(numbers.std() - (1 / 12) ** 0.5) < 0.01
    assert abs(torch.corrcoef(numbers.T)[0, 1]) < 0.03
    assert abs(torch.corrcoef(torch.stack([numbers[:-1, 0], numbers[1:, 0]]))[0, 1]) < 0.03
    assert sorted(permutation((1,), 100).tolist()) == list(range(100))
    assert permutation((1,), 100).tolist() != permutation((2,), 100).tolist()


def batches(digits, n, batch_size):
    stream = Stream.build(TEN, 1, "natural", 0)
    return Batches(
        pixels=digits.pixels(torch.arange(n)),
        labels=stream.labels(digits)[:n],
        views=Views(8),
        seed=0,
        task=0,
        batch_size=batch_size,
    )


def test_epochs_are_reshuffled_and_the_partial_batch_is_dropped(digits):
    made = batches(digits, 50, 16)
    epochs = [torch.cat([b.labels for b in made(epoch)]) for epoch in (0, 0, 1)]
    assert len(epochs[0]) == 48 == 16 * len(made)
    assert torch.equal(epochs[0], epochs[1])
    assert not torch.equal(epochs[0], epochs[2])
    whole, seen = list(made(1)), list(made.all_images(1))
    assert all(torch.equal(a.views, b.views) for a, b in zip(whole, seen, strict=False))
    assert sorted(torch.cat([b.positions for b in seen]).tolist()) == list(range(50))


def test_a_batch_larger_than_a_task_is_refused(digits):
    with pytest.raises(
        CdlError, match="batch_size: 64 is more than the 50 training examples of task 1"
    ):
        list(batches(digits, 50, 64)(0))
