"""Learning rates of an alignment."""

import math

FLOOR = 1e-6  # the final learning rate


def lagged_cosine(iteration: int, first: float, base: float, iterations: int) -> float:
    """Return the rate of an iteration as in VQ-Prompt's code, one iteration late.

    It is `first` at iteration 0, because the released scheduler steps after the update and its
    constructor sets the full rate; then a cosine from `base` to `FLOOR`, which it keeps.

    Args:
        iteration: counted from 0 over all epochs.
        first: the rate of iteration 0.
        base: the rate of iteration 1.
        iterations: total number of iterations.
    """
    if iteration == 0:
        return first
    step = min(iteration - 1, iterations)
    return FLOOR + (base - FLOOR) / 2 * (1 + math.cos(math.pi * step / iterations))


def alignment_rate(
    schedule: str, base: float, epoch: int, epochs: int, step: int, steps: int
) -> float:
    """Return the learning rate of a step of an alignment; an epoch has `steps` steps.

    Args:
        schedule: see `cdl.spec.SampledAlignment`.
        base: the highest learning rate.
        epoch: counted from 0.
        epochs: number of epochs.
        step: counted from 0 in every epoch.
        steps: number of steps of an epoch.
    """
    if schedule == "cosine":
        return base / 2 * (1 + math.cos(math.pi * epoch / epochs))
    if schedule == "lagged_cosine":
        return lagged_cosine(epoch * steps + step, base, base / 10, epochs * steps)
    return base
