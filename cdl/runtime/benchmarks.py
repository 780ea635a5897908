"""What was measured of a job: by Snakemake, in its benchmark file, and by the job, in its log.

Benchmark files carry no hash and are read strictly: a damaged one has other columns, no numbers, or
seconds that contradict its own clock; a changed digit behind the point is not seen. What a job says
of itself in its log goes before what Snakemake samples: it is exact, and of the job also where
that was forked by a server (`cdl.runtime.forkserver`).
"""

import contextlib
import csv
import json
import logging
import math
import re
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import psutil

from cdl.runtime.errors import CdlError

log = logging.getLogger(__name__)
_MEASURED = re.compile(r"measured (\{.*\})")
POWERCAP = Path("/sys/class/powercap")  # of Linux: counters of the processors' energy
_LOOKS = 30.0  # seconds between two looks at counters that start again
_WH = 3600.0  # joules
_CLOCK = re.compile(r"(?:(\d+) days?, )?(\d+):(\d\d):(\d\d)")
_UNKNOWN = ("NA", "-")  # the job ended before it was looked at


@dataclass(frozen=True)
class Benchmark:
    """One job; None is what Snakemake did not see.

    Attributes:
        seconds: from start to end, by the clock on the wall.
        processor_seconds: that its processes computed, as sampled.
        memory_mb: largest resident memory, MiB, as sampled.
    """

    seconds: float
    processor_seconds: float | None
    memory_mb: float | None


def read_benchmark(path: str | Path) -> Benchmark:
    """Read a benchmark file; raise `CdlError` if it is missing or damaged."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            header, values = csv.reader(file, delimiter="\t", strict=True)
        row = dict(zip(header, values, strict=True))
        seconds = _number(row["s"])
        if not seconds or abs(seconds - _clock(row["h:m:s"])) > 1:
            raise ValueError(f"s is {row['s']}, h:m:s is {row['h:m:s']}")
        others = (_number(row[name]) for name in ("cpu_time", "max_rss"))
        return Benchmark(seconds, *others)
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise CdlError(
            f"{path} is no benchmark of one job ({error}); delete the job's outputs and run again"
        ) from error


def _number(text: str) -> float | None:
    if text in _UNKNOWN:
        return None
    if not (math.isfinite(value := float(text)) and value >= 0):
        raise ValueError(f"{text} is no time, load or memory")
    return value


def _clock(text: str) -> int:
    found = _CLOCK.fullmatch(text)
    if found is None:
        raise ValueError(f"h:m:s is {text}")
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return ((24 * days + hours) * 60 + minutes) * 60 + seconds


@dataclass(frozen=True)
class Measured:
    """What a job measured of itself; None is what the machine does not tell.

    Attributes:
        processor_seconds: that it and its children computed.
        memory_mb: largest resident memory, MiB.
        gpu_seconds: that it had a GPU.
        gpu_wh: energy of that GPU in this time; None if other jobs may have computed there.
        processor_wh: energy of the processors, by its share of the time that they computed.
        gpu_memory_mb: most that it allocated on a GPU.
    """

    processor_seconds: float | None = None
    memory_mb: float | None = None
    gpu_seconds: float | None = None
    gpu_wh: float | None = None
    processor_wh: float | None = None
    gpu_memory_mb: float | None = None

    @property
    def energy_wh(self) -> float | None:
        """What is known of it; None if nothing is, or not of the GPU that it had."""
        known = [wh for wh in (self.gpu_wh, self.processor_wh) if wh is not None]
        missing = self.gpu_seconds is not None and self.gpu_wh is None
        return sum(known) if known and not missing else None


def read_measured(path: str | Path) -> Measured:
    """Return the last that a job says in its log; of an older or missing log, nothing is known."""
    try:
        found = _MEASURED.findall(Path(path).read_text(encoding="utf-8", errors="replace"))
        said = json.loads(found[-1]) if found else {}
    except (OSError, ValueError):
        return Measured()
    known = {field.name for field in fields(Measured)}
    return Measured(**{key: value for key, value in said.items() if key in known})


class Meter:
    """Measures a job to the end of `with`, and says in the log what it found.

    Processor time and memory are those of the process from its start, energy is from `with` on.
    """

    def __init__(self) -> None:
        """Look at the processors' counters for the first time."""
        self._gpu: dict[str, float] = {}
        self._counters = [Counter(folder) for folder in packages()]
        self._stop = threading.Event()

    def __enter__(self) -> "Meter":
        self._began = _processor_seconds()
        if self._counters:
            threading.Thread(target=self._look, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        torch: Any = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
            self._gpu["gpu_memory_mb"] = torch.cuda.max_memory_allocated() / 2**20
        found = Measured(
            processor_seconds=round(_processor_seconds()[0], 2),
            memory_mb=peak_memory(),
            processor_wh=self._processor_wh(),
            **self._gpu,
        )
        log.info(
            "measured %s", json.dumps({k: v for k, v in asdict(found).items() if v is not None})
        )

    @contextlib.contextmanager
    def on(self, gpu: str | None, alone: bool) -> Iterator[None]:
        """Measure a GPU as long as the job has it.

        Args:
            gpu: as `CUDA_VISIBLE_DEVICES` names it, None without one.
            alone: whether nobody else computes on it.
        """
        read = energy_of(gpu) if gpu is not None and alone else None
        began, joules = time.monotonic(), None if read is None else read()
        try:
            yield
        finally:
            if gpu is not None:
                self._gpu["gpu_seconds"] = time.monotonic() - began
            if read is not None and joules is not None:
                self._gpu["gpu_wh"] = (read() - joules) / _WH

    def _look(self) -> None:
        while not self._stop.wait(_LOOKS):
            for counter in self._counters:
                counter.look()

    def _processor_wh(self) -> float | None:
        if not self._counters:
            return None
        own, everybody = (b - a for a, b in zip(self._began, _processor_seconds(), strict=True))
        joules = sum(counter.look() for counter in self._counters)
        return joules / _WH * min(1.0, own / everybody) if everybody > 0 else None


class Counter:
    """A counter of energy in Linux' powercap, which starts again at its range."""

    def __init__(self, folder: Path) -> None:
        """Begin at what it says now."""
        self._file = folder / "energy_uj"
        self._range = int((folder / "max_energy_range_uj").read_text())
        self._last, self._joules = int(self._file.read_text()), 0.0

    def look(self) -> float:
        """Return the joules since the beginning; to be called more often than it starts again."""
        now = int(self._file.read_text())
        self._joules += (now - self._last) % self._range / 1e6
        self._last = now
        return self._joules


def packages() -> list[Path]:
    """Return the folders of the processors' counters that may be read (usually by root alone)."""
    found = []
    for folder in sorted(POWERCAP.glob("*:*")):
        with contextlib.suppress(OSError, ValueError):
            if (folder / "name").read_text().startswith("package"):
                Counter(folder)
                found.append(folder)
    return found


def energy_of(gpu: str) -> Callable[[], float] | None:
    """Return what reads the joules of a GPU since its driver started, None if nobody tells them.

    It is asked through NVML by the package `nvidia-ml-py`, where that is installed.
    """
    try:
        import pynvml

        pynvml.nvmlInit()
        by_name = gpu.isdigit()
        find = pynvml.nvmlDeviceGetHandleByIndex if by_name else pynvml.nvmlDeviceGetHandleByUUID
        handle = find(int(gpu) if by_name else gpu)
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except Exception as error:  # NVML's own, of a missing library, an old GPU, a part of one
        log.info("no energy of GPU %s: %s", gpu, error)
        return None
    return lambda: float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3


def peak_memory() -> float:
    """Return the most MiB that this process had in memory."""
    status = Path("/proc/self/status")
    if status.exists():  # `getrusage` counts in what started this process
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS: bytes


def _processor_seconds() -> tuple[float, float]:
    """Return the seconds that this process and its children, and that all processes, computed."""
    own, every = psutil.Process().cpu_times(), psutil.cpu_times()
    idle = every.idle + getattr(every, "iowait", 0.0)
    busy = sum(every) - idle - getattr(every, "guest", 0.0) - getattr(every, "guest_nice", 0.0)
    return own.user + own.system + own.children_user + own.children_system, busy
