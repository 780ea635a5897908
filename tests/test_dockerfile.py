"""The lines of the Dockerfile work: its RUN lines in an empty environment, then its command."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LINES = re.findall(r"^([A-Z]+) (.+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OFFLINE = {"PIP_NO_DEPS": "1", "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"}  # 0: pip#5735
IGNORED = (ROOT / ".dockerignore").read_text().split()


def ignored(folder, names):
    """Return the names in a folder that are not copied into the image, as docker reads the file."""
    paths = {name: str(Path(folder, name).relative_to(ROOT)) for name in names}
    return {
        name
        for name, path in paths.items()
        for pattern in IGNORED
        if fnmatch(path, pattern) or pattern == f"**/{name}"
    }


def test_the_image_has_a_python_the_extras_and_the_command_of_the_package():
    kinds = [kind for kind, _ in LINES]
    assert kinds == ["FROM", "COPY", "RUN", "WORKDIR", "ENTRYPOINT"]
    told = dict(LINES)
    (version,) = re.findall(r"^python:3\.(\d+)-slim$", told["FROM"])
    assert PROJECT["requires-python"] == ">=3.11" and int(version) >= 11
    (extra,) = re.findall(r'"/opt/cdl\[(\w+)\]"', told["RUN"])
    assert extra in PROJECT["optional-dependencies"]
    assert told["ENTRYPOINT"] == '["cdl"]' and "cdl" in PROJECT["scripts"]


@pytest.mark.nightly
def test_the_run_lines_install_the_command_in_an_empty_environment(tmp_path):
    """The packages that `pip` would download are those of this environment."""
    checkout, environment = tmp_path / "cdl", tmp_path / "env"
    shutil.copytree(ROOT, checkout, ignore=ignored)
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = environment / "lib" / python / "site-packages"
    (packages / "here.pth").write_text(sysconfig.get_path("purelib"))
    outside = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    outside |= OFFLINE | {"PATH": f"{environment}/bin:{os.environ['PATH']}"}

    def run(line, folder):
        done = subprocess.run(
            line, shell=True, cwd=folder, env=outside, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout

    for kind, line in LINES:
        if kind == "RUN":
            run(line.replace("/opt/cdl", str(checkout)), tmp_path)
    work = tmp_path / "work"
    work.mkdir()
    where = run("python -c 'import cdl; print(cdl.__file__)'", work)
    assert where.strip() == str(packages / "cdl/__init__.py")
    assert run("which cdl", work).strip() == f"{environment}/bin/cdl"
    run("cdl init study", work)
    assert "distil with kd" in run("cdl run study/config.yaml -n", work)
