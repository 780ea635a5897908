"""Frozen text encoders of transformers, with prompts in their attention.

The weights, the tokenizer and the configuration of an encoder are one artifact of
`cdl.backbones.fetch`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cdl.backbones.attention import Injection
from cdl.backbones.frozen import Backbone
from cdl.backbones.inside import Inside, merged, opened
from cdl.backbones.pretrained import POOLINGS, text_shape, tokenizer_digest
from cdl.backbones.shape import BackboneShape
from cdl.backbones.text_models import (
    VERSION,
    blocks_of,
    build,
    current_pass,
    load_state,
    pad_of,
    plain,
    positions_of,
    state_of,
)
from cdl.backbones.vit import BlockInputs, Encoded
from cdl.data.text import decoded
from cdl.device.tokens import ABSENT, ids_of, open_tokenizer
from cdl.runtime import artifacts
from cdl.runtime.errors import CdlError

_TOKENIZER = "tokenizer"  # tensor with the bytes of tokenizer.json in an artifact


class Encoder(Backbone):
    """Frozen text encoder in eval mode with its tokenizer.

    Attributes:
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
        super().__init__(
            model, int(model.config.hidden_size), len(blocks_of(model)), size, fingerprint
        )
        self.pooling = pooling
        self.tokenizer = tokenizer
        self._tokens = open_tokenizer(tokenizer, "the backbone", size)
        self._pass = current_pass(model)
        self._pad = pad_of(model)

    @classmethod
    def load(cls, path: str | Path, size: int, normalization: str) -> "Encoder":
        """Read an artifact of `fetch`.

        Args:
            path: the artifact.
            size: largest number of tokens of an input.
            normalization: not used for texts.

        Raises:
            CdlError: the file is damaged, or has fewer positions than inputs have tokens.
        """
        state, metadata = artifacts.load(path)
        if "encoder" not in metadata:
            raise CdlError(f"{path} is not a backbone for texts; delete it and run again")
        about = metadata["encoder"]
        model = build(about["config"], str(path), new=False)
        most = positions_of(model)
        if size > most:
            raise CdlError(
                f"view.tokens: invalid value {size} for {metadata['model']!r}; expected at "
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
        return cls(model, tokenizer, size, about["pooling"], metadata["fingerprint"])

    @property
    def shape(self) -> BackboneShape:
        """Shape of the encoder, which methods read."""
        name = f"the tokenizer {tokenizer_digest(self.tokenizer, 'the backbone')[:8]}"
        kind, most = self.model.config.model_type, positions_of(self.model)
        return text_shape(self.width, self.depth, name, kind, most)

    def merged(self, inside: Inside) -> "Encoder":
        """Return a copy with plain weights that gives the features of `inside`, in fp32."""
        made: Encoder = merged(self, inside)
        return made

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
    def outside(self) -> float:
        """No token is embedded by products of matrices."""
        return 0.0

    def prepare(self, views: Tensor) -> Tensor:
        """Return the ids of the tokens of texts, `[B, N]` int64, `ABSENT` after the end of a text.

        `N` is the number of tokens of the longest text; on a GPU it is `size`, so that a captured
        step can be replayed for every batch.
        """
        width = None if views.device.type == "cpu" else self.size
        return torch.from_numpy(ids_of(self._tokens, decoded(views), width)).to(self.device)

    def blank(self, size: int) -> Tensor:
        """Return an input of `size` tokens."""
        return torch.zeros(1, size, dtype=torch.int64, device=self.device)

    def encode(
        self,
        inputs: Tensor,
        injection: Injection | None = None,
        keep_blocks: int = 0,
        resume_from: BlockInputs | None = None,
        keep_inputs: bool = False,
    ) -> Encoded:
        """Encode ids of tokens `[B, N]`, see `prepare` and `cdl.backbones.vit.encode`.

        Outputs of blocks are 0 where a text has no token.
        """
        present, injection = inputs != ABSENT, injection or Injection()
        ids = torch.where(present, inputs, self._pad)
        full = not torch.compiler.is_exporting() and ids.device.type == "cpu" and present.all()
        self._pass.begin(injection, resume_from, self.depth)
        with opened(self, _of_tokens(injection, present)):
            found = self.model(input_ids=ids, attention_mask=None if full else present.long())
        tokens, entered = found.last_hidden_state.float(), tuple(self._pass.inputs)
        self._pass.begin(Injection(), None, self.depth)
        own, appended = tokens[:, : ids.shape[1]], tokens[:, ids.shape[1] :]
        features = torch.cat([self._pooled(own, present)[:, None], appended], dim=1)
        shown = F.pad(present, (0, appended.shape[1]), value=True)[..., None]
        last = entered[len(entered) - keep_blocks :] if keep_blocks else ()
        blocks = tuple(output.float() * shown for output in last)
        kept = BlockInputs(entered, None) if keep_inputs else None
        return Encoded(tokens, features, blocks, kept)

    def _pooled(self, tokens: Tensor, present: Tensor) -> Tensor:
        """Return the pooled feature `[B, D]` of tokens `[B, N, D]`."""
        if self.pooling == "cls":
            return tokens[:, 0]
        weights = present[..., None].to(tokens.dtype)
        return (tokens * weights).sum(1) / weights.sum(1)


def _of_tokens(injection: Injection, present: Tensor) -> Inside:
    """Return what enters the blocks, with its functions `watch` restricted to present tokens."""
    inside = injection.inside
    if not inside.watch:
        return inside
    shown = F.pad(present, (0, injection.token is not None), value=True)
    watch = {
        layer: lambda a, watch=watch: watch(a[shown][None]) for layer, watch in inside.watch.items()
    }
    return replace(inside, watch=watch)


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
    open_tokenizer(tokenizer, what)
    kept = published(model, state, what)
    kept[_TOKENIZER] = torch.frombuffer(bytearray(tokenizer), dtype=torch.uint8)
    about = {"config": dict(config), "pooling": pooling}
    return kept, {"encoder": about, "transformers": VERSION}


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
    theirs = plain(config)
    theirs.load_state_dict(tensors)
    source = torch.Generator().manual_seed(0)
    most = positions_of(own)
    n = min(12, most)
    ids = torch.randint(5, int(own.config.vocab_size), (2, n), generator=source)
    present = torch.arange(n) < torch.tensor([[n], [n // 2]])
    given = {"input_ids": ids.where(present, pad_of(own)), "attention_mask": present.long()}
    expected = theirs(**given).last_hidden_state[present]
    found = own(**given).last_hidden_state[present]
    return most, float((found - expected).abs().max() / expected.abs().max())
