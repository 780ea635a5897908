"""A job of the workflow ends with an exit code and one sentence."""

import os
import signal
from types import SimpleNamespace

import pytest

from cdl.inventory.status import reason_in
from cdl.runtime.errors import CdlError
from cdl.runtime.jobs import job


@pytest.fixture
def default_handler():
    """Restore the handler of Ctrl-C after the test."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_job_removes_what_a_killed_one_has_left_of_its_outputs(default_handler, tmp_path):
    rest, names = f".w[1].json.{'0a' * 8}", (".w[1].json.part", f".v.json.{'0a' * 8}", "w[1].json")
    for name in (rest, *names):
        (tmp_path / name).touch()
    files = {"log": [str(tmp_path / "x.log")], "output": [str(tmp_path / "w[1].json")]}
    with job(SimpleNamespace(resources=SimpleNamespace(), **files)):
        assert {path.name for path in tmp_path.iterdir()} == {*names, "x.log"}


def test_a_second_ctrl_c_does_not_disturb_the_end(default_handler, tmp_path, capsys):
    rule = SimpleNamespace(resources=SimpleNamespace(), log=[str(tmp_path / "x.log")])
    with pytest.raises(SystemExit) as ended, job(rule):
        try:
            os.kill(os.getpid(), signal.SIGINT)
        finally:
            os.kill(os.getpid(), signal.SIGINT)  # while the job ends because of the first
            (tmp_path / "saved").touch()
    os.kill(os.getpid(), signal.SIGINT)
    assert ended.value.code == os.EX_TEMPFAIL and (tmp_path / "saved").exists()
    assert "interrupted by Ctrl-C" in (tmp_path / "x.log").read_text()


def test_an_error_is_one_sentence_and_its_lines_are_in_the_log(default_handler, tmp_path):
    log = tmp_path / "x.log"
    rule = SimpleNamespace(resources=SimpleNamespace(), log=[str(log)])
    with pytest.raises(SystemExit, match="^cdl: Shift is wrong$"), job(rule):
        raise CdlError("Shift is wrong")
    assert reason_in(log) == "Shift is wrong"
    assert f'File "{__file__}", line ' in log.read_text()
