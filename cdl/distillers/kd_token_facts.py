"""Options, planning facts and look of DeiT's distillation token."""

from cdl.distillers import DistillerFacts
from cdl.distillers.kd_facts import COLUMNS
from cdl.runtime.facts import Look
from cdl.runtime.options import choice, flag, integer

KD_TOKEN = DistillerFacts(
    "cdl.distillers.kd_token:KDToken",
    description="DeiT's distillation token (Touvron et al., ICML 2021).",
    options={
        **COLUMNS,
        "kd_head": flag(
            True, "A separate head for the soft loss; false: the soft loss uses the class head."
        ),
        "start": choice(
            "uniform",
            ["uniform", "zeros"],
            "Initial values of the token: uniform on [0, 1), or zeros as in version 2024-12.",
        ),
        "freeze_after": integer(
            None,
            "Number of tasks after which token and prefixes, which all tasks share, stop learning; "
            "the heads go on; null: never.",
            minimum=1,
        ),
    },
    look=Look("#A87B00", "X", "-."),
)
