"""Softened logits: what planning and figures know of them."""

from cdl.distillers import DistillerFacts
from cdl.runtime.facts import Look
from cdl.runtime.options import flag, number

SOFT = {  # options of every distiller with a soft loss
    "alpha": number(
        0.5, "Share of the soft loss; cross-entropy has the rest.", minimum=0, maximum=1
    ),
    "temperature": number(2.0, "Temperature of the soft loss.", exclusiveMinimum=0),
    "standardize": flag(
        False,
        "Compare z-scores of both models' logits (Sun et al., CVPR 2024).",
        omit_default=True,
    ),
    "soft_weight": number(
        None,
        "Weight of the soft loss; null: alpha, so that the weights sum to one.",
        minimum=0,
        omit_default=True,
    ),
    "confidence": number(
        None,
        "The soft loss counts images of which the teacher's largest probability exceeds this; "
        "null: all.",
        minimum=0,
        exclusiveMaximum=1,
        omit_default=True,
    ),
}
KD = DistillerFacts(
    "cdl.distillers.kd:KD",
    description="Softened logits (Hinton et al., 2015).",
    options=SOFT,
    suits_solve=True,
    look=Look("#0072B2", "D"),
)
