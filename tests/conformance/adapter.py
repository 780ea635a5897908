"""Run the product's modules on golden vectors.

`run_case(kind, config, tensors)` takes a case's `hyper` and its tensors under their own keys
(`param.`, `in.`, and those of shared files), and returns `out.` tensors and every scalar by its
dotted path in the case's `scalars`, e.g. `prompt_loss_per_layer.0` or `steps.1.soft_loss.3`.
This file computes only the objectives whose gradients a case contains; a kind that is not in
`KINDS` raises `KeyError`.
"""

import alignment_cases
import inside_cases
import loss_cases
import other_cases
import prompt_cases
import step_cases
import trace_cases
from common import Config, Kinds, Result, Tensors

KINDS: Kinds = {
    **prompt_cases.KINDS,
    **loss_cases.KINDS,
    **step_cases.KINDS,
    **trace_cases.KINDS,
    **alignment_cases.KINDS,
    **other_cases.KINDS,
    **inside_cases.KINDS,
}


def run_case(kind: str, config: Config, tensors: Tensors) -> Result:
    """Return outputs and scalars of a case; raise `KeyError` for an unknown kind."""
    if kind not in KINDS:
        raise KeyError(f"no golden case of kind {kind!r} is known; known are {sorted(KINDS)}")
    return KINDS[kind](config, tensors)
