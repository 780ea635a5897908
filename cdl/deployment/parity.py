"""What an exported student says, compared with torch and with what was evaluated."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from cdl.data.packed import Packed
from cdl.deployment.student import ExportedStudent, Student, batches
from cdl.deployment.trained import TrainedStudent
from cdl.models.build import build_stream
from cdl.runtime import artifacts
from cdl.runtime.errors import CdlError

TestImages = tuple[Packed, pd.DataFrame]  # a split, and predictions of those learnt
_AT_A_TIME = 256
_CALIBRATING = 128  # training images that fix the ranges of static quantisation


@dataclass(frozen=True)
class Parity:
    """How the graph's answers compare.

    images: test images of the tasks learnt.
    unlike_torch: for how many the best class is not that of torch.
    unlike_evaluation: for how many it is not the one in `predictions.parquet`; None after an
        earlier task, of which nothing stands there.
    rounded: whether evaluation computed with numbers rounded to fewer bits than fp32.
    largest: difference of a logit to torch's.
    """

    images: int
    unlike_torch: int
    unlike_evaluation: int | None
    rounded: bool
    largest: float

    @property
    def holds(self) -> bool:
        """Whether the graph says what was evaluated; where that was rounded, what torch says."""
        exact = self.unlike_evaluation is not None and not self.rounded
        return not (self.unlike_evaluation if exact else self.unlike_torch)

    def text(self) -> str:
        """Return it as a sentence."""
        same = self.images - self.unlike_torch
        parts = [f"best class as torch's for {same} of {self.images} test images"]
        if self.unlike_evaluation is not None:
            rounded = " (which was rounded)" if self.rounded else ""
            same = self.images - self.unlike_evaluation
            parts.append(f"as evaluation's{rounded} for {same}")
        return f"{', '.join(parts)}; largest difference of a logit {self.largest:.1e}"


def accuracy(student: Student, images: TestImages) -> float:
    """Return the accuracy on test images, mean over tasks, percent."""
    split, frame = images
    found = [n for p in _pixels(split, frame["image"].to_numpy()) for n in student.predict(p)]
    right = frame["class"].to_numpy() == np.array(found)
    return 100 * float(pd.Series(right).groupby(frame["task"].to_numpy()).mean().mean())


def training_images(student: TrainedStudent) -> list[np.ndarray]:
    """Return training images `[1, H, W, 3]` of the classes learnt, equally many if they are there.

    After `cdl learn` only those of the last task may be there.

    Raises:
        CdlError: the training split that it learnt is not below the folder of results.
    """
    spec = student.spec
    split = _packed(student, "train", "static int8 is calibrated with", "take --int8 dynamic")
    stream = build_stream(spec, split)
    each = max(1, _CALIBRATING // len(student.classes))
    labels = stream.labels(split)
    found = [torch.nonzero(labels == c)[:each, 0] for c in range(len(student.classes))]
    chosen = torch.cat(found)
    return [image[None] for pixels in _pixels(split, chosen.numpy()) for image in pixels]


def test_images(student: TrainedStudent) -> TestImages:
    """Return the test split and the predictions of a run, those of the tasks learnt.

    Raises:
        CdlError: the split is not there, or something is damaged.
    """
    files = student.files
    artifacts.check_files(files.results, files.predictions)
    frame = pd.read_parquet(files.predictions)
    split = _packed(student, "test", "the export is compared with", "export with --no-check")
    return split, frame[frame["task"] <= student.model.task]


def _packed(student: TrainedStudent, split: str, why: str, remedy: str) -> Packed:
    """Return a split of what a run was made with."""
    packed = student.packed()
    if packed is None:
        raise CdlError(
            f"{student.files.folder}: its {split} images, which {why}, are not below its folder of "
            f"results; {remedy}"
        )
    return Packed(packed.folder, split)


def compare(student: TrainedStudent, exported: ExportedStudent, images: TestImages) -> Parity:
    """Ask torch and the graph about every test image."""
    split, frame = images
    best, torchs, largest = [], [], 0.0
    for pixels in _pixels(split, frame["image"].to_numpy()):
        both = np.zeros((2, len(pixels), len(student.classes)), np.float32)
        for rows in batches(pixels):
            some = [pixels[row] for row in rows]
            for one, logits in zip((student, exported), both, strict=True):
                logits[rows] = one.logits(one.preprocess(some))
        largest = max(largest, float(np.abs(both[0] - both[1]).max()))
        torchs.append(both[0].argmax(1))
        best.append(both[1].argmax(1))
    found, spec = np.concatenate(best), student.spec
    last = student.model.task == len(student.results["checkpoints"]) - 1
    names = np.array(student.classes)[found]
    return Parity(
        len(frame),
        int((found != np.concatenate(torchs)).sum()),
        int((names != frame["predicted"].to_numpy()).sum()) if last else None,
        spec.precision is not None or spec.cache_dtype is not None,
        largest,
    )


def _pixels(split: Packed, indices: np.ndarray) -> Iterator[list[np.ndarray]]:
    """Yield images `[H, W, 3]` of a split, many at a time."""
    for some in torch.tensor(indices).split(_AT_A_TIME):
        chosen = split.pixels(some)
        found = []
        places = zip(chosen.offsets.tolist(), chosen.sizes.tolist(), strict=True)
        for offset, (height, width) in places:
            flat = chosen.flat[offset : offset + 3 * height * width]
            found.append(flat.view(height, width, 3).numpy())
        yield found
