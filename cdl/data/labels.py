"""Which of a task's training images have a label: few, class-balanced, nested, the same for all."""

import torch
from torch import Tensor

from cdl.runtime.errors import CdlError
from cdl.runtime.seeds import permutation
from cdl.spec import Labels

UNLABELLED = -1  # in the place of a label
_DRAW = 103  # purpose of the counter-based draws


def known_labels(labels: Tensor, given: Labels | None, seed: int) -> Tensor:
    """Return labels with `UNLABELLED` in the place of those that no learner may see.

    Of each class the images come in an order that is a function of seed and class, and the first
    have a label: those of `per_class: 5` are among those of `per_class: 10`.

    Args:
        labels: `[n]` positions in the class order, of a task's images, in each class by ascending
            index.
        given: `per_class`, how many of each class have a label, or `fraction`, which share of them
            (rounded, at least one); None: all.
        seed: the run's seed.

    Raises:
        CdlError: a class has fewer images than shall have a label.
    """
    if given is None:
        return labels
    known = torch.full_like(labels, UNLABELLED)
    for label in labels.unique().tolist():
        own = torch.nonzero(labels == label)[:, 0]
        n = given.per_class or max(1, round((given.fraction or 0.0) * len(own)))
        if n > len(own):
            raise CdlError(
                f"labels.per_class: {n}, but a class has only {len(own)} training images"
            )
        chosen = own[permutation((_DRAW, seed, label), len(own))[:n]]
        known[chosen] = label
    return known


def learnt_from(labels: Tensor, taught: bool) -> Tensor:
    """Return the positions of the images that tell a learner something.

    Args:
        labels: `[n]`, `UNLABELLED` where the learner knows none.
        taught: whether a teacher answers for those without a label, so that all count.
    """
    return torch.arange(len(labels)) if taught else torch.nonzero(labels != UNLABELLED)[:, 0]
