"""Say in a few lines where a table cell comes from, and which command computes it again."""

import contextlib
import os
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from statistics import mean
from typing import Any

from cdl.inventory.trace import Trace
from cdl.layout import ResultsFolder, RunFiles
from cdl.reporting.names import names_of
from cdl.runtime.artifacts import read_json
from cdl.runtime.errors import CdlError
from cdl.study.layers import merged

LINES = 30  # that are printed at most
SHOWN = 5  # broken steps, and seeds with their checkpoints
HASH = 12  # characters of a sha256 that are shown
FOLDER = "again"  # of the command that computes a cell again; a number follows if it exists
_MARKS = ("BROKEN", "absent", "ok")
_WORDS = {"ok": "ok", "absent": "with their record alone, as in an archive", "BROKEN": "BROKEN"}
_PATHS = {  # values that are paths, which start in the folder that contains the results
    "datasets": ("source.*.path", "source.*.root", "unlabelled.source.*.path"),
    "backbones": ("file", "folder", "onnx"),
}


def summary(traces: Mapping[str, Trace], results: ResultsFolder, command: str = "cdl") -> str:
    """Return the provenance of one cell in at most `LINES` lines, or a line for each of several.

    Args:
        traces: result of `trace`, of names with a row.
        results: folder of the results.
        command: command that starts this program.
    """
    cells: dict[str, dict[str, Trace]] = {}
    for run, traced in traces.items():
        cells.setdefault(str(Path(run).parent), {})[run] = traced
    if len(cells) == 1:
        return "\n".join(_one(*next(iter(cells.items())), results, command))
    lines = [f"{_mark(runs):<6}  {_accuracy(runs)}  {cell}" for cell, runs in cells.items()]
    hidden = lines[LINES - 2 :]
    more = [f"and {len(hidden)} more cells"] if hidden else []
    return "\n".join([*lines[: LINES - 2], *more, "name one of them for its origin, or add --all"])


def _one(
    cell: str, runs: Mapping[str, Trace], results: ResultsFolder, command: str
) -> Iterator[str]:
    """Yield the lines on one cell."""
    first, traced = next(iter(runs.items()))
    table, row = traced.row_of_run().table, traced.row_of_run().values
    links = [link for trace in runs.values() for link in trace.links]
    shown = names_of(row)
    yield cell

    def line(what: str, text: str) -> str:
        return f"  {what:<12} {text}"

    yield line("accuracy", f"{_accuracy(runs)}, {results.path.parent / table}")
    yield line("learner", f"{shown['method']}, {shown['distiller']}, {shown['backbone']}")
    if row["teacher"]:
        trained = filter(None, (shown["teacher"], row["teacher_run"]))  # a file has no run
        yield line("teacher", ", ".join(trained))
    contents = {}
    for run in runs:
        with contextlib.suppress(CdlError):  # a broken step says so
            contents[run] = read_json(results.run(run).results)
    if first in contents:
        yield from (line(*text) for text in _made(row["dataset"], contents[first]))
    for run in [*contents][:SHOWN]:
        hashes = " ".join(sha256[:HASH] for sha256 in contents[run]["checkpoints"])
        yield line("checkpoints", f"{Path(run).name}, by task: {hashes}")
    if len(contents) > SHOWN:
        yield line("", f"and {len(contents) - SHOWN} more seeds")
    counts = Counter(link.mark for link in links)
    yield line("protocol", str(row["protocol"]))
    checked = ", ".join(f"{counts[mark]} {_WORDS[mark]}" for mark in _WORDS if counts[mark])
    uncounted = ", caches not counted" * bool(counts["cache"])
    yield line("steps", f"{checked}{uncounted}; with --all, the files of each")
    broken = [link for link in links if not link.holds]
    yield from (line("BROKEN", f"{link.what}: {link.text}") for link in broken[:SHOWN])
    if len(broken) > SHOWN:
        yield line("", f"and {len(broken) - SHOWN} more broken steps")
    yield line("alone", _again([*runs], traced.configuration, results, command))


def _made(dataset: str, content: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what is known of a run from its results: examples, weights, versions."""
    seen, tests = content["seen"], content["test_images"]
    hashes = ", ".join(f"{split} {sha256[:HASH]}" for split, sha256 in content["data"].items())
    unlabelled = f" and {seen['unlabelled']:,} unlabelled" * bool(seen.get("unlabelled"))
    yield (
        "examples",
        f"{dataset}: {seen['labelled']:,} labelled{unlabelled} in {len(tests)} tasks, "
        f"{sum(tests):,} in the test",
    )
    yield "data", hashes
    weights = [f"{name} {sha256[:HASH]}" for name, sha256 in content["backbones"].items()]
    yield "backbones", ", ".join(weights)
    yield "versions", ", ".join(f"{name} {text}" for name, text in content["versions"].items())


def _accuracy(runs: Mapping[str, Trace]) -> str:
    values = [traced.row_of_run().values["final_average_accuracy"] for traced in runs.values()]
    n = len(values)
    seeds = f"{n} seeds" if n > 1 else Path(next(iter(runs))).name
    return f"{mean(values):.2f} % ({seeds})"


def _mark(runs: Mapping[str, Trace]) -> str:
    """Return the worst mark of all steps."""
    marks = {link.mark for traced in runs.values() for link in traced.links}
    return next(mark for mark in _MARKS if mark in marks)


def _again(
    runs: list[str], configuration: Path | None, results: ResultsFolder, command: str
) -> str:
    """Return the command that computes runs again in a new folder, without other learners."""
    assert configuration is not None, "a run of a table has a configuration"
    shown = os.path.relpath(configuration)
    if not configuration.is_file():
        return f"{shown}: is missing; `{command} tables CONFIG` writes it"
    values = _absolute_paths(merged([configuration]), results.path.absolute().parent)
    words = [command, "run", shown, *values, *(RunFiles(run).results for run in runs)]
    names = (f"{FOLDER}{n if n > 1 else ''}" for n in count(1))
    folder = next(name for name in names if not os.path.lexists(name))
    return f"mkdir {folder}; {shlex.join([*words, '--directory', folder, '--cores', '2'])}"


def _absolute_paths(config: Mapping[str, Any], here: Path) -> Iterator[str]:
    """Yield values that make relative paths in a configuration absolute."""
    for kind, patterns in _PATHS.items():
        for name, block in config[kind].items():
            for pattern in patterns:
                for field, value in _matching(block, pattern.split(".")):
                    if not os.path.isabs(value) and (here / value).exists():
                        yield f"{kind}.{name}.{field}={here / value}"


def _matching(block: Any, pattern: list[str]) -> Iterator[tuple[str, str]]:
    """Yield fields and texts that a pattern of keys matches; `*` is any key."""
    if not pattern:
        if isinstance(block, str):
            yield "", block
        return
    for key in block if isinstance(block, dict) else ():
        if pattern[0] in ("*", key):
            for field, value in _matching(block[key], pattern[1:]):
                yield f"{key}.{field}".rstrip("."), value
