"""Study: which part of a loss's gain do heads without training give, on the same features?

    cdl run config/default.yaml --cores 2
    python benchmarks/rescaled_heads.py [--write]

Five heads on the features of the last students of `none` and of `kd` over all classes seen, heads
as learnt, and on those of the frozen backbone; all test images of `cifar20`, five seeds. Mean and
standard deviation of each class's logits, class means and the ridge are those of all training
images, which no continual learner has at once. `--write` keeps the table of docs/studies/heads.md.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from cdl.data.packed import Packed
from cdl.deployment.parity import items_of
from cdl.deployment.trained import TrainedStudent
from cdl.device.belonging import unit
from cdl.device.closed import best_ridge, one_hot, ridge_weights, squared_errors
from cdl.reporting.crossed import estimate
from tools import pages

RUNS = Path("results/default/cifar20")
CELLS = {
    "`none`": "coda_prompt/student+learnt-vit_nano-q-vit_nano",
    "`kd`, all classes seen": "coda_prompt/kd+seen-vit_nano-from-vit_micro-q-vit_nano",
    "frozen backbone": "simple_cil/student-vit_nano-q-vit_nano",
}
SEEDS, WIDTH = range(5), 2000


def features(student: TrainedStudent, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the features `[n, D]` of all images of a split and their classes, as learnt."""
    packed = student.packed()
    assert packed is not None, "the run's images are in its results folder"
    images = Packed(packed.folder, split)
    parts = items_of(student, images, np.arange(len(images)))
    found = np.concatenate([student.features(part)[:, 0] for part in parts])
    labels = [student.classes.index(images.classes[label]) for label in images.labels]
    return found, np.array(labels)


def heads(student: TrainedStudent) -> dict[str, np.ndarray]:
    """Return for each head which test images are right, `[n]`."""
    (train, own), (test, labels) = features(student, "train"), features(student, "test")
    n, found = len(student.classes), {}
    if (head := student.model.learner.head.as_linear()) is not None:
        weight, bias = (part.detach().numpy() for part in head)
        before, logits = train @ weight.T + bias, test @ weight.T + bias
        found["as learnt"] = logits
        found["rows of equal norm"] = test @ unit(weight).T
        found["logits standardised by class"] = (logits - before.mean(0)) / before.std(0)
    means = np.stack([train[own == label].mean(0) for label in range(n)])
    found["class means"] = unit(test) @ unit(means).T
    drawn = np.random.default_rng(0).standard_normal((train.shape[1], WIDTH)).astype(np.float32)
    rows, targets = np.maximum(train @ drawn, 0), one_hot(own, n)
    gram = rows.T @ rows
    ridge = best_ridge(squared_errors(rows, targets, 0), gram)
    found["a ridge"] = np.maximum(test @ drawn, 0) @ ridge_weights(gram, rows.T @ targets, ridge).T
    return {name: logits.argmax(1) == labels for name, logits in found.items()}


def main() -> None:
    """Measure and print all heads; with `--write`, keep the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="keep the table of the page")
    write = parser.parse_args().write
    torch.set_num_threads(1)
    right: dict[tuple[str, str], np.ndarray] = {}
    for cell, folder in CELLS.items():
        every = [heads(TrainedStudent.open(RUNS / folder / f"seed{seed}")) for seed in SEEDS]
        for name in every[0]:
            right[name, cell] = 100 * np.stack([found[name] for found in every])
    (none, seen, _), kept = CELLS, []
    for (name, cell), hits in right.items():
        kept.append({"head": name, "column": cell, "value": f"{hits.mean():.1f}"})
        if cell == seen:
            mean, low, high = estimate(hits - right[name, none]).interval
            ends = {"low": f"{low:.1f}", "high": f"{high:.1f}"}
            kept.append({"head": name, "column": "difference", "value": f"{mean:+.1f}", **ends})
    own = estimate(right["logits standardised by class", none] - right["as learnt", none])
    print("standardised minus as learnt, none:", own.interval)
    print(pages.table([{"low": "", "high": "", **cell} for cell in kept]))
    if write:
        origin = pages.origin("benchmarks/rescaled_heads.py, after config/default.yaml", ())
        pages.write(pages.DATA / "heads_rescaled.csv", origin, kept)


if __name__ == "__main__":
    main()
