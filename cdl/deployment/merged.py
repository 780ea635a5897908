"""A student whose branches are merged into its weights: a plain ViT with a head."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from cdl.backbones import families
from cdl.backbones.frozen import Backbone
from cdl.backbones.inside import merged
from cdl.deployment.student import Pictures, Student
from cdl.deployment.trained import Model, TrainedStudent
from cdl.distillers.base import Distiller
from cdl.methods.base import PromptMethod, Prompts
from cdl.methods.heads import Head
from cdl.models.learner import Learner
from cdl.runtime import artifacts
from cdl.runtime.errors import CdlError


class _Nothing(PromptMethod):
    """What is left of a method after its branches have been merged."""

    def forward(self, query: Tensor | None, task: int) -> Prompts:
        return Prompts()


def plain(model: Model) -> Model:
    """Return a model with the same predictions and plain weights, or the model itself.

    Low-rank branches and SSF have plain weights; adapters, prefixes, further tokens and several
    passes do not. The weights are merged in fp32.
    """
    learner = model.learner
    if learner.needs_query:
        return model
    with torch.no_grad():
        prompts = learner.prompts(None, model.task)
    single = len(prompts.inside) == 1 and prompts.inside[0].mergeable
    if not single or prompts.prefixes or prompts.additions:
        return model
    own = learner.backbone
    vit = merged(own.vit, prompts.inside[0])
    mean, std = own.mean.flatten().tolist(), own.std.flatten().tolist()
    backbone = Backbone(vit, mean, std, own.fingerprint, own.interpolation)
    made = Learner(backbone, _Nothing(), learner.head, learner.distiller, needs_query=False)
    return Model(made, model.task, model.n_classes)


class TimmStudent(Student):
    """A student in a file that `timm.create_model` loads."""

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

    def preprocess(self, images: Pictures) -> Tensor:
        """Return normalised test views `[n, 3, size, size]`."""
        return (self._student.preprocess(images) - self._mean) / self._std

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
        CdlError: the prediction is more than a plain ViT with a linear head.
    """
    backbone, n = model.learner.backbone, model.n_classes
    weight, bias = _linear_head(model)
    state = {**backbone.vit.state_dict(), "head.weight": weight[:n], "head.bias": bias[:n]}
    with artifacts.replacing(file) as temporary:
        save_file({name: t.detach().contiguous() for name, t in state.items()}, temporary)
    return {
        "model": record.get("timm_model", families.PLAIN),
        "arguments": {**record["architecture"], "img_size": backbone.size, "num_classes": n},
        "mean": backbone.mean.flatten().tolist(),
        "std": backbone.std.flatten().tolist(),
    }


def _linear_head(model: Model) -> tuple[Tensor, Tensor]:
    """Return weight and bias of the head; raise `CdlError` if timm's ViT lacks a part."""
    learner = model.learner
    own = None if learner.needs_query else learner.prompts(None, model.task)
    linear = learner.head.as_linear() if isinstance(learner.head, Head) else None
    if own is None or own.prefixes or own.additions or own.inside:
        what = "the method changes the forward pass of the ViT"
    elif type(learner.distiller).predict is not Distiller.predict:
        what = "the distiller has a second head for the prediction"
    elif linear is None:
        what = f"{type(learner.head).__name__} is not a linear map of the pooled feature"
    else:
        return linear
    raise CdlError(f"--format timm: {what}, which a model of timm lacks; use --format onnx")
