"""Options and planning facts of VQ-Prompt."""

from cdl.methods import PromptFacts
from cdl.runtime.options import blocks, integer, number, tokens

VQ_PROMPT = PromptFacts(
    "cdl.methods.vq_prompt:VQPrompt",
    description="VQ-Prompt (Jiao et al., NeurIPS 2024).",
    chooses=True,
    options={
        "pool": integer(10, "Prompts of each block.", minimum=1),
        "length": tokens(8, "Tokens of a prompt"),
        "temperature": number(1.0, "Temperature of the softmax over the pool.", exclusiveMinimum=0),
        "commitment_weight": number(
            0.4,
            "Weight of the loss that moves the weighted mean to the selected prompt.",
            minimum=0,
        ),
        "codebook_weight": number(
            0.1,
            "Weight of the loss that moves the selected prompt to the weighted mean.",
            minimum=0,
        ),
        "layers": blocks([0, 1, 2, 3, 4], "Prompted blocks.", minItems=1),
    },
)
