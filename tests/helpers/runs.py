"""The real workflow on the tiny configuration, as a user starts it."""

import hashlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CONFIGS = [ROOT / "config" / "digits.yaml", ROOT / "config" / "test" / "tiny.yaml"]


# no GPU: what is identical byte by byte is so on the CPU
ENVIRONMENT = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "CUDA_VISIBLE_DEVICES": ""}


def command_of(folder, *arguments, overlay=None):
    configs = [str(path) for path in CONFIGS]
    if overlay is not None:
        path = folder / f"overlay{abs(hash(overlay))}.yaml"
        path.write_text(overlay)
        configs.append(str(path))
    command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile"]
    return [*command, "--directory", folder, "--configfile", *configs, *arguments]


def snakemake(folder, *arguments, overlay=None):
    command = command_of(folder, *arguments, overlay=overlay)
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)


def run(folder, *arguments, **options):
    result = snakemake(folder, "--cores", "2", *arguments, **options)
    assert result.returncode == 0, result.stderr[-4000:]
    return result


def planned(folder, **options):
    """The jobs that a dry run lists, by rule."""
    result = snakemake(folder, "-n", "--quiet", "host", "rules", "reason", **options)
    assert result.returncode == 0, result.stdout + result.stderr
    if "Job stats" not in result.stdout:
        return {}
    table = result.stdout.split("Job stats", 1)[1].split("\n\n")[0]
    jobs = dict(re.findall(r"^(\w+)\s+(\d+)$", table, re.MULTILINE))
    return {rule: int(n) for rule, n in jobs.items() if rule not in ("all", "total")}


# what tells seconds and memory, which no two runs share
SECONDS = (  # and the records that hold their hashes
    *("tables/cost.*", "figures/cost_*.svg", "figures/cost_*.png"),
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


def popen(folder, *arguments, overlay=None):
    """Start a run in a process group of its own."""
    return subprocess.Popen(
        command_of(folder, "--cores", "2", *arguments, overlay=overlay),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=ENVIRONMENT,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # CI may ignore Ctrl-C
    )
