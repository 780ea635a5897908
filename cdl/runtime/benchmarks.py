"""Measure jobs; read measurements from benchmark files and the jobs' own records.

Benchmark files have no hash, so their format is checked strictly: a file with other columns,
invalid numbers, or seconds that contradict its `h:m:s` column is invalid. A changed digit after the
decimal point is not detected, so tables show the job's own measurements where it has any: they are
in a record of their own, which has a hash and is part of no fingerprint. Snakemake samples, and it
does not see a job that runs in the fork server (`cdl.runtime.forkserver`).

codecarbon is not used: it assigns the energy of the whole processor to each of several simultaneous
jobs, and where no counter is readable it reports an estimate from the processor's nominal power.
"""

import contextlib
import csv
import logging
import math
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import psutil

from cdl.runtime.artifacts import read_json, write_json
from cdl.runtime.errors import CdlError
from cdl.runtime.memory import peak_memory

log = logging.getLogger(__name__)
POWERCAP = Path("/sys/class/powercap")  # Linux's counters of the energy of processors
_SAMPLING_INTERVAL = 30.0  # seconds; shorter than the time in which a counter overflows
_JOULES_PER_WH = 3600.0
_CLOCK = re.compile(r"(?:(\d+) days?, )?(\d+):(\d\d):(\d\d)")
_UNKNOWN = ("NA", "-")  # the job ended before Snakemake's first sample


@dataclass(frozen=True)
class Benchmark:
    """Snakemake's measurements of one job; None where Snakemake took no sample.

    Attributes:
        seconds: wall time.
        processor_seconds: processor time of all processes of the job, sampled.
        memory_mb: peak resident memory in MB, sampled.
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
        seconds = _parse_number(row["s"])
        if not seconds or abs(seconds - _parse_clock(row["h:m:s"])) > 1:
            raise ValueError(f"s is {row['s']}, h:m:s is {row['h:m:s']}")
        mebibytes = _parse_number(row["max_rss"])
        memory = None if mebibytes is None else mebibytes * 2**20 / 1e6
        return Benchmark(seconds, _parse_number(row["cpu_time"]), memory)
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise CdlError(
            f"{path} is not a valid benchmark file ({error}); delete the job's outputs and run "
            "again"
        ) from error


def _parse_number(text: str) -> float | None:
    if text in _UNKNOWN:
        return None
    if not (math.isfinite(value := float(text)) and value >= 0):
        raise ValueError(f"invalid value {text}: expected a number of at least 0")
    return value


def _parse_clock(text: str) -> int:
    found = _CLOCK.fullmatch(text)
    if found is None:
        raise ValueError(f"invalid value {text} for h:m:s")
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return ((24 * days + hours) * 60 + minutes) * 60 + seconds


@dataclass(frozen=True)
class Measured:
    """A job's measurements of itself; None where the machine provides no measurement.

    Attributes:
        processor_seconds: processor time of the process and its children.
        memory_mb: peak resident memory in MB.
        gpu_seconds: time for which the job had a GPU.
        gpu_wh: energy of that GPU during this time in Wh; None if other jobs may have used it.
        processor_wh: energy of the processors in Wh, multiplied by the job's share of the total
            processor time.
        gpu_memory_mb: peak memory allocated on a GPU in MB.
        seconds: wall time from the start of the process.
    """

    processor_seconds: float | None = None
    memory_mb: float | None = None
    gpu_seconds: float | None = None
    gpu_wh: float | None = None
    processor_wh: float | None = None
    gpu_memory_mb: float | None = None
    seconds: float | None = None

    @property
    def energy_wh(self) -> float | None:
        """Energy of GPU and processors in Wh; None if unknown, or unknown for a used GPU."""
        known = [wh for wh in (self.gpu_wh, self.processor_wh) if wh is not None]
        missing = self.gpu_seconds is not None and self.gpu_wh is None
        return sum(known) if known and not missing else None


def read_measured(path: str | Path) -> Measured:
    """Return a job's measurements of itself; all None if there is no such file.

    Raises:
        CdlError: the file is damaged, or a value is not a finite number of at least 0.
    """
    if not Path(path).exists():
        return Measured()
    content = read_json(path)
    values = {name: content.get(name) for name in (field.name for field in fields(Measured))}
    for name, value in values.items():
        if value is not None and not _is_valid(value):
            raise CdlError(
                f"{path}: invalid value {value!r} for {name}: expected a number of at least 0; "
                "delete the file and run again"
            )
    return Measured(**values)


def _is_valid(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and value >= 0


class Meter:
    """Context manager that measures a job and records the measurements if it succeeds.

    Processor time and memory are measured from the start of the process, energy from the start of
    the context.
    """

    def __init__(self, record: str | None = None) -> None:
        """Find the readable energy counters of the processors.

        Args:
            record: JSON file to write; None: none.
        """
        self._record = record
        self._gpu: dict[str, float] = {}
        self._counters = [Counter(folder) for folder in packages()]
        self._stop = threading.Event()

    def __enter__(self) -> "Meter":
        self._began = _processor_seconds()
        if self._counters:
            threading.Thread(target=self._sample, daemon=True).start()
        return self

    def __exit__(self, error: object, *_: object) -> None:
        self._stop.set()
        if error is not None:
            return
        torch: Any = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
            self._gpu["gpu_memory_mb"] = torch.cuda.max_memory_allocated() / 1e6
        found = Measured(
            seconds=round(time.time() - psutil.Process().create_time(), 2),
            processor_seconds=round(_processor_seconds()[0], 2),
            memory_mb=peak_memory(),
            processor_wh=self._processor_wh(),
            **self._gpu,
        )
        known = {name: value for name, value in asdict(found).items() if _is_valid(value)}
        log.info("measured %s", known)
        if self._record is not None:
            write_json(self._record, known)

    @contextlib.contextmanager
    def on(self, gpu: str | None, alone: bool) -> Iterator[None]:
        """Measure a GPU for the duration of the context.

        Args:
            gpu: name of the GPU in `CUDA_VISIBLE_DEVICES`; None without a GPU.
            alone: whether this job is the only one on the GPU; else its energy is not measured.
        """
        read = energy_of(gpu) if gpu is not None and alone else None
        began, joules = time.monotonic(), None if read is None else read()
        try:
            yield
        finally:
            if gpu is not None:
                self._gpu["gpu_seconds"] = time.monotonic() - began
            if read is not None and joules is not None:
                self._gpu["gpu_wh"] = (read() - joules) / _JOULES_PER_WH

    def _sample(self) -> None:
        while not self._stop.wait(_SAMPLING_INTERVAL):
            for counter in self._counters:
                counter.update()

    def _processor_wh(self) -> float | None:
        if not self._counters:
            return None
        own, total = (b - a for a, b in zip(self._began, _processor_seconds(), strict=True))
        joules = sum(counter.update() for counter in self._counters)
        return joules / _JOULES_PER_WH * min(1.0, own / total) if total > 0 else None


class Counter:
    """An energy counter in Linux's powercap, which overflows at the end of its range."""

    def __init__(self, folder: Path) -> None:
        """Start at the counter's current value."""
        self._file = folder / "energy_uj"
        self._range = int((folder / "max_energy_range_uj").read_text())
        self._last, self._joules = int(self._file.read_text()), 0.0

    def update(self) -> float:
        """Return joules since the start; call this before the counter overflows."""
        now = int(self._file.read_text())
        self._joules += (now - self._last) % self._range / 1e6
        self._last = now
        return self._joules


def packages() -> list[Path]:
    """Return the folders of the readable processor counters.

    Usually only root can read them.
    """
    found = []
    for folder in sorted(POWERCAP.glob("*:*")):
        with contextlib.suppress(OSError, ValueError):
            if (folder / "name").read_text().startswith("package"):
                Counter(folder)
                found.append(folder)
    return found


def energy_of(gpu: str) -> Callable[[], float] | None:
    """Return a function that reads a GPU's energy in joules since driver start.

    Returns None if the GPU does not provide it, or if the package `nvidia-ml-py` is not installed.
    """
    try:
        import pynvml

        pynvml.nvmlInit()
        by_index = gpu.isdigit()
        find = pynvml.nvmlDeviceGetHandleByIndex if by_index else pynvml.nvmlDeviceGetHandleByUUID
        handle = find(int(gpu) if by_index else gpu)
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except Exception as error:  # NVML's errors: no library, an old GPU, a MIG instance
        log.info("energy of GPU %s is not available: %s", gpu, error)
        return None
    return lambda: float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3


def _processor_seconds() -> tuple[float, float]:
    """Return processor seconds of this process with children, and of all."""
    own, every = psutil.Process().cpu_times(), psutil.cpu_times()
    idle = every.idle + getattr(every, "iowait", 0.0)
    busy = sum(every) - idle - getattr(every, "guest", 0.0) - getattr(every, "guest_nice", 0.0)
    return own.user + own.system + own.children_user + own.children_system, busy
