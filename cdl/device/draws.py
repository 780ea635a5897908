"""Random numbers as functions of keys and counters, the same in Python and in JavaScript.

With integers modulo 2^32 and the finaliser of MurmurHash3 (Appleby 2011),

    mix(x):  x ^= x >> 16;  x *= 0x85EBCA6B;  x ^= x >> 13;  x *= 0xC2B2AE35;  x ^= x >> 16
    state:   s = 0, then for each key  s = mix(s + key + 0x9E3779B9)
    bits(i) = mix(s + mix(i + 0x9E3779B9))

`uniform(i) = (bits(i) + 1/2) / 2^32` is between 0 and 1, and a normal number is
`sqrt(-2 ln uniform(2i)) cos(2 pi uniform(2i + 1))` (Box and Muller, 1958). They are not torch's.
"""

from collections.abc import Sequence

import numpy as np

_STEP = 0x9E3779B9


def bits(keys: Sequence[int], counters: np.ndarray) -> np.ndarray:
    """Return one uint32 for each counter."""
    state = np.zeros(1, np.uint32)
    for key in keys:
        state = _mix(state + np.uint32((key + _STEP) & 0xFFFFFFFF))
    return _mix(state + _mix(counters.astype(np.uint32) + np.uint32(_STEP)))


def uniform(keys: Sequence[int], counters: np.ndarray) -> np.ndarray:
    """Return one float64 between 0 and 1 for each counter."""
    return (bits(keys, counters) + 0.5) / 2.0**32


def normal(keys: Sequence[int], counters: np.ndarray) -> np.ndarray:
    """Return one float64 of a standard normal for each counter, below 2^31."""
    radius = np.sqrt(-2 * np.log(uniform(keys, 2 * counters)))
    found: np.ndarray = radius * np.cos(2 * np.pi * uniform(keys, 2 * counters + 1))
    return found


def permutation(keys: Sequence[int], n: int) -> np.ndarray:
    """Return the order of `range(n)` by its bits; equal bits keep their order."""
    return bits(keys, np.arange(n)).argsort(kind="stable")


def _mix(x: np.ndarray) -> np.ndarray:
    """Mix an array of uint32, which numpy multiplies modulo 2^32."""
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    mixed: np.ndarray = x ^ (x >> np.uint32(16))
    return mixed
