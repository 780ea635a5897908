"""Frozen networks that give one feature vector, for methods that read features only.

They are models of timm such as ResNet, EfficientNet, FastViT or Swin, and ONNX files, into which
nothing can be injected. The feature is what timm's model without its classifier returns, or the
output of the file.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import count
from typing import Any, Self
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, register_flop_formula

from cdl.backbones import families, onnx_file, weights
from cdl.backbones.images import ImageBackbone
from cdl.backbones.inside import Inside
from cdl.backbones.shape import BackboneShape, features_shape
from cdl.backbones.vit import BlockInputs, Encoded, Injection
from cdl.runtime.errors import CdlError, first_line

CONTENT = "onnx"  # name of the tensor of an artifact that contains an ONNX file
STEPS, FACTORS = (32, 64, 128), (1, 2, 3, 5)  # of sizes of an input that are tried
_CLOSED = "its pooled feature is all that this backbone gives, and nothing can enter it"


class FeatureExtractor(ImageBackbone):
    """Frozen network of which only the pooled feature is read."""

    @classmethod
    def of(
        cls,
        state: Mapping[str, Tensor],
        metadata: Mapping[str, Any],
        size: int,
        normalization: tuple[list[float], list[float]],
    ) -> Self:
        """Build a model for a size, with its position embeddings resampled if it has any."""
        model: Any
        if CONTENT in state:
            model = OnnxModel(state[CONTENT], metadata)
        else:
            name = metadata["timm_model"]
            model = families.create(name, metadata["architecture"])
            model.load_state_dict(state)
            if size != input_size(model):
                model = resized(name, metadata["architecture"], model, size)
        width = validate(model, size)
        interpolation = metadata["interpolation"]
        return cls(model, width, 0, size, normalization, metadata["fingerprint"], interpolation)

    @property
    def shape(self) -> BackboneShape:
        """Its width and size; it has no blocks."""
        kind = type(self.model).__name__
        return features_shape(self.width, None, self.size, f"{kind} cannot be prompted")

    def merged(self, inside: Inside) -> "FeatureExtractor":
        """Raise `CdlError`, since nothing can enter its blocks."""
        raise CdlError(_CLOSED)

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """No blocks."""
        return ()

    @property
    def tokens(self) -> int:
        """No tokens."""
        return 0

    @cached_property
    def outside(self) -> float:
        """Operations for one input."""
        packed = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
        known = {} if packed is None else {packed: _packed_operations}
        with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=known) as counter:
            self.query(self.blank(self.size))
        return float(counter.get_total_flops())

    def encode(
        self,
        inputs: Tensor,
        injection: Injection | None = None,
        keep_blocks: int = 0,
        resume_from: BlockInputs | None = None,
        keep_inputs: bool = False,
    ) -> Encoded:
        """Normalise images `[B, 3, H, W]` in 0..1 and return their feature as the only token.

        Raises:
            CdlError: there is an injection, or outputs of blocks are requested.
        """
        if keep_blocks or injection not in (None, Injection()):
            raise CdlError(_CLOSED)
        feature = self.model(self.normalized(inputs)).to(inputs.dtype)[:, None]
        return Encoded(feature, feature, (), BlockInputs((), None) if keep_inputs else None)


class OnnxModel(nn.Module):
    """Network of an ONNX file, which onnxruntime runs on the CPU.

    Attributes:
        network: the open file.
        weights: stands for the weights of the file where torch counts parameters: `[parameters]`,
            without memory.
    """

    _keys = count()
    networks: WeakValueDictionary[int, onnx_file.Network] = WeakValueDictionary()  # by key

    def __init__(self, content: Tensor, metadata: Mapping[str, Any]) -> None:
        """Open a file.

        Args:
            content: its bytes, uint8.
            metadata: of its artifact: its path `model`, its `width` and its `parameters`.
        """
        super().__init__()
        self.width, self.key = metadata["width"], next(self._keys)
        read, threads = content.numpy().tobytes(), torch.get_num_threads()
        self.network = onnx_file.open_network(read, metadata["model"], threads)
        self.networks[self.key] = self.network
        self.weights = nn.Parameter(torch.zeros(1).expand(metadata["parameters"]))

    def forward(self, images: Tensor) -> Tensor:
        """Return features `[n, D]` of normalised images, or their place in an exported graph."""
        if torch.onnx.is_in_onnx_export():
            operator = f"{onnx_file.DOMAIN}::{onnx_file.OPERATOR}"
            shape = images.shape[0], self.width  # `len` would fix the number of images
            made: Tensor = torch.onnx.ops.symbolic(
                operator, (images,), dtype=images.dtype, shape=shape, version=1
            )
            return made
        found: Tensor = _onnx_features(images, self.weights, self.key)
        return found


@torch.library.custom_op("cdl::onnx_features", mutates_args=())
def _onnx_features(images: Tensor, weights: Tensor, key: int) -> Tensor:
    """Run the network with a key; an operator of torch, so that its operations are counted."""
    found = OnnxModel.networks[key].run(images.cpu().numpy())
    return torch.from_numpy(found).to(images.device)


@register_flop_formula(torch.ops.cdl.onnx_features, get_raw=True)
def _onnx_operations(images: Tensor, weights: Tensor, key: int, **more: Any) -> int:
    """Return the operations of `_onnx_features`."""
    return len(images) * onnx_file.operations(OnnxModel.networks[key], images.shape[-1])


def input_size(model: Any) -> int:
    """Return the side in pixels of the images of a model's pretraining.

    Raises:
        CdlError: they are not square, or have other channels than RGB.
    """
    channels, height, width = model.pretrained_cfg["input_size"]
    if channels != 3 or height != width:
        raise CdlError(f"its images are {channels} x {height} x {width}; expected square RGB")
    return int(height)


def validate(model: Any, size: int) -> int:
    """Run a model, also on the meta device, on an image of a size; return the feature's width.

    Raises:
        CdlError: it cannot read images of this size, or gives something else than one vector.
    """
    device = next(model.parameters()).device
    try:
        with torch.no_grad():
            found = model(torch.zeros(1, 3, size, size, device=device))
    except Exception as error:  # models raise errors of any type at sizes they do not expect
        problem = f"it cannot read images of {size} x {size} pixels: {first_line(error)}"
        raise CdlError(problem) from error
    if not isinstance(found, Tensor) or found.dim() != 2 or len(found) != 1:
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise CdlError(f"its output is {shape}; expected one feature vector, (1, D)")
    return int(found.shape[1])


def resized(name: str, arguments: Mapping[str, Any], model: Any, size: int) -> Any:
    """Return a model for images of another size, with the same weights.

    A model whose input size is fixed is built with timm's argument `img_size`, and its position
    embeddings are resampled by timm's conversion of weights; others are returned unchanged.

    Raises:
        CdlError: timm cannot build it with this size, or its weights do not fit.
    """
    if not model.pretrained_cfg.get("fixed_input_size"):
        return model
    device = next(model.parameters()).device
    made = families.create(name, {**arguments, "img_size": size}, str(device))
    state = weights.convert(model.state_dict(), name, made, f"{name!r} at {size} pixels")
    made.load_state_dict(state)
    return made


def step(name: str, model: Any) -> int | None:
    """Return the number of which all multiples are valid sizes of a model's input.

    Args:
        name: its name.
        model: the model on the meta device.

    Returns:
        A number of `STEPS` of which some multiples were tried; None if the size is fixed.
    """
    for least in STEPS:
        try:
            for factor in FACTORS:
                size = factor * least
                validate(resized(name, {}, model, size), size)
        except CdlError:
            continue
        return least
    return None


def _packed_operations(
    x: Any, *rest: Any, out_shape: Any = None, out_val: Any = None, **more: Any
) -> int:
    """Return the operations of a product with packed weights, which torch does not count."""
    return int(2 * out_shape.numel() * x[-1])
