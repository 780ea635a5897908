"""A case made ready, and what is timed of it: the product's own loop, caches and evaluation."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import pandas as pd
import torch
from case import Case, backbone_file, configuration, random_images
from meter import Measured, Meter
from torch import Tensor

from cdl.backbones.fetch import fetch
from cdl.backbones.images import FrozenViT
from cdl.backbones.shape import BackboneShape
from cdl.backbones.vit import Injection
from cdl.data.batches import Batch, Batches
from cdl.data.cached import CachedOutputs
from cdl.data.modalities import views_of
from cdl.data.packed import Packed
from cdl.data.packing import prepare
from cdl.distillers.base import TeacherOutput
from cdl.models.build import build_learner, build_stream, compute_of
from cdl.models.learner import Learner
from cdl.models.operations import operations
from cdl.models.teacher import Teacher
from cdl.runtime import artifacts
from cdl.runtime.errors import CdlError
from cdl.runtime.jobs import Execution
from cdl.study.configuration import resolve
from cdl.study.grid import Grid
from cdl.study.specifications import specification
from cdl.training import targets
from cdl.training.checkpointing import State
from cdl.training.context import TaskContext
from cdl.training.loop import train_task
from cdl.training.targets import over_test_images, over_views


class _Watched:
    """Batches of one task whose reading is metered, for functions that draw them themselves."""

    def __init__(self, batches: Batches, meter: Meter) -> None:
        self.batches, self.meter = batches, meter
        self.indices, self.device = batches.indices, batches.device

    def __call__(self, epoch: int) -> Iterator[Batch]:
        return self.meter.watch(self.batches(epoch))

    def all_images(self, epoch: int) -> Iterator[Batch]:
        return self.meter.watch(self.batches.all_images(epoch))


class Bench:
    """A case made ready: random images, both backbones, learners, and what is timed of them."""

    def __init__(self, case: Case, folder: Path) -> None:
        """Make all inputs of a case in a folder; raise what an impossible case raises."""
        self.case, self.folder = case, folder
        models = {"teacher": case.teacher, "student": case.student}
        self.paths = {role: backbone_file(name, case.size, folder) for role, name in models.items()}
        self.grid = Grid(resolve(configuration(case, folder, self.paths)))
        self.runs = {run.role: run for run in self.grid.runs if run.distiller.name == "none"}
        self.runs |= {run.role: run for run in self.grid.runs if run.teacher}
        self.specs = {role: specification(self.grid, run) for role, run in self.runs.items()}
        spec = self.specs["student"]
        self.use_threads()
        self.execution = Execution(device=case.device, capture=case.capture)
        self.compute = compute_of(spec, self.execution)
        if case.clock == "cpu" and (self.compute.device.type != "cpu" or case.threads != 1):
            raise CdlError("--clock: cpu counts the CPU seconds of one thread; use wall")
        if self.compute.capture and case.warm_up < 4:
            raise CdlError(
                f"--warm-up: {case.warm_up}; with --capture give 4 or more, see cdl.training.step"
            )
        self.task = range(case.tasks)[case.task]
        random_images(case, self.task, folder)
        source = self.grid.source("random")
        prepare(folder / "data", source["source"], source["short_side"])
        self.pixels, self.test = (Packed(folder / "data", s) for s in ("train", "test"))
        self.stream = build_stream(spec, self.pixels)
        self.classes = self.stream.classes(self.task)
        self.fetched = {role: str(folder / f"{role}.safetensors") for role in self.paths}
        for role, path in self.paths.items():
            fetch(self.fetched[role], "file", path)
        self.backbones = {role: self.backbone(role, FrozenViT) for role in self.paths}
        self.caches: dict[str, CachedOutputs] = {}
        self.losses: dict[str, pd.Series] = {}  # of each role's last steps

    def use_threads(self) -> None:
        """Set the threads of the case, which are the process's."""
        torch.set_num_threads(self.case.threads)

    def backbone(self, role: str, kind: type[FrozenViT]) -> FrozenViT:
        """Load a backbone on the device as a class of backbones."""
        spec = self.specs["student"]
        loaded = kind.load(self.fetched[role], spec.view.size, spec.normalization)
        return loaded.place(self.compute)

    def learner(self, role: str, backbone: FrozenViT | None = None) -> Learner:
        """Build a learner at the start of the task, all earlier ones begun too."""
        spec, shapes = self.specs[role], self.backbones
        widths = {"query": shapes[spec.query].width}
        shape = None
        if self.runs[role].teacher:
            widths["teacher_query"] = shapes[self.specs["teacher"].query].width
            shape = BackboneShape(shapes["teacher"].width, shapes["teacher"].depth)
        learner = build_learner(spec, backbone or shapes[role], widths, shape)
        for task in range(self.task + 1):
            learner.start_task(task, self.stream.sizes[task], *spec.keys)
        return learner

    @cached_property
    def batches(self) -> Batches:
        """Return the task's batches."""
        return TaskContext(
            spec=self.specs["student"],
            task=self.task,
            train=self.pixels,
            stream=self.stream,
            execution=self.execution,
            backbones=self.backbones,
            fingerprints={},
        ).batches()

    @cached_property
    def ready(self) -> list[Batch]:
        """Return the views of one epoch, made beforehand."""
        return list(self.batches(0))

    def queries(self, role: str, cached: bool) -> Callable[[Batch], Tensor | None]:
        """Return the source of a learner's queries."""
        name = self.specs[role].query
        if not self.runs[role].prompts.needs_query:
            return lambda batch: None
        if not cached:
            return lambda batch: self.backbones[name].query(batch.views)
        if name not in self.caches:
            self.cache_queries(name)
        return self.caches[name]

    @cached_property
    def teacher(self) -> Teacher:
        """Return the frozen teacher."""
        return Teacher(self.learner("teacher"))

    def teacher_outputs(
        self, cached: bool
    ) -> Callable[[Batch, Tensor | None], TeacherOutput] | None:
        """Return what the teacher says of a batch and its query, None without a teacher."""
        if not self.runs["student"].teacher:
            return None
        query, blocks = self.queries("teacher", cached), self.learners["student"].compared_blocks
        same = self.specs["teacher"].query == self.specs["student"].query

        def online(batch: Batch, own: Tensor | None) -> TeacherOutput:
            theirs = own if same else query(batch)
            return self.teacher(batch.views, theirs, self.task, self.classes, blocks)

        if not cached or blocks:
            return online
        if "targets" not in self.caches:
            self.cache_targets()
        return lambda batch, _: TeacherOutput(self.caches["targets"](batch), query(batch))

    def learn(self, role: str, cached: bool) -> Measured:
        """Time the loop of a learner: views, queries, teacher, step."""
        learner, meter = self.learners[role], self.meter()
        training = self.specs[role].training
        history = train_task(
            learner,
            _Watched(self.batches, meter),
            query=self.queries(role, cached),
            teacher=self.teacher_outputs(cached) if role == "student" else None,
            task=self.task,
            classes=self.classes,
            capture=self.compute.capture,
            epochs=training.epochs,
            lr=training.lr,
            betas=training.betas,
            schedule=training.schedule,
        )
        parts = history.columns.drop(["task", "epoch", "learning_rate"])
        self.losses[role] = history[parts].sum(axis=1)
        return meter.result

    @cached_property
    def learners(self) -> dict[str, Learner]:
        learners = {role: self.learner(role) for role in self.runs}
        if self.runs["student"].distils.maps_prompts:
            prompts = learners["teacher"].prompts.state_dict()
            learners["student"].distiller.read_teacher(prompts)
        return learners

    def cache_queries(self, name: str = "student") -> Measured:
        """Time what the rule `queries` computes, and keep it."""
        backbone = self.backbones[name]
        return self._cache(name, backbone.width, lambda batch: backbone.query(batch.views))

    def cache_targets(self) -> Measured:
        """Time what the rule `teacher_targets` computes, and keep it."""
        query = self.queries("teacher", cached=True)

        def logits(batch: Batch) -> Tensor:
            return self.teacher(batch.views, query(batch), self.task, self.classes).logits

        return self._cache("targets", self.classes.stop - self.classes.start, logits)

    def _cache(self, name: str, width: int, function: Callable[[Batch], Tensor]) -> Measured:
        meter, path = self.meter(), self.folder / f"cache-{name}.safetensors"
        spec = self.specs["student"]
        views, unsaved = _Watched(self.batches, meter), State(None, {}, 0)
        values = over_views(views, spec, width, function, unsaved)
        artifacts.save(path, {"values": values}, {"inputs": {}})
        self.caches[name] = CachedOutputs(str(path))
        return meter.result

    def evaluate(self, learner: Learner, cached: bool) -> Measured:
        """Time the predictions of a student for all test images, with queries known or not."""
        learner, run = learner.eval(), self.runs["student"]
        views, indices = views_of(self.specs["student"].view), torch.arange(len(self.test))
        frozen = {name: self.backbones[name].query for name in self.backbones}
        frozen["student"] = learner.backbone.query

        device = self.compute.device.type
        batch = self.case.test_batch or targets.TEST_BATCH[device]
        targets.TEST_BATCH[device] = batch

        def over(function: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
            return over_test_images(self.test.pixels(indices), views, self.compute.device, function)

        needed = {run.query, run.mapped_query} - {None} if run.prompts.needs_query else set()
        known = {
            name: over(lambda images, _, name=name: frozen[name](images))
            for name in (needed if cached else ())
        }

        def query(name: str | None, images: Tensor, rows: Tensor) -> Tensor | None:
            if name not in needed:
                return None
            return known[name][rows] if cached else frozen[name](images)

        def logits(images: Tensor, rows: Tensor) -> Tensor:
            own, foreign = (query(n, images, rows) for n in (run.query, run.mapped_query))
            output = learner(images, own, self.task, foreign)
            return learner.predict(output, self.classes.stop).cpu()

        meter = Meter(self.compute.device, 1, self.case.clock)
        with torch.no_grad():
            for _ in meter.watch(Batch(indices, indices, 0, indices) for _ in range(2)):
                over(logits)
        return replace(meter.result, steps=-(-len(indices) // batch))

    def views(self) -> Measured:
        """Time the making of training views alone."""
        meter = self.meter()
        for _ in meter.watch(self.batches(0)):
            pass
        return meter.result

    def operations(self, role: str, weights: bool = False) -> tuple[float, float]:
        """Return operations of a learner per image, forward and backward."""
        learner, batch = self.learners[role], self.ready[0]
        query, foreign = self.queries(role, False)(batch), None
        if self.runs[role].distils.maps_prompts:
            foreign = self.queries("teacher", False)(batch)
        injection = learner.distiller.inject(learner.prompts(query, self.task), foreign, self.task)
        return operations(learner.backbone, injection, weights)

    def plain_operations(self, role: str) -> float:
        """Return operations per image of a backbone without prompts, forward."""
        return operations(self.backbones[role], Injection())[0]

    def meter(self) -> Meter:
        """Return a meter of the case."""
        return Meter(self.compute.device, self.case.warm_up, self.case.clock)
