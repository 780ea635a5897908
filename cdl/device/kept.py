"""Feature vectors of examples that a student keeps, and the answers on them that updates break.

At most `EACH` tokens `[T, D]` of each class are kept, and no images: `examples [k, T, D]` and
`owners [k]`, the positions of their classes. A student without them keeps none.
"""

import numpy as np

EXAMPLES, OWNERS = "examples", "owners"
EACH = 10


def chosen(labels: np.ndarray, held: np.ndarray | None = None) -> np.ndarray:
    """Return which examples to keep: the first of each class, while it has less than `EACH`.

    Args:
        labels: classes of the examples, `[n]`.
        held: classes of those that are kept already; None: there are none.
    """
    owners = np.zeros(0) if held is None else held
    left = {label: max(0, EACH - int((owners == label).sum())) for label in np.unique(labels)}
    rows = [np.flatnonzero(labels == label)[:n] for label, n in left.items()]
    return np.sort(np.concatenate([np.zeros(0, int), *rows]))


def more_examples(
    tensors: dict[str, np.ndarray], tokens: np.ndarray, labels: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the tensors of examples with those of an update, if any are kept."""
    if EXAMPLES not in tensors:
        return {}
    rows = chosen(labels, tensors[OWNERS])
    found = {EXAMPLES: tokens[rows], OWNERS: labels[rows]}
    return {k: np.concatenate([tensors[k], v]).astype(np.float32) for k, v in found.items()}


def fewer_examples(tensors: dict[str, np.ndarray], label: int) -> dict[str, np.ndarray]:
    """Return the tensors of examples without those of a class, whose position is removed."""
    if EXAMPLES not in tensors:
        return {}
    others, owners = tensors[OWNERS] != label, tensors[OWNERS]
    return {EXAMPLES: tensors[EXAMPLES][others], OWNERS: (owners - (owners > label))[others]}
