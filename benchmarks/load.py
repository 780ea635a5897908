"""A grid of many tiny jobs: the time and memory of planning it, and of running it.

    python benchmarks/load.py --jobs 10000
    python benchmarks/load.py --jobs 300 --run --cores 2

The configuration is the tests' smallest, over as many seeds as give so many jobs. Columns: jobs
that Snakemake counts; wall and processor seconds of the whole command with all its jobs; processor
milliseconds per job; peak memory in MB of the largest process. `grid` is this project's own share
of planning: from the YAML files to all runs, their specifications and caches.
"""

import argparse
import re
import resource
import subprocess
import sys
import tempfile
import time
from functools import reduce
from pathlib import Path

import pandas as pd

from cdl.study.configuration import merge, read, resolve
from cdl.study.grid import Grid
from cdl.study.inputs import Inputs
from cdl.study.specifications import row

ROOT = Path(__file__).parent.parent
BELOW = [ROOT / "config" / "digits.yaml", ROOT / "config" / "test" / "tiny.yaml"]
PER_SEED, SHARED = 16, 9  # jobs


def plan(files: list[Path]) -> None:
    """Do what the Snakefile does before Snakemake builds its graph."""
    grid = Grid(resolve(reduce(merge, map(read, files))))
    planned = Inputs(grid)
    for run in grid.runs:
        for task in range(run.n_tasks):
            planned.learning(grid.trained(run), task)
        planned.evaluating(run)
        row(grid, run)


def measured(what: str, command: list[str], folder: Path) -> dict[str, object]:
    """Run a command of Snakemake; return a row of the table."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    wall, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if result.returncode:
        sys.exit(f"{what} failed:\n{result.stderr[-2000:]}")
    jobs = int(re.search(r"^total +(\d+)$", result.stdout + result.stderr, re.MULTILINE)[1])
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "what": what,
        "jobs": jobs,
        "wall s": round(wall, 1),
        "CPU s": round(cpu, 1),
        "CPU ms/job": round(1000 * cpu / jobs, 2),
        "peak MB": after.ru_maxrss // 1024,
    }


def main(arguments: list[str] | None = None) -> pd.DataFrame:
    """Measure, print the table, and return it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=10_000, help="about so many jobs")
    parser.add_argument("--run", action="store_true", help="run them too")
    parser.add_argument("--cores", type=int, default=2, help="of the run")
    options = parser.parse_args(arguments)
    seeds = max(1, round((options.jobs - SHARED) / PER_SEED))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        overlay = folder / "load.yaml"
        overlay.write_text(f"name: load\ngrid: {{seeds: {list(range(seeds))}}}\n")
        files = [*BELOW, overlay]
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
        command += ["--quiet", "host", "rules", "reason", "--configfile", *map(str, files)]
        start = time.process_time()
        plan(files)
        grid = time.process_time() - start
        rows = [measured("snakemake -n", [*command, "--dry-run"], folder)]
        jobs = rows[0]["jobs"]
        own = {"what": "grid", "jobs": jobs, "CPU s": round(grid, 2)}
        rows.insert(0, own | {"CPU ms/job": round(1000 * grid / jobs, 2)})
        if options.run:
            rows.append(measured("run", [*command, "--cores", str(options.cores)], folder))
    table = pd.DataFrame(rows)
    print(table.astype(object).fillna("").to_markdown(index=False))
    return table


if __name__ == "__main__":
    main()
