"""Options, planning facts and look of LwF."""

from cdl.distillers import DistillerFacts, weighs_teacher
from cdl.distillers.kd_facts import SOFT
from cdl.runtime.facts import Look
from cdl.runtime.options import number

LWF = DistillerFacts(
    "cdl.distillers.lwf:LwF",
    description="LwF (Li and Hoiem, ECCV 2016): the student's own outputs before the task.",
    options={
        **SOFT,
        "alpha": number(
            0.0,
            "Weight of the teacher's soft loss; cross-entropy has the weight 1 - alpha. 0: no "
            "teacher.",
            minimum=0,
            maximum=1,
        ),
        "past_weight": number(3.0, "Weight of the cross-entropy with the past.", minimum=0),
        "past_temperature": number(2.0, "Temperature of the past.", exclusiveMinimum=0),
    },
    uses_teacher=weighs_teacher,
    reads_past=True,
    look=Look("#117733", "h", ":"),
)
