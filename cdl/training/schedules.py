"""Learning rates that change inside an epoch, as VQ-Prompt's released code sets them."""

import math

FLOOR = 1e-6  # the rate that they end at


def warm_cosine(
    iteration: int, base: float, iterations: int, *, frozen: int = 0, warmup: int = 0
) -> float:
    """Return the rate of an iteration.

    Args:
        iteration: counted from 0 over all epochs; from `iterations` on the rate is `FLOOR`.
        base: rate at the top.
        iterations: all of them.
        frozen: first iterations, at `FLOOR`.
        warmup: iterations after them, linear from 0 to `base`, the end included.
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
    """Return the rate as released: `first` at iteration 0, then `warm_cosine` one step late.

    The released scheduler steps after the update and its constructor sets the full rate.
    """
    if iteration == 0:
        return first
    return warm_cosine(iteration - 1, base, iterations, frozen=frozen, warmup=warmup)
