"""Answers of a classifier for packed items, computed once, as a file of a teacher's answers.

See `cdl.data.answers` for the form of the table, and `cdl.models.classifiers` for the models.
"""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from pyarrow import parquet
from torch import Tensor

from cdl.backbones.classifiers import ClassifierSource
from cdl.data.answers import NAME, PATH
from cdl.data.packed import Packed
from cdl.data.packing import modality_in
from cdl.data.sources import SPLITS
from cdl.data.stream import Stream
from cdl.data.text import decoded
from cdl.models.build import versions
from cdl.models.classifiers import open_classifier
from cdl.runtime import artifacts
from cdl.runtime.compute import Compute
from cdl.runtime.errors import CdlError
from cdl.runtime.jobs import DEFAULT, Execution

log = logging.getLogger(__name__)
_BATCH = 64  # items, always as many, since sums of other batches are rounded differently


def classify(
    classifier: Mapping[str, Any],
    sha256: str,
    data: str,
    table: str,
    record: str,
    *,
    images_per_class: Mapping[str, int | None],
    execution: Execution = DEFAULT,
) -> None:
    """Write a classifier's logits for packed items as a table of answers, and its record.

    Args:
        classifier: block of a configuration.
        sha256: of the classifier when the run was planned, see `ClassifierSource.sha256`.
        data: packed folder.
        table: Parquet file to write.
        record: JSON record to write.
        images_per_class: by split; None for all.
        execution: how to compute.

    Raises:
        CdlError: the classifier has changed, cannot be opened, or answers for fewer than two
            classes of the data, or an answer is not finite.
    """
    source = ClassifierSource.of(classifier)
    if source.sha256(artifacts.fingerprint_file) != sha256:
        raise CdlError(f"{source.path}: has changed since this run was planned; start it again")
    columns = source.columns
    splits = {split: Packed(data, split) for split in SPLITS}
    classes = [name for name in splits["train"].classes if name in columns]
    if len(classes) < 2 or {NAME, PATH} & {*classes}:
        raise CdlError(
            f"{source.path}: answers for {len(classes)} classes of the data; expected at least "
            f"two, none of which is named {NAME!r} or {PATH!r}"
        )
    rows = {split: _chosen(own, images_per_class[split]) for split, own in splits.items()}
    execution.lease()
    compute = Compute.select(execution.device).apply()
    run = open_classifier(source, modality_in(data), compute)
    names, values = [], []
    for split, packed in splits.items():
        for indices in rows[split].split(_BATCH):
            logits = run([*_items(packed, indices)])
            names += (some := packed.names[indices.numpy()].tolist())
            values.append(_by_class(source, logits, some, [columns[name] for name in classes]))
    found = np.concatenate(values)
    columned = {NAME: names} | {name: found[:, i] for i, name in enumerate(classes)}
    with artifacts.replacing(table) as temporary:
        parquet.write_table(pa.table(columned), temporary)
    about = {
        "classifier": sha256,
        "images_per_class": dict(images_per_class),
        "origin": source.origin,
        "inputs": {split: own.fingerprint for split, own in splits.items()},
        "classes": len(classes),
        "versions": versions(),
    }
    artifacts.write_json(record, about, [table])
    log.info("wrote %s: answers for %d items and %d classes", table, *found.shape)


def check_classified(table: str, sha256: str, train: Packed, test: Packed) -> None:
    """Raise `CdlError` unless a table is of a classifier and of packed items."""
    record = str(Path(table).with_suffix(".json"))
    artifacts.check_files(record, table)
    found = artifacts.read_json(record)
    expected = {"train": train.fingerprint, "test": test.fingerprint}
    artifacts.check_provenance(table, found, {"classifier": sha256, "inputs": expected})


def _chosen(data: Packed, n: int | None) -> Tensor:
    """Return the indices of the items of a split that streams with `n` of each class use."""
    if n is None:
        return torch.arange(len(data))
    counts = data.labels.bincount(minlength=len(data.classes))
    order = tuple(torch.nonzero(counts >= n)[:, 0].tolist())  # others are in no stream
    return Stream(order, (len(order),)).indices(data, 0, n)


def _items(data: Packed, indices: Tensor) -> Iterator[Any]:
    """Yield images `[H, W, 3]` uint8, or texts."""
    pixels = data.pixels(indices)
    for items, sizes, _keys in pixels.parts(torch.arange(len(indices))):
        if pixels.channels == 1:
            yield from decoded(items[:, 0, 0])
        else:
            for item, (height, width) in zip(items, sizes.tolist(), strict=True):
                yield np.ascontiguousarray(item[:, :height, :width].permute(1, 2, 0).numpy())


def _by_class(
    source: ClassifierSource, logits: np.ndarray, names: list[str], columns: list[list[int]]
) -> np.ndarray:
    """Return the logits `[n, C]` of classes of the data; several outputs add as probabilities."""
    most = max(map(max, columns))
    if logits.ndim != 2 or len(logits) != len(names) or logits.shape[1] <= most:
        raise CdlError(
            f"{source.path}: returns values of shape {logits.shape} for {len(names)} items; "
            f"expected logits of at least {most + 1} classes"
        )
    expected = source.names
    if expected is not None and logits.shape[1] != len(expected):
        raise CdlError(
            f"{source.path}: returns {logits.shape[1]} logits; expected {len(expected)}, one for "
            "each of its classes"
        )
    bad = ~np.isfinite(logits).all(1)
    if bad.any():
        raise CdlError(
            f"{source.path}: its answer for {names[int(bad.argmax())]!r} is not finite; expected "
            "logits"
        )
    return np.stack([np.logaddexp.reduce(logits[:, own], axis=1) for own in columns], 1)
