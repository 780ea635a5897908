"""Where a job computes, how precisely, and what else of its execution changes no number."""

import ctypes
import sys
from dataclasses import dataclass, replace

import torch

from cdl.runtime.errors import CdlError

# Parameters of glibc's mallopt: the heap's free end is never given back (M_TRIM_THRESHOLD), and no
# block has pages of its own, which go back when it is freed (M_MMAP_MAX).
_KEEP_MEMORY = {-1: -1, -4: 0}
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Compute:
    """A device and the precision of the frozen weights on it.

    What learns (prompts, heads, losses, optimizer) is fp32 everywhere.

    Attributes:
        device: where everything is computed.
        dtype: of frozen weights: float32 or bfloat16.
        capture: whether the training step is replayed as a CUDA graph.
    """

    device: torch.device
    dtype: torch.dtype = torch.float32
    capture: bool = False

    @classmethod
    def select(
        cls, device: str = "auto", precision: str = "fp32", capture: bool = False
    ) -> "Compute":
        """Choose a device; torch's state stays as it is until `apply`.

        Args:
            device: `auto` (the first CUDA device if there is one), `cpu`, `cuda` or `cuda:N`.
            precision: `fp32`, or `bf16` for frozen weights.
            capture: replay the training step as a CUDA graph; the CPU has none.

        Raises:
            CdlError: there is no such device, or it has no units for bf16.
        """
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        chosen = torch.device(device)
        if chosen.type == "cpu":
            return cls(chosen).rounding(precision)
        available = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (chosen.index or 0) >= available:
            raise CdlError(
                f"compute.device: {device!r}, but torch {torch.__version__} sees {available} "
                "CUDA devices here; write auto or cpu"
            )
        return cls(chosen, capture=capture).rounding(precision)

    def rounding(self, precision: str) -> "Compute":
        """Return the same device with frozen weights in a precision.

        Raises:
            CdlError: bf16 on a CPU whose bf16 products would be slower than those of fp32.
        """
        if precision == "bf16" and self.device.type == "cpu" and not _cpu_has_bf16_units():
            raise CdlError(
                f"compute.precision: {precision!r} on the CPU needs one of which torch "
                f"{torch.__version__} says that it has AVX512-BF16 or AMX, and it says so of "
                "neither here; write fp32, or run on a GPU"
            )
        return replace(self, dtype=_DTYPES[precision])

    def apply(self) -> "Compute":
        """Set this process up for the device.

        On the CPU torch is deterministic, without filling memory that nobody reads, and freed
        memory is kept for the next tensors: to give it back and get it anew, zeroed, takes up to
        a third of an evaluation. On a GPU no TF32.
        """
        torch.use_deterministic_algorithms(self.device.type == "cpu")
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        if self.device.type == "cpu":
            _keep_memory()
        else:
            torch.cuda.set_device(self.device.index or 0)  # where streams and graphs are made
            torch.backends.cudnn.allow_tf32 = False  # fp32 means fp32, also in patch embeddings
        return self

    @property
    def name(self) -> str:
        """Return what computed: the device and the precision of frozen weights; `cpu` is fp32."""
        if self.device.type == "cpu" and self.dtype == torch.float32:
            return "cpu"
        on_gpu = self.device.type == "cuda"
        device = torch.cuda.get_device_name(self.device) if on_gpu else "cpu"
        return f"{device} {self.dtype}".replace("torch.", "")


def _keep_memory() -> None:
    """Have the C library keep what is freed, where it can be told."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for parameter, value in _KEEP_MEMORY.items():
            mallopt(parameter, value)


def _cpu_has_bf16_units() -> bool:
    """Whether the CPU multiplies bf16 matrices in hardware; an old torch cannot say, so no."""
    asked = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in asked)
