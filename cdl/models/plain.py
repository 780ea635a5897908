"""A learner whose branches are merged into its weights: a plain model with a head."""

import torch
from torch import Tensor

from cdl.distillers.base import Distiller
from cdl.methods.base import PromptMethod, Prompts
from cdl.methods.heads import Head
from cdl.models.learner import Learner


class _Nothing(PromptMethod):
    """What is left of a method after its branches have been merged."""

    def forward(self, query: Tensor | None, task: int) -> Prompts:
        return Prompts()


@torch.no_grad()
def merge(learner: Learner, task: int) -> Learner:
    """Return a learner with the same predictions and plain weights, or the learner itself.

    Low-rank branches and SSF have plain weights; adapters, prefixes, further tokens and several
    passes do not. The weights are merged in fp32.

    Args:
        learner: in eval mode, on the CPU.
        task: the latest task.
    """
    if learner.needs_query:
        return learner
    prompts = learner.prompts(None, task)
    single = len(prompts.inside) == 1 and prompts.inside[0].mergeable
    if not single or prompts.prefixes or prompts.additions:
        return learner
    backbone = learner.backbone.merged(prompts.inside[0])
    return Learner(backbone, _Nothing(), learner.head, learner.distiller, needs_query=False)


def linear_head(learner: Learner, task: int) -> tuple[Tensor, Tensor] | str:
    """Return weight `[C, D]` and bias `[C]` if the prediction is a plain ViT with a linear head.

    Otherwise return what a plain ViT lacks, in words.
    """
    own = None if learner.needs_query else learner.prompts(None, task)
    if own is None or own.prefixes or own.additions or own.inside:
        return "the method changes the forward pass of the ViT"
    if type(learner.distiller).predict is not Distiller.predict:
        return "the distiller has a second head for the prediction"
    linear = learner.head.as_linear() if isinstance(learner.head, Head) else None
    return linear or f"{type(learner.head).__name__} is not a linear map of the pooled feature"
