"""The workflows of continuous integration start what exists, and a release has no secret."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

import cdl

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_a_workflow_starts_scripts_and_targets_that_exist(file):
    jobs = yaml.safe_load(file.read_text())["jobs"]
    steps = [step.get("run", "") for job in jobs.values() for step in job["steps"]]
    targets = (ROOT / "Makefile").read_text()
    for command in steps:
        if command.startswith(".ci/"):
            assert (ROOT / command).stat().st_mode & 0o100, command
        if command.startswith("make "):
            assert re.search(rf"^{command.split()[1]}:", targets, re.MULTILINE), command


def test_a_release_is_started_by_a_tag_and_publishes_without_a_secret():
    text = (ROOT / ".github/workflows/release.yml").read_text()
    release = yaml.safe_load(text)
    assert release[True] == {"push": {"tags": ["v*"]}}  # YAML 1.1 reads `on` as true
    assert release["jobs"]["publish"]["permissions"] == {"id-token": "write"}
    assert release["jobs"]["publish"]["needs"] == "build"
    assert "secrets." not in text and "twine check --strict" in text


def test_all_files_name_one_version():
    (newest, *_) = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest == cdl.__version__
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == cdl.__version__
    for page in ("README.md", "CONTRIBUTING.md", "docs/use_a_student.md"):
        assert set(re.findall(r"\bv(\d+\.\d+\.\d+)\b", (ROOT / page).read_text())) <= {newest}


@pytest.mark.parametrize(("tag", "code"), [(f"v{cdl.__version__}", 0), ("v9.9.9", 1)])
def test_the_tag_must_be_the_version(tag, code):
    jobs = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())["jobs"]
    (check,) = (
        s["run"] for s in jobs["build"]["steps"] if s.get("name") == "The tag is the version"
    )
    command = ["sh", "-c", check]
    ended = subprocess.run(
        command, cwd=ROOT, env={"GITHUB_REF_NAME": tag, "PATH": "/usr/bin:/bin"}, check=False
    )
    assert ended.returncode == code
