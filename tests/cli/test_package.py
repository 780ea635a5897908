"""The command line as installed from a wheel, in an empty folder, without a checkout."""

import os
import re
import subprocess
import sys
import zipfile

import pytest
import typer.main
from forked import run_module
from runs import ROOT

from cdl.cli import app

COMMANDS = sorted(typer.main.get_command(app).commands)


def cdl(folder, *arguments, path=ROOT):
    environment = os.environ | {"PYTHONPATH": str(path), "COLUMNS": "80"}
    if path == ROOT:
        return run_module("cdl", *arguments, cwd=folder, env=environment)
    command = [sys.executable, "-m", "cdl", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=folder, env=environment, check=False
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A wheel's contents, built as `pip install .` builds them."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([*build, "--wheel-dir", folder, ROOT], check=True, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


@pytest.mark.slow
def test_a_wheel_starts_a_study_in_an_empty_folder(site, tmp_path):
    def run(*arguments):
        return cdl(tmp_path, *arguments, path=site)

    made = run("init", "x")
    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith(
        "wrote x/config.yaml, an example on digits; for your own: --images PHOTOS, --texts FILE"
    )
    plan = run("run", "x/config.yaml", "-n")
    assert plan.returncode == 0, plan.stdout + plan.stderr
    said = run("run", "x/config.yaml", "-n", "--verbose").stderr
    assert f"{site}/cdl/_program/profiles/default" in said
    assert re.search(r"^distil with kd +3  not made yet$", plan.stdout, re.MULTILINE)
    start = run("run", "x/config.yaml", "--cores", "1", "--until", "fetch_backbone")
    assert start.returncode == 0, start.stderr
    assert "2/2 jobs" in start.stderr and "rule fetch_backbone" not in start.stderr
    assert list((tmp_path / "results" / "backbones").glob("vit_*.safetensors"))
    state = run("status", "x/config.yaml")
    assert state.returncode == 0, state.stderr
    assert "starter: 7 cells, 48 jobs\n" in state.stdout
    for kind in ("methods", "distillers", "backbones", "datasets"):
        listed = run("list", kind)
        assert listed.returncode == 0, listed.stderr
        assert len(listed.stdout.splitlines()) > 3
    traced = run("trace", "digits/l2p")
    assert traced.returncode == 2
    assert traced.stderr == "cdl: results: contains no table; run `cdl run CONFIG` first\n"


@pytest.mark.slow
def test_init_writes_a_commented_configuration_and_keeps_existing_files(tmp_path):
    assert cdl(tmp_path, "init", "x").returncode == 0
    files = {str(p.relative_to(tmp_path / "x")) for p in (tmp_path / "x").rglob("*.*")}
    assert files == {"config.yaml", "config.schema.json", "profiles/slurm/config.yaml"}
    text = (tmp_path / "x" / "config.yaml").read_text()
    assert text.splitlines()[0] == "# yaml-language-server: $schema=config.schema.json"
    bare = [line.strip() for line in text.splitlines() if line.strip() and "#" not in line]
    assert [line for line in bare if not line.startswith("- ") and line[-1] != ":"] == [
        "methods: [coda_prompt]"  # explained by the line above it
    ]
    profile = tmp_path / "x" / "profiles" / "slurm"
    lines = (profile / "config.yaml").read_text().splitlines()
    assert sum("#" in line for line in lines) > len(lines) / 2
    plan = cdl(tmp_path, "run", "x/config.yaml", "-n", "--verbose", "--workflow-profile", profile)
    assert plan.returncode == 0, plan.stdout + plan.stderr
    assert re.search(r"Group job train0", plan.stdout)  # the profile's `chain`
    again = cdl(tmp_path, "init", "x")
    assert again.returncode == 2
    assert again.stderr == "cdl: x/config.yaml: already exists; choose another folder\n"
    assert (tmp_path / "x" / "config.yaml").read_text() == text


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help_fits_a_screen_and_shows_an_example(command, tmp_path):
    shown = cdl(tmp_path, *([command] if command else []), "--help")
    lines = shown.stdout.splitlines()
    assert shown.returncode == 0
    assert len(lines) <= 25
    assert all(len(line) <= 80 for line in lines)
    assert not any(line.endswith("...") for line in lines[1:])  # a summary cut short
    assert lines[-1].strip().startswith(f"Example: cdl {command or ''}".strip())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["list", "foo"],
            "Invalid value for 'KIND': 'foo' is not one of 'methods', 'distillers', ",
        ),
        (["run"], "Missing argument 'CONFIG' (see `cdl run --help`)"),
        (["statuss"], "No such command 'statuss'. Did you mean 'status'? (see `cdl --help`)"),
        (["status", "--cores", "0", "x.yaml"], "Invalid value for '--cores': "),
        (["status", "x.yaml", "--foo"], "No such option: --foo"),
    ],
)
def test_a_usage_error_is_one_line_and_exit_code_2(arguments, sentence, tmp_path):
    answer = cdl(tmp_path, *arguments)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr.startswith(f"cdl: {sentence}")
    assert answer.stderr.count("\n") == 1
