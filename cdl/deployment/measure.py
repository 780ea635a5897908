"""Exported students timed side by side on this machine. No torch, which a device has not either."""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cdl.deployment.student import ExportedStudent, Student
from cdl.layout import WEIGHTS
from cdl.runtime import artifacts
from cdl.runtime.benchmarks import peak_memory

BATCH = 32
THREADS = (1, 2)
_SINGLE = 20  # images asked about one by one in a turn
_WARM = 3


def latency(student: Student, size: tuple[int, int]) -> float:
    """Return the median of milliseconds that single images of random pixels take."""
    return float(np.median(_singles(student, size)))


def measure(
    records: Sequence[str], rows: Sequence[Mapping[str, Any]], rounds: int, outputs: Any
) -> None:
    """Time exported students in turns, and write a table with one row for each and its weights.

    Args:
        records: of `deploy`, one for each student, in the order of the rows.
        rows: columns that identify each student; `deployed` is its folder.
        rounds: turns; in each every student is asked once, forwards and backwards alternately.
        outputs: paths of the `csv` and of the `record` that vouches for it and names the machine.

    Raises:
        CdlError: a record is damaged.
    """
    import pandas as pd

    facts = [artifacts.read_json(record) for record in records]
    folders = [Path(row["deployed"], weights) for row in rows for weights in WEIGHTS]
    sizes = [tuple(fact["image"]) for fact in facts for _ in WEIGHTS]
    machine = this_machine()
    speeds = _in_turns(folders, sizes, rounds)
    named = [name for name in rows[0] if name not in ("protocol", "provenance", "deployed")]
    table = []
    for i, (folder, size) in enumerate(zip(folders, sizes, strict=True)):
        row, fact, weights = rows[i // 2], facts[i // 2], WEIGHTS[i % 2]
        table.append(
            {
                **{name: row[name] for name in named},
                "weights": weights,
                "accuracy": fact["accuracy"][weights],
                "forgetting_max": fact["forgetting_max"] if weights == "fp32" else None,
                "megabytes": fact["bytes"][weights] / 1e6,
                **{f"parameters_{k}": n for k, n in fact["costs"]["parameters"].items()},
                **{k: v for k, v in fact["costs"].items() if k != "parameters"},
                **speeds[i],
                "peak_memory_mb": _peak_memory(folder, size),
            }
        )
    with artifacts.replacing(outputs.csv) as temporary:
        pd.DataFrame(table).to_csv(temporary, index=False, float_format="%.6f")
    artifacts.write_json(outputs.record, {"machine": machine}, files=[outputs.csv])


def this_machine() -> dict[str, Any]:
    """Return what timings depend on."""
    import onnxruntime

    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "onnxruntime": onnxruntime.__version__,
        "load_before": round(os.getloadavg()[0], 2),
    }


def _in_turns(
    folders: Sequence[Path], sizes: Sequence[tuple[int, int]], rounds: int
) -> list[dict[str, float]]:
    """Return latency and throughput of each student; each is opened when its turn comes."""
    singles: list[list[float]] = [[] for _ in folders]
    batches: list[dict[int, list[float]]] = [{n: [] for n in THREADS} for _ in folders]
    for turn in range(rounds):
        for i in range(len(folders)) if turn % 2 == 0 else reversed(range(len(folders))):
            images = _images(sizes[i], BATCH)
            for threads in THREADS:
                student = ExportedStudent(folders[i], threads)
                if threads == 1:
                    singles[i] += _singles(student, sizes[i])
                batches[i][threads] += _seconds(partial(student.logits, images), 1, 1)
    return [
        {
            "latency_p50_ms": float(np.percentile(one, 50)),
            "latency_p95_ms": float(np.percentile(one, 95)),
            **{f"images_per_second_{n}": BATCH / float(np.median(many[n])) for n in THREADS},
        }
        for one, many in zip(singles, batches, strict=True)
    ]


def _singles(student: Student, size: tuple[int, int]) -> list[float]:
    """Return the milliseconds of some single images, each of them from pixels to logits."""
    (image,) = _images(size, 1)
    seconds = _seconds(lambda: student.logits(student.preprocess(image)), _WARM, _SINGLE)
    return [1e3 * s for s in seconds]


def _seconds(ask: Callable[[], Any], warm: int, times: int) -> list[float]:
    found = []
    for i in range(warm + times):
        start = time.perf_counter()
        ask()
        if i >= warm:
            found.append(time.perf_counter() - start)
    return found


def _images(size: tuple[int, int], n: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, *size, 3), dtype=np.uint8)


def _peak_memory(folder: Path, size: tuple[int, int]) -> float:
    """Return the megabytes of a program that opens a student and asks it about an image."""
    command = [sys.executable, "-m", __name__, str(folder), *map(str, size)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(answer.stdout)


def main() -> None:
    """Print the peak memory of this process after it has asked a student about an image."""
    folder, *size = sys.argv[1:]
    _singles(ExportedStudent(Path(folder)), (int(size[0]), int(size[1])))
    print(peak_memory())


if __name__ == "__main__":
    main()
