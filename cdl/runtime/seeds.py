"""Random numbers as pure functions of keys, independent of earlier draws.

`generator` seeds a torch generator for parameters, which are drawn on the CPU and so do not depend
on the device. `uniform` and `permutation` are counter-based (one 32-bit hash per number, integer
arithmetic only), so that the view of an image is the same on every device, in every batch and after
every restart.
"""

import hashlib

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF


def generator(*keys: str | int) -> torch.Generator:
    """Return a CPU generator seeded by keys, for example `(seed, "head")`."""
    digest = hashlib.sha256("/".join(map(str, keys)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def _mix(x: Tensor) -> Tensor:
    """Mix 32 bits, stored as int64 (finaliser of MurmurHash3, Appleby 2011)."""
    x = x & _MASK
    x = ((x ^ (x >> 16)) * 0x85EBCA6B) & _MASK
    x = ((x ^ (x >> 13)) * 0xC2B2AE35) & _MASK
    return x ^ (x >> 16)


def _hash(keys: tuple[int, ...], counters: Tensor) -> Tensor:
    state = torch.zeros_like(counters)
    for key in keys:
        state = _mix(state + key + 0x9E3779B9)
    return _mix(state + _mix(counters + 0x9E3779B9))


def uniform(keys: tuple[int, ...], counters: Tensor, draws: int) -> Tensor:
    """Return `[B, draws]` float64 numbers in [0, 1) for `B` integer counters."""
    numbers = torch.arange(draws, device=counters.device)
    bits = _mix(_hash(keys, counters.long())[:, None] + (numbers + 1) * 0x9E3779B9)
    return bits.double() / 2**32


def permutation(keys: tuple[int, ...], n: int) -> Tensor:
    """Return a permutation of `range(n)` from keys, `[n]` int64 on the CPU."""
    return torch.argsort(_hash(keys, torch.arange(n)), stable=True)
