"""What Snakemake measured of a job: its benchmark files, which carry no hash and are read strictly.

A damaged one has other columns, no numbers, or seconds that contradict its own clock; a changed
digit behind the point is not seen.
"""

import csv
import math
import re
from dataclasses import dataclass
from pathlib import Path

from cdl.runtime.errors import CdlError

_CLOCK = re.compile(r"(?:(\d+) days?, )?(\d+):(\d\d):(\d\d)")
_UNKNOWN = ("NA", "-")  # the job ended before it was looked at


@dataclass(frozen=True)
class Benchmark:
    """One job; None is what Snakemake did not see.

    Attributes:
        seconds: from start to end, by the clock on the wall.
        processor_seconds: that its processes computed.
        mean_load: share of one core that they used, percent, as sampled.
        memory_mb: largest resident memory.
    """

    seconds: float
    processor_seconds: float | None
    mean_load: float | None
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
        others = (_number(row[name]) for name in ("cpu_time", "mean_load", "max_rss"))
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
