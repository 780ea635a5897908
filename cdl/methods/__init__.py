"""Registry of prompt methods, built in and from other packages' entry points.

A method is a file `NAME.py` with its module, and its options, planning facts and check in
`facts.py`. Neither this file nor the facts import torch.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cdl.backbones.shape import BackboneShape
from cdl.runtime.facts import Facts, refuse
from cdl.runtime.registry import Registry, load

if TYPE_CHECKING:
    from cdl.methods.base import PromptMethod


@dataclass(frozen=True)
class Prompting:
    """Argument of the `check` of a method: the settings of one run.

    options: all options of the method.
    n_tasks: number of tasks of the stream.
    backbone: name of the prompted backbone.
    shape: its shape.
    query_shape: shape of the backbone that computes the query.
    memory: memory limit of a job, in bytes.
    domains: whether the tasks are domains of the same classes.
    """

    options: Mapping[str, Any]
    n_tasks: int
    backbone: str
    shape: BackboneShape
    query_shape: BackboneShape
    memory: float
    domains: bool = False


def check_layers(run: Prompting, option: str = "layers") -> None:
    """Raise `Unsuitable` if an option lists a block that the backbone does not have."""
    last, depth = max(run.options.get(option, []), default=-1), run.shape.depth
    refuse(last >= depth, option, last, f"blocks 0 to {depth - 1} of {run.backbone!r}")


def check_entrance(name: str) -> Callable[[Prompting], None]:
    """Return a check that the backbone has an entrance, see `cdl.backbones.inside`."""

    def check(run: Prompting) -> None:
        refuse(name not in run.shape.entrances, "", run.backbone, NEEDED[name])

    return check


NEEDED = {  # by entrance; `cdl backbones check` prints the entrances of a model
    "mlp": "a ViT whose blocks add an MLP of norm2 to its input, not parallel or post-norm, or a "
    "text encoder of a known type",
    "qkv": "a backbone with modules of full width for queries, keys and values in every block",
    "affine": "a plain ViT: maps and layer norms with biases, an MLP of four times the width",
    "tokens": "a ViT",
}


def _never(options: Mapping[str, Any]) -> bool:
    """Return that a fact is true with no options."""
    return False


def always(options: Mapping[str, Any]) -> bool:
    """Return that a fact is true with all options."""
    return True


@dataclass(frozen=True, kw_only=True)
class PromptFacts(Facts):
    """Planning facts of a method, in addition to `Facts`.

    needs_query: whether its prompts depend on the query.
    chooses: whether it selects or weighs prompts by the query, see `PromptMethod.choice`.
    gives_prefixes: whether it adds prefixes to blocks; a distiller can map these.
    adds_to_class_token: whether it changes the class token's key and value; the backbone then needs
        a class token.
    merges: whether a task ends with a merge; a teacher can be used before or after the merge.
    counts_tasks: whether all tasks share its option `pool` if that is set; the number of tasks must
        then be known, and another task changes the results of all tasks.
    trains: whether it learns by gradient steps; otherwise a linear system is solved for its head.
    session: option with which a method that does not train takes gradient steps before it solves;
        empty without such an option.
    reads_features: whether it reads the pooled feature of the backbone alone and nothing enters
        its blocks, with the options of a run.
    unscaled: whether its logits estimate zeros and ones, with the options of a run; a distiller
        that softens them needs a factor or z-scores.
    check: validates a run; calls `cdl.runtime.facts.refuse` if a setting is invalid.
    """

    needs_query: bool = True
    chooses: bool = False
    gives_prefixes: bool = True
    adds_to_class_token: bool = False
    merges: bool = False
    counts_tasks: bool = False
    trains: bool = True
    session: str = ""
    reads_features: Callable[[Mapping[str, Any]], bool] = _never
    unscaled: Callable[[Mapping[str, Any]], bool] = _never
    check: Callable[[Prompting], None] = check_layers

    @property
    def labels_images(self) -> bool:
        """Whether it has the options of `cdl.methods.facts.LABELLING`."""
        return not self.trains and "label_classes" in self.options

    def takes_steps(self, options: Mapping[str, Any]) -> bool:
        """Return whether it takes gradient steps, with the options of a run."""
        return self.trains or options.get(self.session) is not None

    def names_optimiser(self, options: Mapping[str, Any]) -> bool:
        """Return whether a specification has the settings of the optimiser.

        It also has them for methods that never take gradient steps, which do not read them.
        """
        return self.takes_steps(options) or not self.session

    def load(self) -> "type[PromptMethod]":
        """Import and return the class."""
        kind: type[PromptMethod] = load(self.path)
        return kind


PROMPTS = Registry(
    PromptFacts,
    {
        "l2p": "cdl.methods.facts:L2P",
        "dual_prompt": "cdl.methods.facts:DUAL_PROMPT",
        "coda_prompt": "cdl.methods.facts:CODA_PROMPT",
        "apt": "cdl.methods.facts:APT",
        "one_prompt": "cdl.methods.facts:ONE_PROMPT",
        "vq_prompt": "cdl.methods.facts:VQ_PROMPT",
        "lora": "cdl.methods.facts:LORA",
        "adapter": "cdl.methods.facts:ADAPTER",
        "inf_lora": "cdl.methods.facts:INF_LORA",
        "sd_lora": "cdl.methods.facts:SD_LORA",
        "ssiat": "cdl.methods.facts:SSIAT",
        "ease": "cdl.methods.facts:EASE",
        "simple_cil": "cdl.methods.facts:SIMPLE_CIL",
        "fecam": "cdl.methods.facts:FECAM",
        "aper": "cdl.methods.facts:APER",
        "ranpac": "cdl.methods.facts:RANPAC",
        "head_only": "cdl.methods.facts:HEAD_ONLY",
    },
    "cdl.methods",
)
