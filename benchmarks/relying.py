"""Study: what an exported student knows to be unknown, and what `keep_earlier` keeps.

    cdl run config/cifar100_methods.yaml relying.yaml --cores 2
    python benchmarks/relying.py RESULTS data/cifar100 OUTPUT

`relying.yaml` has the `ranpac` and `simple_cil` students of vit_nano, five seeds, class_order
seeded and `projection: 2000`; RESULTS is its folder `results/NAME`. Each student is exported after
five of ten tasks, without torch from then on. Unknown are the classes of the other five tasks;
an update learns the ten classes of the sixth from their 50 images of training. Every image counted
is a test image of CIFAR-100, 50 of a class, but for `choice`: there the scores are compared on
training images (the last 50 of a class) that no learner sees.

Writes `relying_choice.csv`, `relying_unknown.csv`, `relying_updates.csv` and `relying_halves.csv`
(memory in fp16) to OUTPUT, one row for each student and score or limit, in percent. `--write` keeps
the tables and draws the figure of docs/studies/devices.md, with t intervals over the seeds, each
of which draws an order of the classes.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import cdl
from cdl.data.sources import SOURCES
from cdl.device.belonging import unit
from cdl.device.closed import best_ridge, one_hot, ridge_weights, unpack
from cdl.device.images import Student
from cdl.device.kept import EXAMPLES
from cdl.device.memory import How, Memory, make_memory
from cdl.device.update import Lesson, flipped
from cdl.evaluation.metrics import separation
from cdl.reporting.crossed import Interval, estimate
from cdl.reporting.style import canvas, paper, save
from tools import pages

LEARNERS, SEEDS, TASK, EACH, NEW = ("ranpac", "simple_cil"), range(5), 4, 50, 10
# percent of the kept examples that may become a new class, and of images of `choice`, as --check
NAMES = {"ranpac": "ridge", "simple_cil": "class means"}
LIMITS = ((None, False), (5.0, False), (1.0, False), (1.0, True), (0.0, False))


class Images:
    """CIFAR-100 by class: 50 images each for `train`, `choice` and `test`."""

    def __init__(self, folder: Path) -> None:
        source = SOURCES["parquet"].read(str(folder), class_name="fine_label")
        self._items: dict[tuple[str, str], list[Any]] = {}
        for item in source.items:
            self._items.setdefault((source.classes[item.label], item.split), []).append(item)
        self.names = tuple(source.classes)

    def of(self, names: tuple[str, ...], part: str) -> tuple[np.ndarray, np.ndarray]:
        """Return pixels `[n, 32, 32, 3]` of some classes and the positions of their names."""
        rows = slice(-EACH, None) if part == "choice" else slice(EACH)
        split = "test" if part == "test" else "train"
        found = [self._items[name, split][rows] for name in names]
        pixels = np.stack([item.read() for some in found for item in some])
        return pixels, np.repeat(np.arange(len(names)), [len(some) for some in found])


def scores(memory: Memory, tokens: np.ndarray) -> dict[str, np.ndarray]:
    """Return candidates for a score of belonging `[n]`, higher for known classes, by name."""
    logits, features, means = memory.logits(tokens), memory.features(tokens), memory.means()
    found = {"cosine with the nearest class mean": memory.scores(tokens)[:, 0]}
    found["largest logit"] = logits.max(1)
    shifted = 20 * (logits - logits.max(1, keepdims=True))  # a temperature of 0.05
    found["largest probability"] = 1 / np.exp(shifted).sum(1)
    found["energy"] = 20 * logits.max(1) + np.log(np.exp(shifted).sum(1))
    found["cosine with that of the predicted class"] = (
        unit(features) * unit(means)[logits.argmax(1)]
    ).sum(1)
    squared = (features**2).sum(1)[:, None] - 2 * features @ means.T + (means**2).sum(1)
    found["distance to the nearest class mean"] = -squared.min(1)
    if "gram" in memory.tensors:
        found |= mahalanobis(memory, features, means)
    return found


def mahalanobis(memory: Memory, features: np.ndarray, means: np.ndarray) -> dict[str, np.ndarray]:
    """Return the Mahalanobis score, and the relative one (Ren et al., 2021), by name.

    The covariances, within classes and of all images, are those of a ridge's Gram matrix, with a
    tenth of their mean variance added to the diagonal.
    """
    counts = memory.tensors["counts"].astype(float)
    n, gram = counts.sum(), unpack(memory.tensors["gram"]).astype(float)
    centre = counts @ means / n
    total = gram / n - np.outer(centre, centre)
    within = gram / n - (means * counts[:, None]).T @ means / n

    def squared(covariance: np.ndarray, centres: np.ndarray) -> np.ndarray:
        width = len(covariance)
        shrunk = covariance + 0.1 * np.trace(covariance) / width * np.eye(width)
        lower = np.linalg.cholesky(shrunk)
        points, middles = (np.linalg.solve(lower, rows.T).T for rows in (features, centres))
        products = points @ middles.T
        return (points**2).sum(1)[:, None] - 2 * products + (middles**2).sum(1)

    own = -squared(within, means).min(1)
    return {"Mahalanobis": own, "relative Mahalanobis": own + squared(total, centre[None])[:, 0]}


def measured(student: Student, images: Images, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Return tokens of all classes' images, those of the student first, and their labels."""
    others = tuple(name for name in images.names if name not in student.classes)
    pixels, labels = images.of((*student.classes, *others), part)
    return student.features(pixels), labels


def unknown(student: Student, tokens: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return how well the exported score does, and what it marks with its own thresholds."""
    known, found = labels < len(student.classes), student._memory().scores(tokens)
    marked = found[:, 0] < found[:, 1]
    return {
        **separation(found[known, 0], found[~known, 0]),
        "known_marked": 100 * float(marked[known].mean()),
        "unknown_marked": 100 * float(marked[~known].mean()),
    }


def updates(
    student: Student,
    images: Images,
    names: tuple[str, ...],
    test: tuple[np.ndarray, np.ndarray],
    checked: np.ndarray,
) -> Iterator[dict[str, Any]]:
    """Yield what an update with the next ten classes does to examples, by its limit."""
    memory, n = student._memory(), len(student.classes)
    pixels, labels = images.of(names, "train")
    tokens, kept = student.features(pixels), memory.tensors[EXAMPLES]
    own = memory.tensors[EXAMPLES], memory.tensors["owners"]
    pixels, new = images.of(names, "test")
    fresh, earlier = student.features(pixels), test[1] < n
    tested = test[0][earlier], test[1][earlier]
    after = (*student.classes, *names)
    for limit, check in LIMITS:
        how, limited = How(keep=0 if limit is None else n), [kept, *([checked] if check else [])]
        lesson = Lesson(memory, tokens, n + labels, tokens[:0], len(after), how, limited, limit)
        found = lesson.learnt()
        row: dict[str, Any] = {"limit": limit, "check": check}
        for part, examples in (("kept", own), ("test", tested)):
            flips = flipped(memory, found, examples, student.classes, after)
            row[f"moved_{part}"] = 100 * flips["moved"] / flips["flips"][1]
            row[f"flips_{part}"] = 100 * flips["flips"][0] / flips["flips"][1]
        row["new"] = 100 * float((found.logits(fresh).argmax(1) == n + new).mean())
        row["earlier"] = 100 * float((found.logits(tested[0]).argmax(1) == tested[1]).mean())
        yield row


def half(tensor: np.ndarray) -> np.ndarray:
    """Return a tensor as fp16 keeps it, scaled by a power of two so that its largest fits."""
    scale = 2.0 ** np.floor(np.log2(60000 / max(float(np.abs(tensor).max()), 1e-30)))
    rounded: np.ndarray = (tensor * scale).astype(np.float16).astype(np.float32) / np.float32(scale)
    return rounded


def halves(student: Student, images: Images, names: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Yield the accuracy of a memory that is rounded to fp16 after each update, and of fp32.

    Five updates teach ten classes each; or ten classes are taught one image after the other, with
    the ridge as it was.
    """
    test, answers = images.of(names, "test")
    tested, n, start = student.features(test), len(student.classes), student._memory()

    def stored(memory: Memory, fp16: bool) -> Memory:
        kept = ("gram", "sums", "weight")
        tensors = {k: half(v) if fp16 and k in kept else v for k, v in memory.tensors.items()}
        return make_memory(memory.about, tensors)

    for fp16 in (False, True):
        memory, about = stored(start, fp16), {"fp16": fp16}
        for first in range(n, len(names), NEW):
            pixels, labels = images.of(names[first : first + NEW], "train")
            memory = memory.learn(student.features(pixels), first + labels, first + NEW, How())
            memory = stored(memory, fp16)
        right = memory.logits(tested).argmax(1) == answers
        yield {**about, "update": "ten classes", "accuracy": 100 * right.mean()}
        if "gram" not in start.tensors:
            continue
        pixels, labels = images.of(names[n : n + NEW], "train")
        features, known = start.features(student.features(pixels)), answers < n + NEW
        memory = one_by_one(stored(start, fp16), features, n + labels, fp16)
        right = memory.logits(tested[known]).argmax(1) == answers[known]
        yield {**about, "update": "an image", "accuracy": 100 * right.mean()}


def one_by_one(start: Memory, features: np.ndarray, labels: np.ndarray, fp16: bool) -> Memory:
    """Return a ridge that learnt an image at a time."""
    gram, more = unpack(start.tensors["gram"]), int(labels.max()) + 1 - len(start.tensors["counts"])
    sums = np.pad(start.tensors["sums"], ((0, 0), (0, more)))
    for i in np.random.default_rng(0).permutation(len(labels)):
        row = features[i : i + 1]
        gram += row.T @ row
        sums += row.T @ one_hot(labels[i : i + 1], sums.shape[1])
        if fp16:
            gram, sums = half(gram), half(sums)
    weight = ridge_weights(gram, sums, best_ridge(start.tensors["losses"], gram))
    return make_memory(start.about, {**start.tensors, "sums": sums, "weight": weight})


def _text(interval: Interval) -> tuple[str, str, str]:
    value, low, high = (f"{round(number, 1) + 0.0:.1f}" for number in interval)
    return value, low, high


def draw(updates: pd.DataFrame, file: Path) -> None:
    """Draw the accuracy on new classes over the share of test images that moved, by limit."""
    with paper():
        note = (
            "from the left: 0 %, 1 % of other images (--check), 1 %, 5 %, no limit; 95 % intervals"
        )
        figure, (axis,) = canvas([""], "earlier test images moved (%)", "new classes (%)", note)
        for (learner, name), colour, marker in zip(
            NAMES.items(), ("#0072B2", "#D55E00"), "os", strict=True
        ):
            rows = updates[updates["learner"] == learner]
            groups = [own for _, own in rows.groupby(["limit", "check"], dropna=False)]
            found = [
                [estimate(own[[column]].to_numpy(float)).interval for own in groups]
                for column in ("moved_test", "new")
            ]
            (x, *across), (y, *up) = (np.array(rows).T for rows in found)
            order, line = np.argsort(x), {"color": colour, "marker": marker, "label": name}
            xerr, yerr = (
                np.abs(np.array(ends) - v)[:, order] for ends, v in ((across, x), (up, y))
            )
            axis.errorbar(x[order], y[order], yerr, xerr, markersize=3, linewidth=1, **line)
        axis.legend(loc="lower right", fontsize=6)
        save(figure, [str(file)])


def kept_tables(output: Path) -> None:
    """Write the tables of the page."""
    names = NAMES
    limits = {  # shown
        (None, False): "none",
        (1.0, False): "1 %",
        (1.0, True): "1 %, with `--check`",
    }
    columns = {
        "unknown": {
            "auroc": "AUROC",
            "fpr95": "FPR95",
            "known_marked": "known, marked",
            "unknown_marked": "unknown, marked",
        },
        "updates": {
            "moved_kept": "kept examples moved",
            "moved_test": "test images moved",
            "flips_test": "negative flips, test",
            "new": "accuracy, new",
        },
    }
    for part, shown in columns.items():
        table = pd.read_csv(output / f"relying_{part}.csv")
        keys = ["learner", "limit", "check"] if part == "updates" else ["learner"]
        cells = []
        for key, own in table.groupby(keys, dropna=False, sort=False):
            row = {"student": names[key[0]]}
            if part == "updates":
                limit = (None if pd.isna(key[1]) else key[1], key[2])
                if limit not in limits:
                    continue
                row["limit"] = limits[limit]
            for name, column in shown.items():
                value, low, high = _text(estimate(own[[name]].to_numpy(float)).interval)
                cells.append({**row, "column": column, "value": value, "low": low, "high": high})
        about = pages.origin("benchmarks/relying.py", output.parent.rglob("tables/cost.csv"))
        pages.write(pages.DATA / f"devices_{part}.csv", about, cells)


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description="What is unknown, and what an update keeps.")
    parser.add_argument("results", type=Path, help="results/NAME of the runs")
    parser.add_argument("cifar100", type=Path, help="folder of CIFAR-100 in Parquet files")
    parser.add_argument("output", type=Path)
    parser.add_argument("--write", action="store_true", help="keep the tables of the page")
    given = parser.parse_args()
    if given.write:
        kept_tables(given.output)
        draw(
            pd.read_csv(given.output / "relying_updates.csv"), pages.ROOT / "docs/keep_earlier.svg"
        )
        return
    images, tables = (
        Images(given.cifar100),
        {"choice": [], "unknown": [], "updates": [], "halves": []},
    )
    for learner in LEARNERS:
        for run in sorted(given.results.glob(f"*/{learner}/student-*/seed*")):
            folder = given.output / "students" / learner / run.name
            if not folder.exists():
                cdl.export(run, folder, task=TASK)
            student, about = Student(folder), {"learner": learner, "seed": run.name[4:]}
            whole = cdl.load(run).classes
            tokens, labels = measured(student, images, "choice")
            known = labels < len(student.classes)
            for name, score in scores(student._memory(), tokens).items():
                found = separation(score[known], score[~known])
                tables["choice"].append({**about, "score": name, **found})
            test = measured(student, images, "test")
            tables["unknown"].append({**about, **unknown(student, *test)})
            following = whole[len(student.classes) :][:NEW]
            found = updates(student, images, following, test, tokens[known])
            tables["updates"] += [{**about, **row} for row in found]
            tables["halves"] += [{**about, **row} for row in halves(student, images, whole)]
            print(*about.values(), flush=True)
    for name, rows in tables.items():
        table = pd.DataFrame(rows).round(2)
        table.to_csv(given.output / f"relying_{name}.csv", index=False)


if __name__ == "__main__":
    main()
