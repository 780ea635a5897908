"""Commands for finished students: export, push, predict, demo, learn.

Torch is imported only by the commands that need it.
"""

import contextlib
import logging
import os
import sys
from collections.abc import Iterable, Sequence
from enum import StrEnum
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cdl.cli.options import AsJson, cdl_command, grid_of, print_result
from cdl.inventory.naming import find_run, nothing_here
from cdl.layout import RESULTS, RunFiles
from cdl.runtime.errors import CdlError

if TYPE_CHECKING:
    from cdl.deployment.export import Exported
    from cdl.deployment.learn import Learnt

RunOrConfig = Annotated[
    str,
    typer.Argument(metavar="RUN", help="Folder of a run, an abbreviation, or CONFIG: its best."),
]
Run = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help=f"Folder of a run, {RESULTS}/.../seedN, an abbreviation, or an exported student.",
    ),
]


class Format(StrEnum):
    """File formats of an exported model."""

    onnx = "onnx"
    executorch = "executorch"
    timm = "timm"


class Int8(StrEnum):
    """Kinds of int8 quantisation: activation ranges computed per input, or calibrated."""

    dynamic = "dynamic"
    static = "static"


def export(
    run: RunOrConfig,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder to create; must be empty or missing.")
    ],
    task: Annotated[
        int | None,
        typer.Option(help="Task, counted from 0; default: last."),
    ] = None,
    format: Annotated[Format, typer.Option(help="File format.")] = Format.onnx,
    int8: Annotated[Int8 | None, typer.Option(help="Quantise the weights to int8.")] = None,
    check: Annotated[bool, typer.Option(help="Compare all predictions.")] = True,
    memory: Annotated[bool, typer.Option(help="Learn on later.")] = True,
    as_json: AsJson = False,
) -> None:
    """Export the student of a finished run as a model file.

    Writes the model with its classes and, with ONNX, a program that learns on.
    Exit code 1 if its predictions differ from the evaluation.
    """
    result = write_export(run, output, task, format, int8, check, memory)
    print_result(result, as_json)
    if result.problem:
        print(f"cdl: {result.problem}", file=sys.stderr)
        raise typer.Exit(1)


def write_export(
    run: str,
    output: Path,
    task: int | None,
    format: Format,
    int8: Int8 | None,
    check: bool,
    memory: bool,
) -> "Exported":
    """Export the run that a name means; see `export` and `cdl.deployment.export.export`."""
    from cdl.deployment.export import export as write

    kind = {"executorch": format is Format.executorch, "timm": format is Format.timm}
    return write(_run_of(run), output, task, check, int8, memory=memory, **kind)


def folder_of(name: str | os.PathLike[str]) -> str:
    """Return the folder of the run that a name or a configuration means; else what is given."""
    name = os.fspath(name)
    means_run = name.endswith((".yaml", ".yml")) or Path(RESULTS).is_dir()
    if Path(name).is_dir() or Path(name).is_absolute() or "://" in name or not means_run:
        return name
    return str(_run_of(name))


def _run_of(name: str) -> Path:
    """Return the folder of a run, or of the best student of a configuration."""
    if not name.endswith((".yaml", ".yml")):
        folder = find_run(name)
        if not Path(RunFiles(str(folder)).results).is_file():
            raise CdlError(f"{name}: contains no finished run; {nothing_here()}")
        return folder
    from cdl.inventory.finished import unfinished
    from cdl.reporting.best import best_cell
    from cdl.reporting.tables import read

    grid = grid_of([name])
    tables, study = grid.layout.report.tables, grid.config["name"]
    if not Path(tables.results).is_file():
        raise CdlError(f"{name}: has no table of finished runs; {nothing_here(study)}")
    best = best_cell(read(tables.results, tables.protocols)).iloc[0]
    print(f"best student of {name}: {best['run']}", file=sys.stderr)
    if left := unfinished(grid):
        print(f"{left}; `{cdl_command()} status {name}` lists them", file=sys.stderr)
    return Path(best["run"])


def _with_progress(files: Sequence[str]) -> Iterable[str]:
    """Show a progress bar on stderr if it is a terminal and stdout is not."""
    if len(files) < 2 or sys.stdout.isatty() or not sys.stderr.isatty():
        return files
    from tqdm import tqdm

    return tqdm(files, unit="item")


def learn(
    run: Run,
    task: Annotated[
        Path,
        typer.Option(
            "--task", help="Training images, one subfolder per new class; or texts, a CSV."
        ),
    ],
    name: Annotated[
        str | None,
        typer.Option("--output", "-o", help="For a run: name of the new run's folder in results."),
    ] = None,
    test: Annotated[
        Path | None,
        typer.Option(help="Test items, same layout; default: a fifth of --task."),
    ] = None,
    teacher: Annotated[
        Path | None,
        typer.Option(help="Run of the teacher that has learnt the same task."),
    ] = None,
    unlabelled: Annotated[
        Path | None,
        typer.Option(help="Unlabelled items; a run needs a target for them."),
    ] = None,
    check: Annotated[
        Path | None,
        typer.Option(help="Of an export: items of earlier classes."),
    ] = None,
    keep_earlier: Annotated[
        float | None,
        typer.Option(
            metavar="PERCENT",
            help="Of an export: limit of changed old answers.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Teach an exported student or a run new classes.

    An exported student learns without torch; its folder gets a new version. For a
    run, writes a new run to results/OUTPUT, and prints the accuracy on every task
    before and after, and the old classes that became worse.
    """
    from cdl.deployment.facade import Student
    from cdl.deployment.load import is_exported, load

    exported = is_exported(Path(run))
    of_run: dict[str, object] = {"output": name, "teacher": teacher}
    of_export: dict[str, object] = {"check": check, "keep-earlier": keep_earlier}
    for option, value in (of_run if exported else of_export).items():
        if value is not None and exported:
            raise CdlError(f"--{option}: {value} is only used for runs; omit it")
        if value is not None:
            raise typer.BadParameter(f"--{option}: is only used for an exported student; omit it")
    if exported:
        student = Student(load(run), run)
        update = student.learn(task, test, unlabelled, check=check, keep_earlier=keep_earlier)
        print_result(update, as_json)
    else:
        print_result(_taught_run(run, task, name, test, teacher, unlabelled), as_json)


def _taught_run(
    run: str,
    task: Path,
    name: str | None,
    test: Path | None,
    teacher: Path | None,
    unlabelled: Path | None,
) -> "Learnt":
    """Write the run that has learnt one more task; the steps are printed on stderr."""
    if name is None:
        if not Path(run).exists():
            needed = "write it with `cdl export`; to teach a run, give the new run's name, --output"
            raise CdlError(f"{run}: no such folder; {needed}")
        raise typer.BadParameter("--output: is missing; a run needs the name of the new run")
    from cdl.deployment.learn import learn

    logging.basicConfig(format="%(message)s")
    logging.getLogger("cdl.deployment").setLevel(logging.INFO)
    return learn(find_run(run), task, name, test=test, teacher=teacher, unlabelled=unlabelled)


def demo(
    student: Annotated[
        Path, typer.Argument(metavar="STUDENT", help="Folder of an exported student.")
    ],
    static: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write the page for a web server instead."),
    ] = None,
    runtime: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder or address of onnxruntime-web's files; default: fetched once.",
        ),
    ] = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the page; 0: any free port.")
    ] = 0,
) -> None:
    """Open a page that runs a student in the browser.

    It classifies images and what the camera shows, learns new classes, undoes, and
    downloads the student. Nothing leaves this machine. Press Ctrl-C to stop.
    """
    from cdl.deployment.demo import Server, site, write_site

    content = site(student, runtime)
    if static is not None:
        write_site(content, static)
        print(f"{static}: {len(content)} files")
        return
    with Server(content, port) as server:
        print(f"{server.address} (press Ctrl-C to stop)", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


def push(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Folder of an exported student.")
    ],
    repository: Annotated[
        str, typer.Argument(metavar="OWNER/NAME", help="Model on the Hub; made if missing.")
    ],
    private: Annotated[
        bool, typer.Option("--private/--public", help="Who sees a new model: you, or everyone.")
    ] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Only print what would be uploaded.")
    ] = False,
) -> None:
    """Upload an exported student to the Hugging Face Hub.

    Prints the files first. The model card becomes README.md and must have a
    licence in its metadata. Log in with `hf auth login` or HF_TOKEN.
    """
    from cdl.deployment.hub import Upload

    upload = Upload.of(folder, repository, private)
    print(upload.text(), flush=True)
    if not dry_run:
        print(f"uploaded: {upload.send()}; load it with {upload.loading}")


def predict(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="Folder of an exported student, RUN or CONFIG as for export, or hf://OWNER/NAME.",
        ),
    ],
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="ITEM...", help="Images or folders, or texts; - reads them from stdin."
        ),
    ],
    top: Annotated[
        int, typer.Option("--top", "-k", min=1, help="Number of classes to print for each.")
    ] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON for each.")] = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print CSV, a row for each and class.")
    ] = False,
    threshold: Annotated[
        float | None,
        typer.Option(help="Score below which an item is unknown."),
    ] = None,
    unknown: Annotated[bool, typer.Option(help="Say what is in no class.")] = True,
) -> None:
    """Classify images or texts with a student.

    An exported student says unknown of what is less like its nearest class than
    95 % of this class's training images are. What cannot be read is reported on
    stderr; the rest is classified, and the exit code is 1.
    """
    from cdl.deployment.load import load
    from cdl.device.predict import (
        CsvPrinter,
        JsonPrinter,
        TextPrinter,
        print_predictions,
        uses_scores,
    )

    if as_json and as_csv:
        raise typer.BadParameter("--json and --csv exclude each other; give one of them")
    for stream in (sys.stdin, sys.stdout, sys.stderr):  # names of files may be any bytes
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="surrogateescape")
    student = load(folder_of(model))
    column = student.items.column
    scored = uses_scores(student, unknown, threshold)
    table = CsvPrinter(column, scored) if as_csv else TextPrinter()
    printer = JsonPrinter(column) if as_json else table
    files = _with_progress(student.items.listed(paths, sys.stdin))
    if not print_predictions(student, files, top, printer, scored, threshold):
        raise typer.Exit(1)
