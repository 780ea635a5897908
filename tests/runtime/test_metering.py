"""Measurements of a job by itself."""

from dataclasses import replace

import pytest

from cdl.runtime import benchmarks
from cdl.runtime.artifacts import write_json
from cdl.runtime.benchmarks import Measured, Meter, read_measured
from cdl.runtime.errors import CdlError


@pytest.fixture
def measure(tmp_path, monkeypatch):
    """Return a function that measures a block as a job and reads its record."""
    monkeypatch.setattr(benchmarks, "_processor_seconds", lambda: 4.0)
    monkeypatch.setattr(benchmarks, "peak_memory", lambda: 300.0)

    def run(block):
        path = tmp_path / "train.measured.json"
        with Meter(str(path)) as meter:
            block(meter)
        found = read_measured(path)
        assert 0 < found.seconds < 1e5
        return replace(found, seconds=None)

    return run


def test_a_job_records_its_time_and_memory(measure, tmp_path):
    assert measure(lambda meter: None) == Measured(4.0, 300.0)
    assert read_measured(tmp_path / "missing.json") == Measured()


def test_a_failed_job_records_nothing(measure, tmp_path):
    with pytest.raises(ZeroDivisionError):
        measure(lambda meter: 1 / 0)
    assert not list(tmp_path.glob("*.json"))


@pytest.mark.parametrize("value", [-5, "x", True, [1.0], {"a": 1}])
def test_an_invalid_measurement_is_one_sentence_also_with_its_hash(tmp_path, value):
    path = tmp_path / "train.measured.json"
    write_json(path, {"memory_mb": value})
    with pytest.raises(CdlError, match="measured.json: invalid value .* for memory_mb: expected a"):
        read_measured(path)


@pytest.mark.parametrize("value", ["NaN", "1e999", "-5", '"x"', "301.0"])
def test_a_changed_measurement_is_one_sentence(tmp_path, value):
    path = tmp_path / "train.measured.json"
    write_json(path, {"memory_mb": 300.0})
    path.write_text(path.read_text().replace("300.0", value))
    with pytest.raises(CdlError, match="measured.json (cannot be read|was damaged or changed)"):
        read_measured(path)


def test_what_cannot_have_been_measured_is_left_out(measure, monkeypatch):
    monkeypatch.setattr(benchmarks, "peak_memory", lambda: float("nan"))
    assert measure(lambda meter: meter._gpu.update(gpu_memory_mb=-1.0)) == Measured(4.0)


@pytest.mark.parametrize("gpu", ["GPU-1", None])
def test_the_time_with_a_gpu_is_measured(measure, gpu):
    def work(meter):
        with meter.on(gpu):
            pass

    seconds = measure(work).gpu_seconds
    assert seconds is None if gpu is None else seconds >= 0
