"""Time the training step of a student for several methods: steps per second, in turns.

The student is distilled by `kd` with cached queries and targets; views are included. Each method's
teacher is of the same method. Rounds of all methods take turns, so that ratios hold on a busy
machine.

    python benchmarks/methods.py --clock cpu --steps 10
"""

import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from bench import Bench
from case import arguments, case_of, command
from meter import hardware

from cdl.models.operations import of_learner

METHODS = ("coda_prompt", "one_prompt", "lora", "inf_lora", "sd_lora", "adapter", "ssiat")


def measure(benches: dict[str, Bench], rounds: int) -> pd.DataFrame:
    """Return one row per method: step time, steps per second, ratio to the first, parameters."""
    times: dict[str, list[float]] = {name: [] for name in benches}
    for _ in range(rounds):
        for name, bench in benches.items():
            found = bench.learn("student", cached=True)
            times[name].append(1000 * found.seconds / found.steps)
    middle = {name: statistics.median(own) for name, own in times.items()}
    first = next(iter(middle.values()))
    rows = []
    for name, bench in benches.items():
        learner = bench.learners["student"]
        forward, backward = of_learner(learner, bench.task, {"query": learner.backbone.width})
        rows.append(
            {
                "method": name,
                "ms/step": middle[name],
                "range": f"{min(times[name]):.1f}-{max(times[name]):.1f}",
                "steps/s": 1000 / middle[name],
                "of the first": first / middle[name],
                "GFLOP/image": (forward + backward) / 1e9,
                "parameters": sum(p.numel() for p in learner.learnables()),
            }
        )
    return pd.DataFrame(rows)


def main(given: list[str] | None = None) -> None:
    """Measure and print the table and what it was measured on."""
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="turns that the methods take")
    parser.add_argument(
        "--methods", nargs="+", default=METHODS, help="methods, the reference first"
    )
    parser.set_defaults(distiller="kd")
    args = parser.parse_args(given)
    case = case_of(args)
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng():
        benches = {
            name: Bench(replace(case, method=name), Path(folder, name)) for name in args.methods
        }
        frame = measure(benches, args.rounds)
        where = hardware(next(iter(benches.values())).compute, case.threads)
    print(frame.to_markdown(index=False, floatfmt=("", ".1f", "", ".1f", ".2f", ".3f", ",.0f")))
    print(f"\n{where}; {args.rounds} rounds of {case.steps} steps; {case.clock} clock")


if __name__ == "__main__":
    command(main)
