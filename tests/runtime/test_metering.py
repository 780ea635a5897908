"""Measurements of a job by itself, on machines with and without energy counters."""

import logging
import sys
from types import SimpleNamespace

import pytest

from cdl.runtime import benchmarks
from cdl.runtime.benchmarks import Measured, Meter, energy_of, read_measured


def counter(root, name, joules, kind="package-0", top=1000):
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{kind}\n")
    (folder / "max_energy_range_uj").write_text(f"{int(top * 1e6)}\n")
    (folder / "energy_uj").write_text(f"{int(joules * 1e6)}\n")
    return folder / "energy_uj"


@pytest.fixture
def measure(tmp_path, monkeypatch):
    """Return a function that measures a block as a job and reads the log."""
    monkeypatch.setattr(benchmarks, "POWERCAP", tmp_path / "powercap")
    # (of the job, of all processes): the job's share is one half
    seconds = iter([(1.0, 10.0), (4.0, 16.0), (4.0, 16.0)])
    monkeypatch.setattr(benchmarks, "_processor_seconds", lambda: next(seconds))
    monkeypatch.setattr(benchmarks, "peak_memory", lambda: 300.0)

    def run(block):
        path = tmp_path / "train.log"
        handler = logging.FileHandler(path, "w")
        logger = logging.getLogger("cdl.runtime.benchmarks")
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        try:
            with Meter() as meter:
                block(meter)
        finally:
            logger.removeHandler(handler)
        return read_measured(path)

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
    assert read_measured(tmp_path / "missing.log") == Measured()
    (tmp_path / "old.log").write_text("2026 INFO cdl.training.loop: task 0\n")
    assert read_measured(tmp_path / "old.log") == Measured()


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
