"""Frozen linear layers with weights packed for oneDNN, for fp32 on a CPU.

torch passes fp32 matrix products to MKL, which takes twice as long as oneDNN on some CPUs. There
(see `kernels`) weights that never change are packed for oneDNN once for each direction, forward and
backward. `torch.compile` calls the same operators. Other CPUs, and a torch without these operators,
use torch's ordinary products, which give the same values up to rounding.
"""

from typing import Any

import torch
from torch import Tensor, nn

from cdl.backbones.kernels import PACKED, kernels


class PackedLinear(nn.Module):
    """Linear layer with frozen packed weights, on a CPU in fp32."""

    def __init__(self, linear: nn.Linear) -> None:
        """Pack the weights `[D', D]` of a layer that is not trained."""
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias  # some families of timm read them
        self._forward_weight = _pack_weight(linear.weight)
        self._backward_weight: Tensor | None = None  # packed at the first gradient

    def forward(self, x: Tensor) -> Tensor:
        """Return `x W^T + b`, `[..., D']`, for `x [..., D]`."""
        if not (torch.is_grad_enabled() and x.requires_grad):
            return _packed_product(x, self._forward_weight, self.bias)
        if self._backward_weight is None:
            self._backward_weight = _pack_weight(self.weight.mT)
        product: Tensor = _InputGradientProduct.apply(  # type: ignore[no-untyped-call]
            x, self._forward_weight, self._backward_weight, self.bias
        )
        return product


class _InputGradientProduct(torch.autograd.Function):
    """Packed product with a gradient for its input only."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, forward_weight: Tensor, backward_weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        ctx.backward_weight = backward_weight
        return _packed_product(x, forward_weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return _packed_product(gradient, ctx.backward_weight, None), None, None, None


def pack(vit: nn.Module) -> None:
    """Pack a model's frozen fp32 linear layers in place, if this CPU's kernels are the packed ones.

    Nothing is packed if torch lacks the operators.
    """
    if kernels().linear != PACKED or not available():
        return
    for parent in vit.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.Linear) and not child.weight.requires_grad:
                if child.weight.dtype == torch.float32:
                    setattr(parent, name, PackedLinear(child))


def multiplied(module: nn.Module) -> int:
    """Return the number of weights of a module that multiply each token."""
    kinds = (nn.Linear, nn.Conv2d, PackedLinear)
    return sum(part.weight.numel() for part in module.modules() if isinstance(part, kinds))


def available() -> bool:
    """Return whether torch has oneDNN and its operators for packed weights."""
    operators = torch.ops.mkldnn
    names = ("_reorder_linear_weight", "_linear_pointwise")
    return torch.backends.mkldnn.is_available() and all(hasattr(operators, n) for n in names)


def _pack_weight(weight: Tensor) -> Tensor:
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous())
    return packed


def _packed_product(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(
        x.contiguous(), packed, bias, "none", [], ""
    )
    return product
