"""Options, check and planning facts of APER."""

from cdl.methods import PromptFacts, Prompting
from cdl.methods.first_session_facts import ENTERS, SESSION, check_module
from cdl.methods.simple_cil_facts import LOGIT_SCALE
from cdl.runtime.options import choice


def check(run: Prompting) -> None:
    """Raise `Unsuitable` if the backbone lacks the entrance of the module."""
    check_module(run, "module")


APER = PromptFacts(
    "cdl.methods.aper:APER",
    description="APER (Zhou et al., IJCV 2024): a module tuned in task 0, then class means of "
    "frozen and tuned features.",
    needs_query=False,
    gives_prefixes=False,
    trains=False,
    options={
        "module": choice("adapter", list(ENTERS), "Module that task 0 tunes."),
        **SESSION,
        "logit_scale": LOGIT_SCALE,
    },
    check=check,
)
