"""No prompts: what planning knows of it."""

from cdl.methods import PromptFacts

HEAD_ONLY = PromptFacts(
    "cdl.methods.head_only:HeadOnly",
    description="No prompts, only the head learns: a lower bound.",
    needs_query=False,
    gives_prefixes=False,
)
