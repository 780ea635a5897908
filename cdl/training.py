"""One flat loop for one task of any learner: views, forward, sum of losses, step."""

import logging
import math
from collections.abc import Callable

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from cdl.data import Packed, Views
from cdl.errors import CdlError
from cdl.model import Learner, Teacher
from cdl.seeds import permutation

log = logging.getLogger(__name__)
_ORDER = 301  # purpose of the counter-based draws


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
    *,
    data: Packed,
    labels: Tensor,
    indices: Tensor,
    views: Views,
    device: torch.device,
    query: Callable[[Tensor], Tensor],
    teacher: Teacher | None,
    task: int,
    classes: slice,
    seed: int,
    epochs: int,
    batch_size: int,
    lr: float,
    betas: tuple[float, float],
    schedule: str,
) -> pd.DataFrame:
    """Learn one task in place.

    Every epoch visits the task's images in an order that is a function of (seed, task, epoch),
    in whole batches: the last partial batch is dropped. Adam starts afresh, without decay.

    Args:
        learner: its state after the previous task, with `start_task` done.
        data: the training split.
        labels: `[N]` positions of all its labels in the class order, on the device.
        indices: `[n]` images of the task.
        views: training views.
        device: of the learner; views are made on it.
        query: views `[B, 3, H, W]` to `[B, Dq]`.
        teacher: frozen, or None.
        task: counted from 0.
        classes: head columns of the task.
        seed: of order and views.
        epochs: passes over the task's images.
        batch_size: images per step.
        lr: rate at the start, see `learning_rate`.
        betas: of Adam (Kingma and Ba, 2015).
        schedule: see `learning_rate`.

    Returns:
        One row per epoch and loss part: task, epoch, learning_rate, part, value (epoch mean).

    Raises:
        CdlError: a loss is not finite, or the task has fewer images than one batch.
    """
    steps = len(indices) // batch_size
    if steps == 0:
        raise CdlError(
            f"training.batch_size: {batch_size} is more than the {len(indices)} "
            f"training images of task {task}"
        )
    learner.train()
    keep_blocks = learner.distiller.reads_blocks
    optimizer = torch.optim.Adam(learner.learnables(), lr=lr, betas=betas)
    rows = []
    progress = tqdm(
        total=epochs * steps, desc=f"task {task}", unit="step", leave=False, disable=None
    )
    for epoch in range(epochs):
        rate = learning_rate(epoch, epochs, lr, schedule)
        for group in optimizer.param_groups:
            group["lr"] = rate
        order = indices[permutation((_ORDER, seed, task, epoch), len(indices))]
        history = []
        for batch in order[: steps * batch_size].split(batch_size):
            pixels, sizes = data.batch(batch)
            batch = batch.to(device)
            images = views.train(pixels.to(device), sizes.to(device), batch, seed, epoch)
            q = query(images)
            signal = teacher(images, q, task, classes, keep_blocks) if teacher else None
            output = learner(images, q, task, signal.query if signal else None, keep_blocks)
            losses = learner.losses(output, signal, labels[batch], classes)
            optimizer.zero_grad(set_to_none=True)
            sum(losses.values()).backward()
            optimizer.step()
            history.append(torch.stack([loss.detach() for loss in losses.values()]))
            progress.update()
        values = torch.stack(history)  # [steps, parts]
        _check_finite(values, list(losses), task, epoch)
        means = dict(zip(losses, values.double().mean(0).tolist(), strict=True))
        means["total"] = sum(means.values())
        rows += [(task, epoch, rate, part, value) for part, value in means.items()]
        log.info(
            "task %d epoch %d/%d lr %.2e %s",
            task,
            epoch + 1,
            epochs,
            rate,
            " ".join(f"{part} {value:.4f}" for part, value in means.items()),
        )
    progress.close()
    return pd.DataFrame(rows, columns=["task", "epoch", "learning_rate", "part", "value"])


def _check_finite(values: Tensor, parts: list[str], task: int, epoch: int) -> None:
    """Raise `CdlError` with the first batch whose losses `[steps, parts]` are not finite."""
    bad = torch.nonzero(~values.isfinite().all(1))
    if len(bad):
        batch = int(bad[0])
        shown = ", ".join(
            f"{p} {v:.4g}" for p, v in zip(parts, values[batch].tolist(), strict=True)
        )
        raise CdlError(
            f"the loss is not finite in task {task}, epoch {epoch}, batch {batch}: "
            f"{shown}; lower training.lr, nothing was written"
        )
