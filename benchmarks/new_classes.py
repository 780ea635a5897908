"""Study: exported students learn classes of CIFAR-100 that they never saw, without torch.

    python benchmarks/new_classes.py RESULTS data/cifar100 OUTPUT [--parts device torch joint ...]

RESULTS is the folder with the five seeds of `config/default.yaml`; its twenty classes are every
fifth of CIFAR-100. Of the other eighty, forty drawn once are the new classes of the tests, in a
fixed order, and the others choose the settings, on training images that no learner sees. A seed
draws the images that its student learns. Parts:

    device   ridge (ranpac), aligned heads, and a ridge from class statistics, in numpy
    torch    `cdl learn` on the runs of the aligned students: prompts learn, too
    joint    one training on all images of all classes, old and new, with the settings of the runs
    choices  draws of torch instead of `device.draws`, unlabelled images, class after class, fp16
    costs    a class of 1, 10 and 100 images, learnt by `student.py`, and bytes by classes

Each outcome is a file below OUTPUT, so that a stopped study goes on. `new_classes_report.py` writes
the table and the figure from them.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import torch
from new_classes_inputs import (
    CHOOSING,
    SEEDS,
    SETTINGS,
    TESTED,
    Data,
    Features,
    Study,
    conditions,
    save_image,
)
from new_classes_torch import joint, with_torch

from cdl.device.aligning import Rows
from cdl.device.closed import DIAGONAL, Statistics
from cdl.device.memory import How, Memory
from cdl.methods.heads import LinearHead
from cdl.spec import Alignment
from cdl.training import alignment


def device(study: Study) -> None:
    """Learn in numpy: every setting for the choice, the chosen and the published for the tests."""
    for seed in study.seeds:
        for learner, (name, settings) in SETTINGS.items():
            features = Features(study, name, seed)
            for split in ("validation", "test") if seed in CHOOSING else ("test",):
                tested = {k: how for k, how in settings.items() if split != "test" or k in TESTED}
                for setting, how in tested.items():
                    for n, k in conditions():
                        file = study.file(split, learner, setting, n, k, seed)
                        if not file.exists():
                            begin = time.process_time()
                            learnt = features.learnt(split, n, k, how)
                            seconds = time.process_time() - begin
                            found = features.outcome(split, n, learnt)
                            found.write(file, seconds=seconds, bytes=learnt.bytes()[0])


def choices(study: Study) -> None:
    """Measure choices with 20 new classes: draws, unlabelled images, fp16, one class at a time."""
    n, split = 20, "test"
    for seed in study.seeds:
        for learner, (name, settings) in SETTINGS.items():
            features, how = Features(study, name, seed), next(iter(settings.values()))
            for k in (1, 10):
                for choice, learnt in _choices(features, split, n, k, how, learner):
                    file = study.file("choices", learner, choice, n, k, seed)
                    if not file.exists():
                        features.outcome(split, n, learnt()).write(file)


def _choices(
    features: Features, split: str, n: int, k: int, how: How, learner: str
) -> Iterator[tuple[str, Callable[[], Memory]]]:
    """Yield names of choices and functions that learn with them."""
    names, known = features.data.classes(split, n), len(features.data.names)

    def other_draws() -> Memory:
        shifted = type(features.memory)(
            {**features.memory.about, "updates": 1000}, features.memory.tensors
        )
        return features.learnt(split, n, k, how, shifted)

    def torch_draws() -> Memory:
        with mock.patch("cdl.device.aligned.align", _align_in_torch):
            return features.learnt(split, n, k, how)

    def unlabelled() -> Memory:
        found = features.learnt(split, n, k, how)
        more, _ = features.of(names, "unlabelled")
        return found.learn(more, found.logits(more).argmax(1), known + n, how)

    def one_by_one() -> Memory:
        found = features.memory
        for i, name in enumerate(names):
            tokens, _ = features.of([name], f"seed{features.seed}", k)
            found = found.learn(tokens, np.full(k, known + i), known + i + 1, how)
        return found

    def halved() -> Memory:
        rounded = {
            key: fp16(tensor)
            if key.split(".")[-1] in ("gram", "spread", "mean", "sums")
            else tensor
            for key, tensor in features.memory.tensors.items()
        }
        memory = type(features.memory)(features.memory.about, rounded)
        return features.learnt(split, n, k, how, memory)

    if learner == "aligned":
        yield "other draws", other_draws
        yield "draws of torch", torch_draws
    yield "unlabelled", unlabelled
    yield "fp16", halved
    if k > 1:
        yield "one by one", one_by_one


def fp16(tensor: np.ndarray) -> np.ndarray:
    """Round to fp16 after scaling the largest value to 1000."""
    scale = 1000 / max(float(np.abs(tensor).max()), 1e-12)
    return (tensor * scale).astype(np.float16).astype(np.float32) / np.float32(scale)


def _align_in_torch(
    rows: Rows,
    statistics: Statistics,
    sizes: Sequence[int],
    how: Mapping[str, object],
    key: int,
    normalised: bool = False,
) -> Rows:
    """Align as `device.aligning.align`, by the code and with the draws of the training."""
    assert not normalised, "the students of the study have linear heads"
    weight, bias = rows
    head = LinearHead(weight.shape[1], len(weight), torch.Generator())
    with torch.no_grad():
        head.linear.weight.copy_(torch.tensor(weight))
        head.linear.bias.copy_(torch.tensor(bias))
    spread = statistics.sampled_spread() - (DIAGONAL if statistics.kind == "centroid" else 0)
    own = {"mean": torch.tensor(statistics.mean).float(), "spread": torch.tensor(spread).float()}
    options = Alignment(**how)  # type: ignore[arg-type]
    shape = len(weight), options.samples, weight.shape[1]
    alignment.align(head, own, sizes, options, alignment.drawing((key,), shape))
    weight, bias = (part.detach().double().numpy() for part in head.linear.parameters())
    return weight, bias


def costs(study: Study, rounds: int = 5) -> None:
    """Learn a class of 1, 10 and 100 images by `student.py`, in a process of its own."""
    rows = []
    (first, *_) = study.data.tested
    pixels = np.concatenate([study.data.images(first, f"seed{s}") for s in (0, 1)])
    for learner in ("ridge", "aligned", "statistics"):
        source = study.student(SETTINGS[learner][0], 0).folder
        head = ["--head", "ridge"] if learner == "statistics" else []
        for _ in range(rounds):
            for n in (1, 10, 100):
                with tempfile.TemporaryDirectory() as folder:
                    shutil.copytree(source, Path(folder, "student"))
                    for i in range(n):
                        save_image(Path(folder, "new", first, f"{i:03}.png"), pixels[i])
                    command = [
                        sys.executable,
                        "student/student.py",
                        "learn",
                        "new",
                        "--json",
                        *head,
                    ]
                    done = subprocess.run(command, cwd=folder, capture_output=True, check=True)
                    found = json.loads(done.stdout)
                    measured = ("items_per_second", "milliseconds", "peak_memory_mb", "bytes")
                    rows.append(
                        {"learner": learner, "images": n, **{m: found[m] for m in measured}}
                    )
    pd.DataFrame(rows).to_csv(study.output / "costs.csv", index=False)


PARTS = {"device": device, "torch": with_torch, "joint": joint, "choices": choices, "costs": costs}


def main() -> None:
    """Run parts of the study."""
    parser = argparse.ArgumentParser(description="A student learns new classes where it is.")
    parser.add_argument("results", type=Path, help="results of config/default.yaml, five seeds")
    parser.add_argument("cifar100", type=Path, help="folder of CIFAR-100")
    parser.add_argument("output", type=Path)
    parser.add_argument("--seeds", nargs="+", type=int, choices=SEEDS, default=list(SEEDS))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    study = Study(given.results, Data.read(given.cifar100), given.output, given.seeds)
    for part in given.parts:
        PARTS[part](study)
        print(f"{part}: {time.process_time():.0f} s of processor time so far", flush=True)


if __name__ == "__main__":
    main()
