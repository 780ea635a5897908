"""Draw a task's labelled images: class-balanced, nested, equal for all learners."""

from collections.abc import Sequence

import torch
from torch import Tensor

from cdl.runtime.errors import CdlError
from cdl.runtime.seeds import permutation
from cdl.spec import Labels

UNLABELLED, UNUSED = -1, -2  # replace the label of an image without one, and of one not used
_DRAW = 103  # purpose of the counter-based draws


def known_labels(labels: Tensor, given: Labels | None, seed: int, order: Sequence[int]) -> Tensor:
    """Replace the labels that no learner may see by `UNLABELLED`, or by `UNUSED`.

    The order of a class's images is a function of seed and class, and the first ones keep their
    label. So the labelled images of `per_class: 5` are a subset of those of `per_class: 10`. If the
    labels have a seed of their own, the class is its label in the dataset, so that equal images are
    labelled in every class order; else it is its position in the order.

    Args:
        labels: `[n]` positions in the class order, of a task's images, in each class by ascending
            index.
        given: `per_class`, the number of labelled images of each class, or `fraction`, their share
            (rounded, at least one image); `seed` of the draw; `others: unused` if the images
            without a label are not used; None keeps all labels.
        seed: the run's seed.
        order: labels of all classes in the dataset, by position.

    Raises:
        CdlError: a class has fewer images than `per_class`.
    """
    if given is None:
        return labels
    known = torch.full_like(labels, UNLABELLED if given.others is None else UNUSED)
    for label in labels.unique().tolist():
        own = torch.nonzero(labels == label)[:, 0]
        n = given.per_class
        if n is None:
            n = max(1, round((given.fraction or 0.0) * len(own)))
        if n > len(own):
            raise CdlError(
                f"labels.per_class: {n} is too large: a class has {len(own)} training examples"
            )
        keys = (seed, label) if given.seed is None else (given.seed, order[label])
        chosen = own[permutation((_DRAW, *keys), len(own))[:n]]
        known[chosen] = label
    return known


def learnt_from(labels: Tensor, taught: bool) -> Tensor:
    """Return the positions of the images that a learner learns from.

    Args:
        labels: `[n]`, `UNLABELLED` for unlabelled images, `UNUSED` for images not used.
        taught: whether a teacher gives targets for unlabelled images, so that these are used, too.
    """
    return torch.nonzero(labels != UNUSED if taught else labels >= 0)[:, 0]
