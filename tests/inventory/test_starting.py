"""What is wrong before a run is one sentence with the absolute path."""

import pytest
from lab import make_grid

from cdl.inventory.starting import check_folder, check_sources
from cdl.runtime.errors import CdlError


@pytest.mark.parametrize("name", ["results", ".snakemake"])
def test_a_folder_that_cannot_be_written_is_named(tmp_path, name):
    check_folder(tmp_path)
    (tmp_path / name).touch()  # a file, where a folder is needed: this fails also for root
    with pytest.raises(CdlError, match=f"^{tmp_path}/{name}: cannot be written; start in a"):
        check_folder(tmp_path)


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(CdlError, match=f"^{tmp_path}/none: no such folder"):
        check_folder(tmp_path / "none")


@pytest.mark.parametrize("source", [{"folder": {"path": "far"}}, {"parquet": {"path": "far"}}])
def test_a_moved_folder_is_named_with_the_path_that_was_tried(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    mine = {"source": source, "tasks": 2, "view": {"size": 8}}
    grid = make_grid({"datasets": {"m": mine}, "grid": {"datasets": ["m"]}})
    tried = f"far: no such folder .tried {tmp_path}/far.; a path in a configuration is relative to"
    with pytest.raises(CdlError, match=tried):
        check_sources(grid)
