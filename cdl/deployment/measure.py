"""Time exported students on this machine and write the table of the deployment study.

Does not import torch, like the target device.
"""

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

from cdl.deployment.manifest import MODEL
from cdl.deployment.student import ExportedStudent
from cdl.device.classifier import Classifier
from cdl.device.process import peak_memory
from cdl.layout import WEIGHTS
from cdl.runtime import artifacts

BATCH = 32
THREADS = (1, 2)
_SINGLE = 20  # timed single images per round
_WARM = 3  # single images before them that are not timed


def latency(student: Classifier, size: tuple[int, int]) -> float:
    """Return the median latency of single random items of a size, in milliseconds."""
    return float(np.median(_single_latencies(student, size)))


def measure(
    records: Sequence[str], rows: Sequence[Mapping[str, Any]], rounds: int, outputs: Any
) -> None:
    """Time exported students and write a table with one row per student and kind of weights.

    Args:
        records: records written by `deploy`, one per student, in the order of `rows`.
        rows: columns that identify each student; `deployed` is its folder.
        rounds: number of rounds; each times all students, in alternating order.
        outputs: paths of the `csv` and of its `record`, which has its hash and the machine.

    Raises:
        CdlError: a record or an exported model is damaged.
    """
    import pandas as pd

    facts = [artifacts.read_json(record) for record in records]
    folders = [Path(row["deployed"], weights) for row in rows for weights in WEIGHTS]
    for record, row in zip(records, rows, strict=True):
        models = (Path(row["deployed"], weights, MODEL) for weights in WEIGHTS)
        artifacts.check_files(record, *models)
    sizes = [tuple(fact["image"]) for fact in facts for _ in WEIGHTS]
    machine = this_machine()
    speeds = _time_in_rounds(folders, sizes, rounds)
    columns = [name for name in rows[0] if name not in ("protocol", "provenance", "deployed")]
    table = []
    for i, (folder, size) in enumerate(zip(folders, sizes, strict=True)):
        row, fact, weights = rows[i // 2], facts[i // 2], WEIGHTS[i % 2]
        table.append(
            {
                **{name: row[name] for name in columns},
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
    """Return processor, system, onnxruntime version and load, which affect timings."""
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


def _time_in_rounds(
    folders: Sequence[Path], sizes: Sequence[tuple[int, int]], rounds: int
) -> list[dict[str, float]]:
    """Return latency and throughput of each student, which is loaded anew in each round."""
    singles: list[list[float]] = [[] for _ in folders]
    batches: list[dict[int, list[float]]] = [{n: [] for n in THREADS} for _ in folders]
    for round_ in range(rounds):
        for i in range(len(folders)) if round_ % 2 == 0 else reversed(range(len(folders))):
            for threads in THREADS:
                student = ExportedStudent(folders[i], threads, verify=False)
                batch = student.preprocess(student.items.random(BATCH, sizes[i]))
                if threads == 1:
                    singles[i] += _single_latencies(student, sizes[i])
                batches[i][threads] += _seconds(partial(student.logits, batch), 1, 1)
    return [
        {
            "latency_p50_ms": float(np.percentile(one, 50)),
            "latency_p95_ms": float(np.percentile(one, 95)),
            **{f"images_per_second_{n}": BATCH / float(np.median(many[n])) for n in THREADS},
        }
        for one, many in zip(singles, batches, strict=True)
    ]


def _single_latencies(student: Classifier, size: tuple[int, int]) -> list[float]:
    """Return latencies of single items from pixels or text to logits, in milliseconds."""
    (item,) = student.items.random(1, size)
    seconds = _seconds(lambda: student.logits(student.preprocess(item)), _WARM, _SINGLE)
    return [1e3 * s for s in seconds]


def _seconds(predict: Callable[[], Any], warm: int, times: int) -> list[float]:
    """Return the durations of `times` calls after `warm` calls that are not timed."""
    found = []
    for i in range(warm + times):
        start = time.perf_counter()
        predict()
        if i >= warm:
            found.append(time.perf_counter() - start)
    return found


def _peak_memory(folder: Path, size: tuple[int, int]) -> float:
    """Return the peak memory of a process that classifies one item, in megabytes."""
    command = [sys.executable, "-m", __name__, str(folder), *map(str, size)]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(process.stdout)


def main() -> None:
    """Classify one item and print the peak memory of this process in megabytes."""
    folder, *size = sys.argv[1:]
    _single_latencies(ExportedStudent(Path(folder), verify=False), (int(size[0]), int(size[1])))
    print(peak_memory())


if __name__ == "__main__":
    main()
