"""What a student remembers of all classes instead of images, and its heads in closed form.

`memory.safetensors` has these tensors, and JSON in its metadata under the key `cdl`. Symmetric
matrices are stored as their upper triangles (`closed.pack`).

- `kind: ridge` (or `mean`, the nearest class mean): `sums [M, C]` and `counts [C]` of weighted
  images, `images [C]`, `weight [C, M]`, `gram`, `losses [17]` (total squared errors on validation
  images of all tasks, by ridge), and `projection [D, M]`, whose products with a token, if positive,
  are the features. `parts` are position and factor of the token of each head: the features of
  several heads with class means are side by side, and their logits are added up. `bias [C]` is
  added to the logits after updates that kept earlier columns (`How.keep`).
- `kind: aligned`: `counts [C]`, `TOKEN.mean` and `TOKEN.spread` of every token with a head;
  `HEAD.weight` and `HEAD.bias`, the heads in use, and `HEAD.trained.*`, from which the alignment
  starts. `sizes` are the classes of each task, `alignment` those of `cdl.spec.SampledAlignment`.
- Of both kinds, if the export read training images: `threshold [C]`, see `belonging`; `examples`
  and `owners`, see `kept`.
"""

import contextlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from cdl.device.aligning import Rows, align, head_logits, started
from cdl.device.belonging import THRESHOLD, nearest, thresholds_after, unit
from cdl.device.closed import (
    RIDGES,
    Statistics,
    best_ridge,
    one_hot,
    pack,
    ridge_weights,
    squared_errors,
    unpack,
)
from cdl.device.errors import CdlError
from cdl.device.kept import EXAMPLES, OWNERS, fewer_examples, more_examples
from cdl.device.sealed import REMEDY, check_json

MEMORY = "memory.safetensors"
HEADS = ("aligned", "ridge")
CHOICES = ("all", "last")
_KEY = "cdl"
_FIXED = ("gram", "losses", "projection")  # tensors that do not grow with the classes
# parts of names of those for predictions
_PREDICT = ("counts", "weight", "bias", "projection", "sums", "mean", THRESHOLD)
_OF_HEAD = ("weight", "bias", "trained.weight", "trained.bias")
_STATISTICS = ("covariance", "variance", "centroid")
_HOW = {"statistic": _STATISTICS, "samples": range(1, 10**6), "epochs": range(1, 10**6)}
_ALIGNED = {"sizes": [range(2**31)], "closed": bool, "alignment": _HOW}

Tensors = dict[str, np.ndarray]


@dataclass(frozen=True)
class How:
    """Choices for an update.

    head: how to compute heads with class statistics, one of `HEADS`; None: as before.
    ridge: images that choose a ridge, one of `CHOICES`: those of all tasks, or of this update
        alone, as published.
    balance: whether a class with few images counts in a ridge as much as the earlier classes on
        average; else each image counts once.
    keep: number of earlier classes whose columns stay as they are, of a ridge or class means.
    """

    head: str | None = None
    ridge: str = "all"
    balance: bool = True
    keep: int = 0


class Memory(ABC):
    """The state of a student that learns; it does not change, an update returns another one.

    Attributes:
        kinds: those that a class implements; a program has one of the classes.
        keeps: whether `learn` can leave the columns of earlier classes as they are.
    """

    kinds: ClassVar[tuple[str, ...]]
    keeps: ClassVar[bool] = False

    def __init__(self, about: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> None:
        """Keep the content of a file.

        Args:
            about: `kind`, the options of the kind, and the number of `updates` after the export.
            tensors: by name, see above.
        """
        self.about, self.tensors = dict(about), dict(tensors)

    def bytes(self) -> tuple[int, int]:
        """Return the bytes of all tensors, and those that a further class adds."""
        sizes = {name: tensor.nbytes for name, tensor in self.tensors.items()}
        grows = sum(size for name, size in sizes.items() if name not in _FIXED)
        return sum(sizes.values()), grows // max(1, len(self.tensors["counts"]))

    def images(self) -> np.ndarray:
        """Return the number of images of each class, `[C]`."""
        return self.tensors.get("images", self.tensors["counts"])

    @abstractmethod
    def logits(self, tokens: np.ndarray) -> np.ndarray:
        """Return logits `[n, C]` for tokens `[n, T, D]`, the graph's second output."""

    @abstractmethod
    def learn(self, tokens: np.ndarray, labels: np.ndarray, n: int, how: How) -> "Memory":
        """Return the memory after an update.

        Args:
            tokens: `[k, T, D]`.
            labels: classes `[k]` of the images, those of new classes from `C` on.
            n: number of classes after the update.
            how: choices for the update.
        """

    @abstractmethod
    def without(self, label: int) -> "Memory":
        """Return the memory without a class, but with all of `threshold`, `examples`, `owners`."""

    @abstractmethod
    def features(self, tokens: np.ndarray) -> np.ndarray:
        """Return what the class means are of, `[n, M]`, for tokens `[n, T, D]`."""

    @abstractmethod
    def means(self) -> np.ndarray:
        """Return the class means, `[C, M]`."""

    def forget(self, label: int) -> "Memory":
        """Return the memory without a class."""
        found, kept = self.without(label), fewer_examples(self.tensors, label)
        if THRESHOLD in self.tensors:
            kept[THRESHOLD] = np.delete(self.tensors[THRESHOLD], label)
        found.tensors |= kept
        return found

    def after(self, before: "Memory", tokens: np.ndarray, labels: np.ndarray) -> "Memory":
        """Return the memory with the thresholds and examples after an update of another one.

        Args:
            before: the memory before the update; without thresholds or examples there will be none.
            tokens: `[k, T, D]` of the update.
            labels: their classes `[k]`.
        """
        new = self.tensors | more_examples(before.tensors, tokens, labels)
        if THRESHOLD in before.tensors:
            known, features = before.tensors[THRESHOLD], self.features(tokens)
            new[THRESHOLD] = thresholds_after(known, features, labels, self.means(), self.images())
        return make_memory(self.about, new)

    def lowered(self, examples: np.ndarray, keep: int, percent: float) -> "Memory":
        """Return the memory with a bias of the new classes that lets few examples move to them.

        Args:
            examples: tokens of earlier classes, `[k, T, D]`.
            keep: number of earlier classes.
            percent: the largest share of examples whose class may become a new one.
        """
        logits, new = self.logits(examples), self.tensors["bias"].copy()
        margins = np.sort(logits[:, :keep].max(1) - logits[:, keep:].max(1))
        allowed = int(percent * len(margins) / 100)
        if allowed < len(margins):  # rounding must not move one more
            new[keep:] += min(0.0, float(margins[allowed]) - 1e-6 * float(np.abs(logits).max()))
        return make_memory(self.about, {**self.tensors, "bias": new})

    def scores(self, tokens: np.ndarray) -> np.ndarray:
        """Return score and threshold of tokens `[n, T, D]`, see `belonging`, `[n, 2]`."""
        return nearest(self.features(tokens), self.means(), self.tensors[THRESHOLD])

    @abstractmethod
    def needed(self) -> list[str]:
        """Return the names of its tensors; raise `ValueError` if an option is invalid."""

    def check(self) -> None:
        """Raise `ValueError` or `LookupError` unless options and tensors fit together.

        The shapes of all tensors follow from `counts [C]` and a `weight [C, D]`; their numbers are
        finite. Invalid options that are not checked here raise errors where they are used.
        """
        n, k = len(self.tensors["counts"]), len(self.tensors.get(OWNERS, ()))
        kept = [OWNERS, EXAMPLES] if k or EXAMPLES in self.tensors else []
        needed = ["counts", *self.needed(), *kept]
        width = [self.tensors[name].shape[-1] for name in needed if name.endswith("weight")][0]
        square = width * (width + 1) // 2
        wide = self.about.get("alignment", {}).get("statistic") == "covariance"
        shapes = {
            **{"counts": (n,), "images": (n,), "bias": (n,), "losses": (len(RIDGES),)},
            **{"weight": (n, width), "mean": (n, width), "sums": (width, n), "gram": (square,)},
            **{"spread": (n, square if wide else width), OWNERS: (k,)},
            EXAMPLES: (k, *self.tensors.get(EXAMPLES, np.zeros(0)).shape[1:]),
        }
        for name in needed:
            shape, expected = self.tensors[name].shape, shapes[name.split(".")[-1]]
            if shape != expected:
                raise ValueError(f"{name}: invalid shape {shape}; expected {expected}")
        for name, tensor in self.tensors.items():
            if tensor.dtype.kind != "f" or not np.isfinite(tensor).all():
                raise ValueError(f"{name}: contains what is not a finite number")
        if kept and not np.isin(self.tensors[OWNERS], np.arange(n)).all():
            raise ValueError(f"{OWNERS}: contains what is not the position of a class")


class RidgeMemory(Memory):
    """Sums for a ridge regression on random features, or class means for cosines."""

    kinds, keeps = ("ridge", "mean"), True

    def needed(self) -> list[str]:
        more = ["gram", "losses"] if self.about["kind"] == "ridge" else []
        more += ["bias"] if "bias" in self.tensors else []
        return ["sums", "images", "weight", *more]

    def logits(self, tokens: np.ndarray) -> np.ndarray:
        both, parts = (self.features(tokens), self.tensors["weight"]), self._parts
        found = np.zeros((), np.float32)
        split = (np.split(rows, len(parts), axis=1) for rows in both)
        for (_, factor), features, weight in zip(parts, *split, strict=True):
            if self.about["kind"] == "mean":
                features, weight = unit(features), unit(weight)
            found = found + np.float32(factor) * (features @ weight.T)
        total: np.ndarray = found + self.tensors.get("bias", np.zeros((), np.float32))
        return total

    def learn(self, tokens: np.ndarray, labels: np.ndarray, n: int, how: How) -> "RidgeMemory":
        if how.head == "aligned":
            raise CdlError("head: aligned is invalid; this student has a ridge or class means")
        new, features = dict(self.tensors), self.features(tokens)
        targets, more = one_hot(labels, n), n - len(new["counts"])
        new["images"] = np.pad(new["images"], (0, more)) + targets.sum(0)
        weights = np.ones(n, np.float32)
        if how.balance:  # a class that was learnt with one image does not count twice later
            weights = np.maximum(1, new["counts"].mean() / np.maximum(new["images"], 1))
        weighted = features * weights[labels][:, None].astype(np.float32)
        new["counts"] = np.pad(new["counts"], (0, more)) + weights * targets.sum(0)
        new["sums"] = np.pad(new["sums"], ((0, 0), (0, more))) + weighted.T @ targets
        new |= {name: new[name].astype(np.float32) for name in ("counts", "sums")}
        updates = self.about["updates"] + 1
        if self.about["kind"] == "mean":
            new["weight"] = (new["sums"] / np.maximum(new["counts"], 1e-12)).T
        else:
            gram = unpack(new["gram"])
            gram += weighted.T @ features
            own = squared_errors(features, targets, updates)
            new["losses"] = new["losses"] + own
            known = own if how.ridge == "last" and own.any() else new["losses"]
            ridge = best_ridge(known, gram)
            new["gram"], new["weight"] = pack(gram), ridge_weights(gram, new["sums"], ridge)
        bias = new.pop("bias", np.zeros(how.keep, np.float32))[: how.keep]
        if how.keep:
            old = self.tensors["weight"][: how.keep]
            new["weight"] = np.concatenate([old, new["weight"][how.keep :]])
            new["bias"] = np.pad(bias, (0, n - how.keep))
        return RidgeMemory({**self.about, "updates": updates}, new)

    def without(self, label: int) -> "RidgeMemory":
        """Return the memory without a class; the Gram matrix, of all images, stays."""
        axes = {"counts": 0, "images": 0, "weight": 0, "sums": 1}
        axes |= {"bias": 0} if "bias" in self.tensors else {}
        shorter = {name: np.delete(self.tensors[name], label, axis) for name, axis in axes.items()}
        return RidgeMemory(self.about, {**self.tensors, **shorter})

    def means(self) -> np.ndarray:
        means: np.ndarray = (self.tensors["sums"] / np.maximum(self.tensors["counts"], 1e-12)).T
        return means

    def features(self, tokens: np.ndarray) -> np.ndarray:
        projection = self.tensors.get("projection")
        token = np.concatenate([tokens[:, position] for position, _ in self._parts], axis=1)
        return token if projection is None else np.maximum(token @ projection, 0)

    @property
    def _parts(self) -> list[tuple[int, float]]:
        """Position and factor of the token of each head; earlier versions wrote one head's only."""
        found: list[tuple[int, float]] = self.about.get("parts", [(0, 1.0)])
        return found


class AlignedMemory(Memory):
    """Class statistics for linear heads that are aligned, or solved as a ridge regression."""

    kinds = ("aligned",)

    def needed(self) -> list[str]:
        check_json(self.about, {"heads": [{"name": str, "part": str}], **_ALIGNED})
        sizes, heads, n = self.about["sizes"], self.about["heads"], len(self.tensors["counts"])
        if sum(sizes) != n:
            raise ValueError(f"sizes: the sum of {sizes!r:.50} is not {n}")
        rows = [f"{head['name']}.{kind}" for head in heads for kind in _OF_HEAD]
        return [*rows, *(f"{head['part']}.{k}" for head in heads for k in ("mean", "spread"))]

    def logits(self, tokens: np.ndarray) -> np.ndarray:
        total = np.zeros(())
        for head in self.about["heads"]:
            rows, normalised = self._rows(head["name"]), head["normalised"]
            if self.about["closed"]:
                normalised = False
            own = head_logits(rows, tokens[:, head["token"]], normalised)
            total = total + head["factor"] * own
        return total.astype(np.float32)

    def learn(self, tokens: np.ndarray, labels: np.ndarray, n: int, how: How) -> "AlignedMemory":
        more = n - len(self.tensors["counts"])
        sizes = [*self.about["sizes"], *([more] if more else [])]
        about = {**self.about, "updates": self.about["updates"] + 1, "sizes": sizes}
        about["closed"] = self.about["closed"] if how.head is None else how.head == "ridge"
        about["balance"] = how.balance
        new, found = dict(self.tensors), {}
        for one in self.about["heads"]:
            part = one["part"]
            if part not in found:
                old = self._statistics(part)
                found[part] = old.added(tokens[:, one["token"]], labels, n)
                new |= self._stored(part, found[part])
        for i, one in enumerate(self.about["heads"]):
            name, own = one["name"], found[one["part"]]
            again = self.about["alignment"]["next_task"] == "trained" or self.about["closed"]
            trained = self._rows(f"{name}.trained")
            rows = trained if again else self._rows(name)
            if more:
                rows = started(rows, own, one["normalised"])
                trained = _joined(trained[0], rows[0]), _joined(trained[1], rows[1])
            new |= _named(f"{name}.trained", trained)
            if about["closed"]:
                rows = _ridge(own, about["balance"])
            else:
                key = 2 * about["updates"] + i
                rows = align(rows, own, sizes, self.about["alignment"], key, one["normalised"])
            new |= _named(name, rows)
        return AlignedMemory(about, new)

    def means(self) -> np.ndarray:
        return self.tensors[f"{self.about['heads'][0]['part']}.mean"]

    def features(self, tokens: np.ndarray) -> np.ndarray:
        found: np.ndarray = tokens[:, self.about["heads"][0]["token"]]
        return found

    def without(self, label: int) -> "AlignedMemory":
        """Return the memory without a class; the other rows of aligned heads stay."""
        own = {k: v for k, v in self.tensors.items() if k not in (THRESHOLD, EXAMPLES, OWNERS)}
        new = {name: np.delete(tensor, label, 0) for name, tensor in own.items()}
        sizes, seen = list(self.about["sizes"]), np.cumsum(self.about["sizes"])
        sizes[int(np.searchsorted(seen, label, side="right"))] -= 1
        about = {**self.about, "sizes": [size for size in sizes if size]}
        made = AlignedMemory(about, new)
        if about["closed"]:
            for one in about["heads"]:
                rows = _ridge(made._statistics(one["part"]), about.get("balance", True))
                made.tensors |= _named(one["name"], rows)
        return made

    def _statistics(self, part: str) -> Statistics:
        kind, spread = self.about["alignment"]["statistic"], self.tensors[f"{part}.spread"]
        spread = unpack(spread) if kind == "covariance" else spread
        return Statistics(self.tensors[f"{part}.mean"], spread, self.tensors["counts"], kind)

    def _stored(self, part: str, found: Statistics) -> Tensors:
        spread = pack(found.spread) if found.kind == "covariance" else found.spread
        named = {f"{part}.mean": found.mean, f"{part}.spread": spread, "counts": found.counts}
        return {name: tensor.astype(np.float32) for name, tensor in named.items()}

    def _rows(self, name: str) -> Rows:
        weight, bias = (self.tensors[f"{name}.{part}"] for part in ("weight", "bias"))
        return weight.astype(np.float64), bias.astype(np.float64)


def _ridge(statistics: Statistics, balance: bool) -> Rows:
    """Return the rows of a ridge regression from class statistics."""
    weight = (statistics.even() if balance else statistics).ridge()
    return weight.astype(np.float64), np.zeros(len(weight))


def _joined(old: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return old rows and the new ones of `rows`."""
    return np.concatenate([old, rows[len(old) :]])


def _named(name: str, rows: Rows) -> Tensors:
    parts = zip(("weight", "bias"), rows, strict=True)
    return {f"{name}.{part}": tensor.astype(np.float32) for part, tensor in parts}


def memory_class(kind: str) -> type[Memory]:
    """Return the class of a kind of memory; raise `ValueError` if it is unknown."""
    classes = {name: found for found in Memory.__subclasses__() for name in found.kinds}
    check_json(kind, tuple(classes), "kind")
    return classes[kind]


def make_memory(about: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Memory:
    """Return the memory of a kind."""
    return memory_class(about["kind"])(about, tensors)


def write_memory(memory: Memory, file: Path, without: str = "") -> None:
    """Write a memory, except for one tensor; raise `ValueError` if it has become invalid."""
    memory.check()
    kept = {k: np.ascontiguousarray(v) for k, v in memory.tensors.items() if k != without}
    save_file(kept, file, {_KEY: json.dumps(memory.about, sort_keys=True)})


def read_memory(
    file: Path,
    shared: Path | None = None,
    whole: bool = True,
    tokens: tuple[int, int] | None = None,
) -> Memory:
    """Read a memory.

    Args:
        file: a file of `write_memory`.
        shared: another one, with the projection if `file` lacks it.
        whole: whether to read all tensors, or those for predictions only.
        tokens: shape `[T, D]` of the tokens that it is for; None: any.

    Raises:
        CdlError: a file is missing, damaged or invalid.
    """
    try:
        found: Tensors = {}
        for path in (shared or file, file):
            with safe_open(path, framework="numpy") as opened:
                every = opened.keys() if path == file else {"projection"} & {*opened.keys()}
                for name in every:
                    if whole or (name.split(".")[-1] in _PREDICT and ".trained." not in name):
                        found[name] = opened.get_tensor(name)
                about = json.loads(opened.metadata()[_KEY])
        check_json(about, {"kind": str, "updates": range(2**31)})
        memory, n = make_memory(about, found), len(found["counts"])
        if whole:
            memory.check()
        zeros = np.zeros((1, *tokens), np.float32) if tokens else None
        probe = np.zeros((1, n)) if zeros is None else memory.logits(zeros)
        if probe.shape != (1, n) or not np.isfinite(probe).all():
            raise ValueError("its heads do not fit the features of the graph")
        if (limits := found.get(THRESHOLD)) is not None:
            if limits.shape != (n,) or not (np.abs(limits) <= 1).all():
                raise ValueError(f"{THRESHOLD}: invalid; expected a cosine of each of {n} classes")
            if zeros is not None and not np.isfinite(memory.scores(zeros)).all():
                raise ValueError("its class means do not fit the features of the graph")
        return memory
    except (OSError, SafetensorError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise CdlError(f"{file}: cannot be read ({error}); {REMEDY}") from error


@contextlib.contextmanager
def computing(folder: Path) -> Iterator[None]:
    """Report that the memory of a student, whose tensors fit together, cannot be computed with."""
    try:
        yield
    except (LookupError, TypeError, ValueError) as error:
        raise CdlError(f"{folder}: its memory is invalid ({error}); {REMEDY}") from error
