"""The student of a finished run in torch: the reference for exported students."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cdl.backbones.frozen import Backbone
from cdl.backbones.vit import BlockInputs
from cdl.data.modalities import MODALITIES, student_class, views_of
from cdl.data.order import digests
from cdl.data.stream import Stream
from cdl.deployment.student import Pictures, Student, read, several
from cdl.layout import PackedFiles, ResultsFolder, RunFiles, record_of
from cdl.models.build import load_backbones, rebuild_learner
from cdl.models.learner import Learner
from cdl.runtime import artifacts
from cdl.runtime.errors import CdlError
from cdl.spec import LearnerSpec


class Model(nn.Module):
    """A learner after a task, with the frozen backbones that compute its queries."""

    def __init__(
        self,
        learner: Learner,
        task: int,
        n_classes: int,
        query: Backbone | None = None,
        teacher_query: Backbone | None = None,
    ) -> None:
        """Set all modules to eval mode, without gradients.

        Args:
            learner: learner after `task`.
            task: the last task learnt, counted from 0.
            n_classes: number of classes learnt up to `task`, `C`.
            query: the backbone whose query selects the prompts; None for methods without a query.
            teacher_query: the backbone of the teacher's query, which selects mapped teacher
                prompts; None for distillers that map none.
        """
        super().__init__()
        self.learner, self.query, self.teacher_query = learner, query, teacher_query
        self.task, self.n_classes = task, n_classes
        self.eval().requires_grad_(False)

    def forward(self, views: Tensor) -> Tensor:
        """Return logits `[B, C]` of views `[B, 3, size, size]` in 0..1, like the evaluation.

        If the student's own backbone computes the query, the query pass and the prompted pass share
        all blocks before the first prompted one.
        """
        return self.outputs(views)[0]

    def outputs(self, views: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits `[B, C]` and the tokens `[B, T, D]` that the heads read."""
        query, teacher_query, block_inputs = self.queries(views)
        output = self.learner(views, query, self.task, teacher_query, resume_from=block_inputs)
        return self.learner.predict(output, self.n_classes), output.tokens

    def queries(self, views: Tensor) -> tuple[Tensor | None, Tensor | None, BlockInputs | None]:
        """Return the queries `[B, Dq]` of student and teacher, and the inputs of shared blocks."""
        if self.query is None:
            return None, None, None
        encoded = self.query.encode(views, keep_inputs=self.query is self.learner.backbone)
        query = teacher_query = encoded.features[:, 0]
        if self.teacher_query is not None and self.teacher_query is not self.query:
            teacher_query = self.teacher_query.query(views)
        return query, teacher_query, encoded.block_inputs

    def predict_from(
        self,
        views: Tensor,
        query: Tensor | None,
        teacher_query: Tensor | None,
    ) -> Tensor:
        """Return logits `[B, C]` of views with given queries."""
        output = self.learner(views, query, self.task, teacher_query)
        return self.learner.predict(output, self.n_classes)


@dataclass(frozen=True)
class TrainedStudent(Student):
    """A learner after one of its tasks, in fp32 on the CPU.

    Attributes:
        classes: classes learnt up to the task.
        model: module from views to logits.
        views: preprocessing of images, see `cdl.data.modalities.views_of`.
        threads: number of torch threads for a prediction.
        results: content of `results.json` of the run.
        spec: specification of the learner after the run's last task.
        files: files of the run.
    """

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
            raise CdlError(f"task: invalid value {task} for {run}; expected 0 to {n_tasks - 1}")
        expected = {"learner": spec.until(task).to_json(), "sha256": results["checkpoints"][task]}
        checkpoint = files.checkpoints(results)[task]
        state, record = artifacts.load(checkpoint, task=task, **expected)
        folder = ResultsFolder.of_run(run)
        spec = replace(spec, teacher_query=_teacher_query(files, spec, record))
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

    def require(self, command: str) -> "TrainedStudent":
        """Return the student; raise `CdlError` unless a command works for its modality."""
        facts = MODALITIES[self.spec.view.modality]
        if command not in facts.commands:
            raise CdlError(
                f"cdl {command}: {self.files.folder} is a student of {facts.items}, for which this "
                "command is not available; use cdl predict or cdl.load"
            )
        return self

    def packed(self) -> PackedFiles | None:
        """Return the packed data of the run; None if they are not in the results folder."""
        for packed in ResultsFolder.of_run(Path(self.files.folder)).packed("*"):
            splits = artifacts.read_json(packed.manifest)["splits"]
            if "classes" not in splits["train"]:  # written by an earlier version
                continue
            found = digests(splits, self.results["classes"], self.spec.stream.domains)
            if all(self.results["data"][split] == digest for split, digest in found.items()):
                return packed
        return None

    def preprocess(self, images: Pictures) -> Tensor:
        """Return test views `[n, 3, size, size]` in 0..1."""
        views = []
        with using_threads(self.threads):
            for image in several(images):
                pixels = torch.from_numpy(np.array(read(image))).permute(2, 0, 1)[None]
                views.append(self.views.test(pixels, torch.tensor([pixels.shape[2:]])))
            return torch.cat(views)

    @torch.no_grad()
    def logits(self, batch: Tensor) -> np.ndarray:
        """Return logits `[n, C]` of views."""
        with using_threads(self.threads):
            return np.asarray(self.model(batch))


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


def _teacher_query(files: RunFiles, spec: LearnerSpec, record: Mapping[str, Any]) -> str | None:
    """Return the `teacher_query` of the record of a checkpoint.

    Records of earlier versions do not contain it. For these it is the query in the teacher's own
    record, which is found by its sha256 among the runs of the same seed and method.

    Raises:
        CdlError: an earlier version wrote the record and the teacher's run is missing.
    """
    if "teacher_query" in record:
        return None if record["teacher_query"] is None else str(record["teacher_query"])
    if not (spec.distiller.facts.maps_prompts and spec.method.facts.needs_query):
        return None
    for path in files.siblings(record["task"]):
        teacher = artifacts.read_json(path)
        if teacher["sha256"] == record["inputs"]["teacher"]:
            return LearnerSpec.from_json(teacher["learner"], f"{path}: learner").query
    raise CdlError(
        f"{files.folder}: was written by an earlier version of cdl, which did not record the "
        "teacher's query; restore the teacher's run in the same folder, or run it again"
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
