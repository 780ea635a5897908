"""Measurements of a job by itself, on machines with and without energy counters."""

import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from cdl.runtime import benchmarks
from cdl.runtime.artifacts import write_json
from cdl.runtime.benchmarks import Measured, Meter, energy_of, read_measured
from cdl.runtime.errors import CdlError


def counter(root, name, joules, kind="package-0", top=1000):
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{kind}\n")
    (folder / "max_energy_range_uj").write_text(f"{int(top * 1e6)}\n")
    (folder / "energy_uj").write_text(f"{int(joules * 1e6)}\n")
    return folder / "energy_uj"


@pytest.fixture
def measure(tmp_path, monkeypatch):
    """Return a function that measures a block as a job and reads its record."""
    monkeypatch.setattr(benchmarks, "POWERCAP", tmp_path / "powercap")
    # (of the job, of all processes): the job's share is one half
    seconds = iter([(1.0, 10.0), (4.0, 16.0), (4.0, 16.0)])
    monkeypatch.setattr(benchmarks, "_processor_seconds", lambda: next(seconds))
    monkeypatch.setattr(benchmarks, "peak_memory", lambda: 300.0)

    def run(block):
        path = tmp_path / "train.measured.json"
        with Meter(str(path)) as meter:
            block(meter)
        found = read_measured(path)
        assert 0 < found.seconds < 1e5
        return replace(found, seconds=None)

    return run


def test_processor_energy_is_shared_by_processor_time_and_counters_may_overflow(measure, tmp_path):
    root = tmp_path / "powercap"
    one = counter(root, "intel-rapl:0", 900)
    two = counter(root, "intel-rapl:1", 5, kind="package-1")
    counter(root, "intel-rapl:0:0", 1, kind="core")  # part of its package
    whole = counter(root, "intel-rapl:2", 1, kind="psys")  # includes the packages

    def work(meter):
        one.write_text("80000000")  # 180 J later, after an overflow at 1000 J
        two.write_text("545000000")  # 540 J
        whole.write_text("900000000")

    assert measure(work) == Measured(4.0, 300.0, processor_wh=pytest.approx(0.5 * 720 / 3600))


def test_a_machine_without_counters_has_no_energy(measure, tmp_path):
    assert measure(lambda meter: None) == Measured(4.0, 300.0)
    assert Measured().energy_wh is None
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


def test_what_a_counter_cannot_have_measured_is_left_out(measure, monkeypatch):
    monkeypatch.setattr(benchmarks, "peak_memory", lambda: float("nan"))
    assert measure(lambda meter: meter._gpu.update(gpu_wh=-1.0)) == Measured(4.0)


@pytest.mark.parametrize("alone", [True, False])
def test_a_gpus_energy_counts_only_for_a_job_that_has_it_alone(measure, monkeypatch, alone):
    readings = iter([5_000, 5_000, 7_205_000])  # mJ: test of support, before, after
    nvml = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda name: name,
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: next(readings),
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)

    def work(meter):
        with meter.on("GPU-1", alone):
            pass

    found = measure(work)
    assert found.gpu_seconds >= 0
    assert found.gpu_wh == (pytest.approx(2.0) if alone else None)
    assert found.energy_wh == found.gpu_wh  # unknown if the GPU's energy is unknown


def test_a_gpu_without_energy_counter_is_no_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)  # importing it is an ImportError
    assert energy_of("0") is None
