"""The functions of `import cdl`: each calls what the command of its name calls."""

import os
import sys
import threading
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cdl.runtime.errors import CdlError

if TYPE_CHECKING:
    from cdl.deployment.export import Exported
    from cdl.deployment.facade import Student
    from cdl.inventory.compare import Comparison
    from cdl.inventory.results import Results
    from cdl.inventory.status import Status

Config = str | PathLike[str] | Mapping[str, Any]
_ONE_RUN = threading.Lock()  # Snakemake locks the folder, so that a second run would be refused


def run(config: Config, *overlays: Config, cores: int = 2, **overrides: Any) -> "Results":
    """Run the experiments of a configuration; return the table of their results.

    Results are written to `./results`. Jobs that are done are skipped, so a run that was stopped,
    for example by Ctrl-C, is resumed by the same call. Runs of several threads run one after the
    other.

        cdl.run("study.yaml", training__epochs=5, grid__seeds=range(5))
        cdl.run("study.yaml", {"training.epochs": 5}, "training.lr=0.01", name="longer")

    Args:
        config: a YAML file, or the configuration as a dict.
        *overlays: YAML files, dicts and texts FIELD=VALUE, which override its values; later ones
            override earlier ones. A dict is nested, or has names with dots.
        cores: number of parallel jobs.
        **overrides: values with the highest priority; in a name write two underscores for a dot.

    Raises:
        CdlError: the configuration or a value is invalid, before any job starts; or a job failed.
        KeyboardInterrupt: after Ctrl-C, when all jobs have saved their states.
    """
    from cdl.cli.options import grid_of
    from cdl.cli.progress import Lines
    from cdl.cli.run import start
    from cdl.inventory.results import results_of_grid

    words = _words(config, overlays, overrides)
    rest = ["--cores", str(_positive("cores", cores))]
    stream = sys.__stderr__
    shows_itself = stream is not None and sys.stderr is stream and stream.isatty()
    with _ONE_RUN:
        ended = start(words, rest, None if shows_itself else Lines())
    if ended.interrupted:
        print(ended.text, file=sys.stderr)
        raise KeyboardInterrupt
    if ended.code:
        reason = ended.text.removeprefix("cdl: ")
        raise CdlError(reason or f"stopped with exit code {ended.code}; the lines above say why")
    return results_of_grid(grid_of(words))


def status(config: Config, *overlays: Config, cores: int = 1, **overrides: Any) -> "Status":
    """Return the progress of a configuration and the estimated time left.

    Args:
        config: as in `run`.
        *overlays: as in `run`.
        cores: number of parallel jobs, for the time left.
        **overrides: as in `run`.

    Returns:
        Counts of cells and jobs that are done, running, failed or missing; its text is printed.

    Raises:
        CdlError: the configuration or a value is invalid.
    """
    import shlex

    from cdl.cli.options import cdl_command, grid_of
    from cdl.inventory.status import report

    words = _words(config, overlays, overrides)
    again = f"{cdl_command()} run {shlex.join(words)}"
    return report(grid_of(words), _positive("cores", cores), again)


def results(source: Config, *overlays: Config, **overrides: Any) -> "Results":
    """Return the results of all finished runs, also while others are missing.

        table = cdl.results("study.yaml")
        table.groupby("distiller")["final_average_accuracy"].mean()
        table[table["seed"] == 0].curves
        students = table[table["role"] == "student"]
        best = cdl.load(students.sort_values("final_average_accuracy")["run"].iloc[-1])

    Args:
        source: a configuration as in `run`, or a folder with tables: `results`, the folder of a
            study, of one of its parts, or of a run.
        *overlays: for a configuration, as in `run`.
        **overrides: for a configuration, as in `run`.

    Returns:
        A pandas `DataFrame` with one row per run: what it is, all metrics in percent, and its
        folder in the column `run`. `.curves` has the accuracies after each task, and `.matrix`
        those on each task after each task; both read the runs of the rows that are there.

    Raises:
        CdlError: there are no results, or a file is damaged.
    """
    from cdl.cli.options import grid_of
    from cdl.inventory.results import results_below, results_of_grid

    if not isinstance(source, Mapping) and Path(_path(source)).is_dir():
        if overlays or overrides:
            raise CdlError(f"{source}: is a folder, which no value changes; give no overrides")
        return results_below(Path(_path(source)))
    return results_of_grid(grid_of(_words(source, overlays, overrides)))


def compare(
    first: str | PathLike[str],
    second: str | PathLike[str],
    results: str | PathLike[str] = "results",
) -> "Comparison":
    """Compare two cells of the tables or two runs, paired by seed and test example.

    Args:
        first: names from the columns of the tables, such as `cifar20/coda_prompt/kd`, or the
            folder of a cell or of a run.
        second: the same of what is subtracted.
        results: folder of the results.

    Returns:
        The difference of the accuracies in percentage points with its 95 % interval and p value:
        overall, per task and per class; its text is printed.

    Raises:
        CdlError: a name matches no cell or several, or nothing is common to both.
    """
    from cdl.inventory.compare import compare as paired_comparison
    from cdl.layout import ResultsFolder

    return paired_comparison(_path(first), _path(second), ResultsFolder(Path(_path(results))))


def load(
    path: str | PathLike[str], task: int | None = None, threads: int = 1, verify: bool = True
) -> "Student":
    """Load a trained student.

        student = cdl.load("student")
        student.predict(["photo.png", "other.png"])

    Args:
        path: the folder of a finished run (`results/.../seed0`) or of an exported student (see
            `export`), or what `export` takes as its run; or `hf://OWNER/NAME` or
            `hf://OWNER/NAME@REVISION` for an exported student on the Hugging Face Hub (see
            `cdl push`). An exported student does not import torch.
        task: for a run, the task after which the student is loaded, counted from 0; None: the last.
        threads: number of threads; for one image, one thread is fastest.
        verify: for an exported student, whether to compare its files with the sha256 in its
            manifest, which takes less than a second for 100 MB. Runs are always compared.

    Returns:
        A student with `classes`, `predict`, `predict_proba`, `features`, `evaluate` and `card`; if
        it was exported with its memory, also `learn`, `forget` and `undo`.

    Raises:
        CdlError: the folder does not contain a finished run or an exported student, a file is
            damaged, or the Hub has no such student.
    """
    from cdl.deployment.facade import Student
    from cdl.deployment.load import load as load_student

    folder = _path(path)
    if not Path(folder).is_dir():
        from cdl.cli.student import folder_of

        folder = folder_of(folder)
    return Student(load_student(folder, task, threads, verify), folder)


def export(
    run: str | PathLike[str],
    folder: str | PathLike[str],
    task: int | None = None,
    *,
    format: Literal["onnx", "executorch", "timm"] = "onnx",
    int8: Literal["dynamic", "static"] | None = None,
    check: bool = True,
    memory: bool = True,
) -> "Exported":
    """Export the student of a finished run to a folder that needs no torch.

    Args:
        run: folder of a run or an abbreviation of it; or a configuration: its best student.
        folder: folder to create, which must be empty or missing.
        task: task after which the student is exported, counted from 0; None: the last.
        format: `onnx`; `executorch`; or `timm`, weights that `timm.create_model` loads.
        int8: quantise the weights, with ranges computed for each input or fixed; only with ONNX.
        check: whether to compare all predictions with the evaluation.
        memory: whether the student can learn on; only with ONNX.

    Returns:
        Size, costs and comparisons; its text is printed. `load` opens the folder.

    Raises:
        CdlError: the run cannot be exported so, or the predictions differ from the evaluation.
    """
    from cdl.cli.student import Format, Int8, write_export

    for name, value, kinds in (("format", format, Format), ("int8", int8, Int8)):
        if value is not None and value not in [*kinds]:
            expected = ", ".join(kinds)
            raise CdlError(f"{name}: invalid value {value!r:.50}; expected one of {expected}")
    quantised = None if int8 is None else Int8(int8)
    found = write_export(
        _path(run), Path(_path(folder)), task, Format(format), quantised, check, memory
    )
    if found.problem:
        raise CdlError(found.problem)
    return found


def _words(config: Config, overlays: tuple[Config, ...], overrides: Mapping[str, Any]) -> list[str]:
    """Return a configuration as the words of a command line."""
    from cdl.study.layers import is_value, words_of

    if isinstance(config, Mapping) and not config:
        raise CdlError("the configuration is empty; expected at least name, datasets and grid")
    words: list[str] = []
    for layer in (config, *overlays):
        if isinstance(layer, Mapping):
            words += words_of(layer)
            continue
        word = _path(layer)
        if layer is config and is_value(word):
            raise CdlError(f"{word:.100}: is a value; expected a YAML file or a dict before it")
        words.append(f"./{word}" if word.startswith("-") else word)
    return [*words, *words_of({k.replace("__", "."): v for k, v in overrides.items()})]


def _path(given: object) -> str:
    """Return a path or a name as text; raise `CdlError` for what is neither."""
    if isinstance(given, str | PathLike):
        text = os.fspath(given)
        if isinstance(text, str) and text and "\0" not in text:
            return text
    raise CdlError(f"{given!r:.100}: is of type {type(given).__name__}; expected a path as text")


def _positive(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise CdlError(f"{name}: invalid value {value!r:.50}; expected a whole number above 0")
    return value
