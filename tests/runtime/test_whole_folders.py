"""Folders are whole or absent, whatever ends the process that fills them."""

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdl.runtime.errors import Busy, CdlError
from cdl.runtime.folders import busy, new_folder, partial_folders

NAMES = st.lists(st.sampled_from(["a", "b", "in/c", "in/d"]), unique=True, min_size=1)
ENDS = st.sampled_from(["done", "error", "killed"])


def fill(folder, names, stop=None, end="done"):
    """Write a file for each name; end before the file number `stop`."""
    for number, name in enumerate([*names, None]):
        if number == stop and end == "error":
            raise KeyError(name)
        if number == stop and end == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if name is not None:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(name)


def in_child(function):
    """Call a function in a forked process and wait for its end."""
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            function()
        os._exit(0)
    os.waitpid(child, 0)


def files_below(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@settings(max_examples=25, deadline=None, print_blob=True)
@given(st.lists(st.tuples(NAMES, st.integers(0, 4), ENDS), max_size=4), NAMES)
def test_a_folder_is_whole_or_absent(attempts, names):
    with tempfile.TemporaryDirectory() as root:
        target = Path(root, "some/where/run")
        for found, stop, end in attempts:
            if end == "done" or stop > len(found) or target.exists():
                continue

            def attempt(found=found, stop=stop, end=end):
                with new_folder(target) as folder:
                    fill(folder, found, stop, end)

            in_child(attempt)
            assert not target.exists()
            assert end == "killed" or files_below(Path(root)) == set()
            assert [owner for _, owner in partial_folders(target)] == [""] * (end == "killed")
        with new_folder(target) as folder:
            assert files_below(folder) == {".owner"}
            fill(folder, names)
        assert files_below(target) == set(names)
        assert files_below(Path(root)) == {f"some/where/run/{name}" for name in names}
        with pytest.raises(CdlError, match="run: already exists"), new_folder(target):
            pass
        assert files_below(Path(root)) == {f"some/where/run/{name}" for name in names}


def test_what_was_made_for_a_failed_folder_is_removed_and_nothing_else(tmp_path):
    (tmp_path / "results/other").mkdir(parents=True)
    with pytest.raises(KeyError), new_folder(tmp_path / "results/mine/a/b") as folder:
        fill(folder, ["x"], 1, "error")
    assert [path.name for path in tmp_path.rglob("*")] == ["results", "other"]


def test_a_second_process_is_refused_and_learns_the_number_of_the_first(tmp_path):
    target = tmp_path / "run"
    code = (
        "import sys, pathlib; from cdl.runtime.folders import new_folder\n"
        f"with new_folder(pathlib.Path({str(target)!r})) as folder:\n"
        "    (folder / 'x').touch(); print(flush=True); sys.stdin.read()"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe) as first:
        first.stdout.readline()
        expected = rf"run: is being made by process {first.pid} on .*; wait for its end"
        with pytest.raises(Busy, match=expected), new_folder(target):
            pass
        ((partial, owner),) = partial_folders(tmp_path / "r*")
        assert (partial / "x").exists() and owner.startswith(f"{first.pid} on ")
        with pytest.raises(Busy, match=f"by process {first.pid} on"):
            busy(partial_folders(target))
        first.stdin.close()
    assert files_below(tmp_path) == {"run/x"}
    busy(partial_folders(target))


def test_of_many_processes_at_once_one_makes_the_folder(tmp_path):
    target = tmp_path / "run"

    def make():
        with new_folder(target) as folder:
            fill(folder, [f"{os.getpid()}-{i}" for i in range(20)])

    children = []
    for _ in range(8):
        children.append(os.fork())
        if children[-1] == 0:
            with suppress(BaseException):
                make()
            os._exit(0)
    for child in children:
        os.waitpid(child, 0)
    found = files_below(tmp_path)
    assert len(found) == 20 and len({name.split("-")[0] for name in found}) == 1


def test_a_folder_that_another_program_makes_meanwhile_is_kept(tmp_path):
    target = tmp_path / "run"
    with pytest.raises(CdlError, match="run: cannot be made"), new_folder(target):
        target.mkdir()
        (target / "theirs").touch()
    assert files_below(tmp_path) == {"run/theirs"}
