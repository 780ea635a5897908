"""Atomic writes, also by several writers at once."""

import threading
from concurrent.futures import ThreadPoolExecutor

from cdl.runtime.artifacts import read_json, replacing, write_json


def test_two_writers_of_one_path_use_different_temporary_files(tmp_path):
    path = tmp_path / "x"
    with replacing(path) as first:  # as on two hosts with equal pids
        first.write_text("a" * 100)
        with replacing(path) as second:
            assert first != second
            second.write_text("b" * 10)
        assert path.read_text() == "b" * 10
    assert path.read_text() == "a" * 100
    assert list(tmp_path.iterdir()) == [path]


def test_threads_that_write_one_path_leave_a_complete_file(tmp_path):
    path, start = tmp_path / "x.json", threading.Barrier(8)

    def write(number):
        start.wait()
        for _ in range(30):
            write_json(path, {"x": [number] * 1000 * number})
            found = read_json(path)["x"]
            assert len(found) == 1000 * found[0]

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(write, range(1, 9)))
    assert list(tmp_path.iterdir()) == [path]


def test_a_failing_block_leaves_the_old_file(tmp_path):
    path = tmp_path / "x"
    path.write_text("before")
    try:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise KeyError
    except KeyError:
        pass
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
