"""A cache folder that can be written is found, also without a home."""

import os
import tempfile

import pytest

from cdl.runtime.caches import VARIABLE, ensure_cache
from cdl.runtime.errors import CdlError


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The system's temporary folder, in which the other folder is."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "file").touch()
    return tmp_path / "tmp" / f"cdl-cache-{os.getuid()}"


def test_a_usable_cache_folder_is_kept(tmp_path, temporary, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    assert ensure_cache() == ""
    assert os.environ[VARIABLE] == str(tmp_path / "cache") and not temporary.exists()


@pytest.mark.parametrize("home", ["file", "missing"])
def test_without_a_usable_home_a_private_folder_is_used_and_named(
    tmp_path, temporary, monkeypatch, home
):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "file" / home))  # below a file, so never a folder
    note = ensure_cache()
    assert note.startswith(f"{tmp_path}/file/{home}/.cache cannot be written; caches are in ")
    assert os.environ[VARIABLE] == str(temporary)
    assert temporary.stat().st_mode & 0o777 == 0o700
    assert ensure_cache() == "", "it is used from now on"


def test_a_folder_of_others_is_refused(tmp_path, temporary, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "file" / "x"))
    temporary.mkdir()
    temporary.chmod(0o755)
    with pytest.raises(CdlError, match=f"is not private; set {VARIABLE}"):
        ensure_cache()
