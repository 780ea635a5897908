"""Options and planning facts of the controls; imports no torch."""

from dataclasses import replace

from cdl.distillers.facts import KD
from cdl.runtime.facts import Look
from cdl.runtime.options import choice

KD_CONTROL = replace(
    KD,
    path="calibration_controls.kd_control:KDControl",
    description="kd over all classes seen, without what the teacher knows of earlier classes.",
    options={
        **KD.options,
        # planning reads this option of every distiller, and reads the logits of all classes seen
        "soft_columns": choice("seen", ["seen"], "Always all classes seen so far."),
        "earlier": choice("permuted", ["permuted", "mean"], "Logits of earlier classes."),
    },
    suits_solve=False,
    look=Look("#44546A", "X", "--"),
)
