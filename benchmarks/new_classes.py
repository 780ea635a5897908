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
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import torch
from PIL import Image

from cdl.data.packing import prepare
from cdl.data.sources import SOURCES
from cdl.data.sources.items import Item
from cdl.deployment.device.aligning import Rows
from cdl.deployment.device.closed import Statistics
from cdl.deployment.device.memory import How, Memory
from cdl.deployment.device.student import Student
from cdl.deployment.export import export
from cdl.deployment.learn import learn
from cdl.deployment.one_more_task import trained_specification
from cdl.deployment.trained import TrainedStudent, find_backbone
from cdl.evaluation.evaluate import EvaluationInputs, evaluate_run
from cdl.layout import ResultsFolder, RunFiles
from cdl.methods.heads import LinearHead
from cdl.spec import Alignment, LearnerSpec
from cdl.spec import Stream as StreamSpec
from cdl.training import alignment
from cdl.training.task import TaskInputs, learn_task

SEEDS = range(5)
RUNS = {
    "aligned": "default/cifar20/coda_prompt/student-vit_nano-q-vit_nano",
    "ranpac": "default/cifar20/ranpac/student-vit_nano-q-vit_nano",
}
# learner: its student, and the choices for its updates; the choice among `SETTINGS` of a learner is
# made on the classes and images for validation
SETTINGS: dict[str, tuple[str, dict[str, How]]] = {
    "ridge": (
        "ranpac",
        {
            f"{ridge}, {'balanced' if balance else 'as counted'}": How(None, ridge, balance)
            for ridge in ("all", "last")
            for balance in (True, False)
        },
    ),
    "aligned": ("aligned", {"aligned": How("aligned")}),
    "statistics": (
        "aligned",
        {"balanced": How("ridge"), "as counted": How("ridge", balance=False)},
    ),
}
CHOOSING = range(2)  # seeds with validation
TESTED = ("aligned", "balanced", "all, balanced", "last, as counted")  # chosen, and as published
EACH = 50  # images of a class for learning, for tests, without labels
Pixels = np.ndarray


@dataclass(frozen=True)
class Data:
    """The images of the study, `[n, 32, 32, 3]` each.

    old: test and validation images of the twenty known classes, with labels `[n]`.
    new: images of a new class for learning (of seed 0, 1, ...), without a label, and for tests;
        they are decoded when they are needed.
    tested: new classes of the tests, in their fixed order.
    chosen: new classes that choose the settings.
    """

    names: tuple[str, ...]
    old: Mapping[str, tuple[Pixels, np.ndarray]]
    new: Mapping[str, Mapping[str, Sequence[Item]]]
    tested: tuple[str, ...]
    chosen: tuple[str, ...]

    @classmethod
    def read(cls, folder: Path) -> "Data":
        """Read CIFAR-100 from its binary archive or from Parquet files, and `cifar20`."""
        archive = (folder / "cifar-100-binary.tar.gz").exists()
        whole = SOURCES["cifar100"] if archive else SOURCES["parquet"]
        more = {} if archive else {"class_name": "fine_label"}
        source = whole.read(str(folder), **more)
        old = {}
        for split in ("test", "validation"):
            known = SOURCES["cifar20"].read(test=split)
            items = [item for item in known.items if item.split == "test"]
            labels = np.array([item.label for item in items])
            old[split] = np.stack([item.read() for item in items]), labels
        others = sorted(set(source.classes) - set(known.classes))
        order = [others[i] for i in np.random.default_rng(0).permutation(len(others))]
        items_of: dict[tuple[str, str], list] = {}
        for item in source.items:
            items_of.setdefault((source.classes[item.label], item.split), []).append(item)
        tested, chosen = tuple(order[:40]), tuple(order[40:])
        new = {}
        for position, name in enumerate(order):
            pools = {
                split: np.random.default_rng([position, len(split)]).permutation(
                    np.array(items_of[name, split], dtype=object)
                )
                for split in ("train", "test")
            }
            parts = {f"seed{s}": pools["train"][EACH * s : EACH * (s + 1)] for s in SEEDS}
            parts |= {"validation": pools["train"][250:300], "unlabelled": pools["train"][300:350]}
            parts["test"] = pools["test"][:EACH]
            new[name] = parts
        return cls(tuple(known.classes), old, new, tested, chosen)

    def images(self, name: str, part: str, n: int = EACH) -> Pixels:
        """Return the first `n` images of a part of a new class."""
        return np.stack([item.read() for item in self.new[name][part][:n]])

    def classes(self, split: str, n: int) -> list[str]:
        """Return the first `n` new classes of the tests or of the validation, sorted by name."""
        return sorted((self.tested if split == "test" else self.chosen)[:n])


@dataclass(frozen=True)
class Outcome:
    """What a learner predicts right: `[n]` of old images before and after, and of new images.

    `before` is empty for runs; `cdl learn` starts with the student of the aligned heads.
    """

    before: np.ndarray
    old: np.ndarray
    new: np.ndarray

    def write(self, file: Path, **about: float) -> None:
        """Write the outcome, whole or not at all."""
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial.npz")
        np.savez_compressed(partial, before=self.before, old=self.old, new=self.new, **about)
        partial.rename(file)


@dataclass(frozen=True)
class Study:
    """Where the study reads and writes."""

    results: Path
    data: Data
    output: Path
    seeds: Sequence[int] = SEEDS

    def file(self, split: str, learner: str, setting: str, n: int, k: int, seed: int) -> Path:
        """Return the file of an outcome."""
        return self.output / "outcomes" / split / learner / setting / f"{n}x{k}" / f"{seed}.npz"

    def run(self, student: str, seed: int) -> Path:
        """Return the folder of a run."""
        return self.results / RUNS[student] / f"seed{seed}"

    def student(self, student: str, seed: int) -> Student:
        """Return an exported student, which is made if it is missing."""
        folder = self.output / "students" / student / f"seed{seed}"
        if not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            export(self.run(student, seed), folder, check=False)
        return Student(folder)


class Features:
    """The tokens of a student for all images of its seed, read once."""

    def __init__(self, study: Study, name: str, seed: int) -> None:
        """Read the tokens from a file, which is made if it is missing."""
        self.student, self.data, self.seed = study.student(name, seed), study.data, seed
        self.memory = self.student._memory()
        file = study.output / "features" / f"{name}{seed}.npz"
        if not file.exists():
            file.parent.mkdir(exist_ok=True)
            found = {
                f"{name}/{part}": self.student.features(self.data.images(name, part))
                for name in self.data.new
                for part in self._parts(name)
            }
            found |= {k: self.student.features(v[0]) for k, v in self.data.old.items()}
            np.savez(file, **found)
        self.tokens = dict(np.load(file))

    def _parts(self, name: str) -> tuple[str, ...]:
        """Return the images of a new class that are read."""
        own = f"seed{self.seed}"
        if name in self.data.chosen:
            return ("validation", own) if self.seed in CHOOSING else ()
        first = name in self.data.classes("test", 20)
        return ("test", own, *(["unlabelled"] if first else []))

    def of(self, classes: Sequence[str], part: str, k: int = EACH) -> tuple[np.ndarray, np.ndarray]:
        """Return tokens of the first `k` images of new classes, and their labels."""
        tokens = np.concatenate([self.tokens[f"{name}/{part}"][:k] for name in classes])
        first = len(self.data.names)
        return tokens, first + np.arange(len(classes)).repeat(k)

    def outcome(self, split: str, n: int, learnt: Memory) -> Outcome:
        """Return what a memory that learnt the first `n` classes predicts right."""
        names = [*self.data.names, *self.data.classes(split, n)]
        known = [names.index(name) for name in self.student.classes]  # order in which it learnt
        position = np.array([*known, *range(len(known), len(names))])
        labels = self.data.old[split][1]
        tokens, new = self.of(self.data.classes(split, n), split)
        before, old = (m.logits(self.tokens[split]).argmax(1) for m in (self.memory, learnt))
        found = learnt.logits(tokens).argmax(1)
        return Outcome(position[before] == labels, position[old] == labels, found == new)

    def learnt(self, split: str, n: int, k: int, how: How) -> Memory:
        """Return the memory after learning the first `n` classes from `k` images of each."""
        tokens, labels = self.of(self.data.classes(split, n), f"seed{self.seed}", k)
        return self.memory.learn(tokens, labels, len(self.data.names) + n, how)


def conditions() -> Iterator[tuple[int, int]]:
    """Yield numbers of new classes and of images of each: one is varied, the other fixed."""
    yield from ((20, 10), (20, 1), (20, 50), (40, 10), (5, 10), (20, 5), (10, 10))


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
        tokens, labels = features.of(names, f"seed{features.seed}", k)
        return shifted.learn(tokens, labels, known + n, how)

    def torch_draws() -> Memory:
        with mock.patch("cdl.deployment.device.memory.align", _align_in_torch):
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
        tokens, labels = features.of(names, f"seed{features.seed}", k)
        return memory.learn(tokens, labels, known + n, how)

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
    spread = statistics.sampled_spread() - (alignment.RIDGE if statistics.kind == "centroid" else 0)
    own = {"mean": torch.tensor(statistics.mean).float(), "spread": torch.tensor(spread).float()}
    options = Alignment(**how)  # type: ignore[arg-type]
    shape = len(weight), options.samples, weight.shape[1]
    alignment.align(head, own, sizes, options, alignment.drawing((key,), shape))
    weight, bias = (part.detach().double().numpy() for part in head.linear.parameters())
    return weight, bias


def with_torch(study: Study) -> None:
    """Learn one more task with `cdl learn`; the new run is removed after its evaluation."""
    for n, k in conditions():
        for seed in study.seeds:
            file = study.file("test", "torch", "cdl learn", n, k, seed)
            if file.exists():
                continue
            classes, run = study.data.classes("test", n), study.run("aligned", seed)
            begin = time.process_time()
            with tempfile.TemporaryDirectory() as folder:
                for part, count in ((f"seed{seed}", k), ("test", EACH)):
                    _write_images(Path(folder, part), study.data, classes, part, count)
                name = f"study{n}x{k}s{seed}"
                learnt = learn(run, Path(folder, f"seed{seed}"), name, test=Path(folder, "test"))
            seconds = time.process_time() - begin
            right = _right(RunFiles(learnt.run).predictions, classes)
            Outcome(np.zeros(0, bool), *right).write(file, seconds=seconds)
            shutil.rmtree(study.results / name)
            for packed in (study.results / "data").glob(f"{name}-*"):
                shutil.rmtree(packed)


def joint(study: Study) -> None:
    """Train on all images of old and new classes as one task, as `joint: true` does."""
    for n, k in conditions():
        for seed in study.seeds:
            file = study.file("test", "joint", "joint", n, k, seed)
            if not file.exists():
                begin = time.process_time()
                right = _train_jointly(study, n, k, seed)
                seconds = time.process_time() - begin
                Outcome(np.zeros(0, bool), *right).write(file, seconds=seconds)


def _train_jointly(study: Study, n: int, k: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    student = TrainedStudent.open(study.run("aligned", seed))
    classes = study.data.classes("test", n)
    everything = (*student.classes, *classes)
    spec = replace(
        trained_specification(student),
        stream=StreamSpec((len(everything),), everything),
        images_per_class=None,
    )
    with tempfile.TemporaryDirectory() as folder:
        photos, packed, files = Path(folder, "photos"), Path(folder, "packed"), Path(folder, "run")
        known = [item for item in SOURCES["cifar20"].read().items]
        for i, item in enumerate(known):
            _save(photos / item.split / study.data.names[item.label] / f"{i:05}.png", item.read())
        _write_images(photos / "train", study.data, classes, f"seed{seed}", k)
        _write_images(photos / "test", study.data, classes, "test", EACH)
        prepare(packed, {"name": "folder", "path": str(photos)})
        backbones = _backbones(study, student, spec)
        run = RunFiles(str(files))
        Path(run.task(0).folder).mkdir(parents=True)
        task = run.task(0)
        learn_task(
            spec, 0, TaskInputs(data=str(packed), backbones=backbones), task.learner, task.losses
        )
        inputs = EvaluationInputs(str(packed), [task.learner], backbones, {})
        evaluate_run(spec, inputs, run.results, run.predictions, images_per_class=None)
        return _right(run.predictions, classes)


def _backbones(study: Study, student: TrainedStudent, spec: LearnerSpec) -> dict[str, str]:
    hashes = student.results["backbones"]
    folder = ResultsFolder.of_run(Path(student.files.folder))
    return {name: find_backbone(folder, name, hashes[name]) for name in {spec.backbone, spec.query}}


def _right(predictions: str, new: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return what a run predicts right of old and of new classes, in the order of the images."""
    found = pd.read_parquet(predictions).sort_values("image", kind="stable")
    is_new, correct = found["class"].isin(list(new)).to_numpy(), found["correct"].to_numpy()
    return correct[~is_new], correct[is_new]


def _write_images(folder: Path, data: Data, classes: Sequence[str], part: str, n: int) -> None:
    for name in classes:
        for i, pixels in enumerate(data.images(name, part, n)):
            _save(folder / name / f"{i:03}.png", pixels)


def _save(file: Path, pixels: Pixels) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)


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
                        _save(Path(folder, "new", first, f"{i:03}.png"), pixels[i])
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
                    measured = ("images_per_second", "milliseconds", "peak_memory_mb", "bytes")
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
