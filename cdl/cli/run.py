"""`cdl run`, and the checks before Snakemake starts."""

import os
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import Annotated

import typer

from cdl.cli.options import grid_of, program
from cdl.layout import RESULTS
from cdl.runtime.errors import CdlError
from cdl.study.configuration import ConfigError, read
from cdl.study.trials import Trials

TARGETS = {  # rules that can be named as targets; any file below results/ is a target too
    "all": "everything; the default",
    "collect": "tables of all runs",
    "tabulate": "means over seeds",
    "page": "the page with every run",
    "halve": "choice of the trials of `tune` that continue after their first tasks",
    "tuned": "best values of the options listed in `tune`, on validation images",
}
PLUGIN = "snakemake_executor_plugin_slurm"


def preflight(executor: str = "") -> None:
    """Check executor, configuration files and targets; exit with a one-line message.

    Without this check Snakemake would print a traceback. The shipped profiles call it, because
    Snakemake reads its profile before the configuration files and these before the Snakefile.
    Does nothing in other programs that read a profile.

    Args:
        executor: name of the executor that the profile selects.
    """
    started = Path(sys.argv[0])
    if "snakemake" not in (started.name, started.parent.name):
        return
    try:
        if executor == "slurm" and find_spec(PLUGIN) is None:
            raise CdlError(
                "executor: slurm is not installed; in the checkout run pip install '.[slurm]', "
                f"elsewhere pip install {PLUGIN.replace('_', '-')}"
            )
        check_command(sys.argv[1:])
    except (ConfigError, CdlError) as error:
        print(f"cdl: {error}", file=sys.stderr)
        sys.exit(1)  # the exit code of Snakemake for errors


def check_command(arguments: list[str]) -> set[str]:
    """Check the configuration files and targets among Snakemake's arguments.

    Returns:
        The options that differ from their defaults, by Snakemake's names, and unknown arguments.

    Raises:
        ConfigError: a configuration cannot be read.
        CdlError: a target is neither the name of a target nor a file.
    """
    from snakemake.cli import get_argument_parser

    parser = get_argument_parser()
    parsed, unknown = parser.parse_known_args(arguments)
    for file in parsed.configfile:
        read(file)
    for target in parsed.targets:
        if target == "tables":
            configs = " ".join(map(str, parsed.configfile)) or "CONFIG"
            raise CdlError(f"tables: is not a target; run {cdl_command()} tables {configs}")
        if target not in TARGETS and not target.startswith((RESULTS, os.sep, ".")):
            raise CdlError(
                f"{target}: unknown target; expected {', '.join(TARGETS)}, or a file below "
                f"{RESULTS}/"
            )
    defaults = vars(parser.parse_known_args([])[0])
    changed = {name for name, value in vars(parsed).items() if value != defaults[name]}
    return changed | set(unknown)


def run(
    context: typer.Context,
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="A YAML file.")],
) -> None:
    """Run the experiments of CONFIG and write results to ./results.

    Jobs that are done are skipped, so a stopped run can be resumed. YAML files
    directly after CONFIG override its values. All further arguments are passed to
    Snakemake: --cores N, -n (dry run), --workflow-profile FOLDER, or the name of a
    file to make.
    """
    from cdl.cli.progress import PROGRESS_OPTIONS, run_snakemake

    rest = list(context.args)
    configs = [config]
    while rest and rest[0].endswith((".yaml", ".yml")):
        configs.append(Path(rest.pop(0)))
    grid = grid_of(configs)
    Trials(grid)  # checks `tune`, which the grid of runs does not read
    arguments = ["--configfile", *map(str, configs), *rest]
    given = check_command(arguments)
    snakefile = str(program() / "Snakefile")
    command = [sys.executable, "-m", "snakemake", "--snakefile", snakefile]
    if given - PROGRESS_OPTIONS:
        os.execv(sys.executable, [*command, *arguments])
    code, interrupted = run_snakemake([*command, "--logger", "cdl", *arguments])
    if code:
        reason = "interrupted" if interrupted else "stopped because a job failed"
        status = f"{cdl_command()} status {shlex.join(map(str, configs))}"
        print(
            f"{reason}; the results of finished jobs are kept\n"
            f"Resume:        {cdl_command()} {shlex.join(sys.argv[1:])}\n"
            f"Show progress: {status}",
            file=sys.stderr,
        )
        raise typer.Exit(code)
    if not given & {"targets", "until"}:
        from cdl.cli.summary import show

        trained = [run for run in grid.runs if run.prompts.trains and not run.aligned]
        unaligned = {grid.files(run).folder for run in trained}
        show(grid.layout.report, unaligned, cdl_command())


def cdl_command() -> str:
    """Return the command that starts this program, for messages."""
    if which("cdl"):
        return "cdl"
    started = sys.argv[0]  # `.venv/bin/cdl`, or a file when started with `python -m cdl`
    return shlex.quote(started) if Path(started).name == "cdl" else "python -m cdl"
