"""A student whose branches are merged into its weights: a plain ViT with a head."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from cdl.backbones import families
from cdl.backbones.images import FrozenViT
from cdl.deployment.model import Model
from cdl.deployment.trained import TrainedStudent
from cdl.device.classifier import Classifier
from cdl.device.images import Images, Pictures
from cdl.models.plain import linear_head, merge
from cdl.runtime import artifacts
from cdl.runtime.errors import CdlError


def plain(model: Model) -> Model:
    """Return a model with the same predictions and plain weights, or the model itself.

    See `cdl.models.plain.merge`.
    """
    learner = merge(model.learner, model.task)
    return model if learner is model.learner else Model(learner, model.task, model.n_classes)


class TimmStudent(Classifier):
    """A student in a file that `timm.create_model` loads."""

    items = Images()

    def __init__(self, file: Path, about: Mapping[str, Any], student: TrainedStudent) -> None:
        """Load the file by timm alone.

        Args:
            file: safetensors file of `write_timm`.
            about: return value of `write_timm`.
            student: the student of the run, which preprocesses images.
        """
        self.classes, self._student = student.classes, student
        model: Any = timm.create_model(
            about["model"], checkpoint_path=str(file), **about["arguments"]
        )
        self._model = model.eval()
        self._mean, self._std = (
            torch.tensor(about[name]).view(3, 1, 1) for name in ("mean", "std")
        )

    def preprocess(self, given: Pictures) -> Tensor:
        """Return normalised test views `[n, 3, size, size]`."""
        return (self._student.preprocess(given) - self._mean) / self._std

    @torch.no_grad()
    def logits(self, batch: Tensor) -> np.ndarray:
        """Return logits `[n, C]` of views."""
        return np.asarray(self._model(batch))


def write_timm(model: Model, record: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """Write ViT and head as one safetensors file with timm's names.

    Args:
        model: a model from `plain`.
        record: JSON record of its backbone.
        file: file to write.

    Returns:
        `model` and `arguments` of `timm.create_model`, and `mean` and `std` of the input.

    Raises:
        CdlError: the backbone is no ViT, or the prediction is more than one with a linear head.
    """
    backbone, n = model.learner.backbone, model.n_classes
    if not isinstance(backbone, FrozenViT):
        raise CdlError(
            "--format timm: is only available for backbones that can be prompted; use --format onnx"
        )
    linear = linear_head(model.learner, model.task)
    if isinstance(linear, str):
        raise CdlError(f"--format timm: {linear}, which a model of timm lacks; use --format onnx")
    weight, bias = linear
    state = {**backbone.model.state_dict(), "head.weight": weight[:n], "head.bias": bias[:n]}
    with artifacts.replacing(file) as temporary:
        save_file({name: t.detach().contiguous() for name, t in state.items()}, temporary)
    return {
        "model": record.get("timm_model", families.PLAIN),
        "arguments": {**record["architecture"], "img_size": backbone.size, "num_classes": n},
        "mean": backbone.mean.flatten().tolist(),
        "std": backbone.std.flatten().tolist(),
    }


def timm_config(
    about: Mapping[str, Any], views: Any, classes: Sequence[str], licence: str | None
) -> dict[str, Any]:
    """Return the content of `config.json`, with which timm loads the folder or its Hub page alone.

    Args:
        about: return value of `write_timm`.
        views: the run's views, of which the configuration has the test view.
        classes: class names.
        licence: licence of the backbone's weights; None: not known.
    """
    size, short = about["arguments"]["img_size"], views.test_resize
    crop = 1.0 if short is None else size / short
    if short is not None and int(size / crop) != short:  # timm rounds down
        crop = size / (short + 0.5)
    known = timm.get_pretrained_cfg(about["model"], allow_unregistered=True)
    return {
        "architecture": about["model"],
        "num_classes": len(classes),
        "label_names": list(classes),
        "model_args": dict(about["arguments"]),
        "pretrained_cfg": {
            "custom_load": False,
            "input_size": [3, size, size],
            "fixed_input_size": True,
            "interpolation": "bilinear",
            "crop_pct": crop,
            "crop_mode": "squash" if short is None else "center",
            "mean": about["mean"],
            "std": about["std"],
            "num_classes": len(classes),
            "first_conv": getattr(known, "first_conv", None) or "patch_embed.proj",
            "classifier": getattr(known, "classifier", None) or "head",
            **({"license": licence} if licence else {}),
        },
    }
