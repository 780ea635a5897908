"""Checkpoints of one run to its accuracy matrix, predictions and metrics."""

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cdl import artifacts
from cdl.assembly import (
    build_learner,
    build_stream,
    load_backbones,
    select_compute,
    versions,
)
from cdl.data.packed import Packed
from cdl.data.views import Views
from cdl.distillers.base import Shape
from cdl.metrics import metrics
from cdl.specs import test_queries_spec
from cdl.state import remove
from cdl.targets import TestQueries, over_test_images

log = logging.getLogger(__name__)


@torch.no_grad()
def evaluate_run(
    *,
    spec: dict[str, Any],
    checkpoints: Sequence[str],
    data: str,
    backbones: Mapping[str, str],
    teacher_query: str | None,
    images_per_class: int | None,
    results: str,
    predictions: str,
    queries: Mapping[str, str] | None = None,
    device: str = "auto",
    states: str | None = None,
) -> None:
    """Evaluate every stage of a run.

    Args:
        spec: specification of the learner.
        checkpoints: its artifacts in task order.
        data: packed folder.
        backbones: paths of the backbone artifacts needed, by name.
        teacher_query: name of the backbone whose query the teacher's prompts read, if the
            distiller maps them at prediction; else None.
        images_per_class: test images per class; None for all.
        results: JSON to write: matrix, metrics, specification, inputs, versions.
        predictions: Parquet to write: the last stage's prediction for every test image.
        queries: paths of the queries of the test views, by the backbone's name; those not
            given are computed once for all stages.
        device: see `cdl.compute.Compute.select`.
        states: folder with the states of the run's tasks, which are removed at the end.

    Raises:
        CdlError: a checkpoint is damaged or belongs to another configuration.
    """
    test = Packed(data, "test")
    stream = build_stream(spec, test)
    compute = select_compute(spec, device)
    loaded = load_backbones(spec, backbones, compute)
    weights = {name: backbone.fingerprint for name, backbone in loaded.items()}
    views = Views(**spec["view"])
    tasks = [stream.indices(test, t, images_per_class) for t in range(len(stream.sizes))]
    indices = torch.cat(tasks)
    pixels = test.pixels(indices)
    owner = torch.cat([torch.full((len(part),), t) for t, part in enumerate(tasks)])
    labels = stream.labels(test)[indices]
    matrix = np.full((len(tasks), len(tasks)), np.nan)
    shape = artifacts.read_json(Path(checkpoints[0]).with_suffix(".json"))
    learner = build_learner(
        spec,
        stream,
        loaded[spec["backbone"]],
        shape["widths"],
        None if shape["teacher_shape"] is None else Shape(**shape["teacher_shape"]),
    ).eval()

    def queries_of(name: str | None) -> Tensor | None:
        if name is None or not learner.prompts.needs_query:
            return None
        if name in (queries or {}):
            expected = test_queries_spec(spec, name, images_per_class)
            cache = TestQueries(queries[name], compute.device, spec=expected)
            artifacts.check(queries[name], cache.inputs, {"data": test.fingerprint})
            weights.update(cache.inputs["backbones"])
            return cache(indices)
        query = loaded[name].query
        return over_test_images(pixels, views, compute.device, lambda x, _: query(x))

    own = queries_of(spec["query"])
    foreign = own if teacher_query == spec["query"] else queries_of(teacher_query)
    evaluated = []
    for t, checkpoint in enumerate(checkpoints):
        state, metadata = artifacts.load(checkpoint, task=t, learner=spec)
        artifacts.check(checkpoint, metadata["inputs"]["backbones"], weights)
        evaluated.append(metadata)
        learner.load_state(state)
        seen = stream.classes(t).stop

        def logits(images: Tensor, rows: Tensor, t: int = t, seen: int = seen) -> Tensor:
            query, teachers = (None if q is None else q[rows] for q in (own, foreign))
            return learner.predict(learner(images, query, t, teachers), seen).cpu()

        n = int((owner <= t).sum())
        scores = over_test_images(pixels, views, compute.device, logits, n)
        correct = scores.argmax(1) == labels[:n]
        for i in range(t + 1):
            matrix[t, i] = 100 * correct[owner[:n] == i].double().mean()
        log.info("after task %d: %.2f %% on average", t, matrix[t, : t + 1].mean())
    probability, predicted = scores.float().softmax(1).max(1)
    _write_predictions(
        predictions, test, stream.order, indices, owner, labels, predicted, probability
    )
    counts = [len(part) for part in tasks]
    artifacts.write_json(
        results,
        {
            "matrix": [[_number(x) for x in row] for row in matrix],
            "test_images": counts,
            "metrics": {k: _number(v) for k, v in metrics(matrix, counts).items()},
            "trainable_parameters": metadata["trainable_parameters"],
            "learner": spec,
            "backbones": metadata["inputs"]["backbones"],
            "classes": [test.classes[label] for label in stream.order],
            "data": {"train": metadata["inputs"]["data"], "test": test.fingerprint},
            "test_images_per_class": images_per_class,
            "predictions_sha256": artifacts.fingerprint_file(predictions),
            "checkpoints": [metadata["sha256"] for metadata in evaluated],
            "device": compute.name,
            "versions": versions(),
        },
    )
    for metadata in evaluated if states is not None else ():
        remove(states, metadata["state"])


def _write_predictions(
    path: str,
    test: Packed,
    order: Sequence[int],
    indices: Tensor,
    owner: Tensor,
    labels: Tensor,
    predicted: Tensor,
    probability: Tensor,
) -> None:
    names = np.array(test.classes)[list(order)]
    frame = pd.DataFrame(
        {
            "image": indices.numpy(),
            "file": test.names[indices.numpy()],
            "task": owner.numpy(),
            "class": names[labels.numpy()],
            "predicted": names[predicted.numpy()],
            "probability": probability.numpy(),
            "correct": (labels == predicted).numpy(),
        }
    )
    with artifacts.replacing(path) as temporary:
        frame.to_parquet(temporary, index=False)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
