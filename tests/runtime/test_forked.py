"""The tests' own servers fork; without them every program would start from nothing, slowly."""

import subprocess
import sys

import pytest
from forked import jobs_client, planning_client


@pytest.mark.parametrize(
    ("client", "imported"), [(planning_client, "snakemake.workflow"), (jobs_client, "torch")]
)
def test_a_fork_has_what_its_server_has_imported(client, imported, tmp_path, monkeypatch):
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    script = tmp_path / "script.py"
    script.write_text(f"import sys\nprint({imported!r} in sys.modules)\n")
    command = [*client(), sys.executable, script]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "True\n"
