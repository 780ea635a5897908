"""The alignment of linear heads of `cdl.training.alignment`, in numpy, with draws of `draws`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cdl.device.closed import Statistics
from cdl.device.draws import permutation
from cdl.device.schedules import alignment_rate

Rows = tuple[np.ndarray, np.ndarray]  # weight [C, D] and bias [C]
_NOISE, _SHUFFLE = 411, 412  # purposes of draws


def started(rows: Rows, statistics: Statistics, normalised: bool) -> Rows:
    """Return rows with further ones for the new classes of the statistics.

    No image trains them, as the task does in `cdl.training`. So they start as those of a ridge
    regression from the statistics with the mean length of the earlier rows, and with the bias that
    gives the mean of a new class the logit that means of earlier classes have on average.
    """
    seen, ridge = len(rows[0]), statistics.ridge().astype(np.float64)
    lengths = [np.linalg.norm(part[:seen], axis=1).mean() for part in (rows[0], ridge)]
    weight = np.concatenate([rows[0], ridge[seen:] * lengths[0] / max(lengths[1], 1e-12)])
    bias = np.concatenate([rows[1], np.zeros(len(weight) - seen)])
    own = np.diag(head_logits((weight, bias), statistics.mean, normalised))
    bias[seen:] = own[:seen].mean() - own[seen:]
    return weight, bias


def align(
    rows: Rows,
    statistics: Statistics,
    sizes: Sequence[int],
    how: Mapping[str, Any],
    key: int,
    normalised: bool = False,
) -> Rows:
    """Return the rows of a head after training on features that are drawn from all classes.

    The rows of a step are drawn when it begins, so that memory does not grow with the classes.

    Args:
        rows: weight and bias at the start, in fp64.
        statistics: of all classes.
        sizes: number of classes of each task or later update.
        how: options of `cdl.spec.SampledAlignment`.
        key: a number that differs among updates and heads.
        normalised: whether features get a layer norm and rows have norm 1, as in APT's head.
    """
    each, seen = how["samples"], sum(sizes)
    shrunk = Statistics(
        statistics.mean * mean_factors(how["mean_shrink"], sizes)[:, None],
        *(statistics.spread, statistics.counts, statistics.kind),
    )
    few = how["steps"] == "earlier" and len(sizes) > 1
    steps = seen - sizes[-1] if few else seen
    update = _Optimizer(how, rows)
    for epoch in range(how["epochs"]):
        order = permutation((_SHUFFLE, key, epoch), seen * each)
        for step in range(steps):
            chosen = order[step * each : (step + 1) * each]
            features = shrunk.samples(chosen, each, (_NOISE, key, epoch))
            gradients = _gradients(rows, features, chosen // each, sizes, how, normalised)
            rate = alignment_rate(
                how["schedule"], float(how["lr"]), epoch, how["epochs"], step, steps
            )
            rows = update(rows, gradients, rate)
    return rows


def mean_factors(shrink: float, sizes: Sequence[int]) -> np.ndarray:
    """Return the factor of each class's mean, see `cdl.spec.SampledAlignment`."""
    factors = [1 - shrink + shrink * (task + 1) / len(sizes) for task in range(len(sizes))]
    return np.repeat(factors, sizes)


def head_logits(rows: Rows, features: np.ndarray, normalised: bool) -> np.ndarray:
    """Return the logits `[n, C]` of a head for features `[n, D]`."""
    weight, bias = rows
    if normalised:
        weight, features = _unit(weight)[0], _layer_norm(features)
    logits: np.ndarray = features @ weight.T + bias
    return logits


def _unit(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    norms = np.maximum(np.linalg.norm(weight, axis=1, keepdims=True), 1e-12)
    return weight / norms, norms


def _layer_norm(x: np.ndarray) -> np.ndarray:
    x = x - x.mean(1, keepdims=True)
    normed: np.ndarray = x / np.sqrt(np.square(x).mean(1, keepdims=True) + 1e-5)
    return normed


def _gradients(
    rows: Rows,
    features: np.ndarray,
    labels: np.ndarray,
    sizes: Sequence[int],
    how: Mapping[str, Any],
    normalised: bool,
) -> Rows:
    """Return the gradients of the mean cross-entropy, see `cdl.training.alignment`."""
    logits, scale = head_logits(rows, features, normalised), np.ones((len(features), 1))
    slopes = np.zeros_like(logits)  # of the scale, which divides the logits
    if how["logit_norm"]:
        parts = np.split(logits, np.cumsum(sizes)[:-1], axis=1)
        norms = [np.linalg.norm(part, axis=1, keepdims=True) for part in parts]
        scale = how["logit_norm"] * np.mean([norm + 1e-7 for norm in norms], axis=0)
        pairs = zip(parts, norms, strict=True)
        unit = [part / np.where(norm > 0, norm, 1) for part, norm in pairs]
        slopes = how["logit_norm"] / len(sizes) * np.concatenate(unit, axis=1)
    divided = logits / scale
    exp = np.exp(divided - divided.max(1, keepdims=True))
    error = exp / exp.sum(1, keepdims=True)
    error[np.arange(len(labels)), labels] -= 1
    error /= len(labels) * scale
    error -= (error * divided).sum(1, keepdims=True) * slopes
    if not normalised:
        return error.T @ features, error.sum(0)
    unit_rows, lengths = _unit(rows[0])
    slope = error.T @ _layer_norm(features)
    along = (slope * unit_rows).sum(1, keepdims=True)
    return (slope - along * unit_rows) / lengths, error.sum(0)


class _Optimizer:
    """SGD with momentum, or AdamW, as in torch."""

    def __init__(self, how: Mapping[str, Any], rows: Rows) -> None:
        self._sgd, self._momentum = how["optimizer"] == "sgd", how["momentum"]
        self._decay, self._steps = how["weight_decay"], 0
        self._first = [np.zeros_like(part) for part in rows]
        self._second = [np.zeros_like(part) for part in rows]

    def __call__(self, rows: Rows, gradients: Rows, lr: float) -> Rows:
        """Return the rows after one step."""
        self._steps += 1
        weight, bias = (
            self._sgd_step(i, part, slope, lr)
            if self._sgd
            else self._adamw_step(i, part, slope, lr)
            for i, (part, slope) in enumerate(zip(rows, gradients, strict=True))
        )
        return weight, bias

    def _sgd_step(self, i: int, part: np.ndarray, slope: np.ndarray, lr: float) -> np.ndarray:
        self._first[i] = self._momentum * self._first[i] + slope + self._decay * part
        return part - lr * self._first[i]

    def _adamw_step(self, i: int, part: np.ndarray, slope: np.ndarray, lr: float) -> np.ndarray:
        one, two = 0.9, 0.999
        self._first[i] = one * self._first[i] + (1 - one) * slope
        self._second[i] = two * self._second[i] + (1 - two) * np.square(slope)
        first = self._first[i] / (1 - one**self._steps)
        second = self._second[i] / (1 - two**self._steps)
        moved: np.ndarray = (1 - lr * self._decay) * part - lr * first / (np.sqrt(second) + 1e-8)
        return moved
