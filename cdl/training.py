"""One flat loop for one task of any learner: views, what frozen models say of them, a step."""

import logging
import math
from collections.abc import Callable, Iterable

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from cdl.data import Batch
from cdl.distillers.base import Signal
from cdl.errors import CdlError
from cdl.model import Learner
from cdl.step import Step

log = logging.getLogger(__name__)


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
    teacher: Callable[[Batch, Tensor | None], Signal] | None,
    task: int,
    classes: slice,
    epochs: int,
    lr: float,
    betas: tuple[float, float],
    schedule: str,
    capture: bool = False,
) -> pd.DataFrame:
    """Learn one task in place, with an Adam that starts afresh and does not decay.

    Args:
        learner: its state after the previous task, with `start_task` done.
        batches: epoch to batches.
        query: a batch's query `[B, Dq]`, computed or from a cache; None if prompts read none.
        teacher: a batch and its query to the frozen teacher's signal, or None without one.
        task: counted from 0.
        classes: head columns of the task.
        epochs: passes over the task's images.
        lr: rate at the start, see `learning_rate`.
        betas: of Adam (Kingma and Ba, 2015).
        schedule: see `learning_rate`.
        capture: replay the step as a CUDA graph, see `cdl.step`.

    Returns:
        One row per step: task, epoch, learning_rate, and each loss part before the update.

    Raises:
        CdlError: a loss is not finite.
    """
    learner.train()
    step = Step(learner, task=task, classes=classes, lr=lr, betas=betas, capture=capture)
    history = []
    for epoch in tqdm(range(epochs), desc=f"task {task}", unit="epoch", leave=False, disable=None):
        rate = learning_rate(epoch, epochs, lr, schedule)
        step.set_rate(rate)
        losses = []
        for batch in batches(epoch):
            q = query(batch)
            losses.append(step(batch, q, teacher(batch, q) if teacher else None))
        frame = pd.DataFrame(torch.stack(losses).double().cpu().numpy(), columns=step.parts)
        _check_finite(frame, task, epoch)
        means = " ".join(f"{part} {value:.4f}" for part, value in frame.mean().items())
        log.info("task %d epoch %d/%d lr %.2e %s", task, epoch + 1, epochs, rate, means)
        frame.insert(0, "task", task)
        frame.insert(1, "epoch", epoch)
        frame.insert(2, "learning_rate", rate)
        history.append(frame)
    return pd.concat(history, ignore_index=True)


def per_epoch(history: pd.DataFrame) -> pd.DataFrame:
    """Return the tidy loss curve: task, epoch, learning_rate, part, value (epoch mean)."""
    keys = ["task", "epoch", "learning_rate"]
    means = history.groupby(keys).mean()
    means["total"] = means.sum(axis=1)
    tidy = means.stack().rename("value").rename_axis([*keys, "part"])
    return tidy.reset_index()


def _check_finite(losses: pd.DataFrame, task: int, epoch: int) -> None:
    """Raise `CdlError` with the first batch of an epoch whose loss parts are not finite."""
    bad = losses.index[~losses.map(math.isfinite).all(axis=1)]
    if len(bad):
        shown = ", ".join(f"{part} {value:.4g}" for part, value in losses.loc[bad[0]].items())
        raise CdlError(
            f"the loss is not finite in task {task}, epoch {epoch}, batch {bad[0]}: {shown}; "
            "lower training.lr, nothing was written"
        )
