"""A student in its folder that predicts, learns, forgets and undoes."""

import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from cdl.data.sources.names import check_class_name
from cdl.deployment.device.classifier import (
    Classifier,
    Picture,
    Pictures,
    in_batches,
    read,
    several,
)
from cdl.deployment.device.images import check_images
from cdl.deployment.device.memory import (
    CHOICES,
    HEADS,
    MEMORY,
    How,
    Memory,
    read_memory,
    write_memory,
)
from cdl.deployment.device.versions import (
    add_version,
    check_version,
    current_version,
    parent_of,
    place_of,
    switch,
)
from cdl.runtime.errors import CdlError

MODEL, CLASSES = "model.onnx", "classes.txt"
LOGITS, FEATURES = "logits", "features"
REMEDY = "export it again"
HELD_OUT = 5  # every fifth image of a class measures the accuracy, if there are no test images
Run = Callable[[np.ndarray, str], np.ndarray]  # pixels [n, H, W, 3] and the name of an output


@dataclass(frozen=True)
class Graph:
    """The frozen network.

    run: function from pixels `[n, H, W, 3]` and the name of an output to its values.
    classes: number of its classes; None if the runtime does not say.
    tokens: shape `[T, D]` of its features; None if it has no such output.
    """

    run: Run
    classes: int | None
    tokens: tuple[int, int] | None = None


@dataclass(frozen=True)
class Update:
    """What an update did and cost.

    version: number of the version that is now the current one.
    classes: number of classes of the student.
    learnt: names of new classes.
    extended: names of classes that got more images.
    forgotten: names of classes that were removed.
    images: number of images, with unlabelled ones.
    images_per_second: speed of reading them and computing their features.
    milliseconds: time to compute the heads.
    peak_memory_mb: peak memory of this process.
    bytes: size of the state.
    accuracy: percent of images, by name: `held_out` (every fifth image, learnt from the others),
        or with test images `earlier_before`, `earlier_after` and `new`.
    """

    version: int
    classes: int
    learnt: tuple[str, ...] = ()
    extended: tuple[str, ...] = ()
    forgotten: tuple[str, ...] = ()
    images: int = 0
    images_per_second: float = 0.0
    milliseconds: float = 0.0
    peak_memory_mb: float | None = None
    bytes: int = 0
    accuracy: Mapping[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the update for JSON."""
        return asdict(self)

    def text(self) -> str:
        """Return the update as text for the terminal."""
        groups = ("learnt", self.learnt), ("extended", self.extended), ("forgot", self.forgotten)
        what = [f"{word} {', '.join(names)}" for word, names in groups if names]
        lines = [f"version {self.version}, {self.classes} classes{''.join('; ' + w for w in what)}"]
        if self.images:
            memory = f", peak memory {self.peak_memory_mb:.0f} MB" if self.peak_memory_mb else ""
            lines.append(
                f"{self.images} images at {self.images_per_second:.1f} images/s, heads in "
                f"{self.milliseconds:.0f} ms{memory}; state {self.bytes / 1e6:.2f} MB"
            )
        lines += [f"accuracy, {k.replace('_', ' ')}: {v:.2f} %" for k, v in self.accuracy.items()]
        return "\n".join(lines)


class Student(Classifier):
    """An exported student in its folder; see `Classifier` for predictions.

    Every change is a new version in the folder, see `versions`.
    """

    def __init__(self, folder: str | PathLike[str], threads: int = 1, verify: bool = True) -> None:
        """Load the current version.

        Args:
            folder: folder with `model.onnx`, `classes.txt` and, to learn, `memory.safetensors`.
            threads: number of threads of onnxruntime.
            verify: whether to compare all files with their sha256 in the manifest.

        Raises:
            CdlError: onnxruntime is not installed, or a file is missing or damaged.
        """
        self.folder = Path(folder)
        self.version = current_version(self.folder)
        if verify:
            self._verify()
        names = read_classes(self.folder / CLASSES)
        self._graph = self._open(threads)
        if self._graph.classes not in (None, len(names)):
            raise CdlError(
                f"{self.folder / CLASSES}: contains {len(names)} classes, {MODEL} has "
                f"{self._graph.classes}; {REMEDY}"
            )
        self._load()

    def _verify(self) -> None:
        for version in {0, self.version}:
            check_version(self.folder, version)

    def _open(self, threads: int) -> Graph:
        return open_onnx(self.folder / MODEL, threads)

    def _load(self) -> None:
        """Read classes and heads of the current version; version 0 has its heads in the graph."""
        place = place_of(self.folder, self.version)
        self.classes = read_classes(place / CLASSES)
        self._heads = self._memory(whole=False) if self.version else None
        if self._heads is not None and len(self._heads.tensors["counts"]) != len(self.classes):
            raise CdlError(f"{place}: its classes and its memory differ; undo, or {REMEDY}")

    def _memory(self, whole: bool = True) -> Memory:
        """Return the memory of the current version; raise `CdlError` if there is none."""
        if not (self.folder / MEMORY).exists() or self._graph.tokens is None:
            raise CdlError(
                f"{self.folder}: has no {MEMORY}, so it cannot learn; its card says why; export "
                "with class statistics and without --no-memory"
            )
        shared = self.folder / MEMORY if self.version else None
        return read_memory(place_of(self.folder, self.version) / MEMORY, shared, whole)

    def preprocess(self, images: Pictures) -> np.ndarray:
        """Return pixels `[n, H, W, 3]` uint8 of images of one size; resizing is in the graph.

        Raises:
            CdlError: an image cannot be read, or images differ in size.
        """
        pixels = [read(image) for image in several(images)]
        sizes = {image.shape[:2] for image in pixels}
        if not pixels:
            raise CdlError("images: there is none; expected at least one")
        if len(sizes) > 1:
            raise CdlError(f"images: have {len(sizes)} sizes; expected one size per batch")
        return np.stack(pixels)

    def logits(self, batch: np.ndarray) -> np.ndarray:
        """Return logits `[n, C]` of pixels.

        Raises:
            CdlError: the model cannot be run, or its output is not one number per class.
        """
        if self._heads is not None:
            return self._heads.logits(self._run(batch, FEATURES))
        logits = self._run(batch, LOGITS)
        if logits.shape != (expected := (len(batch), len(self.classes))):
            raise CdlError(
                f"{self.folder}: the model's output has shape {logits.shape}, expected "
                f"{expected}; {REMEDY}"
            )
        return logits

    def features(self, images: Pictures) -> np.ndarray:
        """Return the tokens `[n, T, D]` that the heads read; raise `CdlError` as `predict`."""
        if self._graph.tokens is None:
            raise CdlError(f"{self.folder}: {MODEL} has no features; {REMEDY} with cdl 0.3")
        pixels = [read(image) for image in several(images)]
        run: Callable[[list[np.ndarray]], np.ndarray]
        run = lambda some: self._run(np.stack(some), FEATURES)  # noqa: E731
        return in_batches(pixels, run, self._graph.tokens)

    def _run(self, batch: np.ndarray, output: str) -> np.ndarray:
        try:
            return self._graph.run(batch, output)
        except Exception as error:  # runtimes raise errors of various types
            raise CdlError(
                f"{self.folder}: the model cannot be run ({first_line(error)}); {REMEDY}"
            ) from error

    def learn(
        self,
        images: Mapping[str, Pictures],
        *,
        test: Mapping[str, Pictures] | None = None,
        unlabelled: Pictures | None = None,
        head: str | None = None,
        ridge: str = "all",
        balance: bool = True,
    ) -> Update:
        """Learn new classes, or more of known ones, without earlier images; write a new version.

        Args:
            images: training images by name of their class; one image is enough.
            test: test images of any of the classes, by name; without them, every fifth image of a
                class with five or more measures the accuracy before all are learnt.
            unlabelled: images of known or new classes, added with the student's own answers.
            head: see `How`, as `ridge` and `balance`.
            ridge: see `How`.
            balance: see `How`.

        Raises:
            CdlError: an argument is invalid, an image cannot be read, or the folder cannot be
                written; nothing is changed in this case.
        """
        check_images(images)
        _check_choice("head", head, (None, *HEADS))
        _check_choice("ridge", ridge, CHOICES)
        how = How(head, ridge, balance)
        memory, given = self._memory(), {name: several(some) for name, some in images.items()}
        learnt = tuple(name for name in given if name not in self.classes)
        names = (*self.classes, *learnt)
        empty = [name for name, some in given.items() if not some]
        if empty:
            raise CdlError(f"images: there is none of {empty[0]!r}; expected at least one")
        tests = {k: self.features(v) for k, v in _known(test or {}, names).items()}
        begin = time.perf_counter()
        tokens, labels = self._labelled(given, names)
        more = None if unlabelled is None else self.features(unlabelled)
        seconds = time.perf_counter() - begin

        def updated(rows: np.ndarray) -> Memory:
            found = memory.learn(tokens[rows], labels[rows], len(names), how)
            if more is not None:
                answers = found.logits(more).argmax(1)
                found = found.learn(more, answers, len(names), how)
            return found

        accuracy = {} if tests else _held_out(updated, tokens, labels)
        begin = time.perf_counter()
        new = updated(np.arange(len(labels)))
        milliseconds = 1e3 * (time.perf_counter() - begin)
        if tests:
            accuracy = _tested(memory, new, tests, self.classes, names)
        self._add(new, names)
        n = len(tokens) + (0 if more is None else len(more))
        costs = (n, n / max(seconds, 1e-9), milliseconds, peak_memory(), new.bytes()[0], accuracy)
        extended = tuple(name for name in given if name not in learnt)
        return Update(self.version, len(names), learnt, extended, (), *costs)

    def _labelled(
        self, images: Mapping[str, list[Picture]], names: tuple[str, ...]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the tokens of images and the positions of their classes."""
        tokens = [self.features(some) for some in images.values()]
        labels = [np.full(len(some), names.index(name)) for name, some in images.items()]
        return np.concatenate(tokens), np.concatenate(labels)

    def forget(self, name: str) -> Update:
        """Remove a class; write a new version.

        The class is not predicted any more, and its statistics are removed. A ridge's Gram matrix,
        which has no classes, keeps the sums of its images; `undo` of the update that learnt the
        class removes these, too.

        Raises:
            CdlError: the student does not know the class, or it knows no other.
        """
        if name not in self.classes:
            raise CdlError(
                f"{name!r:.100}: is not a class of this student, so it cannot be forgotten"
            )
        if len(self.classes) == 1:
            raise CdlError(f"{name!r:.100}: is the last class, so it cannot be forgotten")
        label = self.classes.index(name)
        memory = self._memory().forget(label)
        self._add(memory, self.classes[:label] + self.classes[label + 1 :])
        size = memory.bytes()[0]
        return Update(self.version, len(self.classes), forgotten=(name,), bytes=size)

    def undo(self) -> Update:
        """Return to the version before the last update; raise `CdlError` if it is not kept."""
        parent = parent_of(self.folder, self.version)
        if parent < 0:
            raise CdlError(f"{self.folder}: is as it was exported, so there is nothing to undo")
        if not place_of(self.folder, parent).is_dir():
            raise CdlError(f"{self.folder}: no version before {self.version} is kept")
        switch(self.folder, parent)
        self.version = parent
        self._load()
        return Update(self.version, len(self.classes))

    def info(self) -> dict[str, Any]:
        """Return version, classes, kind of heads, and the size of the state in bytes."""
        found: dict[str, Any] = {"version": self.version, "classes": list(self.classes)}
        if (self.folder / MEMORY).exists():
            memory = self._memory()
            size, each = memory.bytes()
            found |= {"kind": memory.about["kind"], "bytes": size, "bytes_per_class": each}
            found["images"] = dict(zip(self.classes, memory.images().tolist(), strict=True))
        return found

    def _add(self, memory: Memory, names: tuple[str, ...]) -> None:
        """Write a version and load it."""

        def write(place: Path) -> None:
            text = "".join(f"{name}\n" for name in names)
            (place / CLASSES).write_text(text, encoding="utf-8")
            write_memory(memory, place / MEMORY, without="projection")

        self.version = add_version(self.folder, self.version, write)
        self._load()


def _held_out(
    updated: Callable[[np.ndarray], Memory], tokens: np.ndarray, labels: np.ndarray
) -> dict[str, float]:
    """Return the accuracy on every fifth image of each class, after learning the others."""
    found = [np.flatnonzero(labels == label)[HELD_OUT - 1 :: HELD_OUT] for label in set(labels)]
    rows = np.concatenate(found)
    if not len(rows):
        return {}
    memory = updated(np.delete(np.arange(len(labels)), rows))
    right = memory.logits(tokens[rows]).argmax(1) == labels[rows]
    return {"held_out": 100 * float(right.mean())}


def _tested(
    before: Memory,
    after: Memory,
    tests: Mapping[str, np.ndarray],
    old: tuple[str, ...],
    names: tuple[str, ...],
) -> dict[str, float]:
    """Return the accuracy on test images of earlier classes before and after, and of new ones."""

    def right(memory: Memory, some: Iterable[str]) -> list[float]:
        hits = [memory.logits(tests[k]).argmax(1) == names.index(k) for k in some]
        return [100 * float(np.concatenate(hits).mean())] if hits else []

    earlier = [name for name in tests if name in old]
    groups = {
        "earlier_before": right(before, earlier),
        "earlier_after": right(after, earlier),
        "new": right(after, [name for name in tests if name not in old]),
    }
    return {name: value for name, values in groups.items() for value in values}


def _known(test: Mapping[str, Pictures], names: tuple[str, ...]) -> Mapping[str, Pictures]:
    for name in test:
        if name not in names:
            raise CdlError(
                f"test: {name!r:.100} is not a class of this student; expected its classes"
            )
    return test


def _check_choice(name: str, value: str | None, expected: tuple[str | None, ...]) -> None:
    if value not in expected:
        words = " or ".join(word for word in expected if word)
        raise CdlError(f"{name}: invalid value {value!r:.50}; expected {words}")


def read_classes(file: Path) -> tuple[str, ...]:
    """Return the class names of an exported folder, one per line; raise `CdlError` if invalid."""
    try:
        names = file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise CdlError(f"{file.parent}: is not an exported student ({error}); {REMEDY}") from error
    for name in names:
        check_class_name(name, file)
    if len(set(names)) < len(names):
        raise CdlError(f"{file}: contains a class twice; {REMEDY}")
    return tuple(names)


def open_onnx(file: Path, threads: int) -> Graph:
    """Load an ONNX graph; raise `CdlError` if it is damaged or onnxruntime is not installed."""
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise CdlError(
            "exported students need the package onnxruntime, which is not installed: "
            "pip install onnxruntime"
        ) from error
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        (images,), (logits, *others) = session.get_inputs(), session.get_outputs()
        _, n_classes = logits.shape
        tokens = [out.shape[1:] for out in others if out.name == FEATURES and len(out.shape) == 3]
    except Exception as error:  # onnxruntime raises various types for damaged files
        raise CdlError(f"{file}: cannot be read ({first_line(error)}); {REMEDY}") from error

    def run(batch: np.ndarray, output: str) -> np.ndarray:
        name = logits.name if output == LOGITS else output
        return np.asarray(session.run([name], {images.name: batch})[0])

    shape = (int(tokens[0][0]), int(tokens[0][1])) if tokens else None
    return Graph(run, n_classes if isinstance(n_classes, int) else None, shape)


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its type."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def peak_memory() -> float | None:
    """Return the peak memory of this process in MB; None where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
