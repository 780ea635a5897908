"""Where the time of one training step goes, by kind of operation, from torch's profiler.

Takes the arguments of `steps.py`. Shares are of the time in operations themselves, without those
that they call; `ms/step` is that share of a step timed without the profiler. The line below a table
is what its products would take at the speed of a large matrix product: the limit of a step that
only multiplies.

    python benchmarks/parts.py --teacher vit_small_patch16_224 --student vit_tiny_patch16_224 \
        --size 224 --batch 8 --precision bf16 --clock cpu --set methods.coda_prompt.pool=100
"""

import tempfile
from pathlib import Path

import pandas as pd
from bench import Bench
from case import arguments, case_of, command
from meter import ceiling, hardware
from torch.autograd.profiler_util import EventList
from torch.profiler import ProfilerActivity, profile

KINDS = {  # beginnings of names of operations; the first that matches counts
    "linear layers": ("aten::addmm", "aten::mm", "mkldnn::", "aten::mkldnn_linear"),
    "products of attention and prompts": ("aten::bmm", "aten::baddbmm", "aten::_scaled_dot"),
    "softmax": ("aten::_softmax", "aten::softmax", "aten::_log_softmax"),
    "norms": ("aten::native_layer_norm", "aten::native_batch_norm"),
    "GELU": ("aten::gelu",),
    "patch embedding": ("aten::mkldnn_convolution", "aten::convolution", "aten::slow_conv"),
    "copies and concatenation": ("aten::copy_", "aten::cat", "aten::clone", "aten::_to_copy"),
    "elementwise": ("aten::add", "aten::mul", "aten::div", "aten::sub", "aten::sum", "aten::fill"),
    "optimizer": ("Optimizer.", "aten::_foreach", "aten::_fused_adam", "aten::lerp", "aten::addc"),
}
REST = "all else, calls from Python included"


def shares(events: EventList, step: float) -> pd.DataFrame:
    """Return the share of a step, and of its duration, for each of `KINDS` and for the rest."""
    found = dict.fromkeys([*KINDS, REST], 0.0)
    for event in events:
        kinds = (kind for kind, names in KINDS.items() if event.key.startswith(names))
        found[next(kinds, REST)] += event.self_cpu_time_total
    frame = pd.DataFrame({"kind": found.keys(), "share, %": found.values()})
    frame["share, %"] *= 100 / frame["share, %"].sum()
    frame["ms/step"] = step * frame["share, %"] / 100
    return frame


def main(given: list[str] | None = None) -> None:
    """Profile the steps of teacher and student with cached queries and targets; print tables."""
    args = arguments(__doc__).parse_args(given)
    case = case_of(args)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(case, Path(folder))
        for role in ("teacher", "student"):
            bench.learn(role, True)  # fills the caches
            measured = bench.learn(role, True)
            step = 1000 * measured.seconds / measured.steps
            with profile(activities=[ProfilerActivity.CPU]) as profiler:
                bench.learn(role, True)
            frame = shares(profiler.key_averages(), step)
            print(f"{role}, cached\n")
            print(frame.to_markdown(index=False, floatfmt=("", ".1f", ".1f")), end="\n\n")
            operations = case.batch * sum(bench.operations(role))
            speed = ceiling(bench.compute.device, bench.compute.dtype, case.clock)
            print(
                f"{step:.1f} ms/step, peak memory {measured.peak / 2**20:.0f} MiB; "
                f"{operations / 1e9:.1f} GFLOP, at the {speed / 1e12:.3f} TFLOP/s of a large "
                f"product {1000 * operations / speed:.1f} ms\n"
            )
        print(hardware(bench.compute, case.threads))


if __name__ == "__main__":
    command(main)
