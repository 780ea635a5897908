"""Measure jobs; read measurements from benchmark files and the jobs' own records.

Benchmark files have no hash, so their format is checked strictly: a file with other columns,
invalid numbers, or seconds that contradict its `h:m:s` column is invalid. A changed digit after the
decimal point is not detected, so tables show the job's own measurements where it has any: they are
in a record of their own, which has a hash and is part of no fingerprint. Snakemake samples, and it
does not see a job that runs in the fork server (`cdl.runtime.forkserver`).
"""

import contextlib
import csv
import logging
import math
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import psutil

from cdl.device.process import peak_memory
from cdl.runtime.artifacts import read_json, write_json
from cdl.runtime.errors import CdlError

log = logging.getLogger(__name__)
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
        gpu_memory_mb: peak memory allocated on a GPU in MB.
        seconds: wall time from the start of the process.
    """

    processor_seconds: float | None = None
    memory_mb: float | None = None
    gpu_seconds: float | None = None
    gpu_memory_mb: float | None = None
    seconds: float | None = None


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
    """Context manager that measures a job from the start of its process.

    It records the measurements if the job succeeds.
    """

    def __init__(self, record: str | None = None) -> None:
        """Set the JSON file to write; None: none."""
        self._record = record
        self._gpu: dict[str, float] = {}

    def __enter__(self) -> "Meter":
        return self

    def __exit__(self, error: object, *_: object) -> None:
        if error is not None:
            return
        torch: Any = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
            self._gpu["gpu_memory_mb"] = torch.cuda.max_memory_allocated() / 1e6
        found = Measured(
            seconds=round(time.time() - psutil.Process().create_time(), 2),
            processor_seconds=round(_processor_seconds(), 2),
            memory_mb=peak_memory(),
            **self._gpu,
        )
        known = {name: value for name, value in asdict(found).items() if _is_valid(value)}
        log.info("measured %s", known)
        if self._record is not None:
            write_json(self._record, known)

    @contextlib.contextmanager
    def on(self, gpu: str | None) -> Iterator[None]:
        """Measure the time with a GPU, by its name in `CUDA_VISIBLE_DEVICES`; None without one."""
        began = time.monotonic()
        try:
            yield
        finally:
            if gpu is not None:
                self._gpu["gpu_seconds"] = time.monotonic() - began


def _processor_seconds() -> float:
    """Return the processor seconds of this process with its children."""
    own = psutil.Process().cpu_times()
    return float(own.user + own.system + own.children_user + own.children_system)
