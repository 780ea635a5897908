"""What one machine with an NVIDIA card can show of this project: one command, one report.

    make gpu-proof
    python benchmarks/gpu_proof.py --device cpu --small    # the same lines without a card

Sections run one after another. One that fails is reported with its reason and makes the exit code
1; the others still run. `report.json` and `report.md` are written anew after each of them. With
`--small` the sizes are those of a test: the numbers say nothing, only that every line runs.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import grid_cost
import pandas as pd
import steps
import torch
import yaml
from bench import Bench
from case import Case
from meter import ceiling, hardware

from cdl.layout import Layout
from cdl.runtime.artifacts import replacing, write_json
from cdl.runtime.compute import Compute
from cdl.runtime.errors import CdlError
from cdl.study.configuration import merge, read, resolve
from cdl.study.grid import Grid

ROOT = Path(__file__).parent.parent
CIFAR100 = Path("data/cifar100")  # train*.parquet and test*.parquet
PAIR = {n: Path(f"data/backbones/{n}_patch4_32.safetensors") for n in ("vit_small", "vit_tiny")}
SMALL = Case(size=8, batch=4, tasks=2, classes=4, steps=1, warm_up=1, test_images=8)
LARGE = Case("vit_base_patch16_224", "vit_small_patch16_224", 224)
# frozen weights and step; with what they are compared; how far losses may lie apart, relatively
AGREEMENTS = (
    (("fp32", True), ("fp32", False), 0.01),
    (("bf16", False), ("fp32", False), 0.05),
    (("bf16", True), ("bf16", False), 0.01),
)
POINTS = 1.0  # of accuracy between fp32 and bf16: two standard errors of 10,000 test images
TARGETS = (  # on one H100: stage, column of the steps, at least
    ("student", "ratio", 30.0),
    ("teacher", "ratio", 15.0),
    ("student", "img/s", 11_000.0),
    ("teacher", "img/s", 5_000.0),
)
HOURS = 1.5  # at most, for the grid of CIFAR-100

Row = dict[str, Any]


class Skipped(Exception):
    """What a section needs is not there."""


@dataclass
class Proof:
    """What is proven where.

    device: `cpu` or `cuda`.
    small: whether the sizes are those of a test.
    found: rows of the sections so far, by name.
    """

    device: str
    small: bool
    found: dict[str, list[Row]] = field(default_factory=dict)

    @property
    def case(self) -> Case:
        """The case whose steps are timed, in fp32 and without graphs."""
        return replace(SMALL if self.small else LARGE, device=self.device)

    @property
    def fast(self) -> tuple[str, bool]:
        """The precision and capture that are fast on this device."""
        return ("fp32" if self.device == "cpu" else "bf16"), True

    def rows(self, section: str) -> list[Row]:
        """Return what a section found; raise `CdlError` if it has failed."""
        if section not in self.found:
            raise CdlError(f"it needs the rows of the section {section!r}, which has none")
        return self.found[section]


def gpu_tests(proof: Proof) -> list[Row]:
    """Run the tests that are marked `gpu`; without a card they are skipped."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tests.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", f"--junitxml={path}"]
        command += ["-p", "no:cacheprovider", "tests/training" if proof.small else "tests"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode not in (0, 1):
            raise CdlError(f"pytest ends with {done.returncode}: {done.stdout[-500:]}")
        cases = list(ElementTree.parse(path).iter("testcase"))
    rows = []
    for case in cases:
        result = next((part.tag for part in case if part.tag in _RESULTS), "passed")
        ok = result == "passed" or (result == "skipped" and proof.device == "cpu")
        rows.append({"test": case.get("name"), "result": result, "s": case.get("time"), "ok": ok})
    return rows


_RESULTS = ("failure", "error", "skipped")


def products(proof: Proof) -> list[Row]:
    """Time large matrix products: what the device can do at best."""
    return [
        {"type": str(dtype), "TFLOP/s": ceiling(torch.device(proof.device), dtype, "wall") / 1e12}
        for dtype in (torch.float32, torch.bfloat16)
    ]


def step_times(proof: Proof) -> list[Row]:
    """Time every stage of the case beside the recipe, as `steps.py` does."""
    precision, capture = proof.fast
    case = replace(proof.case, precision=precision, capture=capture)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(case, Path(folder))
        workers, rounds = (0, 1) if proof.small else (4, 3)
        frame = steps.measure(bench, workers, rounds)
    return _records(frame)


def whole_grid(proof: Proof) -> list[Row]:
    """Sum the measured rates over CIFAR-100, ViT-B teaching ViT-S, 28 cells."""
    rates = grid_cost.rates_of(proof.rows("steps"), [])
    grid = Grid(resolve(read(ROOT / "benchmarks" / "cifar100_base_small.yaml")))
    images = grid_cost.Images(grid, classes=100, train=500, test=100)
    return _records(grid_cost.table(grid, images, rates, _start_up(proof)))


def _start_up(proof: Proof) -> float:
    """Return the seconds that a job takes before it learns: imports and the device."""
    code = "import torch, cdl.training.task; torch.zeros(1, device={!r})"
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", code.format(proof.device)], cwd=ROOT, check=True)
    return time.monotonic() - began


def agreement(proof: Proof) -> list[Row]:
    """Compare losses of equal starts and views: bf16 with fp32, graphs with eager steps."""
    modes = [pair for pair in AGREEMENTS if proof.device != "cpu" or pair[0] == proof.fast]
    curves: dict[tuple[str, bool], dict[str, pd.Series]] = {}
    for mode in dict.fromkeys(mode for pair in modes for mode in pair[:2]):
        case = replace(proof.case, precision=mode[0], capture=mode[1])
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(case, Path(folder))
            for role in ("teacher", "student"):
                bench.learn(role, cached=True)
            curves[mode] = bench.losses
    rows = []
    for one, other, allowed in modes:
        for role, expected in curves[other].items():
            apart = float((curves[one][role] - expected).abs().max() / expected.abs().max())
            row = {"learner": role, "mode": _name(one), "beside": _name(other)}
            losses = {"first loss": expected.iloc[0], "last loss": expected.iloc[-1]}
            rows.append(row | losses | {"apart": apart, "allowed": allowed, "ok": apart <= allowed})
    return rows


def learning(proof: Proof) -> list[Row]:
    """Run a whole study in fp32 and eager, and in the fast mode; compare accuracies."""
    modes = (("fp32", False), proof.fast)
    files, changes = _study(proof)
    with tempfile.TemporaryDirectory() as folder:
        exact, quick = (_run(proof, files, changes, mode, Path(folder)) for mode in modes)
    rows = []
    for one, other in zip(exact, quick, strict=True):
        row = {"learner": one["backbone"], "role": one["role"], "distiller": one["distiller"]}
        for mode, run in zip(modes, (one, other), strict=True):
            row[f"{_name(mode)}, %"] = run["final_average_accuracy"]
            row[f"{_name(mode)}, s"] = run["training_seconds"]
        apart = other["final_average_accuracy"] - one["final_average_accuracy"]
        rows.append(row | {"apart": apart, "allowed": POINTS, "ok": abs(apart) <= POINTS})
    return rows


def _study(proof: Proof) -> tuple[list[Path], Row]:
    """Return configuration files and changes: real CIFAR-100, or the tests' digits."""
    config = ROOT / "config"
    if proof.small:
        files = [config / "digits.yaml", config / "test" / "tiny.yaml"]
        few: Row = {"datasets": {"digits": {"tasks": 1}}, "grid": {"distillers": ["none"]}}
        return files, few | {"compute": {"targets": "online"}}
    if not list(CIFAR100.glob("train*.parquet")):
        raise Skipped(f"no train*.parquet in {CIFAR100}; see config/README.md, Data")
    source = {"parquet": {"path": str(CIFAR100.resolve())}}
    whole = {"images_per_class": None, "test_images_per_class": None}
    changes: Row = {
        "datasets": {"cifar100": {"source": source, "tasks": 5, **whole}},
        "grid": {
            "methods": ["coda_prompt"],
            "distillers": ["none", "kd_prompt"],
            "exclude": [],
            "seeds": [0],
        },
    }
    if all(path.exists() for path in PAIR.values()):
        changes["backbones"] = {name: {"file": str(p.resolve())} for name, p in PAIR.items()}
        changes["grid"]["pairs"] = [dict(zip(("teacher", "student"), PAIR, strict=True))]
    return [config / "cifar100_methods.yaml"], changes


def _run(
    proof: Proof, files: list[Path], changes: Row, mode: tuple[str, bool], folder: Path
) -> list[Row]:
    """Run a study with Snakemake; return its table of results with seconds."""
    name = "_".join(_name(mode).split())
    compute = {"device": proof.device, "precision": mode[0], "capture": mode[1]}
    overlay = folder / f"{name}.yaml"
    overlay.write_text(yaml.safe_dump(merge(changes, {"name": name, "compute": compute})))
    tables = Layout(name).report.tables
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
    command += ["--directory", str(folder), "--cores", str(len(os.sched_getaffinity(0)))]
    command += ["--configfile", *map(str, [*files, overlay]), "--", tables.results]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CdlError(f"snakemake ends with {done.returncode}: {done.stderr[-1500:]}")
    results, cost = (pd.read_csv(folder / path) for path in (tables.results, tables.cost))
    return _records(results.assign(training_seconds=cost["training_seconds"]))


def targets(proof: Proof) -> list[Row]:
    """Hold what was measured against the targets; a missed one is an answer, not a failure."""
    timed = {row["stage"]: row for row in proof.rows("steps") if row["recipe"] == "ours, cached"}
    rows: list[Row] = []
    for stage, column, least in TARGETS:
        measured = timed[stage][column]
        what = {"target": f"{stage}: {column}", "wanted": f"at least {least:,.0f}"}
        rows.append(what | {"measured": measured, "reached": measured >= least})
    hours = proof.rows("grid cost")[-1]["ours, h"]
    what = {"target": "CIFAR-100, 28 cells: hours", "wanted": f"at most {HOURS}"}
    rows.append(what | {"measured": hours, "reached": hours <= HOURS})
    device = Compute.select(proof.device).name
    verdict = steps.verdict(pd.DataFrame(proof.rows("steps")), proof.case, device)
    return rows + [{"target": line} for line in verdict.splitlines()]


def _name(mode: tuple[str, bool]) -> str:
    return f"{mode[0]} {'graph' if mode[1] else 'eager'}"


def _records(frame: pd.DataFrame) -> list[Row]:
    return frame.astype(object).where(frame.notna(), None).to_dict("records")


Section = Callable[[Proof], list[Row]]
SECTIONS: dict[str, Section] = {
    "GPU tests": gpu_tests,
    "matrix products": products,
    "steps": step_times,
    "grid cost": whole_grid,
    "targets": targets,
    "agreement": agreement,
    "learning": learning,
}


def prove(proof: Proof, name: str, section: Section) -> Row:
    """Run a section; return its result, reason, seconds and rows."""
    began, rows, result, reason = time.monotonic(), [], "passed", ""
    try:
        rows = proof.found[name] = section(proof)
        wrong = sum(not row.get("ok", True) for row in rows)
        if wrong or not rows:
            result, reason = "failed", f"{wrong} of {len(rows)} rows are not ok"
    except Skipped as error:
        result, reason = "skipped", str(error)
    except Exception as error:  # whatever it is, the other sections are still to be seen
        traceback.print_exc()
        result, reason = "failed", f"{type(error).__name__}: {error}"
    seconds = round(time.monotonic() - began, 1)
    return {"section": name, "result": result, "reason": reason, "s": seconds, "rows": rows}


def write(folder: Path, about: str, small: bool, sections: list[Row]) -> None:
    """Write what is known so far as JSON and as Markdown."""
    write_json(folder / "report.json", {"about": about, "small": small, "sections": sections})
    overview = pd.DataFrame(sections).drop(columns="rows")
    overview["reason"] = overview["reason"].str.replace(r"[\s|]+", " ", regex=True).str[:300]
    parts = ["# GPU proof", about + "."]
    parts += ["Small: the numbers say nothing, only that every line runs."] if small else []
    parts += [overview.to_markdown(index=False)]
    for section in sections:
        table = pd.DataFrame(section["rows"]).map(_cell)
        shown = table.to_markdown(index=False, disable_numparse=True)
        parts += [f"## {section['section']}", shown] if section["rows"] else []
    with replacing(folder / "report.md") as temporary:
        temporary.write_text("\n\n".join(parts) + "\n")


def _cell(value: Any) -> str:
    if pd.isna(value):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value)


def main(given: list[str] | None = None) -> int:
    """Run all sections; return 1 if one failed, else 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="sizes of a test; a CPU needs it")
    parser.add_argument("--output", type=Path, default=Path(Layout("gpu_proof").root))
    args = parser.parse_args(given)
    if args.device == "cpu" and not args.small:
        parser.error("--device cpu: give --small with it; a ViT-B is not for a CPU")
    proof, sections = Proof(args.device, args.small), []
    about = hardware(Compute.select(args.device, proof.fast[0]).apply(), proof.case.threads)
    args.output.mkdir(parents=True, exist_ok=True)
    for name, section in SECTIONS.items():
        sections.append(prove(proof, name, section))
        last = sections[-1]
        print(f"{last['s']:7.1f} s  {name}: {last['result']} {last['reason']}", flush=True)
        write(args.output, about, args.small, sections)
    print(f"Report: {args.output / 'report.md'}")
    return int(any(section["result"] == "failed" for section in sections))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CdlError as error:
        sys.exit(f"gpu-proof: {error}")
