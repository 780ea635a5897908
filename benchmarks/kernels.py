"""Time the kernels that `cdl/backbones/kernels.py` chooses among, on one thread of this CPU.

Prints one table of linear layers and one of attention, in processor milliseconds: medians of turns,
since only their ratios are meaningful on a busy machine. The last lines compare the choice for this
CPU with what was measured. `int8 alone` is a product of integers, without rounding activations
before it: the most that int8 could gain. No setting of cdl uses it (benchmarks/README.md).

    python benchmarks/kernels.py
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping

import pandas as pd
import torch
from meter import hardware
from torch import Tensor, nn
from torch.nn import functional as F

from cdl.backbones import packing
from cdl.backbones.attention import by_products
from cdl.backbones.kernels import FUSED, PACKED, PRODUCTS, TORCH, kernels
from cdl.runtime.compute import Compute

LINEAR = [  # tokens of a batch, inputs, outputs
    *((1576, 384, 1152), (1576, 384, 1536), (1576, 1536, 384)),  # ViT-S, 8 images of 224 px
    *((4160, 192, 576), (4160, 192, 768), (4160, 768, 192)),  # vit_micro, 64 images of 32 px
]
ATTENTION = [(8, 6, 197, 64), (8, 3, 197, 64), (64, 3, 65, 64), (64, 3, 65, 32)]
PREFIXES = 8
Call = Callable[[], object]


def in_turns(calls: Mapping[str, Call], turns: int) -> dict[str, float]:
    """Return the median processor milliseconds of each call; the first turn is not timed."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(turns + 1):
        for name, call in calls.items():
            began = time.process_time()
            call()
            if turn:
                found[name].append(1000 * (time.process_time() - began))
    return {name: statistics.median(times) for name, times in found.items()}


def linear_calls(rows: int, inputs: int, outputs: int) -> dict[str, Call]:
    """Return a frozen layer with each kernel; fp32 with the gradient of its input."""
    layer = nn.Linear(inputs, outputs).requires_grad_(False)
    half = nn.Linear(inputs, outputs, dtype=torch.bfloat16).requires_grad_(False)
    x = torch.randn(rows, inputs)
    rounded, trained = x.bfloat16(), x.clone().requires_grad_()

    def forward(module: nn.Module, given: Tensor) -> Call:
        return torch.no_grad()(lambda: module(given))

    def both(module: nn.Module) -> Call:
        return lambda: module(trained).sum().backward()

    calls = {"fp32 torch": forward(layer, x), "fp32 torch, gradient": both(layer)}
    if packing.available():
        packed = packing.PackedLinear(layer)
        calls |= {"fp32 packed": forward(packed, x), "fp32 packed, gradient": both(packed)}
    calls["bf16 torch"] = forward(half, rounded)
    if hasattr(torch, "_int_mm"):
        integers, weight = x.char(), layer.weight.mT.char().contiguous()
        calls["int8 alone"] = lambda: torch._int_mm(integers, weight)
    return calls


def attention_calls(images: int, heads: int, tokens: int, width: int) -> dict[str, Call]:
    """Return attention to tokens and prefixes with each kernel, with its gradients."""

    def call(function: Callable[..., Tensor], dtype: torch.dtype) -> Call:
        given = [
            torch.randn(images, heads, n, width, dtype=dtype, requires_grad=True)
            for n in (tokens, tokens + PREFIXES, tokens + PREFIXES)
        ]
        return lambda: function(*given).sum().backward()

    fused = F.scaled_dot_product_attention
    return {
        f"{name} {kernel}": call(function, dtype)
        for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))
        for kernel, function in ((FUSED, fused), (PRODUCTS, by_products))
    }


def verdict(linear: pd.DataFrame, attention: pd.DataFrame) -> str:
    """Compare the choice for this CPU with the medians of the measured ratios."""
    chosen, lines = kernels(), []
    pairs = [("fp32 linear", linear, "fp32", chosen.linear, TORCH, PACKED)]
    pairs += [("bf16 attention", attention, "bf16", chosen.attention, FUSED, PRODUCTS)]
    for what, table, dtype, choice, first, second in pairs:
        if f"{dtype} {second}" in table:
            ratio = (table[f"{dtype} {first}"] / table[f"{dtype} {second}"]).median()
            faster = second if ratio > 1 else first
            lines.append(
                f"{what}: {first} takes {ratio:.2f} times as long as {second}, so {faster} is "
                f"faster; cdl/backbones/kernels.py chooses {choice}"
            )
    return "\n".join(lines)


def main(given: list[str] | None = None) -> None:
    """Print both tables, the CPU and the comparison with the choice."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=9, help="timed calls of each kernel")
    parser.add_argument("--small", action="store_true", help="small sizes, to test this program")
    args = parser.parse_args(given)
    torch.set_num_threads(1)
    compute = Compute.select("cpu").apply()
    tables = []
    for title, sizes, calls in (
        ("rows x in x out", LINEAR, linear_calls),
        ("images x heads x tokens x width", ATTENTION, attention_calls),
    ):
        rows = []
        for size in sizes[:1] if args.small else sizes:
            small = tuple(min(n, 16) for n in size) if args.small else size
            times = in_turns(calls(*small), args.turns)
            rows.append({title: " x ".join(map(str, small)), **times})
        tables.append(pd.DataFrame(rows))
        print(tables[-1].to_markdown(index=False, floatfmt=".2f"), end="\n\n")
    print(hardware(compute, 1))
    print(verdict(*tables))


if __name__ == "__main__":
    main()
