"""Learning rates that change in every iteration, as in VQ-Prompt's released code."""

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
