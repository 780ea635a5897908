"""`make demo` exports the student of a finished run once."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).parent.parent / "Makefile"
COMMANDS = {  # stand-ins that write what the commands write
    "cdl": "[ $1 = export ] && mkdir -p results/student && touch results/student/manifest.json",
    "python": "touch results/apple.png",
}


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_a_demo_exports_only_what_has_changed(tmp_path):
    """Run the recipes with stand-ins for the commands, which are tested elsewhere."""
    student = MAKEFILE.read_text().split("STUDENT := ", 1)[1].split("\n", 1)[0]
    results, exporter = tmp_path / student / "results.json", tmp_path / "cdl/deployment/export.py"
    for path in (results, exporter, tmp_path / "cdl/assets/cifar20.parquet"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    binaries = tmp_path / ".venv" / "bin"
    binaries.mkdir(parents=True)
    (tmp_path / "pyproject.toml").touch()
    shutil.copy(MAKEFILE, tmp_path)
    for name in ("ready", "ready-export"):
        (tmp_path / ".venv" / name).touch()
    for name, line in COMMANDS.items():
        (binaries / name).write_text(f"#!/bin/sh\necho {name} $1 >> commands.txt\n{line}\ntrue\n")
        (binaries / name).chmod(0o755)

    def commands():
        (tmp_path / "commands.txt").unlink(missing_ok=True)
        subprocess.run(["make", "demo"], cwd=tmp_path, check=True, capture_output=True)
        return (tmp_path / "commands.txt").read_text().split("\n")[:-1]

    def changed(path, seconds):
        """Let a file be changed so many seconds after the export."""
        at = (tmp_path / "results/student/manifest.json").stat().st_mtime + seconds
        os.utime(path, (at, at))

    assert commands() == ["cdl run", "cdl export", "python -c", "cdl predict"]
    assert commands() == ["cdl run", "cdl predict"]
    for path in (results, exporter):
        changed(path, 1)
        assert commands() == ["cdl run", "cdl export", "cdl predict"]
        changed(path, -1)
        assert commands() == ["cdl run", "cdl predict"]
