"""Choose the kernels of frozen ViTs on a CPU by its vendor and instruction sets.

The choice is a table and not a measurement in the job, so that a repeated run has the same bits.
`python benchmarks/kernels.py` measures what a CPU needs, in two minutes. The measurements behind
each line are in benchmarks/README.md.
"""

import functools
from dataclasses import dataclass
from pathlib import Path

PACKED, TORCH = "packed", "torch"
PRODUCTS, FUSED = "products", "fused"
_CPU_INFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Kernels:
    """Kernels of frozen ViTs on a CPU.

    linear: of linear layers in fp32: `packed` for oneDNN (see `packing`), or `torch`, which calls
        MKL.
    attention: in bf16: `products` (see `attention.by_products`), or torch's `fused` kernel. In fp32
        the fused kernel is always used.
    """

    linear: str = PACKED
    attention: str = PRODUCTS

    def __str__(self) -> str:
        """Return the kernels for the record of an artifact."""
        return f"fp32 linear {self.linear}, bf16 attention {self.attention}"


@dataclass(frozen=True)
class Kind:
    """A kind of CPU: vendor, lowest family number, and an instruction set, as Linux names them."""

    vendor: str
    family: int
    flag: str


# The first line that matches; CPUs without a line use the defaults of `Kernels`.
TABLE = {
    # Zen 5, measured: packed 2.1 to 2.3 times as fast as MKL, products 2.4 to 4.5 times as fused
    Kind("AuthenticAMD", 26, "avx512f"): Kernels(PACKED, PRODUCTS),
    # Zen 4, measured: packed 1.1 to 1.2 times as fast as MKL, products 2.1 to 4.4 times as fused
    Kind("AuthenticAMD", 25, "avx512_bf16"): Kernels(PACKED, PRODUCTS),
    # not run: torch.compile calls MKL for frozen fp32 weights where torch has it, and the fused
    # kernel was faster on Sapphire Rapids (pytorch#105131)
    Kind("GenuineIntel", 6, "amx_tile"): Kernels(TORCH, FUSED),
    Kind("GenuineIntel", 6, "avx2"): Kernels(TORCH, PRODUCTS),
}


@functools.cache
def kernels() -> Kernels:
    """Return the kernels of this machine's CPU."""
    return choose(_CPU_INFO.read_text() if _CPU_INFO.exists() else "")


def choose(info: str) -> Kernels:
    """Return the kernels of a CPU from the text of Linux's `/proc/cpuinfo`."""
    lines = (line.partition(":") for line in info.split("\n\n")[0].splitlines())
    about = {name.strip(): value.strip() for name, _, value in lines}
    family, flags = about.get("cpu family", ""), about.get("flags", "").split()
    for kind, found in TABLE.items():
        if about.get("vendor_id") == kind.vendor and kind.flag in flags:
            if family.isdecimal() and int(family) >= kind.family:
                return found
    return Kernels()
