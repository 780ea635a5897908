"""Write the table and the figure of the study `new_classes.py`.

    python benchmarks/new_classes_report.py OUTPUT [--figure docs/new_classes.svg]

Writes `OUTPUT/new_classes.csv`, one row per outcome, and prints tables in Markdown: accuracy on new
classes, change on earlier ones, with the intervals over seeds and test images of
`cdl.reporting.crossed`; then the choices, each paired with the learner without it, and `cdl learn`
with aligned heads on the device.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from new_classes_inputs import SETTINGS, conditions

from cdl.reporting.crossed import Estimate, estimate
from cdl.reporting.style import INK, canvas, paper, save

PLAIN = {learner: next(iter(settings)) for learner, (_, settings) in SETTINGS.items()}
LOOKS = {  # learner: label, colour, marker
    "ridge": ("ridge, on the device", "#0072B2", "o"),
    "statistics": ("ridge from statistics, on the device", "#56B4E9", "^"),
    "aligned": ("aligned heads, on the device", "#D55E00", "s"),
    "torch": ("cdl learn with torch", "#009E73", "D"),
    "joint": ("all images at once", INK, "x"),
}
Cell = tuple[str, str, str, int, int]  # split, learner, setting, new classes, images


def read(output: Path) -> dict[Cell, dict[int, dict[str, np.ndarray]]]:
    """Return the outcomes by cell and seed."""
    found: dict[Cell, dict[int, dict[str, np.ndarray]]] = {}
    for file in sorted((output / "outcomes").rglob("*[0-9].npz")):
        *_, split, learner, setting, condition, seed = file.with_suffix("").parts
        n, k = map(int, condition.split("x"))
        found.setdefault((split, learner, setting, n, k), {})[int(seed)] = dict(np.load(file))
    for (split, learner, _, n, k), seeds in found.items():
        if learner == "torch":  # starts with the same students
            same = found.get((split, "aligned", "aligned", n, k), {})
            for seed, outcome in seeds.items():
                outcome["before"] = same[seed]["before"] if seed in same else np.zeros(0, bool)
    return found


def rows(found: dict[Cell, dict[int, dict[str, np.ndarray]]]) -> Iterator[dict[str, object]]:
    """Yield one row for each outcome, with accuracies in percent."""
    for cell, seeds in found.items():
        about = dict(zip(("split", "learner", "setting", "classes", "images"), cell, strict=True))
        for seed, outcome in seeds.items():
            accuracy = {
                part: 100 * outcome[part].mean()
                for part in ("before", "old", "new")
                if len(outcome[part])
            }
            costs = {name: float(outcome[name]) for name in ("seconds", "bytes") if name in outcome}
            yield {**about, "seed": seed, **accuracy, **costs}


def mean(seeds: dict[int, dict[str, np.ndarray]], part: str) -> Estimate:
    """Return the mean accuracy with its variance over seeds and images; `part` may be a change."""
    if part == "change":
        return estimate(
            100.0 * np.stack([o["old"].astype(float) - o["before"] for o in seeds.values()])
        )
    return estimate(100.0 * np.stack([o[part] for o in seeds.values()]))


def text(found: Estimate) -> str:
    """Return a mean with its interval."""
    value, low, high = found.interval
    return f"{value:.1f} ({low:.1f} to {high:.1f})"


def tables(found: dict[Cell, dict[int, dict[str, np.ndarray]]]) -> Iterator[str]:
    """Yield the lines of the tables in Markdown."""
    yield "| learner | classes | images | seeds | new | earlier | change on earlier |"
    yield "|---|---|---|---|---|---|---|"
    for (split, learner, setting, n, k), seeds in sorted(found.items()):
        if split == "test":
            known = all(len(outcome["before"]) for outcome in seeds.values())
            change = text(mean(seeds, "change")) if known else "-"
            parts = f"{text(mean(seeds, 'new'))} | {text(mean(seeds, 'old'))} | {change}"
            yield f"| {learner}, {setting} | {n} | {k} | {len(seeds)} | {parts} |"
    yield "\n| validation | mean of new and earlier |\n|---|---|"
    for learner, (_, settings) in SETTINGS.items():
        for setting in settings:
            cells = [found.get(("validation", learner, setting, n, k), {}) for n, k in conditions()]
            both = [(o["old"].mean() + o["new"].mean()) / 2 for c in cells for o in c.values()]
            yield f"| {learner}, {setting} | {100 * np.mean(both):.2f} (n = {len(both)}) |"
    yield "\n| choice | classes | images | seeds | new | earlier |\n|---|---|---|---|---|---|"
    for (split, learner, choice, n, k), seeds in sorted(found.items()):
        if split == "choices" or learner == "torch":
            same = "aligned" if learner == "torch" else learner
            plain = found.get(("test", same, PLAIN[same], n, k), {})
            both = sorted(seeds.keys() & plain.keys())
            gains = [
                text(estimate(np.stack([100.0 * seeds[s][p] - 100.0 * plain[s][p] for s in both])))
                for p in ("new", "old")
                if both
            ]
            yield f"| {learner}, {choice} | {n} | {k} | {len(both)} | {' | '.join(gains)} |"


def draw(found: dict[Cell, dict[int, dict[str, np.ndarray]]], file: Path) -> None:
    """Draw accuracy on new and on earlier classes, by images of a class and by classes."""
    titles = ["20 new classes", "10 images of each"]
    with paper():
        figure, axes = canvas(
            titles,
            "",
            "accuracy (%)",
            "solid: new classes; dashed: earlier ones; bars: 95 % intervals",
        )
        for learner, (label, colour, marker) in LOOKS.items():
            setting = PLAIN.get(learner) or {"torch": "cdl learn", "joint": "joint"}[learner]
            for axis, varied in zip(axes, ("images", "classes"), strict=True):
                for part, dash in (("new", "-"), ("old", "--")):
                    points = _points(found, learner, setting, varied, part)
                    if points:
                        x, y, low, high = np.array(points).T
                        axis.errorbar(
                            x,
                            y,
                            (y - low, high - y),
                            color=colour,
                            marker=marker,
                            markersize=3,
                            linestyle=dash,
                            linewidth=1,
                            label=label if part == "new" else None,
                        )
        for axis, name in zip(axes, ("images of a new class", "new classes"), strict=True):
            axis.set_xscale("log")
            ticks = sorted(
                {k for n, k in conditions() if n == 20}
                if "images" in name
                else {n for n, k in conditions() if k == 10}
            )
            axis.set_xticks(ticks, [str(tick) for tick in ticks])
            axis.minorticks_off()
            axis.set_xlabel(name)
        axes[-1].legend(loc="upper left", bbox_to_anchor=(1.02, 1), fontsize=6)
        save(figure, [str(file)])


def _points(
    found: dict[Cell, dict[int, dict[str, np.ndarray]]],
    learner: str,
    setting: str,
    varied: str,
    part: str,
) -> Sequence[tuple[float, ...]]:
    points = []
    for n, k in conditions():
        seeds = found.get(("test", learner, setting, n, k))
        if seeds and (n == 20 if varied == "images" else k == 10):
            points.append((float(k if varied == "images" else n), *mean(seeds, part).interval))
    return sorted(points)


def main() -> None:
    """Write the table and the figure."""
    parser = argparse.ArgumentParser(
        description="The table and figure of the study of new classes."
    )
    parser.add_argument("output", type=Path, help="folder of new_classes.py")
    parser.add_argument("--figure", type=Path, help="SVG to write")
    given = parser.parse_args()
    found = read(given.output)
    pd.DataFrame(rows(found)).to_csv(
        given.output / "new_classes.csv", index=False, float_format="%.4f"
    )
    print("\n".join(tables(found)))
    if given.figure:
        draw(found, given.figure)


if __name__ == "__main__":
    main()
