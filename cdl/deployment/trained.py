"""A finished run's student, as torch computes it: the reference for all that is exported."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cdl.backbones.frozen import Backbone
from cdl.backbones.shape import BackboneShape
from cdl.backbones.vit import BlockInputs
from cdl.data.order import digests
from cdl.data.stream import Stream
from cdl.data.views import Views
from cdl.deployment.student import Pictures, Student, read, several
from cdl.layout import PackedFiles, ResultsFolder, RunFiles, record_of
from cdl.models.build import build_learner, load_backbones
from cdl.models.learner import Learner
from cdl.runtime import artifacts
from cdl.runtime.errors import CdlError
from cdl.spec import LearnerSpec


class Model(nn.Module):
    """A learner after a task, with the frozen models that make its queries."""

    def __init__(
        self,
        learner: Learner,
        task: int,
        n_classes: int,
        query: Backbone | None = None,
        foreign: Backbone | None = None,
    ) -> None:
        """Put in eval mode what a prediction needs.

        Args:
            learner: it.
            task: the last one learnt, counted from 0.
            n_classes: `C`, learnt up to there.
            query: the backbone whose query selects the prompts, None if none is needed.
            foreign: the one whose query mapped teacher prompts read, None if none is mapped.
        """
        super().__init__()
        self.learner, self.query, self.foreign = learner, query, foreign
        self.task, self.n_classes = task, n_classes
        self.eval().requires_grad_(False)

    def forward(self, views: Tensor) -> Tensor:
        """Return logits `[B, C]` of views `[B, 3, size, size]` in 0..1, as evaluation does.

        Where the query is the own backbone's, its pass and that with prompts share all blocks
        before the first one that something enters.
        """
        own, foreign, block_inputs = self.queries(views)
        return self.answer(views, own, foreign, block_inputs)

    def queries(self, views: Tensor) -> tuple[Tensor | None, Tensor | None, BlockInputs | None]:
        """Return the queries `[B, Dq]` that own and mapped prompts read, and what is shared."""
        if self.query is None:
            return None, None, None
        encoded = self.query.encode(views, keep_inputs=self.query is self.learner.backbone)
        own = foreign = encoded.features[:, 0]
        if self.foreign is not None and self.foreign is not self.query:
            foreign = self.foreign.query(views)
        return own, foreign, encoded.block_inputs

    def answer(
        self,
        views: Tensor,
        own: Tensor | None,
        foreign: Tensor | None,
        resume_from: BlockInputs | None = None,
    ) -> Tensor:
        """Return logits of views whose queries are known."""
        output = self.learner(views, own, self.task, foreign, resume_from=resume_from)
        return self.learner.predict(output, self.n_classes)


@dataclass(frozen=True)
class TrainedStudent(Student):
    """A learner after one of its tasks, in fp32 on the CPU.

    Attributes:
        classes: learnt up to the task.
        model: views to logits.
        views: how images become inputs.
        threads: of torch while it computes.
        results: what `results.json` says of the run.
        spec: of the learner after the last of the run's tasks.
        files: of the run.
    """

    classes: tuple[str, ...]
    model: Model
    views: Views
    threads: int
    results: Mapping[str, Any] = field(repr=False)
    spec: LearnerSpec = field(repr=False)
    files: RunFiles

    @classmethod
    def open(cls, run: Path, task: int | None = None, threads: int = 1) -> "TrainedStudent":
        """Read a finished run and the backbones that lie beside it.

        Args:
            run: its folder, below the folder of results that holds the backbones.
            task: after which, counted from 0; None: the last.
            threads: of torch while it computes; for one image more are slower.

        Raises:
            CdlError: something of the run is missing or damaged, or a backbone that
                it was made with does not lie there.
        """
        files = RunFiles(str(run))
        results = artifacts.read_json(files.results)
        spec = LearnerSpec.from_json(results["learner"], f"{files.results}: learner")
        n_tasks = len(results["checkpoints"])
        task = n_tasks - 1 if task is None else task
        if not 0 <= task < n_tasks:
            raise CdlError(f"task: {task}, but {run} has the tasks 0 to {n_tasks - 1}")
        learnt = spec.until(task).to_json()
        state, made = artifacts.load(files.task(task).learner, task=task, learner=learnt)
        folder = ResultsFolder.of_run(run)
        spec = replace(spec, teacher_query=_teacher_query(files, spec, made))
        foreign = spec.teacher_query if spec.method.facts.needs_query else None
        names = {name for name in (spec.backbone, spec.query, foreign) if name}
        wanted = {name: made["inputs"]["backbones"].get(name) for name in names}
        paths = {name: find_backbone(folder, name, sha) for name, sha in wanted.items()}
        loaded = load_backbones(spec, paths)
        stream = Stream.learnt(results["classes"], spec.stream.tasks)
        teacher = made["teacher_shape"] and BackboneShape(**made["teacher_shape"])
        learner = build_learner(spec, loaded[spec.backbone], made["widths"], teacher)
        learner.load_state(state)
        reads, seen = learner.needs_query, stream.classes(task).stop
        query = loaded[spec.query] if reads else None
        model = Model(learner, task, seen, query, loaded[foreign] if foreign else None)
        classes = tuple(results["classes"][:seen])
        return cls(classes, model, Views.of(spec.view), threads, results, spec, files)

    def packed(self) -> PackedFiles | None:
        """Return the packed data that it learnt from and was tested on, if they lie beside it."""
        for packed in ResultsFolder.of_run(Path(self.files.folder)).packed("*"):
            splits = artifacts.read_json(packed.manifest)["splits"]
            if "classes" not in splits["train"]:  # packed by an earlier version
                continue
            found = digests(splits, self.results["classes"], self.spec.stream.domains)
            if all(self.results["data"][split] == digest for split, digest in found.items()):
                return packed
        return None

    def preprocess(self, images: Pictures) -> Tensor:
        """Return test views `[n, 3, size, size]` in 0..1."""
        views = []
        for image in several(images):
            pixels = torch.from_numpy(np.array(read(image))).permute(2, 0, 1)[None]
            views.append(self.views.test(pixels, torch.tensor([pixels.shape[2:]])))
        return torch.cat(views)

    @torch.no_grad()
    def logits(self, batch: Tensor) -> np.ndarray:
        """Return logits `[n, C]` of views."""
        with _threads(self.threads):
            return np.asarray(self.model(batch))


def find_backbone(folder: ResultsFolder, name: str, fingerprint: str | None) -> str:
    """Return the artifact of a backbone whose tensors are those that a record names."""
    found = folder.backbones(name)
    for path in found:
        if artifacts.read_json(record_of(path))["fingerprint"] == fingerprint:
            return path
    there = f"those there are others: {', '.join(found)}" if found else "there is none"
    raise CdlError(
        f"{folder.path} does not hold the weights of backbone {name!r} that the student was made "
        f"with ({there}); copy them there, or run again what made it"
    )


def _teacher_query(files: RunFiles, spec: LearnerSpec, made: Mapping[str, Any]) -> str | None:
    """Return the `teacher_query` of an artifact's specification.

    Artifacts of earlier versions do not record it. For these it is the query in the teacher's own
    record, which is found by its sha256 among the runs of the same seed and method.

    Raises:
        CdlError: the artifact is one of these and its teacher's run is missing.
    """
    if "teacher_query" in made:
        return None if made["teacher_query"] is None else str(made["teacher_query"])
    if not (spec.distiller.facts.maps_prompts and spec.method.facts.needs_query):
        return None
    for record in files.siblings(made["task"]):
        teacher = artifacts.read_json(record)
        if teacher["sha256"] == made["inputs"]["teacher"]:
            return LearnerSpec.from_json(teacher["learner"], f"{record}: learner").query
    raise CdlError(
        f"{files.folder}: an earlier version of cdl made it and did not record which query its "
        "teacher's prompts read; put the teacher's run back beside it, or run it again"
    )


@contextlib.contextmanager
def _threads(n: int) -> Iterator[None]:
    """Let torch compute with some threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
