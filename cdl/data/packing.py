"""Pack a dataset as raw uint8 pixels, an index and a manifest. Imports no torch.

A packed folder contains, for each split, `SPLIT.pixels` (all images `[H, W, 3]` one after another,
or items of another modality as `[H, W, C]`)
and `SPLIT.parquet`, its index (label, height, width, offset, name and sha256 of every image), and
one `manifest.json` with class names, counts, the source, and a sha256 over the rows of each index.
This sha256 identifies the split: it depends on the images, not on how a version of pyarrow stores
the index. Another sha256 identifies the images of each class, independently of other classes.
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
from cdl.data.modalities import DEFAULT, ModalityFacts, modality
from cdl.data.sources import SOURCES, SPLITS
from cdl.data.sources.heldout import hold_out
from cdl.data.sources.items import Item, Source
from cdl.runtime.artifacts import read_json, replacing, write_json
from cdl.runtime.errors import CdlError, Unreadable

log = logging.getLogger(__name__)
_NAMED = 20  # names in one message, at most
_SIZES, _INDEX = ["height", "width"], ["name", "sha256"]
_NUMBERS = ["label", *_SIZES, "offset"]


def prepare(
    output: str | Path,
    source: Mapping[str, Any],
    short_side: int | None = None,
    validation: Mapping[str, Any] | None = None,
    contents: str = "",
) -> None:
    """Decode a source into a packed folder; the manifest is written last.

    Args:
        output: the folder.
        source: `name` of a source and its arguments.
        short_side: short side of the stored images in pixels (antialiased bilinear, never
            enlarged); None keeps the original sizes.
        validation: arguments of `cdl.data.sources.heldout.hold_out`; None holds out no images.
        contents: digest of the user's files, for the manifest; empty for a published source.

    Raises:
        CdlError: the data is invalid: unreadable images (the message lists them), a label out of
            range, a class without images, an empty split, a file in both splits.
    """
    output, arguments = Path(output), dict(source)
    data: Source = SOURCES[arguments.pop("name")].read(**arguments)
    if validation is not None:
        data = hold_out(data, **validation)
    with contextlib.ExitStack() as pixels:  # both files appear together, after all checks
        files = {}
        for split in SPLITS:
            temporary = pixels.enter_context(replacing(output / pixels_name(split)))
            files[split] = pixels.enter_context(open(temporary, "wb"))
        frames = _decode(data, short_side, files)
        for split, frame in frames.items():
            _check_classes(frame, split, data)
        copies = _count_copies(frames, data.modality)
    for split, frame in frames.items():
        with replacing(output / index_name(split)) as temporary:
            frame.to_parquet(temporary, index=False)
    manifest = {
        "source": dict(source),
        "short_side": short_side,
        **({"validation": dict(validation)} if validation else {}),
        **({"contents": contents} if contents else {}),
        **({"modality": data.modality} if data.modality != DEFAULT else {}),
        "classes": list(data.classes),
        "splits": {
            s: _manifest_entry(f, data.classes, bool(source.get("domains")))
            for s, f in frames.items()
        },
        "skipped": dict(data.skipped),
        **copies,
    }
    write_json(output / MANIFEST, manifest)
    log.info("packed %s", {split: len(frame) for split, frame in frames.items()})
    if data.skipped:
        skipped = ", ".join(f"{n} {kind}" for kind, n in data.skipped.items())
        log.warning("skipped files that are not images: %s", skipped)


def extend(output: Path, old: Path, new: Path) -> None:
    """Join two packed folders, without the training images of the old one.

    The digests of the old classes' training images are kept, so that checkpoints learnt from these
    images remain identifiable.

    Args:
        output: the folder to write.
        old: contributes its test images; its classes come first.
        new: contributes all its images.
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
                check_images(folder, split, frame, pixels, modality_in(folder))
                frame["offset"] += file.tell()
                frame["label"] += len(first["classes"]) if folder == new else 0
                file.write(pixels.data)
                frames.append(frame)
        index = pd.concat(frames, ignore_index=True)
        with replacing(output / index_name(split)) as temporary:
            index.to_parquet(temporary, index=False)
        splits[split] = _manifest_entry(index, classes)
    splits["train"]["classes"] = first["splits"]["train"]["classes"] | splits["train"]["classes"]
    source = {"name": "continued", "old": first["source"], "new": list(second["classes"])}
    about = {"source": source, "classes": list(classes), "splits": splits}
    kept = {key: value for key, value in second.items() if key != "contents"}
    write_json(output / MANIFEST, kept | about)


def read_index(folder: str | Path, split: str) -> tuple[pd.DataFrame, dict[str, Any], list[str]]:
    """Return the index of a split, its entry in the manifest, and the class names.

    The entry contains the number of `images`, their `sha256`, and the sha256 of each of the
    `classes` by name; also of the `domains`, where the source has domains.

    Raises:
        CdlError: a file is missing, or the index differs from the manifest.
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
        found = _index_digest(frame)
    except Exception as error:  # readers raise errors of any type on damaged bytes
        raise CdlError(f"{path} cannot be read ({error}); {again}") from error
    if found != expected:
        raise CdlError(
            f"{path} has sha256 {found[:12]}, expected {str(expected)[:12]} ({MANIFEST}): the file "
            f"was damaged or changed; {again}"
        )
    return frame, about, classes


def modality_in(folder: str | Path) -> ModalityFacts:
    """Return the facts of the modality of a packed folder."""
    manifest = Path(folder, MANIFEST)
    return modality(read_json(manifest).get("modality", DEFAULT), f"{manifest}: modality")


def map_pixels(folder: str | Path, split: str) -> np.ndarray:
    """Return the bytes of all images of a split, memory-mapped and not verified."""
    path = Path(folder, pixels_name(split))
    try:
        return np.memmap(path, dtype=np.uint8, mode="c")
    except (OSError, ValueError) as error:
        raise CdlError(f"{path} cannot be read ({error}); delete {folder} and run again") from error


def check_images(
    folder: str | Path, split: str, index: pd.DataFrame, pixels: np.ndarray, facts: ModalityFacts
) -> None:
    """Compare images with their sha256; takes about half a second per GB.

    Args:
        folder: the packed folder.
        split: `train` or `test`.
        index: rows of `read_index`, all or some.
        pixels: of `map_pixels`.
        facts: of `modality_in`.

    Raises:
        CdlError: an image is damaged; the message contains its name.
    """
    stops = index["offset"] + facts.channels * index["height"] * index["width"]
    rows = zip(index["offset"], stops, index["sha256"], index["name"], strict=True)
    for start, stop, sha256, name in rows:
        if hashlib.sha256(pixels[start:stop].data).digest() != sha256:
            raise CdlError(
                f"{Path(folder, pixels_name(split))}: the {facts.item} {name} does not have its "
                f"recorded sha256: the file was damaged or changed; delete {folder} and run again"
            )


def domain_of(name: str) -> str:
    """Return the domain of an image in `DOMAIN/CLASS/`; empty if it has none."""
    folders = name.split("/")[:-1]
    return folders[-2] if len(folders) > 1 else ""


def _manifest_entry(
    index: pd.DataFrame, classes: tuple[str, ...], by_domain: bool = False
) -> dict[str, Any]:
    """Return the entry of a split in the manifest, see `read_index`."""
    named = index.groupby(np.array(classes, object)[index["label"]], sort=False)
    by_class = {name: _index_digest(rows, _SIZES) for name, rows in named}
    about = {"images": len(index), "sha256": _index_digest(index), "classes": by_class}
    if by_domain:
        domains = index.groupby(index["name"].map(domain_of), sort=True)
        about["domains"] = {name: _index_digest(rows, ["label", *_SIZES]) for name, rows in domains}
    return about


def _index_digest(index: pd.DataFrame, numbers: Sequence[str] = _NUMBERS) -> str:
    """Return the sha256 over the rows of an index, for any storage format."""
    digest = hashlib.sha256(index[list(numbers)].to_numpy("<i8").tobytes())
    digest.update("\n".join(index["name"]).encode())
    digest.update(b"".join(index["sha256"]))
    return digest.hexdigest()


def _read_pixels(item: Item, classes: tuple[str, ...], short_side: int | None) -> np.ndarray:
    pixels = np.ascontiguousarray(_shrink(item.read(), short_side))
    if not 0 <= item.label < len(classes):
        raise CdlError(f"{item.name}: invalid label {item.label}; expected 0 to {len(classes) - 1}")
    return pixels


def _decode(
    data: Source, short_side: int | None, files: Mapping[str, BinaryIO]
) -> dict[str, pd.DataFrame]:
    """Write the pixels of each split to its file and return the indices.

    Raises:
        CdlError: images are unreadable; all images are read before the error is raised.
    """
    rows: dict[str, list[tuple[Any, ...]]] = {split: [] for split in files}
    unreadable = []
    for item in data.items:
        try:
            pixels = _read_pixels(item, data.classes, short_side)
        except Unreadable as error:
            unreadable.append(str(error))
            continue
        raw, file = pixels.tobytes(), files[item.split]
        sha256 = hashlib.sha256(raw).digest()
        rows[item.split].append((item.label, *pixels.shape[:2], file.tell(), item.name, sha256))
        file.write(raw)
    if unreadable:
        rest = len(unreadable) - _NAMED
        named = "; ".join(unreadable[:_NAMED]) + (f"; and {rest} more" if rest > 0 else "")
        items = modality(data.modality, "modality").items
        many = f"{len(unreadable)} {items} cannot be used: " if len(unreadable) > 1 else ""
        raise CdlError(many + named)
    return {split: pd.DataFrame(found, columns=_NUMBERS + _INDEX) for split, found in rows.items()}


def _count_copies(frames: Mapping[str, pd.DataFrame], kind: str) -> dict[str, Any]:
    """Count items of a modality with identical copies, for the manifest and the log.

    Raises:
        CdlError: a file is in both splits.
    """
    (train, test), items = frames.values(), modality(kind, "modality").items
    twice = set(train["name"]) & set(test["name"])
    if twice:
        raise CdlError(f"{min(twice)} is in both the training and the test split")
    equal = len(set(train["sha256"]) & set(test["sha256"]))
    if equal:
        log.warning("%d %s have identical copies in the other split", equal, items)
    both = pd.concat([train, test], ignore_index=True)
    labels = both.groupby("sha256", sort=False)["label"].transform("nunique")
    disputed = both["name"][labels > 1].tolist()
    if disputed:
        first = ", ".join(map(repr, disputed[:_NAMED]))
        log.warning("%d %s have copies with another label: %s", len(disputed), items, first)
    copies = sum(int(frame["sha256"].duplicated().sum()) for frame in frames.values())
    if copies:
        log.warning("%d %s are copies of others of their split", copies, items)
    return {
        "equal_pixels_in_both_splits": equal,
        "equal_pixels_in_one_split": copies,
        "equal_pixels_under_two_labels": {"images": len(disputed), "first": disputed[:_NAMED]},
    }


def _check_classes(frame: pd.DataFrame, split: str, data: Source) -> None:
    classes = data.classes
    if frame.empty:
        raise CdlError(f"the {split} split is empty")
    missing = sorted(set(range(len(classes))) - set(frame["label"]))
    if missing:
        raise CdlError(
            f"the {split} split has no {modality(data.modality, 'modality').item} of class "
            f"{missing[0]} ({classes[missing[0]]!r})"
        )


def _shrink(pixels: np.ndarray, short_side: int | None) -> np.ndarray:
    height, width = pixels.shape[:2]
    if short_side is None or min(height, width) <= short_side:
        return pixels
    scale = short_side / min(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))
