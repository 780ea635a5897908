"""The student of a finished run in torch: the reference for exported students."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cdl.backbones.images import ImageBackbone
from cdl.data.modalities import MODALITIES, ModalityFacts, student_class, views_of
from cdl.data.order import digests
from cdl.data.stream import Stream
from cdl.deployment.graph import OUTPUT, Graph, ImageGraph
from cdl.deployment.model import Model
from cdl.device.classifier import Classifier
from cdl.device.images import Images, Pictures, read
from cdl.layout import PackedFiles, ResultsFolder, RunFiles, record_of
from cdl.models.build import load_backbones, rebuild_learner
from cdl.runtime import artifacts
from cdl.runtime.errors import CdlError
from cdl.spec import LearnerSpec


@dataclass(frozen=True)
class TrainedStudent(Classifier):
    """A learner of images after one of its tasks, in fp32 on the CPU.

    Attributes:
        classes: classes learnt up to the task.
        model: module from views to logits.
        views: preprocessing of images, see `cdl.data.modalities.views_of`.
        threads: number of torch threads for a prediction.
        results: content of `results.json` of the run.
        spec: specification of the learner after the run's last task.
        files: files of the run.
    """

    items = Images()

    classes: tuple[str, ...]
    model: Model = field(repr=False)
    views: Any
    threads: int
    results: Mapping[str, Any] = field(repr=False)
    spec: LearnerSpec = field(repr=False)
    files: RunFiles

    @classmethod
    def open(cls, run: Path, task: int | None = None, threads: int = 1) -> "TrainedStudent":
        """Load a finished run and its backbones.

        Args:
            run: folder of the run, below the results folder with the backbones.
            task: task after which the student is loaded, counted from 0; None: the last.
            threads: number of torch threads for a prediction; 1 is fastest for single images.

        Raises:
            CdlError: a file of the run or a backbone is missing or damaged.
        """
        files = RunFiles(str(run))
        results = artifacts.read_json(files.results)
        spec = LearnerSpec.from_json(results["learner"], f"{files.results}: learner")
        n_tasks = len(results["checkpoints"])
        task = n_tasks - 1 if task is None else task
        if not 0 <= task < n_tasks:
            raise CdlError(
                f"task: invalid value {task} for {run}; expected 0 to {n_tasks - 1}, counted from 0"
            )
        expected = {"learner": spec.until(task).to_json(), "sha256": results["checkpoints"][task]}
        checkpoint = files.checkpoints(results)[task]
        state, record = artifacts.load(checkpoint, task=task, **expected)
        folder = ResultsFolder.of_run(run)
        spec = replace(spec, teacher_query=record["teacher_query"])
        queries = (spec.query, spec.teacher_query) if spec.method.facts.needs_query else ()
        names = {name for name in (spec.backbone, *queries) if name}
        hashes = {name: record["inputs"]["backbones"].get(name) for name in names}
        paths = {name: find_backbone(folder, name, sha) for name, sha in hashes.items()}
        loaded = load_backbones(spec, paths)
        stream = Stream.learnt(results["classes"], spec.stream.tasks)
        learner = rebuild_learner(spec, loaded[spec.backbone], record)
        learner.load_state(state)
        n_classes = stream.classes(task).stop
        query = loaded[spec.query] if learner.needs_query else None
        mapped = loaded[spec.teacher_query] if queries and spec.teacher_query else None
        model = Model(learner, task, n_classes, query, mapped)
        classes = tuple(results["classes"][:n_classes])
        kind: type[TrainedStudent] = student_class(spec.view)
        return kind(classes, model, views_of(spec.view), threads, results, spec, files)

    @property
    def facts(self) -> ModalityFacts:
        """Facts of its modality."""
        return MODALITIES[self.spec.view.modality]

    def packed(self) -> PackedFiles | None:
        """Return the packed data of the run; None if they are not in the results folder."""
        for packed in ResultsFolder.of_run(Path(self.files.folder)).packed("*"):
            splits = artifacts.read_json(packed.manifest)["splits"]
            found = digests(splits, self.results["classes"], self.spec.stream.domains)
            if all(self.results["data"][split] == digest for split, digest in found.items()):
                return packed
        return None

    @property
    def random_size(self) -> tuple[int, int]:
        """Size of random items for times: height and width of the test view."""
        return (self.views.test_resize or self.views.size,) * 2

    @property
    def counted_size(self) -> int:
        """Size of the input whose operations are counted."""
        return int(self.views.size)

    timed = ""  # remark on the items that are timed and counted

    def graph(self, model: Model) -> Graph:
        """Return the graph of an export, around the model or one with the same predictions."""
        return ImageGraph(model, self.views)

    def preprocessing(self, executorch: bool = False) -> dict[str, Any]:
        """Return the content of preprocessing.json: the input of the graph and what it does."""
        views, backbone = self.views, self.model.learner.backbone
        assert isinstance(backbone, ImageBackbone), "its modality is images"
        limits = {"most": list(ImageGraph.most)} if executorch else {}
        axes = [*ImageGraph.free, "RGB"]
        return {
            "input": {"name": ImageGraph.name, "type": "uint8", "axes": axes, **limits},
            "output": OUTPUT,
            "before": "rotated upright by EXIF, RGB, transparency on white; one size per batch",
            "in_the_graph": {
                "resize_short_side": views.test_resize,
                "centre_crop" if views.test_resize else "resize": [views.size, views.size],
                "interpolation": "bilinear, antialiased",
                "scale": 1 / 255,
                "mean": backbone.mean.flatten().tolist(),
                "std": backbone.std.flatten().tolist(),
            },
        }

    def files_beside(self) -> Mapping[str, bytes]:
        """Return further files of an export by name, which prepare the input of the graph."""
        return {}

    def unpacked(self, item: np.ndarray) -> Any:
        """Return an item for `predict` from its packed values `[H, W, C]` uint8."""
        return item

    def preprocess(self, given: Pictures) -> Tensor:
        """Return test views `[n, 3, size, size]` in 0..1."""
        views = []
        with using_threads(self.threads):
            for image in self.items.several(given):
                pixels = torch.from_numpy(np.array(read(image))).permute(2, 0, 1)[None]
                views.append(self.views.test(pixels, torch.tensor([pixels.shape[2:]])))
            return torch.cat(views)

    @torch.no_grad()
    def logits(self, batch: Tensor) -> np.ndarray:
        """Return logits `[n, C]` of views."""
        with using_threads(self.threads):
            return np.asarray(self.model(batch))

    @torch.no_grad()
    def features(self, given: Any) -> np.ndarray:
        """Return the tokens `[n, T, D]` that the heads read; raise `CdlError` as `predict`."""
        every, found = self.items.several(given), dict[int, np.ndarray]()
        for rows, contents in self.items.batches(every):
            with using_threads(self.threads):
                _, tokens = self.model.outputs(self.preprocess(contents))
            found |= zip(rows, tokens.numpy(), strict=True)
        width = self.model.learner.backbone.width
        none = np.zeros((0, 1, width), np.float32)
        return np.stack([found[i] for i in range(len(every))]) if every else none


def find_backbone(folder: ResultsFolder, name: str, fingerprint: str | None) -> str:
    """Return the path of a backbone whose tensors have the given fingerprint.

    Raises:
        CdlError: the results folder does not contain it.
    """
    found = folder.backbones(name)
    for path in found:
        if artifacts.read_json(record_of(path))["fingerprint"] == fingerprint:
            return path
    others = f"found other weights: {', '.join(found)}" if found else "found none"
    raise CdlError(
        f"{folder.path}: the weights of backbone {name!r} of this run are missing ({others}); copy "
        "them there or run the experiment again"
    )


@contextlib.contextmanager
def using_threads(n: int) -> Iterator[None]:
    """Set the number of torch threads within a context."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
