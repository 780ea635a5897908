"""Decoded once, read for ever: a dataset as raw uint8 pixels, an index and a manifest. No torch.

A packed folder holds, per split, `SPLIT.pixels` (all images `[H, W, 3]` one after another) and
`SPLIT.parquet`, its index (label, height, width, offset, name and sha256 of every image), and one
`manifest.json` with class names, counts, the source, and a sha256 over the rows of each index. That
one stands for the split: it says what is in the images, not how a version of pyarrow stores it.
Another one stands for each class, whatever other classes there are.
"""

import contextlib
import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
from PIL import Image

from cdl.data import MANIFEST, index_name, pixels_name
from cdl.data.sources import SOURCES, SPLITS
from cdl.data.sources.decoding import UnreadableImage
from cdl.data.sources.heldout import hold_out
from cdl.data.sources.items import Item, Source
from cdl.runtime.artifacts import read_json, replacing, write_json
from cdl.runtime.errors import CdlError

log = logging.getLogger(__name__)
_NAMED = 20  # of many images in one sentence
_SIZES, _INDEX = ["height", "width"], ["name", "sha256"]
_NUMBERS = ["label", *_SIZES, "offset"]


def prepare(
    output: str | Path,
    source: Mapping[str, Any],
    short_side: int | None = None,
    validation: Mapping[str, Any] | None = None,
) -> None:
    """Decode a source into a packed folder; the manifest is written last.

    Args:
        output: the folder.
        source: `name` of a source and its arguments.
        short_side: images are stored with this short side in pixels (antialiased bilinear,
            never enlarged); None keeps them as they are.
        validation: images that are held out of training, see `cdl.data.sources.heldout.hold_out`.

    Raises:
        CdlError: bad data, naming the file: unreadable images (all of them), a label out of
            range, a class without images, an empty split, one file in both splits.
    """
    output, arguments = Path(output), dict(source)
    data: Source = SOURCES[arguments.pop("name")].read(**arguments)
    if validation is not None:
        data = hold_out(data, **validation)
    with contextlib.ExitStack() as pixels:  # they appear together, when everything is right
        files = {}
        for split in SPLITS:
            temporary = pixels.enter_context(replacing(output / pixels_name(split)))
            files[split] = pixels.enter_context(open(temporary, "wb"))
        frames = _decode(data, short_side, files)
        for split, frame in frames.items():
            _check(frame, split, data.classes)
        twins = _twins(frames)
    for split, frame in frames.items():
        with replacing(output / index_name(split)) as temporary:
            frame.to_parquet(temporary, index=False)
    manifest = {
        "source": dict(source),
        "short_side": short_side,
        **({"validation": dict(validation)} if validation else {}),
        "classes": list(data.classes),
        "splits": {
            s: _described(f, data.classes, bool(source.get("domains"))) for s, f in frames.items()
        },
        "skipped": dict(data.skipped),
        **twins,
    }
    write_json(output / MANIFEST, manifest)
    log.info("packed %s", {split: len(frame) for split, frame in frames.items()})
    if data.skipped:
        skipped = ", ".join(f"{n} {kind}" for kind, n in data.skipped.items())
        log.warning("left out, as no images: %s", skipped)


def extend(output: Path, old: Path, new: Path) -> None:
    """Write packed data of the classes of two packed folders, without a training image of the old.

    What stands for the training images of old classes is kept, so that what was learnt from them
    can be told apart from others.

    Args:
        output: the folder to write.
        old: its test images are taken, its classes come first.
        new: all its images are taken.
    """
    first, second = (read_json(folder / MANIFEST) for folder in (old, new))
    classes = (*first["classes"], *second["classes"])
    splits = {}
    for split in SPLITS:
        frames = []
        with replacing(output / pixels_name(split)) as temporary, open(temporary, "wb") as file:
            for folder in (old, new) if split == "test" else (new,):
                frame, *_ = read_index(folder, split)
                pixels = map_pixels(folder, split)
                check_images(folder, split, frame, pixels)
                frame["offset"] += file.tell()
                frame["label"] += len(first["classes"]) if folder == new else 0
                file.write(pixels.data)
                frames.append(frame)
        index = pd.concat(frames, ignore_index=True)
        with replacing(output / index_name(split)) as temporary:
            index.to_parquet(temporary, index=False)
        splits[split] = _described(index, classes)
    splits["train"]["classes"] = first["splits"]["train"]["classes"] | splits["train"]["classes"]
    source = {"name": "continued", "old": first["source"], "new": list(second["classes"])}
    about = {"source": source, "classes": list(classes), "splits": splits}
    write_json(output / MANIFEST, second | about)


def read_index(folder: str | Path, split: str) -> tuple[pd.DataFrame, dict[str, Any], list[str]]:
    """Return the index of a split, what the manifest says of it, and the class names.

    It says how many `images` there are, their `sha256`, and that of each of the `classes` by name;
    of the `domains` as well, where the source has some.

    Raises:
        CdlError: a file is missing, or the index is not the one that the manifest describes.
    """
    manifest, again = Path(folder, MANIFEST), f"delete {folder} and run again"
    described = read_json(manifest)
    try:
        about, classes = described["splits"][split], described["classes"]
        expected, _ = about["sha256"], about["classes"]
    except (KeyError, TypeError) as error:
        raise CdlError(f"{manifest} has no {error}; {again}") from error
    path = Path(folder, index_name(split))
    try:
        with open(path, "rb") as file:
            frame = pd.read_parquet(file)
        found = _digest(frame)
    except Exception as error:  # whatever a reader says of damaged bytes
        raise CdlError(f"{path} cannot be read ({error}); {again}") from error
    if found != expected:
        raise CdlError(
            f"{path} has sha256 {found[:12]} but {MANIFEST} records {str(expected)[:12]}: it "
            f"was damaged or changed; {again}"
        )
    return frame, about, classes


def map_pixels(folder: str | Path, split: str) -> np.ndarray:
    """Return the bytes of all images of a split, mapped from the disk; they are not checked."""
    path = Path(folder, pixels_name(split))
    try:
        return np.memmap(path, dtype=np.uint8, mode="c")
    except (OSError, ValueError) as error:
        raise CdlError(f"{path} cannot be read ({error}); delete {folder} and run again") from error


def check_images(folder: str | Path, split: str, index: pd.DataFrame, pixels: np.ndarray) -> None:
    """Compare images with their sha256: about half a second per GB.

    Args:
        folder: the packed folder.
        split: `train` or `test`.
        index: rows of `read_index`, all or some.
        pixels: of `map_pixels`.

    Raises:
        CdlError: an image is damaged; the sentence names it.
    """
    stops = index["offset"] + 3 * index["height"] * index["width"]
    rows = zip(index["offset"], stops, index["sha256"], index["name"], strict=True)
    for start, stop, sha256, name in rows:
        if hashlib.sha256(pixels[start:stop].data).digest() != sha256:
            raise CdlError(
                f"{Path(folder, pixels_name(split))}: the image {name} is not the one that was "
                f"packed: the file was damaged or changed; delete {folder} and run again"
            )


def domain_of(name: str) -> str:
    """Return the domain of an image that lies in `DOMAIN/CLASS/`; nothing if it lies higher."""
    folders = name.split("/")[:-1]
    return folders[-2] if len(folders) > 1 else ""


def _described(
    index: pd.DataFrame, classes: tuple[str, ...], by_domain: bool = False
) -> dict[str, Any]:
    """Return what the manifest says of a split, see `read_index`."""
    named = index.groupby(np.array(classes, object)[index["label"]], sort=False)
    by_class = {name: _digest(rows, _SIZES) for name, rows in named}
    about = {"images": len(index), "sha256": _digest(index), "classes": by_class}
    if by_domain:
        domains = index.groupby(index["name"].map(domain_of), sort=True)
        about["domains"] = {name: _digest(rows, ["label", *_SIZES]) for name, rows in domains}
    return about


def _digest(index: pd.DataFrame, numbers: Sequence[str] = _NUMBERS) -> str:
    """Return the sha256 over the rows of an index, however they are stored."""
    digest = hashlib.sha256(index[list(numbers)].to_numpy("<i8").tobytes())
    digest.update("\n".join(index["name"]).encode())
    digest.update(b"".join(index["sha256"]))
    return digest.hexdigest()


def _pixels(item: Item, classes: tuple[str, ...], short_side: int | None) -> np.ndarray:
    pixels = np.ascontiguousarray(_shrink(item.read(), short_side))
    if not 0 <= item.label < len(classes):
        raise CdlError(
            f"{item.name} has label {item.label}; there are {len(classes)} classes, so 0 to "
            f"{len(classes) - 1}"
        )
    return pixels


def _decode(
    data: Source, short_side: int | None, files: Mapping[str, BinaryIO]
) -> dict[str, pd.DataFrame]:
    """Write the pixels of each split into its file; return their indices.

    Raises:
        CdlError: images cannot be used; all are tried before the first ones are named.
    """
    rows: dict[str, list[tuple[Any, ...]]] = {split: [] for split in files}
    unreadable = []
    for item in data.items:
        try:
            pixels = _pixels(item, data.classes, short_side)
        except UnreadableImage as error:
            unreadable.append(str(error))
            continue
        raw, file = pixels.tobytes(), files[item.split]
        sha256 = hashlib.sha256(raw).digest()
        rows[item.split].append((item.label, *pixels.shape[:2], file.tell(), item.name, sha256))
        file.write(raw)
    if unreadable:
        rest = len(unreadable) - _NAMED
        named = "; ".join(unreadable[:_NAMED]) + (f"; and {rest} more" if rest > 0 else "")
        many = f"{len(unreadable)} images cannot be used: " if len(unreadable) > 1 else ""
        raise CdlError(many + named)
    return {split: pd.DataFrame(found, columns=_NUMBERS + _INDEX) for split, found in rows.items()}


def _twins(frames: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """Count images with pixel-identical copies, for the manifest and the log; name the first.

    Raises:
        CdlError: one file is in both splits.
    """
    train, test = frames.values()
    twice = set(train["name"]) & set(test["name"])
    if twice:
        raise CdlError(f"{min(twice)} is in the training and in the test split")
    equal = len(set(train["sha256"]) & set(test["sha256"]))
    if equal:
        log.warning("%d images have pixel-identical copies in the other split", equal)
    both = pd.concat([train, test], ignore_index=True)
    labels = both.groupby("sha256", sort=False)["label"].transform("nunique")
    disputed = both["name"][labels > 1].tolist()
    if disputed:
        first = ", ".join(disputed[:_NAMED])
        log.warning("%d images have copies with another label: %s", len(disputed), first)
    copies = sum(int(frame["sha256"].duplicated().sum()) for frame in frames.values())
    if copies:
        log.warning("%d images repeat another one of their split", copies)
    return {
        "equal_pixels_in_both_splits": equal,
        "equal_pixels_in_one_split": copies,
        "equal_pixels_under_two_labels": {"images": len(disputed), "first": disputed[:_NAMED]},
    }


def _check(frame: pd.DataFrame, split: str, classes: tuple[str, ...]) -> None:
    if frame.empty:
        raise CdlError(f"the {split} split is empty")
    missing = sorted(set(range(len(classes))) - set(frame["label"]))
    if missing:
        raise CdlError(
            f"the {split} split has no image of class {missing[0]} ({classes[missing[0]]!r})"
        )


def _shrink(pixels: np.ndarray, short_side: int | None) -> np.ndarray:
    height, width = pixels.shape[:2]
    if short_side is None or min(height, width) <= short_side:
        return pixels
    scale = short_side / min(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))
