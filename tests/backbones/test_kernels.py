"""The kernels of frozen ViTs follow from the kind of CPU, and are in the records."""

import pytest
import torch
from torch import nn

from cdl.backbones import attention, kernels, packing
from cdl.backbones.kernels import FUSED, PACKED, PRODUCTS, TORCH, Kernels, choose
from cdl.models.build import versions


def cpu(vendor, family, flags):
    """Return the text of /proc/cpuinfo of a machine with two cores."""
    core = f"vendor_id\t: {vendor}\ncpu family\t: {family}\nflags\t\t: fpu avx2 {flags}\n"
    return f"processor\t: 0\n{core}\nprocessor\t: 1\n{core}\n"


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        (cpu("AuthenticAMD", 26, "avx512f avx512_bf16"), Kernels(PACKED, PRODUCTS)),  # Zen 5
        (cpu("AuthenticAMD", 25, "avx512f avx512_bf16"), Kernels(PACKED, PRODUCTS)),  # Zen 4
        (cpu("AuthenticAMD", 25, ""), Kernels()),  # Zen 3
        (cpu("GenuineIntel", 6, "avx512f amx_tile"), Kernels(TORCH, FUSED)),
        (cpu("GenuineIntel", 6, "avx512f"), Kernels(TORCH, PRODUCTS)),
        ("processor\t: 0\nCPU implementer\t: 0x41\n", Kernels()),
        ("", Kernels()),
    ],
)
def test_each_kind_of_cpu_has_its_kernels(info, expected):
    assert choose(info) == expected


@pytest.mark.parametrize("linear", [PACKED, TORCH])
def test_layers_are_packed_only_where_that_is_the_choice(monkeypatch, linear):
    monkeypatch.setattr(packing, "kernels", lambda: Kernels(linear=linear))
    vit = nn.Sequential(nn.Linear(4, 4).requires_grad_(False))
    packing.pack(vit)
    packed = linear == PACKED and packing.available()
    assert isinstance(vit[0], packing.PackedLinear) == packed


@pytest.mark.parametrize("kernel", [FUSED, PRODUCTS])
def test_attention_in_bf16_uses_the_chosen_kernel(monkeypatch, kernel):
    monkeypatch.setattr(attention, "kernels", lambda: Kernels(attention=kernel))
    called = []
    monkeypatch.setattr(attention, "by_products", lambda *given: called.append(given) or given[0])
    query, key, value = torch.randn(3, 1, 2, 4, 8, dtype=torch.bfloat16)
    attention.AttentionInjector()(query, key, value)
    assert len(called) == (kernel == PRODUCTS)


def test_records_name_the_kernels_of_this_machine():
    assert versions()["cpu_kernels"] == str(kernels.kernels())
