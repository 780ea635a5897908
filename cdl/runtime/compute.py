"""Where a job computes, how precisely, and what else of its execution changes no number."""

from dataclasses import dataclass

import torch

from cdl.runtime.errors import CdlError


@dataclass(frozen=True)
class Compute:
    """A device and the precision of the frozen weights on it.

    What learns (prompts, heads, losses, optimizer) is fp32 everywhere.

    Attributes:
        device: where everything is computed.
        dtype: of frozen weights: float32, or bfloat16 on a GPU.
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
            precision: `fp32`, or `bf16` for frozen weights on a GPU.
            capture: replay the training step as a CUDA graph; the CPU has none.

        Raises:
            CdlError: there is no such device, or the CPU is asked for bf16.
        """
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        chosen = torch.device(device)
        if chosen.type == "cpu":
            if precision != "fp32":
                raise CdlError(
                    f"compute.precision: {precision!r} needs a GPU and the device is the CPU; "
                    "write fp32, or run where torch sees a GPU"
                )
            return cls(chosen)
        available = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (chosen.index or 0) >= available:
            raise CdlError(
                f"compute.device: {device!r}, but torch {torch.__version__} sees {available} "
                "CUDA devices here; write auto or cpu"
            )
        return cls(chosen, {"fp32": torch.float32, "bf16": torch.bfloat16}[precision], capture)

    def apply(self) -> "Compute":
        """Set torch's process-wide state for this device: determinism on the CPU, no TF32."""
        torch.use_deterministic_algorithms(self.device.type == "cpu")
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device.index or 0)  # where streams and graphs are made
            torch.backends.cudnn.allow_tf32 = False  # fp32 means fp32, also in patch embeddings
        return self

    @property
    def name(self) -> str:
        """Return what computed: `cpu`, or the GPU's name and the precision of frozen weights."""
        if self.device.type == "cpu":
            return "cpu"
        return f"{torch.cuda.get_device_name(self.device)} {self.dtype}".replace("torch.", "")
