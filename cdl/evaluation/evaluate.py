"""Evaluate the checkpoints of a run: accuracy matrix, predictions and metrics."""

import logging
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cdl import EVALUATION
from cdl.data.order import digest_of
from cdl.evaluation.features import computed, read_test_features
from cdl.evaluation.inputs import Opened, TestFiles, TestSet
from cdl.evaluation.metrics import (
    accuracy_by,
    metrics,
    negative_flips,
    own_task_predictions,
    prediction_metrics,
    separation,
)
from cdl.models.build import versions
from cdl.models.learner import Learner
from cdl.runtime import artifacts
from cdl.runtime.errors import CdlError
from cdl.runtime.jobs import DEFAULT, Execution
from cdl.spec import LearnerSpec
from cdl.training import checkpointing
from cdl.training.targets import TEST_BATCH

log = logging.getLogger(__name__)


@torch.no_grad()
def evaluate_run(
    spec: LearnerSpec,
    results: str,
    predictions: str,
    *,
    features: str | None = None,
    images_per_class: int | None,
    unknown: bool = False,
    execution: Execution = DEFAULT,
    **files: Unpack[TestFiles],
) -> None:
    """Evaluate a run after each task with a checkpoint.

    Args:
        spec: specification of the learner.
        results: JSON file to write: matrix, metrics, specification, inputs, versions.
        predictions: Parquet file to write: predictions after the last task for every test image,
            among all classes and among those of its own task.
        features: the tokens of the test images, see `cdl.evaluation.features`; None computes them.
        images_per_class: test images per class; None for all.
        unknown: whether to measure, after each task but the last, how well the largest logit tells
            the learnt classes from those of later tasks.
        execution: how to compute; saved states of the run's tasks are deleted at the end.
        **files: files to read.

    Raises:
        CdlError: a checkpoint is damaged, belongs to another configuration, or gives outputs that
            are not finite. No file is written in this case.
    """
    checkpoints = files["checkpoints"]
    opened = Opened.read(spec, images_per_class, len(checkpoints), **files)
    test, learner = opened.test, opened.learner
    stages = [opened.checkpoint(path, task) for task, path in enumerate(checkpoints)]
    evaluated = [metadata for _, metadata in stages]
    shared = features and read_test_features(features, opened, evaluated)
    queries = opened.place(execution)
    learner.load_state(stages[0][0])
    tokens_after = shared.__getitem__ if shared else computed(opened, queries, later=unknown)
    scores, largest = list[Tensor](), list[np.ndarray]()
    for t, (state, metadata) in enumerate(stages):
        learner.load_state(state)
        tokens = tokens_after(t).to(queries.compute.device)
        logits = _scores(learner, tokens, test.stream.classes(t).stop)
        _check_finite(logits, f"logits of {checkpoints[t]}", metadata)
        scores.append(logits[: sum(test.counts[: t + 1])])
        if unknown:
            largest.append(logits.amax(1).numpy())
    states = [] if execution.states is None else _states(execution.states, evaluated)
    frame = _predictions(test, scores[-1], evaluated[-1])
    with artifacts.replacing(predictions) as temporary:
        frame.to_parquet(temporary, index=False)
    content = _results(test, scores, frame, spec.method.facts.trains)
    if unknown:
        content |= _separations(test, largest, content["metrics"])
    about: dict[str, Any] = {"images": images_per_class, "device": queries.compute.name}
    about["train"] = digest_of(opened.images, content["classes"], test.stream.domains)
    about["files"] = [os.path.relpath(path, Path(results).parent) for path in checkpoints]
    content |= _provenance(spec, test, evaluated, about)
    artifacts.write_json(results, content, files=[predictions])
    checkpointing.forget(states)


def _states(folder: str, evaluated: Sequence[Mapping[str, Any]]) -> list[Path]:
    """Return the paths of the saved states of evaluated checkpoints."""
    keys = [metadata["state"] for metadata in evaluated if "state" in metadata]
    return [checkpointing.path_of(folder, key) for key in keys]


def _scores(learner: Learner, tokens: Tensor, seen: int) -> Tensor:
    """Return the logits `[n, seen]` of test images from their tokens `[n, T, D]`, on the CPU."""
    parts = tokens.split(TEST_BATCH[tokens.device.type])
    return torch.cat([learner.predict(learner.read(part), seen).cpu() for part in parts])


def _own_task(scores: Tensor, test: TestSet) -> np.ndarray:
    """Return the predictions `[n]` of logits `[n, seen]` among the classes of the images' tasks."""
    owner = test.owner[: len(scores)].numpy()
    return own_task_predictions(scores.numpy(), owner, test.stream.sizes)


def _results(
    test: TestSet, scores: Sequence[Tensor], predictions: pd.DataFrame, probabilistic: bool
) -> dict[str, Any]:
    """Return the numbers in `results.json`.

    The matrices are among all classes, and among the classes of an image's own task.
    `probabilistic` is False for a method that solves for its head: its outputs are not logits.
    """
    sizes = test.stream.sizes[: len(test.counts)]
    classes = [test.split.classes[label] for label in test.stream.order[: sum(sizes)]]
    matrix, within = (np.full((len(sizes), len(sizes)), np.nan) for _ in range(2))
    correct = []
    for t, logits in enumerate(scores):
        owner, labels = (x[: len(logits)].numpy() for x in (test.owner, test.labels))
        correct.append(logits.argmax(1).numpy() == labels)
        matrix[t, : t + 1] = accuracy_by(owner, correct[t], t + 1)
        within[t, : t + 1] = accuracy_by(owner, _own_task(logits, test) == labels, t + 1)
        log.info("after task %d: %.2f %% on average", t + 1, matrix[t, : t + 1].mean())
    of_predictions = prediction_metrics(predictions, classes, sizes, probabilistic)
    numbers = metrics(matrix, test.counts) | of_predictions.pop("metrics")
    unknown = dict.fromkeys(("unknown_auroc", "unknown_fpr95"))
    content = {
        "matrix": matrix.tolist(),
        "task_incremental_matrix": within.tolist(),
        "test_images": test.counts,
        "metrics": {**numbers, "negative_flips": negative_flips(correct), **unknown},
        "classes": classes,
        **of_predictions,
    }
    return {name: _without_nan(value) for name, value in content.items()}


def _separations(
    test: TestSet, largest: Sequence[np.ndarray], metrics: Mapping[str, Any]
) -> dict[str, Any]:
    """Return how well learnt classes are told from those of later tasks, for `results.json`.

    `largest` are the largest logits of the images of all tasks after each task. Their means over
    all tasks but the last are added to the metrics.
    """
    separations = []
    for task, best in enumerate(largest[:-1]):
        known = (test.labels < test.stream.classes(task).stop).numpy()
        separations.append(separation(best[known], best[~known]))
    means = {}
    for name in ("auroc", "fpr95"):
        values = [x for x in (one[name] for one in separations) if not math.isnan(x)]
        means[f"unknown_{name}"] = float(np.mean(values)) if values else None
    return {
        "metrics": {**metrics, **means},
        "evaluates": ["unknown"],
        "unknown": _without_nan(separations),
    }


def _provenance(
    spec: LearnerSpec,
    test: TestSet,
    evaluated: Sequence[Mapping[str, Any]],
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the provenance of the numbers in `results.json`."""
    last = evaluated[-1]
    return {
        "evaluation": EVALUATION,
        "trainable_parameters": last["trainable_parameters"],
        "seen": _seen(evaluated),
        "learner": spec.to_json(),
        "backbones": last["inputs"]["backbones"],
        "data": {
            "train": about["train"],
            "test": test.split.fingerprint,
            **{k: v for k, v in last["inputs"].items() if k == "unlabelled"},
        },
        "test_images_per_class": about["images"],
        "checkpoints": [metadata["sha256"] for metadata in evaluated],
        "checkpoint_files": about["files"],
        "device": about["device"],
        "versions": versions(spec),
    }


def _seen(evaluated: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return views and images of all tasks."""
    seen = [metadata["seen"] for metadata in evaluated]
    names = [name for name in seen[0] if all(name in task for task in seen)]
    return {name: sum(task[name] for task in seen) for name in names}


def _check_finite(values: Tensor, what: str, metadata: Mapping[str, Any]) -> None:
    """Raise `CdlError` with task and epoch if a value is not finite."""
    bad = int((~values.isfinite().reshape(len(values), -1).all(1)).sum())
    if bad:
        epoch = LearnerSpec.from_json(metadata["learner"]).training.epochs
        raise CdlError(
            f"{what}, learnt in task {metadata['task'] + 1} up to epoch {epoch}, are not finite "
            f"for {bad} of {len(values)} test examples; no file was written; set a lower "
            "training.lr"
        )


def _predictions(test: TestSet, scores: Tensor, last: Mapping[str, Any]) -> pd.DataFrame:
    """Return the last predictions for all test images, one row per image."""
    probabilities, predicted = scores.double().softmax(1), scores.argmax(1)
    probability = scores.float().softmax(1).amax(1)
    _check_finite(probability, "probabilities", last)
    true = probabilities.gather(1, test.labels[:, None])[:, 0]
    brier = probabilities.square().sum(1) - 2 * true + 1  # squared distance to the one-hot label
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
            "predicted_in_task": names[_own_task(scores, test)],
        }
    )


def _without_nan(value: Any) -> Any:
    """Return a value with None for NaN, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: _without_nan(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_without_nan(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value
