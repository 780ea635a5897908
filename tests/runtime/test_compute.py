"""Device and precision of a job."""

import ctypes
import sys

import pytest
import torch

from cdl.runtime.compute import _KEEP_MEMORY, Compute
from cdl.runtime.errors import CdlError

UNITS = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")


@pytest.mark.parametrize("unit", UNITS)
def test_a_cpu_with_bf16_units_computes_frozen_weights_in_bf16(monkeypatch, unit):
    for name in UNITS:
        monkeypatch.setattr(torch.cpu, name, lambda name=name: name == unit, raising=False)
    half = Compute.select("cpu", "bf16", capture=True)
    assert (half.device.type, half.dtype, half.capture) == ("cpu", torch.bfloat16, False)
    assert half.name == "cpu bfloat16"
    assert half.rounding("fp32").name == "cpu"


@pytest.mark.parametrize("old_torch", [False, True])
def test_a_cpu_without_bf16_units_refuses_bf16_in_one_sentence(monkeypatch, old_torch):
    for name in UNITS:
        if old_torch:
            monkeypatch.delattr(torch.cpu, name, raising=False)
        else:
            monkeypatch.setattr(torch.cpu, name, lambda: False, raising=False)
    with pytest.raises(
        CdlError, match=r"compute.precision: invalid value 'bf16'.*AVX512-BF16 or AMX"
    ):
        Compute.select("cpu", "bf16")
    with pytest.raises(CdlError, match="set fp32"):
        Compute.select("cpu").rounding("bf16")


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc has mallopt")
def test_a_job_on_the_cpu_keeps_freed_memory():
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        pytest.skip("this C library has no mallopt")
    assert all(mallopt(parameter, value) == 1 for parameter, value in _KEEP_MEMORY.items())
    Compute.select("cpu").apply()
    large = 256 << 20
    del_me = torch.ones(large, dtype=torch.uint8)
    del del_me
    assert resident() > large  # the freed memory still belongs to the process


def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096
