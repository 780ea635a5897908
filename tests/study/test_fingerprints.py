"""Specifications of all shipped configurations are those of `fingerprints.json`, byte by byte.

A changed one makes finished jobs of every user run again. After a change that is meant to do that,
write the file anew: `python tests/study/test_fingerprints.py`.
"""

import json
import os
import tempfile
from functools import partial, reduce
from hashlib import sha256
from pathlib import Path

import pytest
import yaml
from overlays import OVERLAYS, write_stand_ins

from cdl.study.configuration import merge, resolve
from cdl.study.grid import Grid
from cdl.study.inputs import Inputs, caches_in, names_in
from cdl.study.learning_jobs import LearningJobs
from cdl.study.specifications import row, specification
from cdl.study.trials import Trials

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "config"
GOLDEN = Path(__file__).with_name("fingerprints.json")
RARE = {  # what no shipped configuration asks for
    "datasets": {
        "digits": {
            "labels": {"fraction": 0.5},
            "teacher_labels": "all",
            "unlabelled": {"source": {"cifar20": {}}, "tasks": "cut"},
        }
    },
    "backbones": {"vit_micro": {"size": 16}},
    "protocol": {"student_views": "fresh"},
    "methods": {
        "coda_prompt": {"pool": 30, "pool_per_task": None, "alignment": {"preset": "slca"}},
        "ranpac": {"logit_scale": 10},
    },
    "compute": {"precision": {"teacher": "bf16"}, "targets_dtype": "float16"},
    "grid": {
        "methods": ["coda_prompt", "apt"],
        "bounds": [],
        "exclude": [],
        "distillers": ["none", "kd", "fitnets"],
        "pairs": [
            {"teacher": "vit_micro", "student": "vit_nano"},
            {"teacher": "vit_micro", "student": "vit_nano", "teacher_method": "ranpac"},
        ],
    },
}
CLASSES = {  # as an order of classes by name and label, of which some are left for later
    "datasets": {"digits": {"tasks": [2, 3], "source": {"digits": {}}}},
    "protocol": {"class_order": [5, 0, 9, "1", 3, 2, 8, 7]},
    "grid": {
        "methods": ["l2p", {"block": "l2p", "variant": "joint", "joint": True}],
        "bounds": [],
        "exclude": [],
        "distillers": ["none", "kd"],
    },
}
EXTRA = {"rare": RARE, "classes": CLASSES}


def combinations():
    """Names of shipped configurations: a whole one, or an overlay behind what it is laid over."""
    for path in sorted(CONFIG.rglob("*.yaml")):
        name = str(path.relative_to(CONFIG))
        below = OVERLAYS.get(path.name, OVERLAYS.get(path.parent.name))
        yield from [f"{base} {name}" for base in below] if below else [name]


def jobs_of(name):
    """Jobs of a configuration and of its trials; stand-ins are written into the current folder."""
    files = ["digits.yaml"] if name in EXTRA else name.split()
    parts = [yaml.safe_load((CONFIG / file).read_text()) for file in files]
    config = reduce(merge, [*parts, EXTRA.get(name, {})])
    write_stand_ins(config)
    study = Grid(resolve(config))
    trials = Trials(study).grid
    return [LearningJobs(study), *([LearningJobs(trials)] if trials else [])]


def specifications(jobs, runs=None):
    """Specifications of every run, whole and after each task, by its folder."""
    for run in jobs.grid.runs if runs is None else runs:
        for task in (None, *range(run.n_tasks)):
            yield f"{run.folder} {task}", specification(jobs.grid, run, task).to_json()


def trained(jobs):
    """Specifications of every run without alignment, as it is trained, by its folder."""
    return specifications(jobs, map(jobs.grid.trained, jobs.grid.runs))


def caches(jobs):
    """Specifications of every cache: of queries by folder, of targets by that of the first task."""
    planned = Inputs(jobs.grid)
    for run in jobs.grid.runs:
        of_task = [partial(planned.learning, jobs.grid.trained(run))]
        of_task += [partial(planned.aligning, run)] if run.aligned else []
        read = [[inputs(task) for task in range(run.n_tasks)] for inputs in of_task]
        for inputs in (planned.evaluating(run), *(own for tasks in read for own in tasks)):
            behind = planned.of(inputs["targets"]) if "targets" in inputs else {}
            for cache in (*caches_in(inputs), *caches_in(behind)):
                if cache.spec.kind == "queries":
                    yield cache.folder, cache.spec.to_json()
        for targets in ([own["targets"] for own in tasks if "targets" in own] for tasks in read):
            for task, cache in enumerate(targets):
                _, _, kind = cache.rule.partition("teacher_targets_")
                name = "/".join(filter(None, (targets[0].folder, kind)))
                yield f"{name} {task}", cache.spec.to_json()


def others(jobs):
    """Other parameters of rules that are made of specifications."""
    grid = jobs.grid
    for run in grid.runs:
        planned = Inputs(grid)
        learnt = planned.learning(grid.trained(run), 0)
        names = [names_in(learnt, "backbones"), *named(planned.evaluating(run))]
        names += named(planned.aligning(run, 0)) if run.aligned else []
        yield run.folder, [names, run.mapped_query, row(grid, run)]


def named(inputs):
    """Names of the backbones that a job loads, and of those whose queries it reads."""
    return [names_in(inputs, name) for name in ("backbones", "queries")]


def fingerprint(pairs, text):
    lines = sorted(f"{name} {text(value)}" for name, value in pairs)
    return sha256("\n".join(lines).encode()).hexdigest()[:32]


def canonical(value):
    return json.dumps(value, sort_keys=True)


def fingerprints(name):
    """Fingerprints of canonical JSON, and of what Snakemake compares: `repr`, in order."""
    jobs = jobs_of(name)
    parts = {"runs": specifications, "trained": trained, "caches": caches, "others": others}
    # the study and its trials share caches and the runs of teachers: each counts once
    pairs = {part: dict(pair for own in jobs for pair in of(own)) for part, of in parts.items()}
    found = {
        part: fingerprint(pairs[part].items(), canonical) for part in pairs if part != "others"
    }
    return found | {f"{p} as params": fingerprint(pairs[p].items(), repr) for p in parts}


@pytest.mark.parametrize("name", [*combinations(), *EXTRA])
def test_specifications_are_as_recorded(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert fingerprints(name) == json.loads(GOLDEN.read_text())[name]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        found = {name: fingerprints(name) for name in [*combinations(), *EXTRA]}
    GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
