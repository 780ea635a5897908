"""One flat loop for one task of any learner: views, what frozen models say of them, a step."""

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
from cdl.training.checkpointing import State
from cdl.training.step import Step

log = logging.getLogger(__name__)

_PROGRESS: dict[str, Any] = {"unit": "epoch", "leave": False, "disable": None}
_Losses = list[tuple[int, Tensor]]  # epoch and loss parts of every step


def learning_rate(epoch: int, epochs: int, base: float, schedule: str) -> float:
    """Return the rate of an epoch, constant inside it.

    Args:
        epoch: counted from 0.
        epochs: `E`, of the task.
        base: rate of the first epoch.
        schedule: `cosine`: `base cos(99 pi e / (200 (E-1)))`; `cosine_lagged`: the same with
            `e = 0, 0, 1, ...`, the released loop, whose scheduler lags one epoch; `constant`.
    """
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
    capture: bool = False,
    state: State | None = None,
) -> pd.DataFrame:
    """Learn one task in place, with an Adam that starts afresh and does not decay.

    Args:
        learner: its state after the previous task, with `start_task` done.
        batches: epoch to batches.
        query: a batch's query `[B, Dq]`, computed or from a cache; None if prompts read none.
        teacher: a batch and its query to the frozen teacher's output, or None without one.
        task: counted from 0.
        classes: head columns of the task.
        epochs: passes over the task's images.
        lr: rate at the start, see `learning_rate`.
        betas: of Adam (Kingma and Ba, 2015).
        schedule: see `learning_rate`.
        capture: replay the step as a CUDA graph, see `cdl.training.step`.
        state: where to save unfinished work and to go on from; a resumed task ends like an
            undisturbed one, on the CPU bit by bit.

    Returns:
        One row per step: task, epoch, learning_rate, and each loss part before the update.

    Raises:
        CdlError: a loss, or at the end a parameter, is not finite; `Interrupted` if a signal asked
            to stop.
    """
    learner.train()
    step = Step(learner, task=task, classes=classes, lr=lr, betas=betas, capture=capture)
    losses, at = _resume(state, learner, step)
    rates = [learning_rate(epoch, epochs, lr, schedule) for epoch in range(epochs)]
    for epoch in tqdm(range(at[0], epochs), desc=f"task {task}", **_PROGRESS):
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
    history = _frame(losses, step.parts)
    history.insert(0, "task", task)
    history.insert(2, "learning_rate", [rates[epoch] for epoch in history["epoch"]])
    return history


def _frame(losses: _Losses, parts: list[str], epoch: int | None = None) -> pd.DataFrame:
    """Return one row per step, of one epoch or of all: epoch and loss parts."""
    kept = [(e, values) for e, values in losses if epoch is None or e == epoch]
    values = torch.stack([values for _, values in kept]).double().cpu().numpy()
    frame = pd.DataFrame(values, columns=parts)
    frame.insert(0, "epoch", [e for e, _ in kept])
    return frame


def _save(state: State, learner: Learner, step: Step, losses: _Losses, at: tuple[int, int]) -> None:
    """Save all that the steps to come depend on; `at` is the next epoch and step."""
    tensors = {f"learner.{name}": tensor for name, tensor in learner.state().items()}
    tensors |= {f"adam.{name}": tensor for name, tensor in step.state().items()}
    tensors["losses"] = torch.stack([values for _, values in losses])
    tensors["epochs"] = torch.tensor([epoch for epoch, _ in losses])
    state.save(tensors, {"at": at, "parts": step.parts})


def _resume(state: State | None, learner: Learner, step: Step) -> tuple[_Losses, tuple[int, int]]:
    """Go back to what `_save` saved: losses so far, next epoch and step."""
    saved = state.load() if state is not None else None
    if saved is None:
        return [], (0, 0)
    tensors, metadata = saved
    learner.load_state(_below("learner.", tensors))
    step.load_state(_below("adam.", tensors))
    step.parts = metadata["parts"]
    epoch, i = metadata["at"]
    log.info("going on at epoch %d, batch %d", epoch, i)
    losses = tensors["losses"].to(learner.learnables()[0].device)
    return list(zip(tensors["epochs"].tolist(), losses, strict=True)), (epoch, i)


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}


def per_epoch(history: pd.DataFrame) -> pd.DataFrame:
    """Return the tidy loss curve: task, epoch, learning_rate, part, value (epoch mean)."""
    keys = ["task", "epoch", "learning_rate"]
    means = history.groupby(keys).mean()
    means["total"] = means.sum(axis=1)
    tidy = pd.Series(means.stack(), name="value").rename_axis([*keys, "part"])
    return tidy.reset_index()


def _check_learnt(learner: Learner, state: State | None, task: int, epochs: int) -> None:
    """Raise `CdlError` unless all that was learnt is finite: no loss has seen the last update."""
    bad = [name for name, tensor in learner.state().items() if not tensor.isfinite().all()]
    if bad:
        if state is not None:
            state.remove()
        raise CdlError(
            f"{', '.join(bad)} is not finite after the last update of task {task}, epoch "
            f"{epochs - 1}; lower training.lr, nothing was written"
        )


def _check_finite(
    losses: pd.DataFrame, state: State | None, task: int, epoch: int, epochs: int
) -> None:
    """Log an epoch's means; a batch that is not finite is a `CdlError`, and the state goes."""
    losses = losses.drop(columns="epoch")
    means = " ".join(f"{part} {value:.4f}" for part, value in losses.mean().items())
    log.info("task %d epoch %d/%d %s", task, epoch + 1, epochs, means)
    bad = losses.index[~losses.map(math.isfinite).all(axis=1)]
    if len(bad):
        if state is not None:
            state.remove()
        shown = ", ".join(f"{part} {value:.4g}" for part, value in losses.loc[bad[0]].items())
        raise CdlError(
            f"the loss is not finite in task {task}, epoch {epoch}, batch {bad[0]}: {shown}; "
            "lower training.lr, nothing was written"
        )
