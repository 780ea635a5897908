"""Common mistakes are reported in one sentence, by `snakemake` and by `cdl run`."""

import os
import re
import subprocess
import sys
from itertools import product

import pytest
from forked import run_module
from PIL import Image
from runs import ROOT

from cdl.cli.run import TARGETS

pytestmark = pytest.mark.slow  # each starts Snakemake

DEFAULT = ROOT / "config" / "digits.yaml"
HIDDEN = """
import pkgutil
from importlib.machinery import PathFinder
name, find, modules = "snakemake_executor_plugin_slurm", PathFinder.find_spec, pkgutil.iter_modules
PathFinder.find_spec = lambda n, *a, **k: None if n.startswith(name) else find(n, *a, **k)
pkgutil.iter_modules = lambda *a, **k: (m for m in modules(*a, **k) if not m.name.startswith(name))
"""


def start(folder, *command):
    environment = os.environ | {"PYTHONPATH": f"{folder}:{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-m", *map(str, command)],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
        check=False,
        timeout=300,
    )


def snakemake(folder, *arguments):
    command = ["snakemake", "--snakefile", ROOT / "Snakefile", *arguments]
    return run_module(*command, cwd=folder, timeout=300)


def cdl(folder, *arguments):
    return run_module("cdl", *arguments, cwd=folder, timeout=300)


def error_line(answer):
    """Return the one line on stderr."""
    assert answer.returncode in (1, 2), answer.stdout
    lines = [ln for ln in answer.stderr.splitlines() if not ln.startswith("Using workflow")]
    assert len(lines) == 1, answer.stderr
    return lines[0]


FILES = {
    "broken.yaml": (b"name: x\n  y: 3\n", "broken.yaml: .*line 2, column 4: mapping values are"),
    "latin.yaml": (b"name: caf\xe9\n", "latin.yaml: .*line 1 contains the byte 0xe9; save"),
    "template.yaml": (
        b"__use_yte__: true\n__definitions__: [\"open('harm', 'w')\"]\n",
        "template.yaml: YTE templates .__use_yte__. are not supported",
    ),
    "nothing.yaml": (b"", "nothing.yaml: is not a mapping"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_cannot_be_read_is_told_by_both(name, tmp_path):
    content, sentence = FILES[name]
    (tmp_path / name).write_bytes(content)
    for answer in (
        snakemake(tmp_path, "-n", "--configfile", DEFAULT, name),
        cdl(tmp_path, "run", DEFAULT, name, "-n"),
    ):
        assert re.match(f"cdl: {sentence}", error_line(answer))
    assert {path.name for path in tmp_path.iterdir()} <= {name, ".snakemake"}


def test_a_missing_configuration_file_is_reported(tmp_path):
    (tmp_path / "default.yaml").touch()
    answer = snakemake(tmp_path, "-n", "--configfile", "defalt.yaml")
    sentence = "cdl: defalt.yaml: no such file; did you mean default.yaml?"
    assert error_line(answer) == sentence
    assert error_line(cdl(tmp_path, "run", "defalt.yaml")) == sentence


def test_an_unknown_target_is_reported_with_the_known_ones(tmp_path):
    sentence = (
        "cdl: train: unknown target; expected all, collect, tabulate, page, chosen_prompts, halve, "
        "tuned, or a file below results/"
    )
    assert error_line(snakemake(tmp_path, "-n", "train")) == sentence
    assert error_line(cdl(tmp_path, "run", DEFAULT, "-n", "train")) == sentence


def test_the_named_targets_are_those_of_the_workflow(tmp_path):
    listed = snakemake(tmp_path, "--list-target-rules").stdout.split()
    assert set(listed) == set(TARGETS)


def test_a_missing_slurm_plugin_is_reported_with_the_command_that_installs_it(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(HIDDEN)
    profile = ROOT / "workflow" / "profiles" / "slurm"
    command = ["snakemake", "--snakefile", ROOT / "Snakefile", "-n"]  # started afresh
    answer = start(tmp_path, *command, "--workflow-profile", profile)
    assert error_line(answer).startswith(
        "cdl: executor: slurm is not installed; in the checkout run pip install '.[slurm]'"
    )


def test_an_overlay_with_another_source_runs(tmp_path):
    for split, name in product(("train", "test"), ("ants", "bees")):
        folder = tmp_path / "pictures" / split / name
        folder.mkdir(parents=True)
        shade = len(split) + len(name) * 20 + ord(name[0])
        Image.new("L", (16, 16), shade).save(folder / "0.png")
    (tmp_path / "mine.yaml").write_text(
        "datasets: {digits: {source: {folder: {path: pictures}}, tasks: 2}}\n"
        "backbones: {vit_micro: {timm: vit_tiny_patch16_224.augreg_in21k}}\n"
        "grid: {methods: [l2p], distillers: [none]}\n"
    )
    files = ["--configfile", DEFAULT, "mine.yaml"]
    plan = snakemake(tmp_path, "-n", "--quiet", "reason", "rules", *files)
    assert plan.returncode == 0, plan.stdout + plan.stderr
    assert re.search(r"^train +4$", plan.stdout, re.MULTILINE)


@pytest.mark.parametrize("source", ["parquet: {path: gone}", "folder: {path: gone}"])
def test_absent_data_are_one_sentence_without_a_traceback(tmp_path, source):
    mine = f"mine: {{source: {{{source}}}, tasks: 2, view: {{size: 8}}}}"
    (tmp_path / "mine.yaml").write_text(f"datasets: {{{mine}}}\ngrid: {{datasets: [mine]}}\n")
    answer = snakemake(tmp_path, "-n", "--cores", "1", "--configfile", DEFAULT, "mine.yaml")
    assert answer.returncode == 1
    said = answer.stdout + answer.stderr
    assert re.search(r"^cdl: .*gone.*$", said, re.MULTILINE) and "Traceback" not in said


def test_braces_in_the_path_of_the_program_are_one_sentence(tmp_path):
    program = tmp_path / "{x}"
    program.mkdir()
    for name in ("Snakefile", "workflow"):
        (program / name).symlink_to(ROOT / name)
    snakefile = program / "workflow" / "Snakefile"
    answer = run_module("snakemake", "--snakefile", snakefile, "-n", cwd=tmp_path, timeout=300)
    assert answer.returncode == 1
    assert "{x}/workflow: Snakemake takes braces in the path of its workflow" in answer.stdout
