"""The real workflow on the tiny configuration, as a user starts it."""

import hashlib
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from functools import reduce
from pathlib import Path

import forked

from cdl.study.configuration import merge, read, resolve
from cdl.study.grid import Grid
from cdl.study.jobs import ON_DEMAND
from cdl.study.report_jobs import study_jobs

ROOT = Path(__file__).parents[2]
CONFIGS = [ROOT / "config" / "digits.yaml", ROOT / "config" / "test" / "tiny.yaml"]


# no GPU: what is identical byte by byte is so on the CPU
ENVIRONMENT = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "CUDA_VISIBLE_DEVICES": ""}


def command_of(folder, *arguments, overlay=None, files=CONFIGS):
    configs = [str(path) for path in files]
    if overlay is not None:
        path = folder / f"overlay{abs(hash(overlay))}.yaml"
        path.write_text(overlay)
        configs.append(str(path))
    command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile"]
    return [*command, "--directory", folder, "--configfile", *configs, *arguments]


def snakemake(folder, *arguments, before="", **options):
    """Run Snakemake to its end in a fork; `popen` starts a process that can be killed."""
    arguments = command_of(folder, *arguments, **options)[3:]
    return forked.run_module("snakemake", *arguments, before=before, env=ENVIRONMENT)


def run(folder, *arguments, **options):
    result = snakemake(folder, "--cores", "2", *arguments, **options)
    assert result.returncode == 0, result.stderr[-4000:]
    return result


def job_stats(result):
    """The number of jobs of every rule that a dry run lists, also of `all` and `total`."""
    assert result.returncode == 0, (result.stdout + result.stderr)[-3000:]
    if "Job stats" not in result.stdout:
        return {}
    table = result.stdout.split("Job stats", 1)[1].split("\n\n")[0]
    return {k: int(n) for k, n in re.findall(r"^(\w+)\s+(\d+)$", table, re.MULTILINE)}


def planned(folder, *targets, **options):
    """The jobs that a dry run lists, by rule."""
    command = ("-n", "--quiet", "host", "rules", "reason", "--cores", "1", *targets)
    jobs = job_stats(snakemake(folder, *command, **options))
    return {rule: n for rule, n in jobs.items() if rule not in ("all", "total")}


def listed(files):
    """The jobs of `all` by rule, from cdl's own list, which is Snakemake's.

    `workflow/test_declared_inputs.py` compares the two.
    """
    grid = Grid(resolve(reduce(merge, map(read, files))))
    return Counter(job.rule for job in study_jobs(grid) if job.rule not in ON_DEMAND)


# what tells seconds and memory, which no two runs share
SECONDS = (  # and the records that hold their hashes
    *("tables/cost.*", "figures/cost_*.svg", "figures/cost_*.png", "*.measured.json"),
    *("figures/plot_*.json", "index.html", "tables/page.json"),
)


def contents(folder):
    """Hashes of everything that must be reproducible: all but logs, times and Snakemake's own."""
    kept = {".safetensors", ".json", ".csv", ".parquet", ".md", ".svg", ".png", ".pixels"}
    kept |= {".yaml", ".html"}
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((folder / "results").rglob("*"))
        if path.suffix in kept and not any(path.match(pattern) for pattern in SECONDS)
    }


def popen(folder, *arguments, own_server=False, **options):
    """Start a run, to be killed or interrupted, in a process group of its own.

    With `own_server`, all is as a user has it; else its jobs are forked as those of `run`.
    """
    command, environment = command_of(folder, "--cores", "2", *arguments, **options), ENVIRONMENT
    if not own_server:
        environment = environment | forked.request_for(*command[2:])
        command = [sys.executable, forked.__file__]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # CI may ignore Ctrl-C
    )
