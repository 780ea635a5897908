"""No prompts: a lower bound in which only the head learns."""

from torch import Tensor

from cdl.methods.base import PromptContext, PromptMethod, Prompts


class HeadOnly(PromptMethod):
    """The frozen backbone's class token goes to the head as it is."""

    def __init__(self, context: PromptContext) -> None:
        super().__init__()

    def forward(self, query: Tensor | None, task: int) -> Prompts:
        return Prompts()
