"""A lower bound without prompts: only the head is trained."""

from torch import Tensor

from cdl.methods.base import PromptContext, PromptMethod, Prompts


class HeadOnly(PromptMethod):
    """The head classifies the unmodified class token of the frozen backbone."""

    def __init__(self, context: PromptContext) -> None:
        super().__init__()

    def forward(self, query: Tensor | None, task: int) -> Prompts:
        return Prompts()
