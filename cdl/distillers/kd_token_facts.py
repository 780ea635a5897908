"""DeiT's distillation token: what planning and figures know of it."""

from cdl.distillers import DistillerFacts
from cdl.distillers.kd_facts import SOFT
from cdl.runtime.facts import Look
from cdl.runtime.options import choice, flag

KD_TOKEN = DistillerFacts(
    "cdl.distillers.kd_token:KDToken",
    description="DeiT's distillation token (Touvron et al., ICML 2021).",
    options={
        **SOFT,
        "kd_head": flag(
            True, "A head of its own for the soft loss; false: it acts on the class head."
        ),
        "start": choice(
            "uniform",
            ["uniform", "zeros"],
            "What the token starts as: uniform on [0, 1), or zeros as in the version of 2024-12.",
            omit_default=True,
        ),
    },
    look=Look("#A87B00", "X", "-."),
)
