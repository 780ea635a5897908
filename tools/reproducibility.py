"""Count what compares each method and distiller with its original; write it into the page.

    python -m tools.reproducibility

Writes `docs/studies/data/reproducibility.csv`, then the tables of all pages (see `tools.pages`).
"""

import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from cdl.distillers import DISTILLERS
from cdl.methods import PROMPTS
from tools import pages

TABLE = pages.DATA / "reproducibility.csv"
CASES = pages.ROOT / "tests" / "conformance"
PUBLISHED = pages.ROOT / "cdl" / "assets" / "published.csv"
SHORT = {"l2p": "l2p", "dual": "dual_prompt", "coda": "coda_prompt", "apt": "apt"}  # in variants
OF_KIND = {  # kinds of cases of one method or distiller; sessions of `ranpac` have no name there
    "prompt_one step_one": "one_prompt",
    "prompt_vq step_vq schedule_vq": "vq_prompt",
    "adapter_vit": "adapter",
    "inflora_design inflora_memory inflora_vit step_inflora trace_inflora": "inf_lora",
    "step_sdlora trace_sdlora": "sd_lora",
    "step_ssiat ssiat_align ssiat_shift trace_ssiat": "ssiat",
    "ease_complement": "ease",
    "ranpac step_petl ssf_merge trace_petl": "ranpac",
    "mapping_attention mapping_self_attention": "cdl_prompt",
}
NAMES = {kind: name for kinds, name in OF_KIND.items() for kind in kinds.split()}
# a run with real weights beside the published number: its accuracy; none has been made
REAL: Mapping[str, str] = {}


def owners(kind: str, variant: str) -> list[str]:
    """Return the methods and distillers that a golden case tests."""
    first, _, rest = variant.partition("_")
    if kind == "train_trace":  # METHOD_DISTILLER; runs of the released token have prefixes, too
        return [SHORT[first], "kd_prompt" if rest.startswith("kd_token") else rest]
    if kind == "loss_student_total":
        return [variant.rpartition("_task")[0]]
    if kind == "predict":
        return ["kd_token"] if first == "kd" else []
    if kind == "prototypes":
        return [{"simplecil": "simple_cil", "aper": "aper"}[variant]]
    if kind in NAMES:
        return [NAMES[kind]]
    room, _, name = kind.removesuffix("_std").partition("_")
    known = {"prompt": SHORT, "loss": {name: name for name in DISTILLERS}}.get(room, {})
    return [known[name]] if name in known else []


def cases() -> dict[str, Counter[str]]:
    """Return the golden cases of steps and of whole runs, by the name of what they test."""
    found: dict[str, Counter[str]] = {"step": Counter(), "run": Counter()}
    for path in sorted(CASES.glob("vectors*/*.json")):
        case = json.loads(path.read_text())
        if "kind" in case:
            whole = "run" if "trace" in case["kind"] else "step"
            found[whole].update(owners(case["kind"], path.stem.partition("__")[2]))
    return found


def published() -> dict[str, str]:
    """Return a published accuracy on CIFAR-100 in ten tasks for each name, in percent.

    Of a method: ViT-B/16 without a teacher, from its paper as `published.csv` quotes it, else from
    the newest version of the CDL paper. Of a distiller: with CODA-Prompt, from ViT-B to ViT-S.
    """
    found: dict[str, str] = {}
    for row in csv.DictReader(PUBLISHED.read_text().splitlines()):
        alone = row["kd"] == "none" and row["student"].startswith("vit_base")
        pair = (row["method"], row["teacher"], row["student"])
        taught = row["kd"] != "none" and pair == ("coda_prompt", "vit_base", "vit_small")
        if row["n_tasks"] != "10" or not row["dataset"].endswith("cifar100"):
            continue
        if taught:
            found[row["kd"]] = row["accuracy"]  # versions are in the order of time
        elif alone and not row["teacher"] and row["version"] != "LibContinual":
            found[row["method"]] = row["accuracy"]
    return found


def cells() -> Iterator[dict[str, Any]]:
    """Yield the cells of the table, without names that nothing is compared with."""
    found, paper = cases(), published()
    for name in [*PROMPTS, *DISTILLERS]:
        columns = {
            "steps": str(found["step"][name] or "-"),
            "runs": str(found["run"][name] or "-"),
            "real weights": REAL.get(name, "-"),
            "published": paper.get(name, "-"),
        }
        for column, value in columns.items() if {*columns.values()} != {"-"} else ():
            yield {"name": f"`{name}`", "column": column, "value": value}


if __name__ == "__main__":
    study = "golden cases of tests/conformance, and cdl/assets/published.csv"
    pages.write(TABLE, pages.origin(study, []), list(cells()))
    pages.main()
