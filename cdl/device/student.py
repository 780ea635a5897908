"""A student in its folder that predicts, learns, forgets and undoes."""

import time
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from cdl.device.belonging import THRESHOLD
from cdl.device.classifier import Classifier, probabilities
from cdl.device.errors import CdlError, first_line
from cdl.device.graph import FEATURES, LOGITS, Graph, open_onnx
from cdl.device.items import ByClass, Items, by_name
from cdl.device.kept import EXAMPLES, OWNERS
from cdl.device.memory import How, Memory
from cdl.device.names import check_class_name
from cdl.device.process import peak_memory
from cdl.device.sealed import REMEDY
from cdl.device.stored import MEMORY, computing, read_memory, write_memory
from cdl.device.update import Lesson, Update, check_keeping, flipped, held_out, tested
from cdl.device.versions import (
    add_version,
    check,
    current_version,
    place_of,
    undo_version,
)

MODEL, CLASSES = "model.onnx", "classes.txt"
MEASURED = (1, 10, 100)  # numbers of items in `costs`


class DeviceStudent(Classifier):
    """An exported student in its folder; see `Classifier` for predictions.

    Every change is a new version in the folder, see `versions`.

    Attributes:
        takes: the class of its items.
    """

    takes: ClassVar[type[Items]]

    def __init__(self, folder: str | PathLike[str], threads: int = 1, verify: bool = True) -> None:
        """Load the current version.

        Args:
            folder: folder with `model.onnx`, `classes.txt`, for texts `tokenizer.json` and, to
                learn, `memory.safetensors`.
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
        self.items = self._open_items()
        self._graph = self._open(threads)
        if self._graph.classes not in (None, len(names)):
            raise CdlError(
                f"{self.folder / CLASSES}: contains {len(names)} classes, {MODEL} has "
                f"{self._graph.classes}; {REMEDY}"
            )
        self._load()

    def _verify(self) -> None:
        check(self.folder)

    def _open_items(self) -> Items:
        return self.takes.open(self.folder)

    def _open(self, threads: int) -> Graph:
        return open_onnx(self.folder / MODEL, threads)

    def _load(self) -> None:
        """Read classes and heads of the current version; version 0 has its heads in the graph."""
        self.classes = read_classes(place_of(self.folder, self.version) / CLASSES)
        self._heads = self._memory(whole=False) if self.version else None
        self._scoring = self._heads  # read for `scored` and `judged` when these are used

    def _memory(self, whole: bool = True) -> Memory:
        """Return the memory of the current version; raise `CdlError` if there is none."""
        if not (self.folder / MEMORY).exists() or self._graph.tokens is None:
            raise CdlError(
                f"{self.folder}: has no {MEMORY}, so it cannot learn; its card says why; export "
                "with class statistics and without --no-memory"
            )
        place, shared = place_of(self.folder, self.version), self.folder / MEMORY
        found = read_memory(
            place / MEMORY, shared if self.version else None, whole, self._graph.tokens
        )
        if len(found.tensors["counts"]) != len(self.classes):
            raise CdlError(f"{place}: its classes and its memory differ; undo, or {REMEDY}")
        return found

    def preprocess(self, given: Any) -> np.ndarray:
        """Return the input of the graph for items that fit into one batch.

        Images are pixels `[n, H, W, 3]` uint8 of one size; resizing is in the graph. Texts are ids
        of tokens `[n, N]`.

        Raises:
            CdlError: an item cannot be read, or images differ in size.
        """
        return self.items.array(given)

    def logits(self, batch: np.ndarray) -> np.ndarray:
        """Return logits `[n, C]` of the output of `preprocess`.

        Raises:
            CdlError: the model cannot be run, or its output is not one number per class.
        """
        return self._logits(batch)[0]

    def _logits(self, batch: np.ndarray, *more: str) -> list[np.ndarray]:
        """Return logits and further outputs of the graph."""
        if self._heads is not None:
            (tokens,) = self._run(batch, FEATURES)
            return [self._heads.logits(tokens), tokens]
        logits, *others = self._run(batch, LOGITS, *more)
        if logits.shape != (expected := (len(batch), len(self.classes))):
            raise CdlError(
                f"{self.folder}: the model's output has shape {logits.shape}, expected "
                f"{expected}; {REMEDY}"
            )
        return [logits, *others]

    def features(self, given: Any) -> np.ndarray:
        """Return the tokens `[n, T, D]` that the heads read; raise `CdlError` as `predict`."""
        if self._graph.tokens is None:
            raise CdlError(f"{self.folder}: {MODEL} has no features; {REMEDY} with cdl 0.3")
        return self.in_batches(
            given, lambda some: self._run(self.preprocess(some), FEATURES)[0], *self._graph.tokens
        )

    @property
    def scored(self) -> bool:
        if self._scoring is None and (self.folder / MEMORY).exists() and self._graph.tokens:
            self._scoring = self._memory(whole=False)
        return self._scoring is not None and THRESHOLD in self._scoring.tensors

    def judged(self, given: Any) -> tuple[np.ndarray, np.ndarray]:
        memory, width = self._scoring if self.scored else None, len(self.classes)
        if memory is None:
            return super().judged(given)

        def run(some: list[Any]) -> np.ndarray:
            logits, tokens = self._logits(self.preprocess(some), FEATURES)
            return np.concatenate([logits, memory.scores(tokens)], axis=1)

        found = self.in_batches(given, run, width + 2)
        return probabilities(found[:, :width]), found[:, width:]

    def _run(self, batch: np.ndarray, *outputs: str) -> list[np.ndarray]:
        try:
            return self._graph.run(batch, outputs)
        except Exception as error:  # runtimes raise errors of various types
            raise CdlError(
                f"{self.folder}: the model cannot be run ({first_line(error)}); {REMEDY}"
            ) from error

    def learn(
        self,
        items: ByClass,
        *,
        test: ByClass | None = None,
        unlabelled: Any = None,
        head: str | None = None,
        ridge: str = "all",
        balance: bool = True,
        check: ByClass | None = None,
        keep_earlier: float | None = None,
    ) -> Update:
        """Learn new classes, or more of known ones, without earlier items; write a new version.

        Args:
            items: training images or texts by name of their class, of which one is enough; or a
                path, see `Items.by_class`.
            test: the same of any of the classes, to test; None: every fifth item of each class.
            unlabelled: items of known or new classes, added with the student's own answers.
            head: see `How`.
            ridge: see `How`.
            balance: see `How`.
            check: the same of earlier classes, on which `Update.flips` is measured; None: on the
                examples that the student keeps.
            keep_earlier: the order among earlier classes stays as it is for every item, and at most
                this percentage of the kept examples, and of `check`, becomes a new class; None:
                heads are computed for all classes.

        Raises:
            CdlError: an argument is invalid, an item cannot be read, or the folder cannot be
                written; nothing is changed in this case.
        """
        given = by_name(items, self.items)
        how = How(head, ridge, balance, 0 if keep_earlier is None else len(self.classes))
        memory = self._memory()
        learnt = tuple(name for name in given if name not in self.classes)
        names = (*self.classes, *learnt)
        tests = by_name(test, self.items, names) if test else {}
        features = {name: self.features(some) for name, some in tests.items()}
        examples = self._examples(memory, check)
        limited = [*filter(len, (memory.tensors.get(EXAMPLES, examples[0]), examples[0]))]
        if keep_earlier is not None:
            check_keeping(memory, keep_earlier, given, self.classes, sum(map(len, limited)))
        begin = time.perf_counter()
        tokens, labels = self._labelled(given, names)
        more = tokens[:0] if unlabelled is None else self.features(unlabelled)
        seconds, n = time.perf_counter() - begin, len(tokens) + len(more)
        lesson = Lesson(memory, tokens, labels, more, len(names), how, limited, keep_earlier)
        with computing(self.folder):
            begin = time.perf_counter()
            new = lesson.learnt().after(memory, tokens, labels)
            milliseconds = 1e3 * (time.perf_counter() - begin)
            both = self.classes, names
            found = tested(memory, new, features, *both) if features else held_out(lesson)
            found |= flipped(memory, new, examples, *both)
            self._add(new, names)
        extended = tuple(name for name in given if name not in learnt)
        costs = n, n / max(seconds, 1e-9), milliseconds, peak_memory()
        return self._update(new, learnt, extended, (), *costs, **found)

    def _examples(self, memory: Memory, check: ByClass | None) -> tuple[np.ndarray, np.ndarray]:
        """Return tokens and classes of given items, or of the examples that are kept."""
        if check is not None:
            given = by_name(check, self.items, self.classes, "check")
            return self._labelled(given, self.classes)
        none = np.zeros((0, 1, 1))
        return memory.tensors.get(EXAMPLES, none), memory.tensors.get(OWNERS, none[:, 0, 0])

    def _labelled(
        self, items: Mapping[str, list[Any]], names: tuple[str, ...]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the tokens of items and the positions of their classes."""
        labels = [np.full(len(some), names.index(name)) for name, some in items.items()]
        tokens = self.features([item for some in items.values() for item in some])
        return tokens, np.concatenate(labels)

    def forget(self, name: str, check: ByClass | None = None) -> Update:
        """Remove a class; write a new version.

        The class is not predicted any more, and its statistics are removed. A ridge's Gram matrix,
        which has no classes, keeps the sums of its images; `undo` of the update that learnt the
        class removes these, too.

        Args:
            name: of the class.
            check: see `learn`.

        Raises:
            CdlError: the student does not know the class, or it knows no other.
        """
        name = check_class_name(name, "forget")
        if name not in self.classes:
            raise CdlError(
                f"{name!r:.100}: is not a class of this student, so it cannot be forgotten"
            )
        if len(self.classes) == 1:
            raise CdlError(f"{name!r:.100}: is the last class, so it cannot be forgotten")
        label = self.classes.index(name)
        with computing(self.folder):
            before, names = self._memory(), self.classes[:label] + self.classes[label + 1 :]
            memory, examples = before.forget(label), self._examples(before, check)
            found = flipped(before, memory, examples, self.classes, names)
            self._add(memory, names)
        return self._update(memory, forgotten=(name,), **found)

    def undo(self) -> Update:
        """Return to the version before the last update; raise `CdlError` if it is not kept."""
        self.version = undo_version(self.folder, self.version)
        self._load()
        return Update(self.version, len(self.classes), items=self.items.kind)

    def info(self) -> dict[str, Any]:
        """Return version, classes, kind of heads, and the size of the state in bytes."""
        found: dict[str, Any] = {"version": self.version, "classes": list(self.classes)}
        if (self.folder / MEMORY).exists():
            memory = self._memory()
            size, each = memory.bytes()
            found |= {"kind": memory.about["kind"], "bytes": size, "bytes_per_class": each}
            found["counts"] = dict(zip(self.classes, memory.images().tolist(), strict=True))
        return found

    def costs(self) -> dict[str, Any]:
        """Measure what a prediction and a new class cost on this machine; nothing is kept.

        Images are of random pixels, texts of random words.

        Returns:
            `predict_milliseconds` of one item; `learn`: for each number of items the speed of
            computing their features, the time to compute the heads, and the peak memory of this
            process until then; `bytes` of the state, by the number of further classes.

        Raises:
            CdlError: the student cannot learn.
        """
        memory, n_classes, rows = self._memory(), len(self.classes), []
        for n in (1, *MEASURED):  # the first one is not measured
            items = self.items.random(n)
            begin = time.perf_counter()
            self.predict(items[0])
            predicted = time.perf_counter()
            tokens = self.features(items)
            done = time.perf_counter()
            with computing(self.folder):
                memory.learn(tokens, np.full(n, n_classes), n_classes + 1, How())
            spent = {"items_per_second": n / (done - predicted)}
            spent |= {"milliseconds": 1e3 * (time.perf_counter() - done)}
            rows.append({"count": n, **spent, "peak_memory_mb": peak_memory()})
        size, each = memory.bytes()
        return {
            "predict_milliseconds": 1e3 * (predicted - begin),
            "learn": rows[1:],
            "bytes": {n: size + n * each for n in (0, *MEASURED)},
        }

    def _update(self, memory: Memory, *facts: Any, **more: Any) -> Update:
        """Return an update to the current version, with what it did and brought."""
        more |= {"bytes": memory.bytes()[0], "items": self.items.kind, "folder": str(self.folder)}
        return Update(self.version, len(self.classes), *facts, **more)

    def _add(self, memory: Memory, names: tuple[str, ...]) -> None:
        """Write a version and load it."""

        def write(place: Path) -> None:
            text = "".join(f"{name}\n" for name in names)
            (place / CLASSES).write_text(text, encoding="utf-8")
            write_memory(memory, place / MEMORY, without="projection")

        self.version = add_version(self.folder, self.version, write)
        self._load()


def read_classes(file: Path) -> tuple[str, ...]:
    """Return the class names of an exported folder, one per line; raise `CdlError` if invalid."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise CdlError(f"{file.parent}: is not an exported student ({error}); {REMEDY}") from error
    names = [check_class_name(line, file) for line in lines]
    if len(set(names)) < len(names):
        raise CdlError(f"{file}: contains a class twice; {REMEDY}")
    return tuple(names)
