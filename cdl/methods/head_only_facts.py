"""Planning facts of the method without prompts."""

from cdl.methods import PromptFacts

HEAD_ONLY = PromptFacts(
    "cdl.methods.head_only:HeadOnly",
    description="No prompts, only the head is trained: a lower bound.",
    needs_query=False,
    gives_prefixes=False,
)
