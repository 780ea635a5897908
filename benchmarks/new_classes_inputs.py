"""Images, students and settings of the study `new_classes.py`, and what an update predicts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from cdl.data.sources import SOURCES
from cdl.data.sources.items import Item
from cdl.deployment.export import export
from cdl.device.images import Student
from cdl.device.memory import How, Memory

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

    def learnt(self, split: str, n: int, k: int, how: How, memory: Memory | None = None) -> Memory:
        """Return a memory after learning the first `n` classes from `k` images of each.

        `memory` is the one before; None: that of the student.
        """
        tokens, labels = self.of(self.data.classes(split, n), f"seed{self.seed}", k)
        return (memory or self.memory).learn(tokens, labels, len(self.data.names) + n, how)


def conditions() -> Iterator[tuple[int, int]]:
    """Yield numbers of new classes and of images of each: one is varied, the other fixed."""
    yield from ((20, 10), (20, 1), (20, 50), (40, 10), (5, 10), (20, 5), (10, 10))


def save_image(file: Path, pixels: Pixels) -> None:
    """Write an image; make its folder if it is missing."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)
