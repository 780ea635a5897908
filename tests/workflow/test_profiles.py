"""Settings of the shipped profiles; tests/workflow/slurm/ runs them on a cluster."""

import re

import pytest
import yaml
import yte
from runs import ROOT, snakemake

DEFAULT = ROOT / "profiles" / "default" / "config.yaml"
SLURM = ROOT / "workflow" / "profiles" / "slurm" / "config.yaml"
RULES = {path.name: path.read_text() for path in (ROOT / "workflow" / "rules").glob("*.smk")}


def read(path):
    return yte.process_yaml(path.read_text(), require_use_yte=True)


def test_both_profiles_rerun_for_the_same_reasons():
    default, slurm = read(DEFAULT), yaml.safe_load(SLURM.read_text())
    for key in ("rerun-triggers", "rerun-incomplete"):
        assert default[key] == slurm[key]
    assert "code" not in default["rerun-triggers"]


@pytest.mark.parametrize(
    ("visible", "resources"),
    [("", None), ("5", {"gpu_percent": 100}), ("0,1,3", {"gpu_percent": 300})],
)
def test_a_queue_for_each_gpu(monkeypatch, visible, resources):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert read(DEFAULT).get("resources") == resources


def test_retries_stand_in_the_profile_only():
    assert yaml.safe_load(SLURM.read_text())["retries"] > 0
    assert not any(re.search(r"^\s*retries\s*:", text, re.MULTILINE) for text in RULES.values())


def test_the_slurm_profile_places_every_rule_that_asks_for_a_gpu():
    asking = set()
    for text in RULES.values():
        for rule in re.split(r"^rule ", text, flags=re.MULTILINE)[1:]:
            if "**COMPUTING" in rule:
                asking.add(rule.split(":")[0])
    for text in RULES.values():
        copies = re.findall(r"^use rule (\w+) as (\w+)", text, flags=re.MULTILINE)
        asking |= {copy for rule, copy in copies if rule in asking}
    assert asking == set(yaml.safe_load(SLURM.read_text())["set-resources"])


@pytest.mark.parametrize(
    ("chain", "expected"),
    [
        (None, {"train0": 2, "distil0": 2}),  # whole chains of three tasks
        (2, {"train0": 2, "train1": 2, "distil0": 2, "distil1": 2}),
        (1, {}),
    ],
)
def test_the_length_of_a_submission_is_a_setting(tmp_path, chain, expected):
    overlay = "datasets: {digits: {tasks: [4, 3, 3]}}"
    if chain:
        overlay += f"\nchain: {chain}"
    result = snakemake(tmp_path, "-n", overlay=overlay)
    groups = re.findall(r"Group job (\w+)", result.stdout)
    assert {name: groups.count(name) for name in groups} == expected
