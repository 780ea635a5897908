"""Time and memory of a task as one quantity of the configuration grows, the others fixed.

    python benchmarks/growth.py
    python benchmarks/growth.py --vary batch=16,64,256 threads=1,2

Every value is a case of its own, made as in `steps.py`; the values of one quantity take turns.

Columns: median ms per step of teacher and student (queries and targets from caches, views
included), microseconds per image of the student's step, of its evaluation after the task (queries
known) and of its teacher's targets, peak memory of a student's step (see `meter.Measured`), size
of the student's artifact, and size of the teacher's targets of 1,000 views.
"""

import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

import pandas as pd
from bench import Bench
from case import Case, arguments, case_of, command
from meter import hardware

from cdl.runtime.compute import Compute
from cdl.runtime.errors import CdlError

# quantity: its values; fields of a case, and the pool of the method
QUANTITIES = {
    "task": "0,4,9",
    "tasks": "2,5,10,20",
    "classes": "50,100,500",
    "pool": "10,50,90",
    "batch": "16,64,256",
    "test_batch": "25,50,100,200,400",
    "threads": "1,2",
    "method": "head_only,apt,l2p,dual_prompt,coda_prompt",
    "distiller": "none,kd,dkd,kd_token,kd_prompt,cdl_prompt,fitnets,reviewkd",
}
DEFAULT = ("task", "tasks", "classes", "pool", "distiller")


def changed(case: Case, quantity: str, value: str) -> Case:
    """Return a case with one quantity changed.

    Raises:
        CdlError: there is no such quantity.
    """
    if quantity not in QUANTITIES:
        raise CdlError(f"--vary: {quantity!r} is unknown; known are {', '.join(QUANTITIES)}")
    if quantity == "pool":
        option = f"methods.{case.method}.pool={value}"
        return replace(case, options=(*case.options, option))
    kind = type(getattr(case, quantity))
    return replace(case, **{quantity: kind(value)})


def measure(case: Case, quantity: str, values: list[str], rounds: int) -> list[dict]:
    """Return one row per value; the values take turns for `rounds` rounds."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        benches = []
        for value in values:
            place = Path(folder) / value
            place.mkdir()
            benches.append(Bench(changed(case, quantity, value), place))
        found = [_Found() for _ in benches]
        for _ in range(rounds):
            for bench, seen in zip(benches, found, strict=True):
                seen.add(bench)
        for value, bench, seen in zip(values, benches, found, strict=True):
            rows.append({"quantity": quantity, "value": value} | seen.row(bench))
    return rows


class _Found:
    """Measurements of one case."""

    def __init__(self) -> None:
        self.seen: dict[str, list] = {"teacher": [], "student": [], "evaluation": [], "targets": []}

    def add(self, bench: Bench) -> None:
        bench.use_threads()
        self.seen["targets"].append(bench.cache_targets())
        self.seen["teacher"].append(bench.learn("teacher", True))
        self.seen["student"].append(bench.learn("student", True))
        self.seen["evaluation"].append(bench.evaluate(bench.learners["student"], True))

    def row(self, bench: Bench) -> dict:
        step = {
            k: statistics.median(1e3 * r.seconds / r.steps for r in v) for k, v in self.seen.items()
        }
        image = {
            k: statistics.median(1e6 * r.seconds / r.images for r in v)
            for k, v in self.seen.items()
        }
        state = bench.learners["student"].state().values()
        targets = bench.caches["targets"].values
        return {
            "teacher ms/step": step["teacher"],
            "student ms/step": step["student"],
            "student us/img": image["student"],
            "evaluation us/img": image["evaluation"],
            "targets us/img": image["targets"],
            "peak MiB": max(r.peak for r in self.seen["student"]) / 2**20,
            "artifact KiB": sum(t.nbytes for t in state) / 2**10,
            "targets KiB": 1000 * targets[0, 0].nbytes / 2**10,
        }


def main(given: list[str] | None = None) -> None:
    """Measure and print the table."""
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="turns of the values")
    parser.add_argument(
        "--vary",
        nargs="+",
        default=list(DEFAULT),
        metavar="QUANTITY[=VALUES]",
        help=f"any of {', '.join(QUANTITIES)}; values separated by commas",
    )
    args = parser.parse_args(given)
    case, rows = case_of(args), []
    for entry in args.vary:
        quantity, _, values = entry.partition("=")
        values = values or QUANTITIES.get(quantity, "")
        rows += measure(case, quantity, values.split(","), args.rounds)
    print(pd.DataFrame(rows).to_markdown(index=False, floatfmt=".1f"))
    compute = Compute.select(case.device, case.precision, case.capture)
    where = hardware(compute, case.threads)
    print(f"\n{where}; median of {args.rounds} rounds of {case.steps} steps; {case.clock} clock")


if __name__ == "__main__":
    command(main)
