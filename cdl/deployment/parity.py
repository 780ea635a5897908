"""Compare the predictions of an exported student with torch and with the evaluation."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from cdl.data.labels import known_labels
from cdl.data.packed import Packed
from cdl.deployment.trained import TrainedStudent
from cdl.device.classifier import Classifier
from cdl.evaluation.predictions import read_predictions
from cdl.models.build import build_stream
from cdl.runtime.errors import CdlError
from cdl.spec import images_of

TestImages = tuple[Packed, pd.DataFrame]  # the test split; predictions on the learnt tasks
_CHUNK = 256  # images read at a time
_TIE = 1e-5  # difference of two logits, relative to the largest, below which rounding decides
_LEARNT = 50  # training items of a class whose scores give its threshold
_CALIBRATION = 128  # training images that calibrate static quantisation


@dataclass(frozen=True)
class Parity:
    """Differences between the exported model's predictions and those of torch and the evaluation.

    images: number of test images of the learnt tasks.
    unlike_torch: number of images for which torch predicts another class, without ties.
    unlike_evaluation: number of images with another class in `predictions.parquet`, without ties;
        None for an export after an earlier task, whose predictions are not in that file.
    rounded: whether the evaluation used a precision lower than fp32.
    largest: largest absolute difference of a logit from torch.
    ties: number of images with another class whose logit differs by no more than rounding.
    items: what is counted as images: `images`, or `texts`.
    """

    images: int
    unlike_torch: int
    unlike_evaluation: int | None
    rounded: bool
    largest: float
    ties: int = 0
    items: str = "images"

    @property
    def holds(self) -> bool:
        """Whether all classes equal those of the evaluation.

        If these are not available or were computed in lower precision: those of torch.
        """
        exact = self.unlike_evaluation is not None and not self.rounded
        return not (self.unlike_evaluation if exact else self.unlike_torch)

    def text(self) -> str:
        """Return the comparison as a sentence."""
        same = self.images - self.unlike_torch
        parts = [f"same class as torch for {same} of {self.images} test {self.items}"]
        if self.unlike_evaluation is not None:
            rounded = " (in lower precision)" if self.rounded else ""
            same = self.images - self.unlike_evaluation
            parts.append(f"same as the evaluation{rounded} for {same}")
        if self.ties:
            parts.append(f"{self.ties} of them ties within rounding")
        return f"{', '.join(parts)}; largest difference in a logit {self.largest:.1e}"


def accuracy(student: Classifier, trained: TrainedStudent, images: TestImages) -> float:
    """Return the accuracy of an exported student on test images, mean over tasks, percent."""
    split, frame = images
    parts = items_of(trained, split, frame["image"].to_numpy())
    found = [name for part in parts for name in student.predict(part)]
    correct = frame["class"].to_numpy() == np.array(found)
    return 100 * float(pd.Series(correct).groupby(frame["task"].to_numpy()).mean().mean())


def training_images(student: TrainedStudent) -> list[np.ndarray]:
    """Return training images `[1, H, W, 3]` for calibration, equally many per learnt class.

    After `cdl learn`, images may exist for the classes of the last task only.

    Raises:
        CdlError: the packed training images are not in the results folder.
    """
    spec = student.spec
    split = _split_of(student, "train", "--int8 static", "use --int8 dynamic")
    stream = build_stream(spec, split)
    each = max(1, _CALIBRATION // len(student.classes))
    labels = stream.labels(split)
    found = [torch.nonzero(labels == c)[:each, 0] for c in range(len(student.classes))]
    chosen = torch.cat(found)
    return [image[None] for part in items_of(student, split, chosen.numpy()) for image in part]


def learnt_images(student: TrainedStudent) -> tuple[list[Any], np.ndarray]:
    """Return up to `_LEARNT` training items of each class with their classes `[n]`, as learnt.

    Those without a label for the learner are not among them. After `cdl learn`, there may be items
    for the classes of the last task only.

    Raises:
        CdlError: the packed training items are not in the results folder.
    """
    spec = student.spec
    split = _split_of(student, "train", "what is unknown", "export with --no-check")
    stream, found = build_stream(spec, split), []
    for task in range(student.model.task + 1):
        indices = stream.indices(split, task, images_of(spec, task))
        known = known_labels(stream.labels(split)[indices], spec.labels, spec.seed, stream.order)
        found += [indices[known == c][:_LEARNT] for c in known[known >= 0].unique().tolist()]
    chosen = torch.cat(found)
    items = [item for part in items_of(student, split, chosen.numpy()) for item in part]
    return items, stream.labels(split)[chosen].numpy()


def test_images(student: TrainedStudent) -> TestImages:
    """Return the test split of a run and its predictions on the learnt tasks.

    Raises:
        CdlError: the packed test images are not in the results folder, or a file is damaged.
    """
    frame = read_predictions(student.files)
    split = _split_of(student, "test", "the comparison", "export with --no-check")
    return split, frame[frame["task"] <= student.model.task]


def _split_of(student: TrainedStudent, split: str, purpose: str, remedy: str) -> Packed:
    """Return a split of the packed data of a run; raise `CdlError` if it is missing."""
    packed = student.packed()
    if packed is None:
        raise CdlError(
            f"{student.files.folder}: the packed {split} {student.facts.items} are not in its "
            f"results folder; {purpose} needs them; copy them there or {remedy}"
        )
    return Packed(packed.folder, split)


def compare(student: TrainedStudent, exported: Classifier, images: TestImages) -> Parity:
    """Predict every test image with torch and with the exported model, and compare."""
    split, frame = images
    shape = (2, len(frame), len(student.classes))
    both, done = np.zeros(shape, np.float32), 0
    for part in items_of(student, split, frame["image"].to_numpy()):
        for rows, batch in exported.items.batches(part):
            for model, logits in zip((student, exported), both, strict=True):
                logits[done + np.array(rows)] = model.logits(model.preprocess(batch))
        done += len(part)
    spec, (expected, found) = student.spec, both.argmax(2)
    unlike_torch, ties = _unlike(both[0], found, expected)
    unlike_evaluation = None
    if student.model.task == len(student.results["checkpoints"]) - 1:
        evaluated = np.array([student.classes.index(name) for name in frame["predicted"]])
        unlike_evaluation, others = _unlike(both[0], found, evaluated)
        ties = max(ties, others)
    return Parity(
        len(frame),
        unlike_torch,
        unlike_evaluation,
        spec.precision is not None or spec.cache_dtype is not None,
        float(np.abs(both[0] - both[1]).max(initial=0.0)),
        ties,
        student.items.kind,
    )


def _unlike(logits: np.ndarray, found: np.ndarray, expected: np.ndarray) -> tuple[int, int]:
    """Count the rows `[n, C]` in which two classes differ: beyond rounding, and as a tie."""
    rows = np.flatnonzero(found != expected)
    gaps = np.abs(logits[rows, found[rows]] - logits[rows, expected[rows]])
    ties = gaps <= _TIE * max(1.0, float(np.abs(logits).max(initial=0.0)))
    return int((~ties).sum()), int(ties.sum())


def items_of(student: TrainedStudent, split: Packed, indices: np.ndarray) -> Iterator[list[Any]]:
    """Yield items of a split for predictions, in lists of up to 256."""
    channels = student.facts.channels
    for some in torch.tensor(indices).split(_CHUNK):
        chosen = split.pixels(some)
        found = []
        places = zip(chosen.offsets.tolist(), chosen.sizes.tolist(), strict=True)
        for offset, (height, width) in places:
            flat = chosen.flat[offset : offset + channels * height * width]
            found.append(student.unpacked(flat.view(height, width, channels).numpy()))
        yield found
