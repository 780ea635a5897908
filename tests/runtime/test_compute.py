"""Where and how precisely a job computes."""

import pytest
import torch

from cdl.runtime.compute import Compute
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
    with pytest.raises(CdlError, match=r"compute.precision: 'bf16' on the CPU.*AVX512-BF16 or AMX"):
        Compute.select("cpu", "bf16")
    with pytest.raises(CdlError, match="write fp32"):
        Compute.select("cpu").rounding("bf16")
