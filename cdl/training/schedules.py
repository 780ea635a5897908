"""Learning rates that change in every iteration, as in VQ-Prompt's code, and of alignment."""

import math

FLOOR = 1e-6  # the final learning rate


def warm_cosine(
    iteration: int, base: float, iterations: int, *, frozen: int = 0, warmup: int = 0
) -> float:
    """Return the learning rate of an iteration.

    Args:
        iteration: counted from 0 over all epochs; from `iterations` on the rate is `FLOOR`.
        base: the highest learning rate.
        iterations: total number of iterations.
        frozen: number of first iterations with the rate `FLOOR`.
        warmup: number of iterations after these with a linear increase from 0 to `base`, both
            included.
    """
    if iteration < frozen:
        return FLOOR
    step = iteration - frozen
    if step < warmup:
        return base * step / max(warmup - 1, 1)
    step, left = step - warmup, iterations - frozen - warmup
    if step >= left:
        return FLOOR
    return FLOOR + (base - FLOOR) / 2 * (1 + math.cos(math.pi * step / left))


def lagged_warm_cosine(
    iteration: int,
    first: float,
    base: float,
    iterations: int,
    *,
    frozen: int = 0,
    warmup: int = 0,
) -> float:
    """Return the released rate: `first` at iteration 0, then a delayed `warm_cosine`.

    The delay is one iteration: the released scheduler steps after the update, and its constructor
    sets the full rate.
    """
    if iteration == 0:
        return first
    return warm_cosine(iteration - 1, base, iterations, frozen=frozen, warmup=warmup)


def alignment_rate(
    schedule: str, base: float, epoch: int, epochs: int, step: int, steps: int
) -> float:
    """Return the learning rate of a step of an alignment; an epoch has `steps` steps.

    Args:
        schedule: see `cdl.spec.Alignment`.
        base: the highest learning rate.
        epoch: counted from 0.
        epochs: number of epochs.
        step: counted from 0 in every epoch.
        steps: number of steps of an epoch.
    """
    if schedule == "cosine":
        return base / 2 * (1 + math.cos(math.pi * epoch / epochs))
    if schedule == "lagged_cosine":
        return lagged_warm_cosine(epoch * steps + step, base, base / 10, epochs * steps)
    return base
