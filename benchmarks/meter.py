"""A clock and a memory gauge around batches, what a device can do at best, and what it is."""

import ctypes
import gc
import os
import platform
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from cdl.data.batches import Batch
from cdl.models.build import versions
from cdl.runtime.compute import Compute
from cdl.runtime.errors import CdlError


@dataclass(frozen=True)
class Measured:
    """One measurement: seconds, steps and images inside them, and peak memory in bytes.

    The peak is what is allocated at most beyond what lies there when the first batch is ready:
    weights, data and caches do not count, gradients, optimizer state and activations do.
    """

    seconds: float
    steps: int
    images: int
    peak: int


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


class Meter:
    """A clock and a memory gauge around batches; the device is idle whenever the clock is read."""

    def __init__(self, device: torch.device, warm_up: int, clock: str = "wall") -> None:
        """Time all but the first `warm_up` batches by a clock of `CLOCKS`."""
        self.device, self.warm_up, self.clock = device, warm_up, CLOCKS[clock]
        self.result: Measured | None = None

    def watch(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield batches; the time between two of them is what their reader makes of them."""
        source, steps, images, began, base = iter(batches), 0, 0, 0.0, 0
        while True:
            if steps == self.warm_up:
                began = self.now()
            batch = next(source, None)
            if batch is None:
                break
            if steps == 0:
                base = self._reset_peak()
            images += len(batch.views) if steps >= self.warm_up else 0
            steps += 1
            yield batch
        if steps <= self.warm_up:
            raise CdlError(f"--warm-up: {self.warm_up} steps, but there are only {steps} batches")
        peak = max(0, self._peak() - base)
        self.result = Measured(self.now() - began, steps - self.warm_up, images, peak)

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return self.clock()

    def _reset_peak(self) -> int:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            return torch.cuda.memory_allocated(self.device)
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # give what was freed before back, so that it counts anew
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak starts again
        return _status("VmRSS")

    def _peak(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return _status("VmHWM")


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


def ceiling(device: torch.device, dtype: torch.dtype, clock: str) -> float:
    """Return the operations per second of this device's best large matrix product of ten."""
    n = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    meter, best = Meter(device, 3, clock), 0.0
    for _ in range(10):
        began = meter.now()
        a @ b
        best = max(best, 2 * n**3 / (meter.now() - began))
    return best


def hardware(compute: Compute, threads: int) -> str:
    """Return one line: processor, threads, device, versions."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    cpu = names[0] if names else platform.machine()
    made = ", ".join(f"{name} {version}" for name, version in versions().items())
    cores = len(os.sched_getaffinity(0))
    return f"{compute.name}; {cpu}, {cores} cores, {threads} threads; {made}"
