"""Options, planning facts and look of DIST."""

from cdl.distillers import DistillerFacts
from cdl.distillers.kd_facts import SOFT
from cdl.runtime.facts import Look
from cdl.runtime.options import number

DIST = DistillerFacts(
    "cdl.distillers.dist:DIST",
    description="DIST (Huang et al., NeurIPS 2022): correlations in place of probabilities.",
    options={
        **SOFT,
        "alpha": number(0.0, "Cross-entropy has the weight 1 - alpha.", minimum=0, maximum=1),
        "temperature": number(1.0, "Temperature of the soft loss.", exclusiveMinimum=0),
        "soft_weight": number(
            2.0, "Weight of the soft loss; null: alpha.", nullable=True, minimum=0
        ),
        "inter_weight": number(
            1.0, "Weight of the correlation over classes, sample by sample.", minimum=0
        ),
        "intra_weight": number(
            1.0, "Weight of the correlation over samples, class by class.", minimum=0
        ),
    },
    look=Look("#0B5D2A", "p", ":"),
)
