"""Knowledge distillation without what the teacher knows of an image's earlier classes."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from cdl.distillers.base import DistillerContext, Output, TeacherOutput
from cdl.distillers.kd import SoftOrHardKD
from cdl.runtime.errors import CdlError


def without_knowledge(logits: Tensor, first: int, earlier: str) -> Tensor:
    """Return logits `[B, C]` of all classes seen, with the columns before `first` replaced.

    With `permuted` row `i` gets those of row `i - 1`: batches have a random order. With `mean`
    all rows get the mean of each column. An image alone would keep its own: raises `CdlError`.
    """
    if first and len(logits) < 2:
        raise CdlError("training.batch_size: invalid value 1; expected 2 or more with kd_control")
    old, own = logits[:, :first], logits[:, first:]
    old = old.roll(1, 0) if earlier == "permuted" else old.mean(0, keepdim=True).expand_as(old)
    return torch.cat([old, own], dim=1)


class KDControl(SoftOrHardKD):
    """The distiller `kd` over all classes seen, as a control; in the first task it is `kd`.

    Z-scores, confidence and hard targets are those of the replaced logits.
    """

    def __init__(
        self,
        context: DistillerContext,
        *,
        soft_columns: str = "seen",
        earlier: str = "permuted",
        **kd: Any,
    ) -> None:
        """Set the control: `earlier` as in `without_knowledge`, the rest as in `kd`."""
        super().__init__(context, soft_columns=soft_columns, **kd)
        self.earlier = earlier

    def forward(
        self, output: Output, teacher_output: TeacherOutput | None, labels: Tensor, classes: slice
    ) -> dict[str, Tensor]:
        assert teacher_output is not None
        logits = without_knowledge(teacher_output.logits, classes.start, self.earlier)
        return super().forward(output, replace(teacher_output, logits=logits), labels, classes)
