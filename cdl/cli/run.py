"""`cdl run`, and the checks before Snakemake starts."""

import contextlib
import itertools
import os
import shlex
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from cdl.cli import events
from cdl.cli.options import cdl_command, grid_of, program
from cdl.layout import RESULTS
from cdl.runtime.caches import ensure_cache
from cdl.runtime.errors import CdlError
from cdl.study.configuration import merge, read
from cdl.study.grid import Grid
from cdl.study.layers import as_files, is_value
from cdl.study.trials import Trials

if TYPE_CHECKING:
    from cdl.cli.progress import Forward

TARGETS = {  # rules that can be named as targets; any file below results/ is a target too
    "all": "everything; the default",
    "collect": "tables of all runs",
    "tabulate": "means over seeds",
    "page": "the page with every run",
    "chosen_prompts": "figures of the prompts that learners choose, which `all` does not make",
    "halve": "choice of the trials of `tune` that continue after their first tasks",
    "tuned": "best values of the options listed in `tune`, on validation examples",
}
SEARCH = ("halve", "tuned")  # targets that need `tune`
S3 = "SNAKEMAKE_STORAGE_S3"  # beginning of environment variables
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
        _find_cache()
        if executor == "slurm" and find_spec(PLUGIN) is None:
            raise CdlError(
                "executor: slurm is not installed; in the checkout run pip install '.[slurm]', "
                f"elsewhere pip install {PLUGIN.replace('_', '-')}"
            )
        check_command(sys.argv[1:])
    except CdlError as error:
        print(f"cdl: {error}", file=sys.stderr)
        sys.exit(1)  # the exit code of Snakemake for errors


def check_command(arguments: list[str]) -> tuple[Namespace, set[str]]:
    """Check the configuration files and targets among Snakemake's arguments.

    Returns:
        The parsed arguments; and the options that differ from their defaults, by Snakemake's
        names, and unknown arguments.

    Raises:
        ConfigError: a configuration cannot be read.
        CdlError: a target is neither the name of a target nor a file, or needs `tune`.
    """
    from snakemake.cli import get_argument_parser

    parser = get_argument_parser()
    _check_executor(parser, arguments)
    parsed, unknown = parser.parse_known_args(arguments)
    _check_storage(parsed, arguments)
    config: dict[str, Any] = {}
    for file in parsed.configfile:
        config = merge(config, read(file))
    for target in parsed.targets:
        if target == "tables":
            configs = " ".join(map(str, parsed.configfile)) or "CONFIG"
            raise CdlError(f"tables: is not a target; run {cdl_command()} tables {configs}")
        if is_value(target):
            raise CdlError(f"{target}: is a value; expected it directly after CONFIG")
        if target not in TARGETS and not target.startswith((RESULTS, os.sep, ".")):
            raise CdlError(
                f"{target}: unknown target; expected {', '.join(TARGETS)}, or a file below "
                f"{RESULTS}/"
            )
        if target in SEARCH and parsed.configfile and not config.get("tune"):
            raise CdlError(
                f"{target}: the configuration has no block `tune`, which lists the options to "
                "search; add it (see config/README.md), or run without this target"
            )
    defaults = vars(parser.parse_known_args([])[0])
    changed = {name for name, value in vars(parsed).items() if value != defaults[name]}
    return parsed, changed | set(unknown)


def _check_executor(parser: ArgumentParser, arguments: list[str]) -> None:
    """Raise `CdlError` if the option `--executor` names a plugin that is not installed."""
    known = next(a.choices for a in parser._actions if "--executor" in a.option_strings) or ()
    for option, value in itertools.pairwise([w for a in arguments for w in a.split("=", 1)]):
        if option in ("--executor", "-e") and value not in known:
            raise CdlError(
                f"--executor: {value!r} is not installed; pip install "
                f"snakemake-executor-plugin-{value}, or choose one of {', '.join(sorted(known))}"
            )


def _check_storage(parsed: Namespace, arguments: list[str]) -> None:
    """Raise `CdlError` if a storage for the results lacks its prefix or its keys."""
    provider = parsed.default_storage_provider
    if not provider:
        return
    if not parsed.default_storage_prefix:
        raise CdlError(
            "--default-storage-prefix: is missing; expected where the results are, such as "
            f"{provider}://BUCKET/FOLDER"
        )
    has_key = any(word.startswith("--storage-s3-access-key") for word in arguments)
    has_key = has_key or bool(os.environ.get(f"{S3}_ACCESS_KEY"))
    if provider == "s3" and find_spec("boto3") and not has_key:
        import boto3

        if not boto3.Session().get_credentials():
            raise CdlError(
                f"s3: there are no keys; set {S3}_ACCESS_KEY and {S3}_SECRET_KEY, or those of AWS"
            )


def run(
    context: typer.Context,
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A YAML file.")],
) -> None:
    """Run the experiments of CONFIG and write results to ./results.

    Jobs that are done are skipped, so a stopped run can be resumed. YAML files and
    values such as training.epochs=5 or grid.seeds=[0,1], directly after CONFIG,
    override its values. All other arguments are passed to Snakemake: --cores N,
    -n (list the jobs and why), --verbose, --workflow-profile FOLDER, or the name of
    a file to make.
    """
    configs, rest = _split([config, *context.args])
    ended = start(configs, rest)
    if ended.text:
        print(ended.text, file=sys.stderr)
    if ended.code:
        raise typer.Exit(ended.code)


class Ended(NamedTuple):
    """The end of a run: Snakemake's exit code, whether it was interrupted, and what to do then."""

    code: int
    interrupted: bool
    text: str


def start(configs: list[str], rest: list[str], forward: "Forward | None" = None) -> Ended:
    """Check a configuration, run it, and print its results.

    With options of Snakemake that have an output of their own, this process becomes Snakemake.

    Args:
        configs: files and values of the configuration, see `cdl.study.layers`.
        rest: arguments of Snakemake.
        forward: prints each line that Snakemake prints; None: Snakemake prints them itself.

    Raises:
        CdlError: an argument, the configuration or a file is invalid; raised before any job.
    """
    from cdl.cli.outcome import closing
    from cdl.cli.progress import PROGRESS_OPTIONS, plain_console, run_snakemake
    from cdl.inventory.starting import check_folder

    parsed, _ = check_command(rest)
    folder = Path(parsed.directory or ".")
    check_folder(folder)
    grid = grid_of(configs, folder)
    # the last option takes all words that follow it
    arguments = [*rest, "--configfile", *as_files(configs, folder)]
    parsed, changed = check_command(arguments)
    Trials(grid)  # checks `tune`, which the grid of runs does not read
    _check_start(grid, folder)
    if parsed.unlock:
        _check_lock(folder)
    snakefile = str(program() / "Snakefile")
    arguments = ["--snakefile", snakefile, *arguments]
    if changed - PROGRESS_OPTIONS - {"dryrun"}:
        os.execv(sys.executable, [sys.executable, "-m", "snakemake", *arguments])
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary, "events")
        command = [sys.executable, "-m", "cdl.cli.quiet_snakemake", *arguments, "--logger", "cdl"]
        code, interrupted = run_snakemake(command, {events.FILE: str(file)}, forward)
        happened = events.read(file)
    if parsed.dryrun:
        _print_plan(grid, folder, happened)
        return Ended(code, interrupted, "")
    if code:
        again = f"{cdl_command()} run {shlex.join([*configs, *rest])}"
        status = f"{cdl_command()} status {shlex.join(configs)}"
        with contextlib.chdir(folder):
            return Ended(code, interrupted, closing(happened, interrupted, again, status))
    from cdl.cli.summary import show, show_runs

    if "tuned" in parsed.targets:
        tuning, files = grid.layout.tuning, shlex.join(configs)
        overlay = str(folder / tuning.overlay)
        print(f"Best values: {overlay}\nReport:      {folder / tuning.text}")
        print(f"Next:        {cdl_command()} run {files} {shlex.quote(overlay)}")
    if changed & {"targets", "until"}:
        computed = any(event["kind"] == "started" for event in happened)
        show_runs(grid, parsed.targets, folder, cdl_command(), computed=computed)
    else:
        with contextlib.chdir(folder):
            show(grid.layout.report, cdl_command(), forward and plain_console())
    return Ended(code, interrupted, "")


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    """Return the configuration with its overlays and values, and the other arguments.

    Options may be before the configuration, which is then the first YAML file.

    Raises:
        CdlError: options, but no configuration; or a value in front of it.
    """
    are_yaml = [word.endswith((".yaml", ".yml")) and not is_value(word) for word in words]
    start = are_yaml.index(True) if words[0].startswith("-") and any(are_yaml) else 0
    if is_value(words[start]):
        raise CdlError(f"{words[start]}: is a value; expected cdl run CONFIG {words[start]}")
    if words[start].startswith("-"):
        raise CdlError(f"CONFIG: is missing; expected cdl run CONFIG {shlex.join(words)}")
    end = start + 1
    while end < len(words) and (are_yaml[end] or is_value(words[end])):
        end += 1
    # targets first: options before them may take all words that follow
    return words[start:end], [*words[end:], *words[:start]]


def _check_start(grid: Grid, folder: Path) -> None:
    """Check the cache folder and the user's files.

    Raises:
        CdlError: the cache folder cannot be written.
        ConfigError: a source is missing or invalid.
    """
    from cdl.inventory.datasets import small_views
    from cdl.inventory.naming import nothing_here, results_nearby
    from cdl.inventory.starting import check_sources

    _find_cache()
    with contextlib.chdir(folder):
        check_sources(grid)
        for note in small_views(grid):
            print(f"cdl: {note}", file=sys.stderr)
        name = grid.config["name"]
        if not Path(grid.layout.root).is_dir() and results_nearby(name):
            print(f"cdl: {nothing_here(name)}; this run starts anew", file=sys.stderr)


def _check_lock(folder: Path) -> None:
    """Raise `CdlError` if the run that locked a folder is at work."""
    from cdl.inventory.status import first_worker

    with contextlib.chdir(folder):
        if owner := first_worker():
            raise CdlError(f"--unlock: {owner}; stop it or wait for its end")


def _find_cache() -> None:
    if note := ensure_cache():
        print(f"cdl: {note}", file=sys.stderr)


def _print_plan(grid: Grid, folder: Path, happened: list[dict[str, Any]]) -> None:
    """Print the jobs of a dry run: what, how many, and why."""
    from rich.console import Console

    from cdl.cli.plan import Planned, table

    jobs = [Planned(event["rule"], event["key"], event["reason"]) for event in happened]
    if jobs:
        with contextlib.chdir(folder):
            Console(highlight=False).print(table(grid, jobs))
