"""The released recipe's structure, as our own plain implementation, to compare with.

What the released code does and this project does not: everything is fp32; the backbones are not
frozen, so every backward pass computes the weight gradients of a whole ViT and keeps them, though
only prompts and heads learn; attention matrices are written out; the query backbone runs once for
the teacher's and once for the student's prompts; the teacher runs for every student and epoch;
views are made by Pillow in worker processes, each from a random state of its own.

Prompts, heads and losses are this project's modules, so that both recipes compute one function and
differ in structure alone. The released code spends time on more, such as token correlations that
nobody reads; that is left out, to the recipe's advantage. On a GPU its convolutions run in TF32,
torch's default, which this project turns off for itself.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from cdl.backbones.images import FrozenViT
from cdl.backbones.vit import Encoded
from cdl.data.batches import Batch
from cdl.data.packed import Packed
from cdl.data.views import Views
from cdl.distillers.base import TeacherOutput
from cdl.models.learner import Learner


@contextmanager
def default_tf32() -> Iterator[None]:
    """Let cuDNN's convolutions use TF32, as torch does where nobody forbids it."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


class Unfrozen(FrozenViT):
    """A ViT in fp32 whose weights get gradients and whose attention matrices are kept."""

    def __init__(self, *given: object) -> None:
        super().__init__(*given)
        self.model.requires_grad_(True)

    def place(self, compute: object) -> "Unfrozen":
        """Move to the device; the weights stay fp32."""
        return self.to(compute.device)

    def encode(self, *given: Any, **options: Any) -> Encoded:
        """Encode as a backbone does, by plain matrix products and a softmax."""
        with sdpa_kernel(SDPBackend.MATH), default_tf32():
            return super().encode(*given, **options)


class Recipe:
    """Steps of a teacher and of a student that it teaches online."""

    def __init__(
        self,
        student: Learner,
        teacher: Learner,
        foreign_query: Unfrozen | None,
        *,
        task: int,
        classes: slice,
        lr: float,
    ) -> None:
        """Prepare both stages of a task.

        Args:
            student: on an `Unfrozen` backbone.
            teacher: the learner that teaches, on an `Unfrozen` backbone of its own.
            foreign_query: what the teacher's prompts query; None if they query nothing.
            task: counted from 0.
            classes: head columns of the task.
            lr: of Adam.
        """
        self.student, self.teacher, self.foreign_query = student, teacher, foreign_query
        self.task, self.classes = task, classes
        self.optimizers = {
            learner: torch.optim.Adam(
                (p for n, p in learner.named_parameters() if not n.startswith("backbone.")), lr=lr
            )
            for learner in (student, teacher)
        }

    def teacher_step(self, batch: Batch) -> Tensor:
        """Learn a batch of views as the teacher; return the loss."""
        return self._learn(self.teacher.train(), batch, self._foreign(batch), None)

    def student_step(self, batch: Batch) -> Tensor:
        """Learn a batch of views from labels and teacher; return the loss."""
        keep = self.student.compared_blocks
        with torch.no_grad():
            foreign = self._foreign(batch)
            told = self.teacher.eval()(batch.views, foreign, self.task, keep_blocks=keep)
        taught = TeacherOutput(told.logits[:, self.classes], foreign, told.blocks)
        query = self.student.backbone.query(batch.views) if self.student.needs_query else None
        return self._learn(self.student.train(), batch, query, taught)

    def _foreign(self, batch: Batch) -> Tensor | None:
        return self.foreign_query.query(batch.views) if self.foreign_query else None

    @default_tf32()
    def _learn(
        self, learner: Learner, batch: Batch, query: Tensor | None, taught: TeacherOutput | None
    ) -> Tensor:
        foreign = taught.query if taught else None
        output = learner(batch.views, query, self.task, foreign, learner.compared_blocks)
        loss = sum(learner.losses(output, taught, batch.labels, self.classes).values())
        self.optimizers[learner].zero_grad()  # not the backbone's gradients: nobody owns them
        loss.backward()
        self.optimizers[learner].step()
        return loss.detach()


class PillowViews(Dataset):
    """Training images as random views, made one by one by Pillow and torchvision."""

    def __init__(self, data: Packed, indices: Tensor, labels: Tensor, views: Views) -> None:
        """Read the images of a task; `labels` `[n]` are theirs."""
        pixels = data.pixels(indices)
        self.images = [
            Image.fromarray(image[:, :height, :width].permute(1, 2, 0).numpy())
            for images, sizes, _ in pixels.parts(torch.arange(len(pixels)))
            for image, (height, width) in zip(images, sizes.tolist(), strict=True)
        ]
        self.labels = labels
        self.view = transforms.Compose(
            [
                transforms.RandomResizedCrop(views.size, views.crop_scale, views.crop_ratio),
                transforms.RandomHorizontalFlip(views.flip),
                transforms.ToTensor(),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.view(self.images[index]), self.labels[index]


def batches(data: PillowViews, batch_size: int, workers: int, device: torch.device) -> Iterator:
    """Yield one epoch of batches of views, made in worker processes and copied to the device."""
    loader = DataLoader(
        data,
        batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        pin_memory=device.type == "cuda",
    )
    for images, labels in loader:
        yield Batch(images.to(device), labels.to(device), 0, torch.empty(0))
