"""A finished run to a folder that needs neither cdl's training code nor torch, and its proof."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from cdl.data.packed import Packed
from cdl.deployment.card import card
from cdl.deployment.exported import ExportedStudent
from cdl.deployment.graph import INPUT, OUTPUT, Graph, write_onnx
from cdl.deployment.quantised import to_int8
from cdl.deployment.student import CARD, CLASSES, MODEL, PREPROCESSING, batches
from cdl.deployment.trained import TrainedStudent
from cdl.runtime import artifacts
from cdl.runtime.errors import CdlError
from cdl.study.layout import ResultsFolder

_AT_A_TIME = 256


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


@dataclass(frozen=True)
class Int8:
    """What eight bits cost: bytes of the model and percent of test images, before and after.

    Accuracies are None where nothing was compared.
    """

    bytes: tuple[int, int]
    accuracy: tuple[float, float] | None

    def text(self) -> str:
        """Return it as a sentence."""
        before, after = (n / 1e6 for n in self.bytes)
        size = f"int8: {before:.1f} MB before, {after:.1f} MB after"
        if self.accuracy is None:
            return size
        return "{}; accuracy {:.2f} % before, {:.2f} % after".format(size, *self.accuracy)


@dataclass(frozen=True)
class Exported:
    """What an export wrote: its folder, the size of the model in bytes, and the comparisons."""

    folder: str
    classes: int
    bytes: int
    parity: Parity | None
    int8: Int8 | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)

    def text(self) -> str:
        """Return it for people."""
        size = f"{self.folder}: {self.classes} classes, {self.bytes / 1e6:.1f} MB"
        return "\n".join([size, *self.remarks()])

    def remarks(self) -> list[str]:
        """Return how its answers compare."""
        parity = self.parity.text() if self.parity else "not compared with what was evaluated"
        return [parity] + ([self.int8.text()] if self.int8 else [])


def export(
    run: Path, folder: Path, task: int | None = None, check: bool = True, int8: bool = False
) -> Exported:
    """Write a student as a folder of its own.

    Args:
        run: of a finished run.
        folder: to make.
        task: after which, counted from 0; None: the last.
        check: whether its answers are compared with torch's and with evaluation's.
        int8: whether its weights are rounded to eight bits, after the comparison.

    Raises:
        CdlError: the run cannot be loaded, its prediction needs the teacher's ViT, the folder is
            not empty, or the test images to compare with are not there.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CdlError(f"{folder}: exists and is kept; name another folder")
    student = TrainedStudent.open(run, task, torch.get_num_threads())
    model, spec = student.model, student.results["learner"]
    if model.foreign is not None and model.foreign is not model.query:
        raise CdlError(
            f"distillers.{spec['distiller']['name']}: with protocol.query: self its prompts read "
            f"the teacher's ViT {spec['teacher']!r} at prediction, which no export holds; needed "
            "is protocol.query: student"
        )
    frame = test_images(student) if check else None
    write_onnx(Graph(model, student.views), folder / MODEL)
    _write(folder / CLASSES, "".join(f"{name}\n" for name in student.classes))
    _write(folder / PREPROCESSING, json.dumps(preprocessing(student), indent=2) + "\n")
    parity = None if frame is None else compare(student, ExportedStudent(folder), frame)
    rounded = _to_int8(folder, frame) if int8 else None
    size = (folder / MODEL).stat().st_size
    answer = Exported(str(folder), len(student.classes), size, parity, rounded)
    _write(folder / CARD, card(student.results, model.task, answer.remarks()))
    return answer


def _to_int8(folder: Path, images: tuple[Packed, pd.DataFrame] | None) -> Int8:
    """Round the weights of a folder's model; ask it about test images before and after."""
    sizes, accuracies = [], []
    for rounded in (False, True):
        if rounded:
            to_int8(folder / MODEL)
        sizes.append((folder / MODEL).stat().st_size)
        if images is not None:
            student, (split, frame) = ExportedStudent(folder), images
            names = [
                n for p in _pixels(split, frame["image"].to_numpy()) for n in student.predict(p)
            ]
            accuracies.append(100 * float((frame["class"].to_numpy() == names).mean()))
    before, after = sizes
    return Int8((before, after), (accuracies[0], accuracies[1]) if accuracies else None)


def preprocessing(student: TrainedStudent) -> dict[str, Any]:
    """Return what the graph does to pixels, and what it expects of them."""
    views, backbone = student.views, student.model.learner.backbone
    return {
        "input": {"name": INPUT, "type": "uint8", "axes": ["batch", "height", "width", "RGB"]},
        "output": {"name": OUTPUT, "type": "float32", "axes": ["batch", "class"]},
        "before": "upright as EXIF says, RGB, transparency on white; one size in a batch",
        "in_the_graph": {
            "resize_short_side": views.test_resize,
            "centre_crop" if views.test_resize else "resize": [views.size, views.size],
            "interpolation": "bilinear, antialiased",
            "scale": 1 / 255,
            "mean": backbone.mean.flatten().tolist(),
            "std": backbone.std.flatten().tolist(),
        },
    }


def test_images(student: TrainedStudent) -> tuple[Packed, pd.DataFrame]:
    """Return the test split and the predictions of a run, those of the tasks learnt.

    Raises:
        CdlError: the split is not there, or something is damaged.
    """
    files, needed = student.files, student.results["data"]["test"]
    artifacts.check_files(files.results, files.predictions)
    frame = pd.read_parquet(files.predictions)
    for packed in ResultsFolder.of_run(Path(files.folder)).packed("*"):
        if artifacts.read_json(packed.manifest)["splits"]["test"]["sha256"] == needed:
            return Packed(packed.folder, "test"), frame[frame["task"] <= student.model.task]
    raise CdlError(
        f"{files.folder}: the test images that it was evaluated on are not below its folder of "
        "results, so nothing can be compared; export with --no-check"
    )


def compare(
    student: TrainedStudent, exported: ExportedStudent, images: tuple[Packed, pd.DataFrame]
) -> Parity:
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
    found, spec = np.concatenate(best), student.results["learner"]
    last = student.model.task == len(student.results["checkpoints"]) - 1
    names = np.array(student.classes)[found]
    return Parity(
        len(frame),
        int((found != np.concatenate(torchs)).sum()),
        int((names != frame["predicted"].to_numpy()).sum()) if last else None,
        _rounded(spec),
        largest,
    )


def _rounded(spec: Mapping[str, Any]) -> bool:
    return "precision" in spec or "cache_dtype" in spec


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


def _write(path: Path, text: str) -> None:
    with artifacts.replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
