"""What an update of a student did, cost and brought."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from cdl.device.errors import CdlError
from cdl.device.memory import How, Memory

SHOWN = 5  # classes whose accuracy fell
HELD_OUT = 5  # every fifth item of a class measures the accuracy, if there are no test items


@dataclass(frozen=True)
class Lesson:
    """What a student learns from.

    memory: that of the student before.
    tokens: of training items, `[n, T, D]`.
    labels: their classes `[n]`.
    unlabelled: tokens of unlabelled items, `[u, T, D]`, learnt with the student's own answers.
    classes: number of classes after it.
    how: choices for it.
    limited: tokens `[k, T, D]` of several sets of examples of earlier classes.
    percent: the largest share of each set that may become a new class; None: no limit.
    """

    memory: Memory
    tokens: np.ndarray
    labels: np.ndarray
    unlabelled: np.ndarray
    classes: int
    how: How
    limited: Sequence[np.ndarray]
    percent: float | None

    def learnt(self, rows: np.ndarray | slice = slice(None)) -> Memory:
        """Return the memory after learning training items."""
        found = self.memory.learn(self.tokens[rows], self.labels[rows], self.classes, self.how)
        if len(more := self.unlabelled):
            found = found.learn(more, found.logits(more).argmax(1), self.classes, self.how)
        if self.percent is not None:
            for examples in self.limited:
                found = found.lowered(examples, self.how.keep, self.percent)
        return found


@dataclass(frozen=True)
class Update:
    """What an update did and cost.

    version: number of the version that is now the current one.
    classes: number of classes of the student.
    learnt: names of new classes.
    extended: names of classes that got more items.
    forgotten: names of classes that were removed.
    count: number of items, with unlabelled ones.
    items_per_second: speed of reading them and computing their features.
    milliseconds: time to compute the heads.
    peak_memory_mb: peak memory of this process.
    bytes: size of the state.
    accuracy: percent of items, by name: `held_out` (every fifth, learnt from the others), or with
        test items `earlier_before`, `earlier_after` and `new`.
    items: what the items are: `images` or `texts`.
    right: number of held-out items with the right class, and of all held-out items.
    folder: of the student, which was changed.
    flips: number of examples of earlier classes that were right before and are wrong now, and of
        all these examples: those that the student keeps, or the given ones; 0 without any.
    moved: number of these examples whose class has changed.
    fell: earlier classes whose accuracy on test items fell, most first, with both accuracies.
    """

    version: int
    classes: int
    learnt: tuple[str, ...] = ()
    extended: tuple[str, ...] = ()
    forgotten: tuple[str, ...] = ()
    count: int = 0
    items_per_second: float = 0.0
    milliseconds: float = 0.0
    peak_memory_mb: float | None = None
    bytes: int = 0
    accuracy: Mapping[str, float] = field(default_factory=dict)
    items: str = "images"
    fell: tuple[str, ...] = ()
    right: tuple[int, int] = (0, 0)
    folder: str = "."
    flips: tuple[int, int] = (0, 0)
    moved: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return the update for JSON."""
        return asdict(self)

    def text(self) -> str:
        """Return the update as text for the terminal."""
        groups = ("learnt", self.learnt), ("extended", self.extended), ("forgot", self.forgotten)
        what = [f"{word} {', '.join(names)}" for word, names in groups if names]
        lines = [f"version {self.version}, {self.classes} classes{''.join('; ' + w for w in what)}"]
        if self.count:
            one = self.items[:-1] if self.count == 1 else self.items
            memory = f", peak memory {self.peak_memory_mb:.0f} MB" if self.peak_memory_mb else ""
            lines.append(
                f"{self.count} {one} at {self.items_per_second:.1f}/s, heads in "
                f"{self.milliseconds:.0f} ms{memory}; state {self.bytes / 1e6:.2f} MB"
            )
        tests = [k for k in self.accuracy if k != "held_out"]  # few are held out: they are counted
        lines += [f"accuracy, {k.replace('_', ' ')}: {self.accuracy[k]:.2f} %" for k in tests]
        how = "right: {} of {} held out (every fifth of the {}, after learning the others)"
        lines += [how.format(*self.right, self.items)] if self.right[1] else []
        broken = "negative flips: {} of {} examples of earlier classes were right and are wrong now"
        lines += [broken.format(*self.flips)] if self.flips[1] else []
        lines += [f"fell most: {', '.join(self.fell)}"] if self.fell else []
        program = shlex.quote(f"{self.folder}/student.py")
        lines += [f"{self.folder} was changed; undo: python {program} undo"] if what else []
        return "\n".join(lines)


def check_keeping(
    memory: Memory, percent: float, given: Mapping[str, Any], known: tuple[str, ...], n: int
) -> None:
    """Raise `CdlError` unless an update with `n` examples can keep the earlier classes' order."""
    number = isinstance(percent, int | float) and not isinstance(percent, bool)
    if not (number and 0 <= percent <= 100):
        raise CdlError(
            f"keep_earlier: invalid value {percent!r:.50}; expected a percentage, 0 to 100"
        )
    if not memory.keeps:
        raise CdlError(
            "keep_earlier: is not possible with aligned heads, whose rows are trained together; "
            "expected a student with a ridge or class means"
        )
    if again := [name for name in given if name in known]:
        raise CdlError(
            f"keep_earlier: {again[0]!r:.100} is an earlier class, whose answers would change; "
            "expected new classes only"
        )
    if not n:
        raise CdlError("keep_earlier: the student keeps no examples; give examples with check")


def flipped(
    before: Memory,
    after: Memory,
    examples: tuple[np.ndarray, np.ndarray],
    old: tuple[str, ...],
    names: tuple[str, ...],
) -> dict[str, Any]:
    """Return `flips` and `moved` of `Update` for examples: tokens, and positions in `old`."""
    tokens, own = examples[0], np.array(old)[examples[1].astype(int)]
    left = np.isin(own, names)
    if not left.any():
        return {}
    was = np.array(old)[before.logits(tokens[left]).argmax(1)]
    now = np.array(names)[after.logits(tokens[left]).argmax(1)]
    broken = (was == own[left]) & (now != own[left])
    return {"flips": (int(broken.sum()), int(left.sum())), "moved": int((was != now).sum())}


def held_out(lesson: Lesson) -> dict[str, Any]:
    """Return `accuracy` and `right` of `Update` for every fifth item of each class."""
    labels = lesson.labels
    found = [np.flatnonzero(labels == label)[HELD_OUT - 1 :: HELD_OUT] for label in set(labels)]
    rows = np.concatenate(found)
    if not len(rows):
        return {}
    memory = lesson.learnt(np.delete(np.arange(len(labels)), rows))
    right = memory.logits(lesson.tokens[rows]).argmax(1) == labels[rows]
    accuracy = {"held_out": 100 * float(right.mean())}
    return {"accuracy": accuracy, "right": (int(right.sum()), len(rows))}


def tested(
    before: Memory,
    after: Memory,
    tests: Mapping[str, np.ndarray],
    old: tuple[str, ...],
    names: tuple[str, ...],
) -> dict[str, Any]:
    """Return `accuracy` and `fell` of `Update` for test items."""

    def hits(memory: Memory, some: Iterable[str]) -> dict[str, np.ndarray]:
        return {k: memory.logits(tests[k]).argmax(1) == names.index(k) for k in some}

    earlier = [name for name in tests if name in old]
    first, second = hits(before, earlier), hits(after, earlier)
    new = hits(after, [name for name in tests if name not in old])
    groups = {"earlier_before": first, "earlier_after": second, "new": new}
    found = {name: [*values.values()] for name, values in groups.items() if values}
    accuracy = {name: 100 * float(np.concatenate(hit).mean()) for name, hit in found.items()}
    means = [(100 * first[k].mean(), 100 * second[k].mean(), k) for k in earlier]
    worse = sorted((now - then, k, then, now) for then, now, k in means if now < then)
    fell = tuple(f"{k} {then:.0f} to {now:.0f} %" for _, k, then, now in worse[:SHOWN])
    return {"accuracy": accuracy, "fell": fell}
