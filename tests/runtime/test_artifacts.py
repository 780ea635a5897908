"""Files that the program writes: who may read them, and that each vouches for itself."""

import os

import pytest
import torch

from cdl.learning.checkpointing import State
from cdl.runtime import artifacts


@pytest.fixture
def umask():
    """A setter of the umask, which is put back at the end."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_every_artifact_obeys_the_umask(tmp_path, umask, mask, mode):
    umask(mask)
    artifacts.save(tmp_path / "learner.safetensors", {"x": torch.ones(2)}, {})
    with State(str(tmp_path / "state"), {"job": 1}, minutes=0) as state:
        state.save({"x": torch.ones(2)}, {"at": [0, 1]})
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 3
    assert {path.stat().st_mode & 0o777 for path in files} == {mode}
