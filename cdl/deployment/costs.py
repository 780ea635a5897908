"""Count the parameters, operations and block passes of one prediction."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from cdl.deployment.model import Model

PARTS = ("backbone", "query_backbone", "prompts", "head", "distiller")


@dataclass(frozen=True)
class Costs:
    """Costs of one prediction.

    parameters: number of parameters that it reads, by part of `PARTS`; `query_backbone` is 0 if
        the student's own backbone computes the query.
    gflops: 10^9 multiplications and additions for one image.
    gflops_without_query: the same without the computation of the query.
    block_passes: number of executions of ViT blocks.
    shared_blocks: number of blocks whose output is used by both the query and the prompted pass.
    """

    parameters: Mapping[str, int]
    gflops: float
    gflops_without_query: float
    block_passes: int
    shared_blocks: int

    def text(self) -> str:
        """Return the costs as a sentence."""
        shared = ""
        if self.gflops > self.gflops_without_query:
            shared = f", {self.shared_blocks} of them shared by query and prediction"
        blocks = f" runs {self.block_passes} blocks{shared}" if self.block_passes else ""
        return f"a prediction{blocks}: {self.gflops:.3g} GFLOPs"


@torch.no_grad()
def costs(model: Model, size: int) -> Costs:
    """Count the costs of a prediction for one view of a given size, see `Backbone.blank`."""
    views = model.learner.backbone.blank(size)
    backbones = [model.learner.backbone]
    if model.query is not None and model.query is not model.learner.backbone:
        backbones.append(model.query)
    blocks = [block for backbone in backbones for block in backbone.blocks]
    counter = _BlockCounter(blocks)
    with _ParameterReads() as read:
        model(views)
    counter.stop()
    query, teacher_query, _ = model.queries(views)
    query_blocks = model.learner.backbone.depth if model.query is not None else 0
    return Costs(
        {part: read.parameters(modules) for part, modules in _parts(model).items()},
        _flops(lambda: model(views)) / 1e9,
        _flops(lambda: model.predict_from(views, query, teacher_query)) / 1e9,
        counter.count,
        len(blocks) + query_blocks - counter.count if len(backbones) == 1 else 0,
    )


def _parts(model: Model) -> dict[str, list[nn.Module]]:
    """Return the modules of each of `PARTS`."""
    learner = model.learner
    queries = [q for q in (model.query, model.teacher_query) if q and q is not learner.backbone]
    return {
        "backbone": [learner.backbone],
        "query_backbone": [*queries],
        "prompts": [learner.prompts],
        "head": [learner.head],
        "distiller": [learner.distiller],
    }


def _flops(predict: Callable[[], Tensor]) -> int:
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        predict()
    return int(counter.get_total_flops())


class _BlockCounter:
    """Counts the executions of blocks."""

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        self.count = 0
        self._hooks = [block.register_forward_hook(self._increment) for block in blocks]

    def _increment(self, *_: Any) -> None:
        self.count += 1

    def stop(self) -> None:
        for hook in self._hooks:
            hook.remove()


class _ParameterReads(TorchFunctionMode):
    """Records every parameter that a torch function reads."""

    def __init__(self) -> None:
        super().__init__()
        self._ids: set[int] = set()

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any | None = None
    ) -> Any:
        for value in torch.utils._pytree.tree_leaves((args, kwargs)):
            if isinstance(value, nn.Parameter):
                self._ids.add(id(value))
        return func(*args, **(kwargs or {}))

    def parameters(self, modules: Sequence[nn.Module]) -> int:
        """Return the number of values in the parameters of modules that were read."""
        found = {id(p): p.numel() for module in modules for p in module.parameters()}
        return sum(n for key, n in found.items() if key in self._ids)
