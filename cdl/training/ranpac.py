"""Ridge regression of RanPAC (McDonnell et al., NeurIPS 2023): one linear solve per task.

With features `H [n, M]` and targets `Y [n, C]` a task adds `H^T H` to the Gram matrix `G` and
`H^T Y` to the prototypes `Q`; the weights are `((G + r I)^-1 Q)^T`. The images of earlier tasks are
not needed. `cdl.device.closed` has the same in numpy, for students that learn on.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from cdl.device.closed import FIT_SHARE, RIDGES
from cdl.methods.heads import PrototypeHead

Sums = dict[str, Tensor]


def accumulate(sums: Mapping[str, Tensor], features: Tensor, targets: Tensor) -> Sums:
    """Return the sums after adding a task.

    Args:
        sums: `gram [M, M]`, `prototypes [M, C]` and `counts [C]` so far, perhaps others; empty
            before task 0.
        features: `[n, M]`.
        targets: `[n, C]`, non-negative; `C` can be larger than in the previous task.
    """
    new = {
        "gram": features.mT @ features,
        "prototypes": features.mT @ targets,
        "counts": targets.sum(0),
    }
    for name in new.keys() & sums.keys():
        old = sums[name]
        shared = new[name] if name == "gram" else new[name][..., : old.shape[-1]]
        shared += old.to(shared.device)
    return new


def ridge_weights(gram: Tensor, prototypes: Tensor, ridge: float) -> Tensor:
    """Return `((G + r I)^-1 Q)^T`, `[C, M]`, solved in float64."""
    system = gram.to(torch.float64, copy=True)
    system.diagonal().add_(ridge)
    solution: Tensor = torch.linalg.solve(system, prototypes.double())
    return solution.mT.to(gram.dtype)


def validation_losses(features: Tensor, targets: Tensor) -> Tensor:
    """Return the mean squared error of each of `RIDGES` on held-out rows, `[17]`.

    The first `int(0.8 n)` rows of features `[n, M]` and targets `[n, C]` are fitted, the others
    are held out; the rows must be in random order. The smaller of two equivalent linear systems is
    solved.
    """
    n = int(FIT_SHARE * len(features))
    fit, rest = features[:n], features[n:]
    if n < features.shape[1]:  # `(H^T H + r I)^-1 H^T = H^T (H H^T + r I)^-1`
        system, right = fit @ fit.mT, targets[:n]
        rest = rest @ fit.mT
    else:
        system, right = fit.mT @ fit, fit.mT @ targets[:n]
    errors = [rest @ ridge_weights(system, right, r).mT - targets[n:] for r in RIDGES]
    return torch.stack([error.square().mean() for error in errors])


def best_ridge(losses: Tensor, gram: Tensor) -> int:
    """Return the index of the numerically safe ridge with the lowest loss `[17]`.

    The rounding errors of a Gram matrix `[M, M]` shift its eigenvalues by about its trace times the
    machine epsilon. Smaller ridges than this are excluded, because their solution would depend on
    the rounding errors. If all are excluded, the largest ridge is used.
    """
    smallest = torch.finfo(gram.dtype).eps * float(gram.trace())
    safe = [i for i, ridge in enumerate(RIDGES) if ridge >= smallest] or [len(RIDGES) - 1]
    return safe[int(losses[safe].argmin())]


def mean_weights(sums: Mapping[str, Tensor]) -> Tensor:
    """Return the mean features of all classes, `[C, M]`; 0 for a class without images."""
    return (sums["prototypes"] / sums["counts"].clamp_min(1e-12)).mT


def solve_operations(images: int, classes: int, width: int, head: PrototypeHead) -> float:
    """Return the operations of one solve without those of the backbone.

    A linear solve counts as `2 M^3 / 3 + 2 M^2 C` operations, an inverse as `11 M^3`.

    Args:
        images: number of images of the task.
        classes: number of classes seen.
        width: width of a token.
        head: the head, with its weights `[C, M]`.
    """
    m, fitted = head.weight.shape[1], int(FIT_SHARE * images)
    projection = 0.0 if head.projection is None else 2.0 * images * width * m
    sums = 2.0 * images * m * (m + classes)
    if not head.ridge:
        return projection + sums + 11.0 * head.inverses * m**3
    small = min(fitted, m)  # size of the smaller system in `validation_losses`
    validation = _solve_operations(small, classes) + 2.0 * (images - fitted) * small * classes
    fit = 2.0 * (images * fitted * m if fitted < m else fitted * m * (m + classes))
    return projection + sums + fit + _solve_operations(m, classes) + len(RIDGES) * validation


def _solve_operations(m: int, classes: int) -> float:
    """Return the operations of solving a system `[m, m]` for all classes."""
    return 2 * m**3 / 3 + 2.0 * m**2 * classes
