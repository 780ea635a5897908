"""Methods that tune a module inside the blocks in task 0, and then solve for their head.

In the session the module, a cosine head and its scale are trained on the classes of task 0 (APER;
RanPAC, phase 1). The head is discarded; the module is used unchanged in all tasks.
"""

import torch
from torch import Tensor

from cdl.methods.adapters import Adapters
from cdl.methods.base import PromptContext, PromptMethod, Prompts
from cdl.methods.heads import CosineHead, Head
from cdl.methods.ssf import SSF
from cdl.methods.vpt import VPT

Module = Adapters | SSF | VPT


def make_module(
    name: str,
    context: PromptContext,
    *,
    bottleneck: int,
    scale: float,
    dropout: float,
    tokens: int,
) -> Module:
    """Return a module at its start.

    Args:
        name: `adapter`, `ssf` or `vpt`.
        context: the backbone.
        bottleneck: see `Adapters`.
        scale: see `Adapters`.
        dropout: see `Adapters`.
        tokens: tokens per block of VPT.
    """
    width, depth, source = context.width, context.depth, context.generator
    if name == "ssf":
        return SSF(width, depth, source)
    if name == "vpt":
        return VPT(width, depth, source, tokens)
    how = {"bottleneck": bottleneck, "scale": scale, "dropout": dropout}
    return Adapters(width, depth, source, **how)  # type: ignore[arg-type]


class FirstSession(PromptMethod):
    """A method with a module that is trained in task 0 alone.

    Attributes:
        module: the module; None for a method without a session.
    """

    def __init__(self) -> None:
        super().__init__()
        self.module: Module | None = None

    def session(self, task: int) -> bool:
        return self.module is not None and task == 0

    def session_head(self, width: int, n_classes: int, generator: torch.Generator) -> Head:
        return CosineHead(width, n_classes, generator, scale=1.0, session=True)

    def forward(self, query: Tensor | None, task: int) -> Prompts:
        return Prompts() if self.module is None else Prompts(inside=(self.module.inside(),))
