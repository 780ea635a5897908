"""Small modules inside the blocks of a frozen ViT, at four entrances.

A pre-norm block returns `u + mlp(norm2(u))` with `u = x + attention(a)` and `a = norm1(x)`, the
input of `qkv`; a post-norm block of a text encoder `norm2(u + mlp(u))` with `u = norm1(x +
attention(x))` and `a = x`. The entrances are

* `mlp`: beside the MLP; an adapter of `u` is added to the output of the MLP;
* `qkv`: at the projections; a thin product of `a` is added to queries, keys or values, before the
  split into heads, the norms of queries and keys, and rotation;
* `affine`: `y * scale + shift` after every linear map and norm (SSF);
* `tokens`: further tokens at the end of the sequence of one block (VPT-deep).

Text encoders have the first two. They are hooks on the model's own modules (`Sites`), so the
weights stay frozen, packed or in bf16, and a pass without them (the query) is that of the plain
model. `available` finds by a pass on the meta device which of them a ViT has.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cdl.backbones.shape import ENTRANCES, Sites

Pair = tuple[Tensor, Tensor]
PROJECTIONS = ("q_proj", "k_proj", "v_proj")
PARTS = ("q", "k", "v")
BLOCK_SITES = {  # with the widths of their outputs, as multiples of the tokens'
    "norm1": 1,
    "attn.qkv": 3,
    "attn.proj": 1,
    "norm2": 1,
    "mlp.fc1": 4,
    "mlp.fc2": 1,
}


@dataclass(frozen=True)
class Inside:
    """What enters the blocks of one pass, by block index.

    adapters: function of `u [B, N, D]`; its value is added to the output of the MLP.
    branches: by part `q`, `k` or `v`: `down [r, D]` and `up [D, r]`; `up down a` is added.
    affine: scale and shift `[D']` by the name of a module, see `BLOCK_SITES`.
    tokens: `[n, D]`, appended before the block and removed after it.
    watch: function that gets the input `a [B, N, D]` of the projections.
    """

    adapters: Mapping[int, Callable[[Tensor], Tensor]] = field(default_factory=dict)
    branches: Mapping[int, Mapping[str, Pair]] = field(default_factory=dict)
    affine: Mapping[str, Pair] = field(default_factory=dict)
    tokens: Mapping[int, Tensor] = field(default_factory=dict)
    watch: Mapping[int, Callable[[Tensor], None]] = field(default_factory=dict)

    def layers(self) -> set[int]:
        """Return the blocks that are entered; with `affine` all of them."""
        return {*self.adapters, *self.branches, *self.tokens, *self.watch}

    @property
    def mergeable(self) -> bool:
        """Whether plain weights give the same features, see `merged`."""
        return not (self.adapters or self.tokens or self.watch)


CLOSED = Inside()


class Entrances:
    """The hooks of one model, and what enters it in the current pass."""

    def __init__(self) -> None:
        self.inside = CLOSED
        self._inputs: dict[int, Tensor] = {}

    def __deepcopy__(self, memo: object) -> "Entrances":
        return self  # the hooks of a copied module refer to this object

    def install(self, vit: Any, inside: Inside) -> None:
        """Add the hooks that a pass needs, once per module; packing may have replaced modules."""
        for layer in inside.adapters:
            block, sites = vit.blocks[layer], sites_of(vit.blocks[layer])
            read, add = block.get_submodule(sites.read), block.get_submodule(sites.add)
            _hook(read, "register_forward_pre_hook", partial(self._keep, layer))
            _hook(add, "register_forward_hook", partial(self._beside, layer))
        for layer in {*inside.branches, *inside.watch}:
            for name, module in projections(vit.blocks[layer]).items():
                _hook(module, "register_forward_hook", partial(self._at, layer, name), "qkv")
        for name in inside.affine:
            site = vit.get_submodule(name)
            _hook(site, "register_forward_hook", partial(self._affine, name), "affine")

    def _keep(self, layer: int, module: Any, args: Any) -> None:
        if layer in self.inside.adapters:
            self._inputs[layer] = args[0]

    def _beside(self, layer: int, module: Any, args: Any, output: Tensor) -> Tensor:
        adapter = self.inside.adapters.get(layer)
        return output if adapter is None else output + adapter(self._inputs.pop(layer))

    def _at(self, layer: int, name: str, module: Any, args: Any, output: Tensor) -> Tensor:
        parts = PARTS if name == "qkv" else (name[0],)
        watch = self.inside.watch.get(layer)
        if watch is not None and parts[0] == "q":  # once, if q, k and v are separate
            watch(args[0])
        pairs = self.inside.branches.get(layer, {})
        if not pairs.keys() & set(parts):
            return output
        added = [
            y + thin_product(args[0], *pairs[part]) if part in pairs else y
            for part, y in zip(parts, output.chunk(len(parts), dim=-1), strict=True)
        ]
        return torch.cat(added, dim=-1) if len(added) > 1 else added[0]

    def _affine(self, name: str, module: Any, args: Any, output: Tensor) -> Tensor:
        if name not in self.inside.affine:
            return output
        scale, shift = (value.to(output.dtype) for value in self.inside.affine[name])
        if output.dim() == 4:  # of a convolution, [B, D, H, W]
            scale, shift = scale[:, None, None], shift[:, None, None]
        return output * scale + shift


def _hook(module: nn.Module, register: str, hook: Callable[..., Any], kind: str = "mlp") -> None:
    """Register a hook of a kind unless the module has one."""
    known = module.__dict__.setdefault("entrance_kinds", set())
    if kind not in known:
        known.add(kind)
        getattr(module, register)(hook)


def thin_product(x: Tensor, down: Tensor, up: Tensor) -> Tensor:
    """Return `up down x` of rows `[..., D]` by two thin products, in the dtype of `x`."""
    return F.linear(F.linear(x, down.to(x.dtype)), up.to(x.dtype))


def sites_of(block: nn.Module) -> Sites:
    """Return where modules enter a block: as its builder says, else as in timm's ViTs."""
    known = block.__dict__.get("sites")
    if isinstance(known, Sites):
        return known
    joint = getattr(block.attn, "qkv", None) is not None
    return Sites("norm2", "", {n: f"attn.{n}" for n in (("qkv",) if joint else PROJECTIONS)})


def projections(block: nn.Module) -> dict[str, nn.Module]:
    """Return the projections of a block by name: `qkv`, or `q_proj`, `k_proj` and `v_proj`."""
    return {name: block.get_submodule(at) for name, at in sites_of(block).projections.items()}


@contextmanager
def opened(vit: Any, inside: Inside) -> Iterator[None]:
    """Let `inside` enter the passes within the context; others see the plain weights."""
    if inside is CLOSED:
        yield
        return
    entrances = vit.__dict__.get("entrances")
    if entrances is None:
        entrances = Entrances()
        object.__setattr__(vit, "entrances", entrances)
    entrances.install(vit, inside)
    entrances.inside = inside
    try:
        yield
    finally:
        entrances.inside = CLOSED


def merged(vit: Any, inside: Inside) -> Any:
    """Return a copy of a plain fp32 model with weights that give the features of `inside`.

    A branch adds `up down` to its rows of the projection. A linear map `W x + b` with scale `s` and
    shift `t` becomes `diag(s) W x + s b + t`, a layer norm with `g`, `c` gets `s g` and `s c + t`.
    """
    assert inside.mergeable, "adapters and tokens have no plain weights"
    made = copy.deepcopy(vit)
    with torch.no_grad():
        for layer, pairs in inside.branches.items():
            found = projections(made.blocks[layer])
            for part, (down, up) in pairs.items():
                if "qkv" in found:
                    weight = found["qkv"].weight.chunk(3)[PARTS.index(part)]  # type: ignore[operator]
                else:
                    weight = found[f"{part}_proj"].weight
                weight += (up.double() @ down.double()).to(weight)
        for name, (scale, shift) in inside.affine.items():
            module = made.get_submodule(name)
            module.weight *= scale.view(-1, *[1] * (module.weight.dim() - 1))
            module.bias.mul_(scale).add_(shift)
    return made


def available(vit: Any, run: Callable[[], object]) -> tuple[str, ...]:
    """Return the entrances that a model has, by the calls of its modules in a pass.

    Args:
        vit: a timm model, also on the meta device.
        run: function that runs it once without any injection.
    """
    calls: dict[str, list[Pair]] = {}
    kept = [  # the tensors are kept, so that each has an identity of its own
        module.register_forward_hook(
            lambda m, args, out, name=name: calls.setdefault(name, []).append((args[0], out))
        )
        for name, module in vit.named_modules()
        if name.startswith("blocks.") or name in ("patch_embed.proj", "norm")
    ]
    try:
        run()
    finally:
        for hook in kept:
            hook.remove()
    blocks = [f"blocks.{i}" for i in range(len(vit.blocks))]
    width = vit.embed_dim
    found = {
        "mlp": all(_has_mlp(calls, block) for block in blocks),
        "qkv": all(_has_projections(calls, block, width) for block in blocks),
        "affine": _has_affine(vit, calls),
        "tokens": True,  # blocks attend to all tokens, or the model is refused
    }
    return tuple(name for name in ENTRANCES if found[name])


def _once(calls: Mapping[str, Sequence[Pair]], name: str) -> Pair | None:
    found = calls.get(name, [])
    return found[0] if len(found) == 1 else None


def _has_mlp(calls: Mapping[str, Sequence[Pair]], block: str) -> bool:
    """Return whether `norm2` of a block feeds its MLP, after a pre-norm attention."""
    order = list(calls)
    names = [f"{block}.{part}" for part in ("norm1", "attn", "norm2", "mlp", "")]
    names[-1] = block
    found = [_once(calls, name) for name in names]
    if None in found or [n for n in order if n in names] != names:
        return False
    norm1, attention, norm2, mlp, whole = (pair for pair in found if pair is not None)
    fed = attention[0] is norm1[1] and mlp[0] is norm2[1] and norm1[0] is whole[0]
    return fed and norm2[0].shape == whole[1].shape and norm2[0] is not attention[1]


def _has_projections(calls: Mapping[str, Sequence[Pair]], block: str, width: int) -> bool:
    """Return whether the projections of a block are modules with outputs of full width."""
    joint = _once(calls, f"{block}.attn.qkv")
    if joint is not None:
        return joint[0].shape[-1] == width and joint[1].shape[-1] == 3 * width
    found = [_once(calls, f"{block}.attn.{name}") for name in PROJECTIONS]
    return all(pair is not None and pair[1].shape[-1] == width for pair in found)


def _has_affine(vit: Any, calls: Mapping[str, Sequence[Pair]]) -> bool:
    """Return whether all modules that SSF changes exist, run once, and have a bias and width."""
    blocks = range(len(vit.blocks))
    sites = {f"blocks.{i}.{site}": n for i in blocks for site, n in BLOCK_SITES.items()}
    for name, multiple in {"patch_embed.proj": 1, **sites, "norm": 1}.items():
        found = _once(calls, name)
        module = vit.get_submodule(name) if found else None
        if not isinstance(module, nn.Linear | nn.LayerNorm | nn.Conv2d) or module.bias is None:
            return False
        width = found[1].shape[1 if isinstance(module, nn.Conv2d) else -1] if found else 0
        if width != multiple * vit.embed_dim:
            return False
    return True
