"""Models of transformers for texts, built so that their blocks can be entered.

Attention is entered where transformers calls the function of its attention interface, after the
projections, in any architecture that uses the interface; MPNet, which does not, has a forward pass
here. Blocks are wrapped, so that a pass can resume at a block, append a token, and return outputs
of blocks. Of backbones, this is the only file that imports transformers.
"""

import contextlib
import math
import os
from collections.abc import Mapping
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cdl.backbones.attention import AttentionInjector, Injection, widened
from cdl.backbones.pretrained import SITES
from cdl.backbones.vit import BlockInputs
from cdl.runtime.errors import CdlError, first_line

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # jobs fork, and have one thread
try:
    import transformers
    from transformers import AttentionInterface, AttentionMaskInterface, initialization
    from transformers.masking_utils import sdpa_mask
except ImportError as error:
    raise CdlError(
        "backbones for texts need the package transformers, which is not installed: "
        "pip install 'cdl-workbench[text]'"
    ) from error

# drawing random weights that are replaced takes most of the time to load a model
_without_weights = getattr(initialization, "no_init_weights", contextlib.nullcontext)
VERSION: str = transformers.__version__
_NAME = "cdl"  # of the attention function and its masks


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend with the injection of the module's block; the signature is transformers'."""
    injector: AttentionInjector = module.__dict__["attention_injector"]
    usual = scaling is None or math.isclose(scaling, query.shape[-1] ** -0.5)
    options = {} if usual else {"scale": scaling}
    attended = injector(query, key, value, attn_mask=attention_mask, **options)
    return attended.transpose(1, 2).contiguous(), None


def _mask(*, attention_mask: Tensor | None = None, **options: Any) -> Tensor | None:
    """Return a mask that depends on shapes only, or None where none is needed."""
    options |= {"allow_is_bidirectional_skip": attention_mask is None}
    mask: Tensor | None = sdpa_mask(attention_mask=attention_mask, **options)
    return mask


AttentionInterface.register(_NAME, _attend)
AttentionMaskInterface.register(_NAME, _mask)


def _mpnet_attention(
    self: Any,
    hidden_states: Tensor,
    attention_mask: Tensor | None = None,
    position_bias: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor]:
    """Attend as MPNet does, whose scores have a bias by relative position, with prompts."""
    heads = (*hidden_states.shape[:-1], -1, self.attention_head_size)
    query, key, value = (
        project(hidden_states).view(heads).transpose(1, 2) for project in (self.q, self.k, self.v)
    )
    mask, n = attention_mask, query.shape[2]
    if position_bias is not None:
        appended = n - position_bias.shape[-1]  # tokens without a position
        mask = F.pad(position_bias, (0, appended, 0, appended)).to(query.dtype)
        if attention_mask is not None:
            hidden = ~widened(attention_mask, n, n, 0, 0)
            mask = mask.masked_fill(hidden, torch.finfo(mask.dtype).min)
    attended, _none = _attend(self, query, key, value, mask)
    return (self.o(attended.flatten(2)),)


class Pass:
    """What the blocks of an encoder do in the current pass."""

    def __init__(self) -> None:
        self.injector = AttentionInjector()
        self.begin(Injection(), None, 0)

    def __deepcopy__(self, memo: object) -> "Pass":
        return self  # every pass begins anew

    def begin(self, injection: Injection, resume_from: BlockInputs | None, depth: int) -> None:
        """Set the injection and the inputs from which a pass resumes."""
        self.injection, self.resume_from = injection, resume_from
        self.first = injection.first(depth) if resume_from is not None else 0
        self.inputs: list[Tensor] = []


class _Block(nn.Module):
    """A block of an encoder with a place to enter it."""

    def __init__(self, block: nn.Module, layer: int, current: Pass) -> None:
        super().__init__()
        self.block, self.layer, self.current = block, layer, current
        self.returns_tuple = False
        for module in block.modules():
            module.__dict__["attention_injector"] = current.injector

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:  # such as the type of attention, which some models read
            return getattr(super().__getattr__("block"), name)

    def forward(self, hidden: Tensor, *args: Any, **options: Any) -> Any:
        """Run the block, or return the known input of the next one."""
        current, token = self.current, self.current.injection.token
        if self.layer == 0:
            if token is not None:
                more = token.expand(len(hidden), 1, -1).to(hidden.dtype)
                hidden = torch.cat([hidden, more], dim=1)
            current.inputs = [hidden]
        if current.resume_from is not None and self.layer < current.first:
            output = current.resume_from.inputs[self.layer + 1]
        else:
            current.injector.set(current.injection, self.layer)
            made = self.block(hidden, *args, **_with_rotation(options, hidden.shape[1]))
            current.injector.clear()
            self.returns_tuple = isinstance(made, tuple)
            output = made[0] if isinstance(made, tuple) else made
        current.inputs.append(output)
        return (output,) if self.returns_tuple else output


def _with_rotation(options: dict[str, Any], tokens: int) -> dict[str, Any]:
    """Add the identity to the rotary embeddings of tokens that were appended."""
    positions = options.get("position_embeddings")
    if positions is None or positions[0].shape[-2] == tokens:
        return options
    n = tokens - positions[0].shape[-2]
    wider = tuple(
        F.pad(part, (0, 0, 0, n), value=value)
        for part, value in zip(positions, (1.0, 0.0), strict=True)
    )
    return {**options, "position_embeddings": wider}


def build(config: Mapping[str, Any], where: str, new: bool = True) -> Any:
    """Return an encoder with wrapped blocks, in eval mode on the CPU.

    Args:
        config: content of its config.json.
        where: subject of error messages.
        new: whether its weights are random, and its attention is checked; else the weights are
            whatever is in memory, to be loaded, and it was checked when it was fetched.

    Raises:
        CdlError: transformers cannot build it, or its attention does not accept prefixes.
    """
    try:
        with contextlib.nullcontext() if new else _without_weights():
            model = plain(config)
    except Exception as error:  # transformers raises errors of any type on invalid values
        raise CdlError(
            f"{where}: transformers {transformers.__version__} cannot build a model of type "
            f"{config['model_type']!r}: {first_line(error)}"
        ) from error
    model.config._attn_implementation = _NAME
    _wrap(model, where)
    if new:
        _validate(model, where)
    return model


def _wrap(model: Any, where: str) -> None:
    """Wrap the blocks of a model, and enter the attention of MPNet."""
    blocks, sites = blocks_of(model, where), SITES.get(model.config.model_type)
    current = Pass()
    for layer, block in enumerate(blocks):
        block.__dict__["sites"] = sites
        for module in block.modules():
            if type(module).__name__ == "MPNetSelfAttention":
                object.__setattr__(module, "forward", MethodType(_mpnet_attention, module))
        blocks[layer] = _Block(block, layer, current)


def blocks_of(model: Any, where: str = "the model") -> nn.ModuleList:
    """Return the list of the blocks of a model; raise `CdlError` if it has none or several."""
    n = model.config.num_hidden_layers
    found = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == n]
    if len(found) != 1:
        raise CdlError(f"{where}: {type(model).__name__} is not a sequence of blocks")
    return found[0]


def current_pass(model: Any) -> Pass:
    """Return what the blocks of a model do in the current pass."""
    first: Any = blocks_of(model)[0]
    current: Pass = first.current
    return current


@torch.no_grad()
def _validate(model: Any, where: str) -> None:
    """Run a model with a prefix in each block; raise `CdlError` unless each changes the output."""
    current, depth = current_pass(model), model.config.num_hidden_layers
    ids, width = torch.tensor([[2, 3, 2]]), model.config.hidden_size
    source = torch.Generator().manual_seed(0)
    keys, values = (torch.randn(1, 2, width, generator=source) for _ in range(2))
    name = type(model).__name__
    known = None  # of the pass without prefixes, from which the others resume
    for layer in range(-1, depth):
        prefixes = {layer: (keys, values)} if layer >= 0 else {}
        current.begin(Injection(prefixes=prefixes), known, depth)
        try:
            model(input_ids=ids, attention_mask=torch.ones_like(ids))
        except Exception as error:  # an architecture may do anything with its attention
            raise CdlError(f"{where}: {name} cannot be run with prefixes ({error})") from error
        if known is None:
            known = BlockInputs(tuple(current.inputs), None)
        elif torch.equal(known.inputs[layer + 1], current.inputs[layer + 1]):
            raise CdlError(
                f"{where}: the attention of {name} does not accept prefixes, so it cannot be "
                "prompted; use for example hf: sentence-transformers/all-MiniLM-L6-v2"
            )
    current.begin(Injection(), None, depth)
    _validate_sites(model, where)


def _validate_sites(model: Any, where: str) -> None:
    """Raise `CdlError` unless the blocks have the modules of `SITES`."""
    sites = SITES.get(model.config.model_type)
    if sites is None:
        return
    for wrapped in blocks_of(model):
        for name in (sites.read, sites.add, *sites.projections.values()):
            try:
                wrapped.block.get_submodule(name)  # type: ignore[union-attr]
            except AttributeError as error:
                raise CdlError(
                    f"{where}: a block of transformers {VERSION} has no module {name!r}; use the "
                    "version of constraints.txt"
                ) from error


def positions_of(model: Any) -> int:
    """Return the largest number of tokens of an input."""
    most = int(model.config.max_position_embeddings)
    embedding = getattr(model.embeddings, "position_embeddings", None)
    padded = getattr(embedding, "padding_idx", None)  # positions start behind that of padding
    return most if padded is None else most - padded - 1


def _plain_name(name: str) -> str:
    """Return the name that transformers gives a tensor of a wrapped model."""
    return name.replace(".block.", ".", 1)


def state_of(model: Any) -> dict[str, Tensor]:
    """Return the tensors of a wrapped model under transformers' names."""
    return {_plain_name(name): tensor for name, tensor in model.state_dict().items()}


def load_state(model: Any, state: Mapping[str, Tensor]) -> None:
    """Load a result of `state_of`; raise `RuntimeError` if a name or a shape differs."""
    names = {_plain_name(name): name for name in model.state_dict()}
    model.load_state_dict({names.get(name, name): t for name, t in state.items()})


def plain(config: Mapping[str, Any]) -> Any:
    """Return a model with random weights as transformers builds it, without a pooler."""
    kept = {k: v for k, v in config.items() if k not in ("model_type", "transformers_version")}
    made: Any = transformers.AutoConfig.for_model(config["model_type"], **kept)
    make: Any = transformers.AutoModel.from_config
    model = make(made, attn_implementation="eager").eval()
    if getattr(model, "pooler", None) is not None:
        model.pooler = None  # is not part of the pooled feature
    return model


def pad_of(model: Any) -> int:
    """Return the id of the padding token."""
    return int(model.config.pad_token_id or 0)
