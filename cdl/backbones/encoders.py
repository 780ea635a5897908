"""Frozen text encoders of transformers, with prompts in their attention.

This is the only file that imports transformers and tokenizers. The weights, the tokenizer and the
configuration of an encoder are one artifact of `cdl.backbones.fetch`. Attention is entered where
transformers calls the function of its attention interface, after the projections, in any
architecture that uses the interface; MPNet, which does not, has a forward pass here. Blocks are
wrapped, so that a pass can resume at a block, append a token, and return outputs of blocks.
"""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cdl.backbones.attention import AttentionInjector, Injection, widened
from cdl.backbones.frozen import Backbone
from cdl.backbones.packing import pack
from cdl.backbones.pretrained import POOLINGS, tokenizer_digest
from cdl.backbones.shape import BackboneShape
from cdl.backbones.vit import BlockInputs, Encoded
from cdl.data.text import decoded
from cdl.runtime import artifacts
from cdl.runtime.compute import Compute
from cdl.runtime.errors import CdlError

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # jobs fork, and have one thread
try:
    import transformers
    from tokenizers import Tokenizer
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask
except ImportError as error:
    raise CdlError(
        "backbones for texts need the packages transformers and tokenizers, which are not "
        "installed: pip install 'cdl-workbench[text]'"
    ) from error

ABSENT = -1  # in place of the id of a token that a text does not have
_NAME = "cdl"  # of the attention function and its masks
_TOKENIZER = "tokenizer"  # tensor with the bytes of tokenizer.json in an artifact


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


class _Pass:
    """What the blocks of an encoder do in the current pass."""

    def __init__(self) -> None:
        self.injector = AttentionInjector()
        self.begin(Injection(), None, 0)

    def __deepcopy__(self, memo: object) -> "_Pass":
        return self  # every pass begins anew

    def begin(self, injection: Injection, resume_from: BlockInputs | None, depth: int) -> None:
        """Set the injection and the inputs from which a pass resumes."""
        self.injection, self.resume_from = injection, resume_from
        self.first = injection.first(depth) if resume_from is not None else 0
        self.inputs: list[Tensor] = []


class _Block(nn.Module):
    """A block of an encoder with a place to enter it."""

    def __init__(self, block: nn.Module, layer: int, current: _Pass) -> None:
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


class Encoder(Backbone):
    """Frozen text encoder in eval mode with its tokenizer.

    Attributes:
        width: embedding width `D`.
        depth: number of blocks.
        size: largest number of tokens of an input.
        fingerprint: sha256 of its tensors and its tokenizer.
        pooling: `mean` of the tokens of a text, or `cls`, its first token.
        tokenizer: content of tokenizer.json.
    """

    def __init__(
        self, model: Any, tokenizer: bytes, size: int, pooling: str, fingerprint: str
    ) -> None:
        """Freeze a model.

        Args:
            model: an encoder of transformers that `build` returned.
            tokenizer: content of tokenizer.json.
            size: largest number of tokens of an input.
            pooling: `mean` or `cls`.
            fingerprint: sha256 of tensors and tokenizer.
        """
        nn.Module.__init__(self)
        self.model = model.requires_grad_(False)
        self.width, self.depth = int(model.config.hidden_size), len(blocks_of(model))
        self.size, self.pooling, self.fingerprint = size, pooling, fingerprint
        self.tokenizer = tokenizer
        self._tokens = Tokenizer.from_buffer(tokenizer)
        self._tokens.no_padding()
        self._tokens.enable_truncation(size)
        self._pass = _current_pass(model)
        self._pad = _pad_of(model)
        self.eval()

    @classmethod
    def load(cls, path: str | Path, image_size: int, normalization: str) -> "Encoder":
        """Read an artifact of `fetch`.

        Args:
            path: the artifact.
            image_size: largest number of tokens of an input.
            normalization: not used for texts.

        Raises:
            CdlError: the file is damaged, or has fewer positions than inputs have tokens.
        """
        state, metadata = artifacts.load(path)
        if "encoder" not in metadata:
            raise CdlError(f"{path} is not a backbone for texts; delete it and run again")
        about = metadata["encoder"]
        model = build(about["config"], str(path))
        most = positions_of(model)
        if image_size > most:
            raise CdlError(
                f"view.tokens: invalid value {image_size} for {metadata['model']!r}; expected at "
                f"most {most}, its number of positions"
            )
        tokenizer = state.pop(_TOKENIZER).numpy().tobytes()
        try:
            load_state(model, state)
        except RuntimeError as error:
            raise CdlError(
                f"{path} was made by another version of cdl or transformers; delete it and run "
                "again"
            ) from error
        return cls(model, tokenizer, image_size, about["pooling"], metadata["fingerprint"])

    @property
    def shape(self) -> BackboneShape:
        """Shape of the encoder, which methods read."""
        name = f"the tokenizer {tokenizer_digest(self.tokenizer, 'the backbone')[:8]}"
        return BackboneShape(self.width, self.depth, entrances=(), modality="text", tokenizer=name)

    def place(self, compute: Compute) -> "Encoder":
        """Move to a device, with the weights in its precision."""
        self.to(compute.device)
        self.model.to(compute.dtype)
        if compute.device.type == "cpu":
            pack(self.model)
        return self

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        found: torch.device = next(self.model.parameters()).device
        return found

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights."""
        found: torch.dtype = next(self.model.parameters()).dtype
        return found

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The blocks in order, into whose attention prompts are injected."""
        wrapped: Any = blocks_of(self.model)
        return [block.block for block in wrapped]

    @property
    def tokens(self) -> int:
        """Largest number of tokens of an input, without appended ones."""
        return self.size

    @property
    def embedding(self) -> tuple[int, nn.Module]:
        """No token is embedded by products of matrices."""
        return 0, nn.Identity()

    def prepare(self, views: Tensor) -> Tensor:
        """Return the ids of the tokens of texts, `[B, N]` int64, `ABSENT` after the end of a text.

        `N` is the number of tokens of the longest text; on a GPU it is `size`, so that a captured
        step can be replayed for every batch.
        """
        ids = [found.ids for found in self._tokens.encode_batch(decoded(views))]
        longest = max(map(len, ids)) if views.device.type == "cpu" else self.size
        rows = [own + [ABSENT] * (longest - len(own)) for own in ids]
        return torch.tensor(rows).to(self.device)

    def blank(self, size: int) -> Tensor:
        """Return an input of `size` tokens."""
        return torch.zeros(1, size, dtype=torch.int64, device=self.device)

    def encode(
        self,
        images: Tensor,
        injection: Injection | None = None,
        keep_blocks: int = 0,
        resume_from: BlockInputs | None = None,
        keep_inputs: bool = False,
    ) -> Encoded:
        """Encode ids of tokens `[B, N]`, see `prepare` and `cdl.backbones.vit.encode`.

        Outputs of blocks are 0 where a text has no token.
        """
        present, injection = images != ABSENT, injection or Injection()
        ids = torch.where(present, images, self._pad)
        full = not torch.compiler.is_exporting() and ids.device.type == "cpu" and present.all()
        self._pass.begin(injection, resume_from, self.depth)
        found = self.model(input_ids=ids, attention_mask=None if full else present.long())
        tokens, inputs = found.last_hidden_state.float(), tuple(self._pass.inputs)
        self._pass.begin(Injection(), None, self.depth)
        own, appended = tokens[:, : ids.shape[1]], tokens[:, ids.shape[1] :]
        features = torch.cat([self._pooled(own, present)[:, None], appended], dim=1)
        shown = F.pad(present, (0, appended.shape[1]), value=True)[..., None]
        last = inputs[len(inputs) - keep_blocks :] if keep_blocks else ()
        blocks = tuple(output.float() * shown for output in last)
        kept = BlockInputs(inputs, None) if keep_inputs else None
        return Encoded(tokens, features, blocks, kept)

    def _pooled(self, tokens: Tensor, present: Tensor) -> Tensor:
        """Return the pooled feature `[B, D]` of tokens `[B, N, D]`."""
        if self.pooling == "cls":
            return tokens[:, 0]
        weights = present[..., None].to(tokens.dtype)
        return (tokens * weights).sum(1) / weights.sum(1)


def build(config: Mapping[str, Any], where: str) -> Any:
    """Return an encoder with random weights and wrapped blocks, in eval mode on the CPU.

    Args:
        config: content of its config.json.
        where: subject of error messages.

    Raises:
        CdlError: transformers cannot build it, or its attention does not accept prefixes.
    """
    try:
        model = _plain(config)
    except Exception as error:  # transformers raises errors of any type on invalid values
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CdlError(
            f"{where}: transformers {transformers.__version__} cannot build a model of type "
            f"{config['model_type']!r}: {first}"
        ) from error
    model.config._attn_implementation = _NAME
    _wrap(model, where)
    _validate(model, where)
    return model


def _wrap(model: Any, where: str) -> None:
    """Wrap the blocks of a model, and enter the attention of MPNet."""
    blocks = blocks_of(model, where)
    current = _Pass()
    for layer, block in enumerate(blocks):
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


def _current_pass(model: Any) -> _Pass:
    first: Any = blocks_of(model)[0]
    current: _Pass = first.current
    return current


@torch.no_grad()
def _validate(model: Any, where: str) -> None:
    """Run a model with a prefix in each block; raise `CdlError` unless each changes the output."""
    current, depth = _current_pass(model), model.config.num_hidden_layers
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


def convert(
    config: Mapping[str, Any],
    state: Mapping[str, Tensor],
    tokenizer: bytes,
    pooling: str,
    what: str,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of an artifact and the metadata of their model.

    Args:
        config: content of config.json.
        state: tensors as published; prefixes of their names and heads are dropped.
        tokenizer: content of tokenizer.json.
        pooling: `mean` or `cls`.
        what: subject of error messages.

    Raises:
        CdlError: the model is refused, a tensor is missing or has another shape, or the tokenizer
            cannot be read.
    """
    assert pooling in POOLINGS, "checked by planning"
    model = build(config, what)
    try:
        Tokenizer.from_buffer(tokenizer)
    except Exception as error:  # tokenizers raises errors of type Exception
        raise CdlError(f"{what}: tokenizer.json cannot be read ({error})") from error
    kept = published(model, state, what)
    kept[_TOKENIZER] = torch.frombuffer(bytearray(tokenizer), dtype=torch.uint8)
    about = {"config": dict(config), "pooling": pooling}
    return kept, {"encoder": about, "transformers": transformers.__version__}


def published(model: Any, state: Mapping[str, Tensor], what: str) -> dict[str, Tensor]:
    """Return the tensors of a model in fp32, from those of a file, whose heads are dropped.

    Raises:
        CdlError: a tensor is missing or has another shape.
    """
    prefix, kept = f"{model.base_model_prefix}.", {}
    found = {
        name.removeprefix(prefix).replace(".gamma", ".weight").replace(".beta", ".bias"): tensor
        for name, tensor in state.items()
    }
    for name, tensor in state_of(model).items():
        if name not in found:
            raise CdlError(f"{what} has no tensor {name!r} of {type(model).__name__}")
        if found[name].shape != tensor.shape:
            raise CdlError(
                f"{what}: {name} has the shape {tuple(found[name].shape)}, expected "
                f"{tuple(tensor.shape)}"
            )
        kept[name] = found[name].float()
    return kept


@torch.no_grad()
def compare(
    config: Mapping[str, Any], state: Mapping[str, Tensor] | None, what: str
) -> tuple[int, float]:
    """Compare the tokens of an encoder with those of transformers, for texts of two lengths.

    Args:
        config: content of config.json.
        state: tensors as published; None for random ones.
        what: subject of error messages.

    Returns:
        Its number of positions, and the largest absolute difference of a token of a text in fp32,
        relative to the largest value.

    Raises:
        CdlError: see `convert`.
    """
    own = build(config, what)
    tensors = state_of(own) if state is None else published(own, state, what)
    load_state(own, tensors)
    theirs = _plain(config)
    theirs.load_state_dict(tensors)
    source = torch.Generator().manual_seed(0)
    most = positions_of(own)
    n = min(12, most)
    ids = torch.randint(5, int(own.config.vocab_size), (2, n), generator=source)
    present = torch.arange(n) < torch.tensor([[n], [n // 2]])
    given = {"input_ids": ids.where(present, _pad_of(own)), "attention_mask": present.long()}
    expected = theirs(**given).last_hidden_state[present]
    found = own(**given).last_hidden_state[present]
    return most, float((found - expected).abs().max() / expected.abs().max())


def _plain(config: Mapping[str, Any]) -> Any:
    """Return a model with random weights as transformers builds it, without a pooler."""
    kept = {k: v for k, v in config.items() if k not in ("model_type", "transformers_version")}
    made: Any = transformers.AutoConfig.for_model(config["model_type"], **kept)
    make: Any = transformers.AutoModel.from_config
    model = make(made, attn_implementation="eager").eval()
    if getattr(model, "pooler", None) is not None:
        model.pooler = None  # is not part of the pooled feature
    return model


def _pad_of(model: Any) -> int:
    """Return the id of the token that stands after the end of a text."""
    return int(model.config.pad_token_id or 0)
