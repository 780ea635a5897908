"""The training loop of one task: batches, frozen models, optimisation steps."""

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from cdl.data.batches import Batch
from cdl.distillers.base import TeacherOutput
from cdl.models.learner import Learner
from cdl.runtime.errors import CdlError
from cdl.spec import Sgd
from cdl.training.checkpointing import State
from cdl.training.step import Step

log = logging.getLogger(__name__)

_PROGRESS: dict[str, Any] = {"unit": "epoch", "leave": False, "disable": None}
_Losses = list[tuple[int, Tensor]]  # epoch and losses of every step


def learning_rate(epoch: int, epochs: int, base: float, schedule: str) -> float:
    """Return the learning rate of an epoch.

    Args:
        epoch: counted from 0.
        epochs: number of epochs `E` of the task.
        base: learning rate of the first epoch.
        schedule: `cosine`: `base cos(99 pi e / (200 (E-1)))`; `cosine_lagged`: the same with
            `e = 0, 0, 1, ...`, as in the released code, whose scheduler lags one epoch behind;
            `cosine_zero`: `base (1 + cos(pi e / E)) / 2`; `constant`.
    """
    if schedule == "cosine_zero":
        return base / 2 * (1 + math.cos(math.pi * epoch / epochs))
    if schedule == "constant" or epochs == 1:
        return base
    step = max(0, epoch - 1) if schedule == "cosine_lagged" else epoch
    return base * math.cos(99 * math.pi * step / (200 * (epochs - 1)))


def train_task(
    learner: Learner,
    batches: Callable[[int], Iterable[Batch]],
    *,
    query: Callable[[Batch], Tensor | None],
    teacher: Callable[[Batch, Tensor | None], TeacherOutput] | None,
    task: int,
    classes: slice,
    epochs: int,
    lr: float,
    betas: tuple[float, float],
    schedule: str,
    sgd: Sgd | None = None,
    capture: bool = False,
    state: State | None = None,
) -> pd.DataFrame:
    """Train a learner on one task in place, with a new optimizer.

    Args:
        learner: the learner after the previous task, with `start_task` done.
        batches: function of an epoch that returns its batches.
        query: function of a batch that returns its query `[B, Dq]`, computed or cached, or None.
        teacher: function of a batch and its query that returns the teacher's output, or None.
        task: counted from 0.
        classes: columns of the task.
        epochs: passes over the task's images.
        lr: learning rate of the first epoch, see `learning_rate`.
        betas: betas of Adam (Kingma and Ba, 2015).
        schedule: see `learning_rate`.
        sgd: options of SGD; None uses Adam without weight decay.
        capture: replay the step as a CUDA graph, see `cdl.training.step`.
        state: saved state to resume from and to save to; a resumed task gives the same result as
            an uninterrupted one, bit for bit on the CPU.

    Returns:
        One row per step: task, epoch, learning_rate, and each loss before the update.

    Raises:
        CdlError: a loss, or a parameter after the last step, is not finite.
        Interrupted: a signal has stopped the job; its state is saved.
    """
    learner.train()
    step = Step(learner, task=task, classes=classes, lr=lr, betas=betas, sgd=sgd, capture=capture)
    losses, at = _resume(state, learner, step)
    rates = [learning_rate(epoch, epochs, lr, schedule) for epoch in range(epochs)]
    for epoch in tqdm(range(at[0], epochs), desc=f"task {task + 1}", **_PROGRESS):
        step.set_rate(rates[epoch])
        for i, batch in enumerate(batches(epoch)):
            if (epoch, i) < at:
                continue
            q = query(batch)
            losses.append((epoch, step(batch, q, teacher(batch, q) if teacher else None)))
            if state is not None and state.due():
                _save(state, learner, step, losses, (epoch, i + 1))
        _check_finite(_frame(losses, step.parts, epoch), state, task, epoch, epochs)
    _check_learnt(learner, state, task, epochs)
    if state is not None:
        _save(state, learner, step, losses, (epochs, 0))
    return _history(losses, step.parts, rates, task)


def _history(losses: _Losses, parts: list[str], rates: list[float], task: int) -> pd.DataFrame:
    """Return the rows of `train_task`."""
    history = _frame(losses, parts)
    history.insert(0, "task", task)
    history.insert(2, "learning_rate", [rates[epoch] for epoch in history["epoch"]])
    return history


def _frame(losses: _Losses, parts: list[str], epoch: int | None = None) -> pd.DataFrame:
    """Return epoch and losses, one row per step, of one epoch or of all."""
    kept = [(e, values) for e, values in losses if epoch is None or e == epoch]
    values = torch.stack([values for _, values in kept]).double().cpu().numpy()
    frame = pd.DataFrame(values, columns=parts)
    frame.insert(0, "epoch", [e for e, _ in kept])
    return frame


def _save(state: State, learner: Learner, step: Step, losses: _Losses, at: tuple[int, int]) -> None:
    """Save everything that the following steps need; `at` is the next epoch and step."""
    tensors = {f"learner.{name}": tensor for name, tensor in learner.state().items()}
    tensors |= {f"adam.{name}": tensor for name, tensor in step.state().items()}
    tensors["losses"] = torch.stack([values for _, values in losses])
    tensors["epochs"] = torch.tensor([epoch for epoch, _ in losses])
    state.save(tensors, {"at": at, "parts": step.parts})


def _resume(state: State | None, learner: Learner, step: Step) -> tuple[_Losses, tuple[int, int]]:
    """Restore a saved state; return the losses so far and the next epoch and step."""
    saved = state.load() if state is not None else None
    if saved is None:
        return [], (0, 0)
    tensors, metadata = saved
    learner.load_state(_without_prefix("learner.", tensors))
    step.load_state(_without_prefix("adam.", tensors))
    step.parts = metadata["parts"]
    epoch, i = metadata["at"]
    log.info("resuming at epoch %d, batch %d", epoch, i)
    losses = tensors["losses"].to(learner.learnables()[0].device)
    return list(zip(tensors["epochs"].tolist(), losses, strict=True)), (epoch, i)


def _without_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}


def per_epoch(history: pd.DataFrame) -> pd.DataFrame:
    """Return the loss curve in long form, with the mean of each epoch.

    The columns are task, epoch, learning_rate, part and value.
    """
    keys = ["task", "epoch", "learning_rate"]
    means = history.groupby(keys).mean()
    means["total"] = means.sum(axis=1)
    tidy = pd.Series(means.stack(), name="value").rename_axis([*keys, "part"])
    return tidy.reset_index()


def _check_learnt(learner: Learner, state: State | None, task: int, epochs: int) -> None:
    """Raise `CdlError` if a parameter is not finite; no loss checks the last update."""
    bad = [name for name, tensor in learner.state().items() if not tensor.isfinite().all()]
    if bad:
        if state is not None:
            state.remove()
        raise CdlError(
            f"{', '.join(bad)} is not finite after the last update of task {task + 1}, epoch "
            f"{epochs}; no file was written; set a lower training.lr"
        )


def _check_finite(
    losses: pd.DataFrame, state: State | None, task: int, epoch: int, epochs: int
) -> None:
    """Log mean losses; if one is not finite, delete the state and raise `CdlError`."""
    losses = losses.drop(columns="epoch")
    means = " ".join(f"{part} {value:.4f}" for part, value in losses.mean().items())
    log.info("task %d epoch %d/%d %s", task + 1, epoch + 1, epochs, means)
    bad = losses.index[~losses.map(math.isfinite).all(axis=1)]
    if len(bad):
        if state is not None:
            state.remove()
        values = ", ".join(f"{part} {value:.4g}" for part, value in losses.loc[bad[0]].items())
        raise CdlError(
            f"the loss is not finite in task {task + 1}, epoch {epoch + 1}, batch {bad[0] + 1}: "
            f"{values}; "
            "no file was written; set a lower training.lr"
        )
