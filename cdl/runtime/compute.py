"""Select the device and precision of a job and set up torch for them."""

import ctypes
import sys
from dataclasses import dataclass, replace

import torch

from cdl.runtime.errors import CdlError

# Parameters of glibc's mallopt: never return the free end of the heap to the system
# (M_TRIM_THRESHOLD), and never allocate a block by mmap, as free would unmap it (M_MMAP_MAX).
_KEEP_MEMORY = {-1: -1, -4: 0}
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Compute:
    """A device and the precision of the frozen weights on it.

    The trained parts (prompts, heads, losses, optimizer) always use fp32.

    Attributes:
        device: device of all computations.
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
        """Choose a device; does not change torch's settings, see `apply`.

        Args:
            device: `auto` (the first CUDA device if there is one), `cpu`, `cuda` or `cuda:N`.
            precision: `fp32`, or `bf16` for frozen weights.
            capture: replay the training step as a CUDA graph; ignored on the CPU.

        Raises:
            CdlError: the device does not exist or has no bf16 units.
        """
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        chosen = torch.device(device)
        if chosen.type == "cpu":
            return cls(chosen).rounding(precision)
        available = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (chosen.index or 0) >= available:
            raise CdlError(
                f"compute.device: invalid value {device!r}; torch {torch.__version__} finds "
                f"{available} CUDA devices; set auto or cpu"
            )
        return cls(chosen, capture=capture).rounding(precision)

    def rounding(self, precision: str) -> "Compute":
        """Return the same device with frozen weights in `fp32` or `bf16`.

        Raises:
            CdlError: bf16 on a CPU without bf16 units, where bf16 would be slower than fp32.
        """
        if precision == "bf16" and self.device.type == "cpu" and not _cpu_has_bf16_units():
            raise CdlError(
                f"compute.precision: invalid value {precision!r}; on the CPU it needs AVX512-BF16 "
                f"or AMX, and torch {torch.__version__} detects neither; set fp32, or run on a GPU"
            )
        return replace(self, dtype=_DTYPES[precision])

    def apply(self) -> "Compute":
        """Set up this process for the device and return `self`.

        On the CPU torch is deterministic, but does not fill uninitialised memory, and the C library
        keeps freed memory for the next tensors: to return it to the system and allocate it again
        takes up to a third of an evaluation. On a GPU, TF32 is disabled.
        """
        torch.use_deterministic_algorithms(self.device.type == "cpu")
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        if self.device.type == "cpu":
            _keep_memory()
        else:
            torch.cuda.set_device(
                self.device.index or 0
            )  # streams and graphs are created on the current device
            torch.backends.cudnn.allow_tf32 = False  # patch embeddings are convolutions
        return self

    @property
    def name(self) -> str:
        """Name of the device and precision of frozen weights; `cpu` alone means fp32."""
        if self.device.type == "cpu" and self.dtype == torch.float32:
            return "cpu"
        on_gpu = self.device.type == "cuda"
        device = torch.cuda.get_device_name(self.device) if on_gpu else "cpu"
        return f"{device} {self.dtype}".replace("torch.", "")


def _keep_memory() -> None:
    """Configure the C library to keep freed memory, if it has `mallopt`."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for parameter, value in _KEEP_MEMORY.items():
            mallopt(parameter, value)


def _cpu_has_bf16_units() -> bool:
    """Whether torch detects hardware for bf16 matrices in the CPU."""
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in checks)
