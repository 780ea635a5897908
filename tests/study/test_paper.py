"""Planning of the papers' configurations and ablations without weights, torch or network."""

import re

import pytest
import yaml
from runs import ROOT, listed, planned

from cdl.study.configuration import merge, resolve
from cdl.study.grid import Grid
from cdl.study.specifications import specification

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs" / "paper.md").read_text()
BLOCKER = """
import socket, sys
def refuse(*arguments, **options): raise OSError("this test has no network")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
sys.modules["torch"] = sys.modules["timm"] = None  # importing them is an ImportError
"""


def paper(name):
    return yaml.safe_load((ROOT / "config" / "paper" / f"{name}.yaml").read_text())


def expected(config, pairs):
    """Return the number of jobs by rule, computed from the lists of the configuration."""
    grid, (dataset,) = config["grid"], config["datasets"].values()
    methods, seeds, tasks = len(grid["methods"]), len(grid["seeds"]), dataset["tasks"]
    distilled = methods * (len(grid["distillers"]) - 1) - len(grid["exclude"])
    n = len(pairs)
    students = {pair["student"] for pair in pairs}
    used = students | {pair["teacher"] for pair in pairs}
    own_batch = [p for p in pairs if "batch_size" in config["backbones"][p["teacher"]]]
    return {
        "fetch_dataset": 1,
        "prepare_dataset": 1,
        "fetch_backbone": len(used),
        "queries": (2 * len(students) + len(own_batch)) * seeds * tasks,  # views of both roles
        "test_queries": len(students),
        "train": 2 * methods * n * seeds * tasks,
        "teacher_targets": methods * n * seeds * tasks,
        "distil": distilled * n * seeds * tasks,
        "evaluate": (2 * methods + distilled) * n * seeds,
        "compare": n,
    }


@pytest.mark.parametrize("name", ["cifar100", "imagenet_r"])
def test_job_counts_are_as_explained(name):
    section = PAGE.split("## How many jobs")[1].split("##")[0]
    documented = [int(n) for n in re.findall(r"(\d+) (?:jobs|train|compute|distil)\b", section)]
    config = paper(name)
    counted = expected(config, config["grid"]["pairs"])
    plan = listed([ROOT / "config" / "paper" / f"{name}.yaml"])
    assert {rule: plan[rule] for rule in counted} == counted
    learning = [plan[rule] for rule in ("train", "teacher_targets", "distil")]
    assert documented == [plan.total() + 1, *learning]  # `all` is not listed


def test_a_table_asked_for_by_name_plans_only_its_pair(tmp_path):
    target = "results/paper_cifar100/tables/cifar100_base-small.md"
    files = [ROOT / "config" / "paper" / "cifar100.yaml"]
    plan = planned(tmp_path, target, files=files, before=BLOCKER)
    config = paper("cifar100")
    pairs = [{"teacher": "vit_base", "student": "vit_small"}]
    assert plan == expected(config, pairs)
    assert target in PAGE


@pytest.mark.parametrize("name", ["cifar100", "imagenet_r"])
def test_papers_use_full_tags_and_the_released_protocol(name):
    config = paper(name)
    assert config["protocol"] == {"preset": "released"}
    for backbone, block in config["backbones"].items():
        assert block["timm"] == f"{backbone}_patch16_224.augreg_in21k_ft_in1k"
        assert block["published"] == backbone


def test_cifar10_is_planned_by_the_same_settings_with_nothing_to_compare():
    own, theirs = paper("cifar10"), paper("cifar100")
    assert own["grid"] == theirs["grid"]
    counted = expected(own, own["grid"]["pairs"]) | {"compare": 0}
    plan = listed([ROOT / "config" / "paper" / "cifar10.yaml"])
    assert {rule: plan[rule] for rule in counted} == counted


ABLATIONS = sorted((ROOT / "config" / "ablations").glob("*.yaml"), key=lambda p: p.name)


@pytest.mark.parametrize("path", ABLATIONS, ids=lambda path: path.stem)
@pytest.mark.parametrize("below", ["digits.yaml", "paper/cifar100.yaml"])
def test_an_ablation_fits_a_small_and_a_large_configuration(path, below):
    config = yaml.safe_load((ROOT / "config" / below).read_text())
    grid = Grid(resolve(merge(config, yaml.safe_load(path.read_text()))))
    assert grid.config["name"] == f"ablation_{path.stem}"
    distilled = [run for run in grid.runs if run.teacher]
    specs = {str(specification(grid, run).distiller) for run in distilled}
    assert len(specs) == len({run.distiller.label for run in distilled}) >= 3
    assert f"`{path.name}`" in PAGE


def test_an_ablation_can_be_planned():
    layers = [ROOT / "config" / "digits.yaml", ROOT / "config" / "ablations" / "kd_layers.yaml"]
    assert listed(layers)["distil"] == 4 * 3
