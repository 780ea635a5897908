"""Commands that show, send, check or delete results.

status, tables, compare, track, trace, verify, clean.
"""

import os
import shlex
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cdl.cli.options import (
    DEFAULT_RESULTS,
    AsJson,
    Configs,
    Directory,
    OptionalConfigs,
    Results,
    cdl_command,
    grid_of,
    print_json,
    print_result,
)
from cdl.inventory.naming import nothing_here
from cdl.layout import RESULTS, ResultsFolder, runs_below
from cdl.runtime.errors import CdlError
from cdl.study.learning_jobs import user_files
from cdl.study.report_jobs import study_jobs

if TYPE_CHECKING:
    from cdl.inventory.verify import Verification


def status(
    config: Configs,
    directory: Directory = Path("."),
    cores: Annotated[
        int, typer.Option(min=1, help="Parallel jobs, for the estimated time left.")
    ] = 1,
    every: Annotated[
        bool, typer.Option("--all", help="A line for each unfinished cell and each note.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the progress of CONFIG and the estimated time left.

    Counts the table cells and jobs that are done, running, failed or missing, and
    shows the first of them.
    """
    from cdl.inventory.status import report

    grid = grid_of(config, directory)
    os.chdir(directory)
    progress = report(grid, cores, f"{cdl_command()} run {shlex.join(config)}")
    if every and not as_json:
        print(progress.text(every=True))
    else:
        print_result(progress, as_json)


def tables(
    config: OptionalConfigs = None,
    directory: Directory = Path("."),
    columns: Annotated[
        str, typer.Option(metavar="NAMES", help="Columns of the LaTeX table, with commas between.")
    ] = "accuracy,forgetting,gain",
) -> None:
    """Write tables of the runs of CONFIG that are finished.

    Other runs may still be in progress. Writes to the folder
    results/NAME/tables/partial. The columns of summary.tex, at most five:
    accuracy, forgetting, gain, gap, closed, last, incremental,
    task_incremental, calibration, parameters, seeds.
    """
    from cdl.inventory.finished import tabulate
    from cdl.reporting.latex import columns_of

    chosen = columns_of(columns)
    grid = grid_of(config, directory)
    os.chdir(directory)
    if not Path(grid.layout.root).is_dir():
        raise CdlError(nothing_here(grid.config["name"]))
    print("\n".join(tabulate(grid, chosen)))


def compare(
    first: Annotated[
        str, typer.Argument(metavar="FIRST", help="Table cell: DATASET/METHOD/LEARNER.")
    ],
    second: Annotated[
        str, typer.Argument(metavar="SECOND", help="Table cell that is subtracted from FIRST.")
    ],
    results: Results = DEFAULT_RESULTS,
    as_json: AsJson = False,
) -> None:
    """Compare two table cells, paired by seed and test example.

    Prints the difference of the accuracies in percentage points with its 95 %
    confidence interval and p value: overall, per task and per class.
    """
    from cdl.inventory.compare import compare as paired_comparison

    comparison = paired_comparison(first, second, ResultsFolder(results))
    print_result(comparison, as_json)


class Tracker(StrEnum):
    """Experiment trackers, each with an extra of its name."""

    tensorboard = "tensorboard"
    wandb = "wandb"
    trackio = "trackio"


def track(
    config: Configs,
    to: Annotated[Tracker, typer.Option(help="Experiment tracker; needs the extra of its name.")],
    directory: Directory = Path("."),
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder of the tracker; default: tracking/NAME."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send curves of losses and accuracies to an experiment tracker.

    Sends the configuration and the finished and running tasks of each run of CONFIG
    to a local folder. A second call sends only what is new.
    """
    from cdl.inventory.tracking import track as send

    target = output.absolute() if output else Path("tracking", to)
    grid = grid_of(config, directory)
    os.chdir(directory)
    print_result(send(grid, to, target), as_json)


def trace(
    cell: Annotated[
        str,
        typer.Argument(
            metavar="CELL", help="Names in the tables, DATASET/METHOD/LEARNER, or a folder."
        ),
    ],
    results: Results = DEFAULT_RESULTS,
    every: Annotated[bool, typer.Option("--all", help="List the files of every step.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the provenance of a table cell.

    Checks the files that the cell was computed from: tables, predictions,
    checkpoints, weights and data. Prints the learner, its data and versions, the
    hashes, and the command that computes the cell again. A file is absent if only
    its record is there. Exit code 1 if a check fails.
    """
    from cdl.inventory.origin import summary
    from cdl.inventory.trace import trace as provenance

    folder = ResultsFolder(results)
    traces = provenance(cell, folder)
    links = {run: traced.links for run, traced in traces.items()}
    if as_json:
        print_json({run: [link._asdict() for link in steps] for run, steps in links.items()})
    elif every or any(traced.row is None for traced in traces.values()):
        for run, steps in links.items():
            print(results.parent / run)
            for link in steps:
                print(f"  {link.mark:<6}  {link.what:<15} {link.text}")
    else:
        print(summary(traces, folder, cdl_command()))
    if not all(link.holds for steps in links.values() for link in steps):
        raise typer.Exit(1)


def verify(
    config: OptionalConfigs = None,
    directory: Directory = Path("."),
    data: Annotated[bool, typer.Option("--data", help="Also check the source datasets.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compare result files or an exported student with their hashes.

    CONFIG is configuration files, or the folder of one exported student. Prints
    damaged and missing files. Exit code 1 if there are any.
    """
    from cdl.deployment.load import is_exported
    from cdl.deployment.manifest import MANIFEST
    from cdl.inventory.verify import recorded_files, sources_of
    from cdl.inventory.verify import verify as check_files

    if config and len(config) == 1 and (folder := Path(config[0])).is_dir():
        if not (is_exported(folder) or (folder / MANIFEST).exists()):
            raise CdlError(
                f"{folder}: is not an exported student; to check a study, give its CONFIG"
            )
        verification = _verify_exported(folder)
    else:
        grid = grid_of(config, directory)
        os.chdir(directory)
        if not Path(grid.layout.root).is_dir():
            raise CdlError(nothing_here(grid.config["name"]))
        sources = sources_of(user_files(grid)) if data else {}
        verification = check_files(recorded_files(study_jobs(grid)), sources)
    print_result(verification, as_json)
    if verification.faults:
        raise typer.Exit(1)


def _verify_exported(folder: Path) -> "Verification":
    """Compare an exported student with its manifest."""
    from cdl.deployment.manifest import compare as compare_with_manifest
    from cdl.inventory.verify import Fault, Verification

    differences = {folder / name: text for name, text in compare_with_manifest(folder).items()}
    faults = tuple(
        Fault("damaged" if file.exists() else "missing", str(file), text)
        for file, text in differences.items()
        if text
    )
    return Verification(len(differences), faults)


def clean(
    configs: Annotated[
        list[str],
        typer.Argument(
            metavar="CONFIG", help="Configurations to keep: FILE, or FILE+OVERLAY with an overlay."
        ),
    ],
    directory: Directory = Path("."),
    learnt: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help=f"Also runs of cdl learn in {RESULTS}/NAME."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Delete the listed results.")] = False,
    as_json: AsJson = False,
) -> None:
    """List (or delete, with --yes) results that no CONFIG uses.

    Prints each size and the total. Runs of cdl learn are kept unless --learnt
    names them.
    """
    from cdl.inventory.cleaning import drop, leftovers

    grids = [grid_of(config.split("+")) for config in configs]
    os.chdir(directory)
    unused = leftovers(grids, learnt or ())
    if yes:
        drop(unused)
    size = sum(item.size for item in unused)
    if as_json:
        paths = {str(item.path): item.size for item in unused}
        print_json({"deleted": yes, "bytes": size, "paths": paths})
        return
    for item in unused:
        runs = f", {n} finished run{'s' * (n > 1)}" if (n := len(runs_below(item.path))) else ""
        print(f"{item.size / 1e6:>10.1f} MB  {item.path}{runs}")
    if not unused:
        here = Path(RESULTS).is_dir()
        kept = "all results belong to the given configurations" if here else nothing_here()
        print(f"nothing to delete: {kept}")
        return
    done = "deleted" if yes else "in total; add --yes to delete these files"
    print(f"{size / 1e6:>10.1f} MB  {done}")
