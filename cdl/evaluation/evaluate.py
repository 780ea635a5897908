"""Checkpoints of one run to its accuracy matrix, predictions and metrics."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cdl import EVALUATION
from cdl.backbones.frozen import Backbone
from cdl.backbones.shape import BackboneShape
from cdl.data import MANIFEST
from cdl.data.cached import HeldOutQueries
from cdl.data.order import digest_of
from cdl.data.packed import Packed, Pixels
from cdl.data.stream import Stream
from cdl.data.views import Views
from cdl.evaluation.metrics import (
    accuracy_by,
    metrics,
    own_task_predictions,
    prediction_metrics,
)
from cdl.models.build import (
    build_learner,
    build_stream,
    compute_of,
    load_backbones,
    place_backbones,
    versions,
)
from cdl.models.learner import MEMORY, Learner
from cdl.runtime import artifacts
from cdl.runtime.compute import Compute
from cdl.runtime.errors import CdlError
from cdl.runtime.jobs import DEFAULT, Execution
from cdl.spec import LearnerSpec
from cdl.training import checkpointing
from cdl.training.targets import TEST_BATCH, over_test_images

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluationInputs:
    """Paths of all that a run is evaluated from.

    data: packed folder.
    checkpoints: the learner's artifacts in task order.
    backbones: artifacts of the frozen ViTs that are loaded, by name.
    queries: of the test views, by the backbone's name; those not given are computed.
    """

    data: str
    checkpoints: Sequence[str]
    backbones: Mapping[str, str]
    queries: Mapping[str, str]

    @classmethod
    def of_job(
        cls, inputs: Any, names: Sequence[str], query_names: Sequence[str]
    ) -> "EvaluationInputs":
        """Read a rule's input: `backbones` and `queries` in the order of their names."""
        return cls(
            str(Path(inputs.data[0]).parent),
            list(inputs.checkpoints),
            dict(zip(names, inputs.backbones, strict=True)),
            dict(zip(query_names, inputs.queries, strict=True)),
        )


@dataclass(frozen=True)
class _TestSet:
    """The test images of the tasks learnt, in task order."""

    split: Packed
    stream: Stream
    views: Views
    pixels: Pixels
    indices: Tensor  # [n] in the split
    owner: Tensor  # [n] their tasks
    labels: Tensor  # [n] positions in the class order
    counts: list[int]  # by task

    @classmethod
    def open(
        cls, spec: LearnerSpec, data: str, images_per_class: int | None, n_tasks: int
    ) -> "_TestSet":
        split = Packed(data, "test")
        stream = build_stream(spec, split)
        tasks = [stream.indices(split, t, images_per_class) for t in range(n_tasks)]
        indices, counts = torch.cat(tasks), [len(part) for part in tasks]
        owner = torch.repeat_interleave(torch.arange(len(tasks)), torch.tensor(counts))
        labels = stream.labels(split)[indices]
        views, pixels = Views.of(spec.view), split.pixels(indices)
        return cls(split, stream, views, pixels, indices, owner, labels, counts)


@torch.no_grad()
def evaluate_run(
    spec: LearnerSpec,
    inputs: EvaluationInputs,
    results: str,
    predictions: str,
    *,
    images_per_class: int | None,
    execution: Execution = DEFAULT,
) -> None:
    """Evaluate every stage of a run, or its first ones: as many as there are checkpoints.

    Args:
        spec: specification of the learner.
        inputs: what it is evaluated from.
        results: JSON to write: matrix, metrics, specification, inputs, versions.
        predictions: Parquet to write: the last stage's for every test image, among all classes
            and among those of its own task.
        images_per_class: test images per class; None for all.
        execution: how to compute; unfinished work of the run's tasks is removed at the end.

    Raises:
        CdlError: a checkpoint is damaged or belongs to another configuration, or says of a test
            image what is not finite; then nothing is written.
    """
    test = _TestSet.open(spec, inputs.data, images_per_class, len(inputs.checkpoints))
    loaded = load_backbones(spec, inputs.backbones)
    learner = _learner(spec, loaded, inputs.checkpoints[0])
    weights = {name: backbone.fingerprint for name, backbone in loaded.items()}
    images = artifacts.read_json(Path(inputs.data, MANIFEST))["splits"]["train"]
    known = _known_queries(spec, test, inputs.queries, images_per_class, weights)
    stages = _stages(spec, test, inputs.checkpoints, images, weights)
    evaluated = [metadata for _, metadata in stages]
    compute = compute_of(spec, execution)  # all is read: now a GPU is waited for
    place_backbones(spec, loaded, compute)
    learner.to(compute.device)
    queries = _Queries(test, compute, loaded, known)
    own = queries(spec.query if learner.needs_query else None)
    same = spec.teacher_query == spec.query or not learner.needs_query
    foreign = own if same else queries(spec.teacher_query)
    scores: list[Tensor] = []
    tokens = _tokens(spec, learner, test, compute)
    for t, (state, metadata) in enumerate(stages):
        learner.load_state(state)
        scores.append(_scores(learner, test, compute, t, own, foreign, tokens))
        _check_finite(scores[t], f"logits of {inputs.checkpoints[t]}", metadata)
    states = [] if execution.states is None else _states(execution.states, evaluated)
    matrices, own_task = _matrices(test, scores)
    frame = _predictions(test, scores[-1], own_task, evaluated[-1])
    with artifacts.replacing(predictions) as temporary:
        frame.to_parquet(temporary, index=False)
    content = _results(test, matrices, frame, spec.method.facts.trains)
    about = {"images": images_per_class, "device": compute.name}
    about["train"] = digest_of(images, content["classes"], test.stream.domains)
    content |= _provenance(spec, test, evaluated, about)
    artifacts.write_json(results, content, files=[predictions])
    checkpointing.forget(states)


def _states(folder: str, evaluated: Sequence[Mapping[str, Any]]) -> list[Path]:
    """Return where the unfinished work of evaluated checkpoints lies, if any is left."""
    return [checkpointing.path_of(folder, metadata["state"]) for metadata in evaluated]


def _learner(spec: LearnerSpec, loaded: Mapping[str, Backbone], checkpoint: str) -> Learner:
    """Build the run's learner as its first checkpoint records it."""
    record = artifacts.read_json(Path(checkpoint).with_suffix(".json"))
    teacher = record["teacher_shape"]
    shape = None if teacher is None else BackboneShape(**teacher)
    return build_learner(spec, loaded[spec.backbone], record["widths"], shape).eval()


def _stages(
    spec: LearnerSpec,
    test: _TestSet,
    checkpoints: Sequence[str],
    images: Mapping[str, Any],
    weights: Mapping[str, str],
) -> list[tuple[dict[str, Tensor], dict[str, Any]]]:
    """Read the learner after each task; raise `CdlError` if one is not of these images and weights.

    What it holds for later tasks alone is not kept: it may be larger than all else.
    """
    stages = []
    for task, path in enumerate(checkpoints):
        state, metadata = artifacts.load(path, task=task, learner=spec.until(task).to_json())
        data = test.stream.digest(images, test.split.classes, task)
        made = {"data": data, "backbones": dict(weights)}
        artifacts.check_provenance(path, metadata["inputs"], made)
        stages.append(({k: t for k, t in state.items() if not k.startswith(MEMORY)}, metadata))
    return stages


def _known_queries(
    spec: LearnerSpec,
    test: _TestSet,
    paths: Mapping[str, str],
    images_per_class: int | None,
    weights: dict[str, str],
) -> dict[str, Tensor]:
    """Read queries of the test images by backbone; `weights` remembers what made them."""
    found = {}
    for name, path in paths.items():
        made = spec.test_queries(name, images_per_class)
        cache = HeldOutQueries(path, spec=made.to_json())
        artifacts.check_provenance(path, cache.inputs, {"data": test.split.fingerprint})
        weights.update(cache.inputs["backbones"])
        found[name] = cache(test.indices)
    return found


@dataclass(frozen=True)
class _Queries:
    """Queries of the test images by backbone, known or computed."""

    test: _TestSet
    compute: Compute
    loaded: Mapping[str, Backbone]
    known: Mapping[str, Tensor]

    def __call__(self, name: str | None) -> Tensor | None:
        if name is None:
            return None
        if name in self.known:
            return self.known[name].to(self.compute.device)
        test, query = self.test, self.loaded[name].query
        return over_test_images(test.pixels, test.views, self.compute.device, lambda x, _: query(x))


def _scores(
    learner: Learner,
    test: _TestSet,
    compute: Compute,
    stage: int,
    own: Tensor | None,
    foreign: Tensor | None,
    tokens: Tensor | None,
) -> Tensor:
    """Return logits `[n, seen]` of all test images of the tasks seen at a stage."""
    seen, n = test.stream.classes(stage).stop, sum(test.counts[: stage + 1])
    if tokens is not None:
        parts = tokens[:n].split(TEST_BATCH[compute.device.type])
        return torch.cat([learner.predict(learner.read(part), seen).cpu() for part in parts])

    def logits(images: Tensor, rows: Tensor) -> Tensor:
        query, teachers = (None if q is None else q[rows] for q in (own, foreign))
        return learner.predict(learner(images, query, stage, teachers), seen).cpu()

    return over_test_images(test.pixels, test.views, compute.device, logits, torch.arange(n))


def _tokens(spec: LearnerSpec, learner: Learner, test: _TestSet, compute: Compute) -> Tensor | None:
    """Return final tokens `[n, 1, D]` of the test images where all stages have the same.

    So it is where a method solves for its head and learns nothing before it; else None.
    """
    if spec.method.facts.trains:
        return None
    frozen = learner.backbone.query
    pooled = over_test_images(test.pixels, test.views, compute.device, lambda x, _: frozen(x))
    return pooled[:, None]


def _accuracies(scores: Tensor, test: _TestSet, stage: int) -> list[float]:
    """Return the accuracy in percent on each task seen."""
    correct = scores.argmax(1) == test.labels[: len(scores)]
    owner = test.owner[: len(scores)]
    return [float(100 * correct[owner == i].double().mean()) for i in range(stage + 1)]


def _matrices(test: _TestSet, scores: Sequence[Tensor]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return accuracies among all classes and among those of an image's own task.

    Also the last stage's predictions among the latter.
    """
    matrix, within = (np.full((len(test.counts), len(test.counts)), np.nan) for _ in range(2))
    for t, logits in enumerate(scores):
        n = len(logits)
        owner, labels = test.owner[:n].numpy(), test.labels[:n].numpy()
        own_task = own_task_predictions(logits.numpy(), owner, test.stream.sizes)
        matrix[t, : t + 1] = _accuracies(logits, test, t)
        within[t, : t + 1] = accuracy_by(owner, own_task == labels, t + 1)
        log.info("after task %d: %.2f %% on average", t, matrix[t, : t + 1].mean())
    return {"matrix": matrix, "task_incremental_matrix": within}, own_task


def _results(
    test: _TestSet,
    matrices: Mapping[str, np.ndarray],
    predictions: pd.DataFrame,
    probabilistic: bool,
) -> dict[str, Any]:
    """Return the numbers in `results.json`; a method that solves for its head has no logits."""
    sizes = test.stream.sizes[: len(test.counts)]
    classes = [test.split.classes[label] for label in test.stream.order[: sum(sizes)]]
    found = prediction_metrics(predictions, classes, sizes, probabilistic)
    numbers = metrics(matrices["matrix"], test.counts) | found.pop("metrics")
    shown = {name: [[_number(x) for x in row] for row in m] for name, m in matrices.items()}
    return {
        **shown,
        "test_images": test.counts,
        "metrics": {k: _number(v) for k, v in numbers.items()},
        "classes": classes,
        **found,
    }


def _provenance(
    spec: LearnerSpec,
    test: _TestSet,
    evaluated: Sequence[Mapping[str, Any]],
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what `results.json` says of how its numbers were made."""
    last = evaluated[-1]
    return {
        "evaluation": EVALUATION,
        "trainable_parameters": last["trainable_parameters"],
        "learner": spec.to_json(),
        "backbones": last["inputs"]["backbones"],
        "data": {
            "train": about["train"],
            "test": test.split.fingerprint,
            **{k: v for k, v in last["inputs"].items() if k == "unlabelled"},
        },
        "test_images_per_class": about["images"],
        "checkpoints": [metadata["sha256"] for metadata in evaluated],
        "device": about["device"],
        "versions": versions(),
    }


def _check_finite(values: Tensor, what: str, metadata: Mapping[str, Any]) -> None:
    """Raise `CdlError` naming the task and the epoch after which values are not finite."""
    bad = int((~values.isfinite().reshape(len(values), -1).all(1)).sum())
    if bad:
        epoch = LearnerSpec.from_json(metadata["learner"]).training.epochs - 1
        raise CdlError(
            f"{what}, learnt in task {metadata['task']} up to epoch {epoch}, are not finite for "
            f"{bad} of {len(values)} test images; lower training.lr, nothing was written"
        )


def _predictions(
    test: _TestSet, scores: Tensor, own_task: np.ndarray, last: Mapping[str, Any]
) -> pd.DataFrame:
    """Return the last stage's prediction for every test image, also among its own task's."""
    probabilities = scores.double().softmax(1)
    probability, predicted = scores.float().softmax(1).max(1)
    _check_finite(probability, "probabilities", last)
    true = probabilities.gather(1, test.labels[:, None])[:, 0]
    brier = probabilities.square().sum(1) - 2 * true + 1  # squared distance to the true class's one
    names = np.array(test.split.classes)[list(test.stream.order)]
    return pd.DataFrame(
        {
            "image": test.indices.numpy(),
            "file": test.split.names[test.indices.numpy()],
            "task": test.owner.numpy(),
            "class": names[test.labels.numpy()],
            "predicted": names[predicted.numpy()],
            "probability": probability.numpy(),
            "probability_true": true.numpy(),
            "brier": brier.numpy(),
            "correct": (test.labels == predicted).numpy(),
            "predicted_in_task": names[own_task],
        }
    )


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else float(value)
