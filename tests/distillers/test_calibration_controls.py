"""The example package `calibration_controls`: its losses, and its discovery as a package."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pandas as pd
import pytest
import torch

from cdl.distillers.base import Output, TeacherOutput
from cdl.distillers.kd import SoftOrHardKD
from cdl.runtime.errors import CdlError

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "examples" / "calibration_controls"
LABELS, TASK = torch.tensor([4, 6, 5]), slice(4, 7)
TEACHER = torch.arange(35.0).view(5, 7) ** 1.5 % 11


@pytest.fixture
def control(monkeypatch):
    """Return a maker of the distiller from its options."""
    monkeypatch.syspath_prepend(PACKAGE)
    from calibration_controls.facts import KD_CONTROL

    defaults = {name: option["default"] for name, option in KD_CONTROL.options.items()}
    return lambda **options: KD_CONTROL.load()(None, **defaults | options)


def losses_of(distiller, teacher, classes=TASK, labels=LABELS):
    logits = torch.randn(5, 9, generator=torch.Generator().manual_seed(0))
    output = Output(logits, logits[:, None], (), {})
    return distiller(output, TeacherOutput(teacher, None), labels, classes)


def plain(**options):
    return SoftOrHardKD(None, soft_columns="seen", **options)


SETTINGS = [{}, {"standardize": True}, {"confidence": 0.6}, {"targets": "hard", "alpha": 0.9}]


@pytest.mark.parametrize("options", SETTINGS)
@pytest.mark.parametrize("earlier", ["permuted", "mean"])
def test_it_is_kd_with_the_earlier_logits_of_another_image_or_the_mean(control, earlier, options):
    old = TEACHER[[4, 0, 1, 2, 3], :4] if earlier == "permuted" else TEACHER[:, :4].mean(0)
    replaced = TEACHER.clone()
    replaced[:, :4] = old
    found = losses_of(control(earlier=earlier, **options), TEACHER)
    assert found == losses_of(plain(**options), replaced)
    assert found["soft"] != losses_of(plain(**options), TEACHER)["soft"]


@pytest.mark.parametrize("earlier", ["permuted", "mean"])
def test_equal_earlier_logits_and_the_first_task_are_kd(control, earlier):
    equal = TEACHER.clone()
    equal[:, :4] = torch.tensor([3.0, 1.0, 4.0, 1.5])
    assert losses_of(control(earlier=earlier), equal) == losses_of(plain(), equal)
    first = (TEACHER[:, :4], slice(0, 4), LABELS - 3)
    assert losses_of(control(earlier=earlier), *first) == losses_of(plain(), *first)


def test_an_image_alone_is_refused(control):
    from calibration_controls.kd_control import without_knowledge

    with pytest.raises(CdlError, match=r"training\.batch_size: invalid value 1; expected 2"):
        without_knowledge(TEACHER[:1], 4, "permuted")
    assert torch.equal(without_knowledge(TEACHER[:1], 0, "mean"), TEACHER[:1])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Return the folder of the package as it is installed, built without the network."""
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder]
    subprocess.run(build, check=True, cwd=PACKAGE, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def python(site, *arguments, cwd=ROOT):
    environment = os.environ | {"PYTHONPATH": f"{site}:{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, *map(str, arguments)]
    answer = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment)
    assert answer.returncode == 0, answer.stderr[-3000:]
    return answer.stdout


PLAN = """
import json, sys
from functools import reduce
sys.modules["torch"] = None  # importing it is an ImportError
from cdl.study.configuration import merge, read, resolve
from cdl.study.grid import Grid
from cdl.study.learning_jobs import LearningJobs
from cdl.study.specifications import specification
grid = Grid(resolve(reduce(merge, map(read, sys.argv[1:]))))
jobs = [job for job in LearningJobs(grid) if "kd_control" in str(job.key) and job.rule == "distil"]
specs = [specification(grid, run) for run in grid.runs if run.distiller.name == "kd_control"]
print(json.dumps({
    "earlier": sorted({spec.distiller.options["earlier"] for spec in specs}),
    "columns": sorted({spec.soft_columns for spec in specs}),
    "external": [spec.to_json()["external"] for spec in specs][0],
    "targets": sorted({job.inputs["targets"].rsplit("/")[-1] for job in jobs}),
}))
"""


def test_its_entry_point_is_found_and_its_configuration_reads_the_logits_of_all_classes(site):
    assert "kd_control" in python(site, "-m", "cdl", "list", "distillers")
    files = ROOT / "config/studies/seen_classes.yaml", PACKAGE / "controls.yaml"
    assert json.loads(python(site, "-c", PLAN, *files)) == {
        "earlier": ["mean", "permuted"],
        "columns": ["seen"],
        "external": {"kd_control": 1},
        "targets": ["targets_seen.safetensors"],
    }


@pytest.mark.nightly
def test_it_learns_two_tasks(site, tmp_path):
    (tmp_path / "overlay.yaml").write_text("grid: {distillers: [none, kd_control]}\n")
    configs = [ROOT / "config/digits.yaml", ROOT / "config/test/tiny.yaml", "overlay.yaml"]
    folder = "results/tiny/digits/coda_prompt/kd_control-vit_nano-from-vit_micro-q-vit_nano/seed0"
    run = ("-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--cores", "1")
    target = f"{folder}/task1/learner.safetensors"
    python(site, *run, target, "--configfile", *configs, cwd=tmp_path)
    losses = pd.read_csv(tmp_path / folder / "task1" / "losses.csv")
    assert (losses.loc[losses["part"] == "soft", "value"] > 0).all()
