"""The command line. A command reads its arguments, asks one function of the library, and prints.

Exit codes: 0, 1 (answered, and something is wrong), 2 (the question is wrong; one line on stderr).
"""

import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from enum import StrEnum
from functools import partial, reduce
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import Annotated, Any

import typer

from cdl.cli import student as deployment
from cdl.cli.backbones import app as backbones
from cdl.layout import RESULTS, ResultsFolder
from cdl.runtime.errors import CdlError
from cdl.study.configuration import ConfigError, merge, read, resolve, schema
from cdl.study.grid import Grid
from cdl.study.learning_jobs import LearningJobs
from cdl.study.report_jobs import study_jobs
from cdl.study.trials import Trials

app = typer.Typer(
    help="Continual distillation learning: a configuration in, tables out.",
    epilog="Example: cdl init study && cdl run study/config.yaml --cores 2",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
Configs = Annotated[
    list[Path], typer.Argument(metavar="CONFIG", help="YAML; later files over earlier ones.")
]
# of the click inside typer, which has no name of its own in older versions
UsageError: type[Exception] = typer.BadParameter.__mro__[1]
app.add_typer(backbones, name="backbones")
app.command(epilog=f"Example: cdl export {RESULTS}/.../seed0 -o student")(deployment.export)
app.command(epilog="Example: cdl predict student photos/ --csv")(deployment.predict)
app.command(epilog="Example: cdl demo student")(deployment.demo)
app.command(epilog=f"Example: cdl learn {RESULTS}/.../seed0 --task new/ -o more")(deployment.learn)
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]


def program() -> Path:
    """Return the folder with Snakefile, workflow, profiles and config: in a wheel or a checkout."""
    package = Path(str(files("cdl")))
    packaged = package / "_program"
    return packaged if packaged.is_dir() else package.parent


TARGETS = {  # of `snakemake NAME`; any file below results/ is one too
    "all": "everything, as without a name",
    "collect": "tables of all runs",
    "tabulate": "means over seeds",
    "page": "the page with every run",
    "halve": "which trials of `tune` go on after their first tasks",
    "tuned": "best values of what `tune` asks for, on validation images",
}
PLUGIN = "snakemake_executor_plugin_slurm"


def preflight(executor: str = "") -> None:
    """Refuse what Snakemake meets with a traceback or a riddle, in one sentence, and exit.

    The shipped profiles call this, because Snakemake reads its configuration files before its
    Snakefile, but its profile first. Nothing happens in other programs that read a profile.

    Args:
        executor: that the profile asks for.
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
        sys.exit(1)  # as Snakemake does


def check_command(arguments: list[str]) -> set[str]:
    """Read the configurations and look at the targets among Snakemake's arguments.

    Returns:
        What the arguments ask for, by Snakemake's names.

    Raises:
        ConfigError: a configuration cannot be read.
        CdlError: a target is neither a name nor a file.
    """
    from snakemake.cli import get_argument_parser

    parser = get_argument_parser()
    parsed, unknown = parser.parse_known_args(arguments)
    for file in parsed.configfile:
        read(file)
    for target in parsed.targets:
        if target == "tables":
            files = " ".join(map(str, parsed.configfile)) or "CONFIG"
            raise CdlError(f"tables: is no target; run {called()} tables {files}")
        if target not in TARGETS and not target.startswith((RESULTS, os.sep, ".")):
            raise CdlError(
                f"{target}: is no target; they are {', '.join(TARGETS)}, or the name of a file, "
                f"which begins with {RESULTS}/"
            )
    usual = vars(parser.parse_known_args([])[0])
    return {name for name, value in vars(parsed).items() if value != usual[name]} | set(unknown)


def grid_of(configs: list[Path]) -> Grid:
    """Return the grid of a configuration and its overlays; raise `ConfigError` if it is wrong."""
    return Grid(resolve(reduce(merge, map(read, configs))))


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    epilog="Example: cdl run config.yaml --cores 2",
)
def run(
    context: typer.Context,
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="A YAML file.")],
) -> None:
    """Run all that CONFIG asks for, into ./results.

    Further .yaml files directly behind it are overlays. All that follows goes to Snakemake:
    --cores N, -n (what would run), --workflow-profile FOLDER, or the name of a file to make.
    """
    from cdl.cli.progress import PLAIN, follow

    rest = list(context.args)
    configs = [config]
    while rest and rest[0].endswith((".yaml", ".yml")):
        configs.append(Path(rest.pop(0)))
    grid = grid_of(configs)
    Trials(grid)  # which may be wrong too
    arguments = ["--configfile", *map(str, configs), *rest]
    asked = check_command(arguments)
    snakefile = str(program() / "Snakefile")
    command = [sys.executable, "-m", "snakemake", "--snakefile", snakefile]
    if asked - PLAIN:
        os.execv(sys.executable, [*command, *arguments])
    code, stopped = follow([*command, "--logger", "cdl", *arguments])
    if code:
        why = "interrupted" if stopped else "stopped, since a job failed"
        status = f"{called()} status {shlex.join(map(str, configs))}"
        print(
            f"{why}; what is finished is kept.\n"
            f"To go on:                  {called()} {shlex.join(sys.argv[1:])}\n"
            f"What is done and what not: {status}",
            file=sys.stderr,
        )
        raise typer.Exit(code)
    if not asked & {"targets", "until"}:
        from cdl.cli.summary import show

        show(grid.layout.report, f"{called()} init study")


def called() -> str:
    """Return how this program can be called again."""
    if which("cdl"):
        return "cdl"
    started = sys.argv[0]  # `.venv/bin/cdl`, or a file that `python -m cdl` runs
    return shlex.quote(started) if Path(started).name == "cdl" else "python -m cdl"


@app.command(epilog="Example: cdl status config.yaml --cores 2")
def status(
    config: Configs,
    directory: Annotated[Path, typer.Option(help="Folder that holds the results.")] = Path("."),
    cores: Annotated[int, typer.Option(min=1, help="Jobs at a time, for the time left.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Say what of CONFIG is done and how long the rest takes.

    Cells of the tables and their jobs are done, running, failed or missing.
    """
    from cdl.inventory.status import report

    grid = grid_of(config)
    os.chdir(directory)
    answer = report(grid, cores)
    print(json.dumps(answer.as_dict(), indent=2) if as_json else answer.text())


@app.command(epilog="Example: cdl tables config.yaml")
def tables(
    config: Annotated[
        list[Path] | None,
        typer.Argument(metavar="CONFIG", help="YAML; later files over earlier ones."),
    ] = None,
    directory: Annotated[Path, typer.Option(help="Folder that holds the results.")] = Path("."),
) -> None:
    """Tabulate the runs of CONFIG that are finished, also while others run.

    Writes the folder tables/partial. Without CONFIG, those of the default configuration.
    """
    from cdl.inventory.finished import tabulate

    grid = grid_of(config or [program() / "config" / "default.yaml"])
    os.chdir(directory)
    print("\n".join(tabulate(grid)))


@app.command(epilog="Example: cdl data config.yaml")
def data(
    config: Configs,
    directory: Annotated[Path, typer.Option(help="Folder that holds the results.")] = Path("."),
    as_json: AsJson = False,
) -> None:
    """Say what the datasets of CONFIG hold.

    Classes, counts and sizes, and whether the tasks can be made of them.
    """
    from cdl.inventory.datasets import describe, text

    grid = grid_of(config)
    os.chdir(directory)
    found = describe(grid)
    print(
        json.dumps({k: asdict(v) for k, v in found.items()}, indent=2) if as_json else text(found)
    )


@app.command(epilog="Example: cdl trace digits/l2p/kd-vit_nano-from-vit_micro-q-vit_nano/seed0")
def trace(
    cell: Annotated[str, typer.Argument(help="DATASET/METHOD/LEARNER/SEED, or its start.")],
    results: Annotated[Path, typer.Option(help="Folder of all results.")] = Path(RESULTS),
    as_json: AsJson = False,
) -> None:
    """Follow a table's cell back to all it was made of.

    Every link is checked: tables, predictions, checkpoints, weights, data.
    """
    from cdl.inventory.trace import trace as follow

    chains = follow(cell, ResultsFolder(results))
    if as_json:
        answer = {run: [link._asdict() for link in links] for run, links in chains.items()}
        print(json.dumps(answer, indent=2))
    else:
        for name, links in chains.items():
            print(name)
            for link in links:
                print(f"  {'ok    ' if link.holds else 'BROKEN'}  {link.what:<13} {link.text}")
    if not all(link.holds for links in chains.values() for link in links):
        raise typer.Exit(1)


@app.command(epilog="Example: cdl compare cifar20/coda_prompt/kd cifar20/coda_prompt/none")
def compare(
    first: Annotated[str, typer.Argument(help="DATASET/METHOD/LEARNER, or as tables name it.")],
    second: Annotated[str, typer.Argument(help="The cell that is subtracted.")],
    results: Annotated[Path, typer.Option(help="Folder of all results.")] = Path(RESULTS),
    as_json: AsJson = False,
) -> None:
    """Compare two cells of finished runs, paired by seed and test image.

    Prints the difference in points, its 95 % interval and p value, in all and by task or class.
    """
    from cdl.inventory.compare import compare as contrast

    answer = contrast(first, second, ResultsFolder(results))
    print(json.dumps(answer.as_dict(), indent=2) if as_json else answer.text())


@app.command(epilog="Example: cdl verify config.yaml --data")
def verify(
    config: Annotated[
        list[Path] | None,
        typer.Argument(metavar="CONFIG", help="YAML; later files over earlier ones."),
    ] = None,
    directory: Annotated[Path, typer.Option(help="Folder that holds the results.")] = Path("."),
    data: Annotated[bool, typer.Option("--data", help="Read all source files again.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compare all files of CONFIG with their recorded hashes.

    What is damaged or missing is named. Without CONFIG, those of the default configuration.
    """
    from cdl.inventory.verify import sources_of, vouched
    from cdl.inventory.verify import verify as compare

    grid = grid_of(config or [program() / "config" / "default.yaml"])
    os.chdir(directory)
    user = LearningJobs(grid).user
    sources = sources_of(user) | _archives(user.data) if data else {}
    answer = compare(vouched(study_jobs(grid)), sources)
    print(json.dumps(answer.as_dict(), indent=2) if as_json else answer.text())
    if answer.faults:
        raise typer.Exit(1)


def _archives(data: Mapping[str, Mapping[str, Any]]) -> dict[str, Callable[[], None]]:
    """Return, by its name, a function that compares a published source with its checksums."""
    from cdl.data.sources.archives import check

    sources = {name: block["source"] for name, block in data.items()}
    return {
        f"source of {name}": partial(check, **source)
        for name, source in sources.items()
        if "root" in source
    }


@app.command(epilog="Example: cdl clean one.yaml base.yaml+overlay.yaml --yes")
def clean(
    configs: Annotated[
        list[str],
        typer.Argument(metavar="CONFIG", help="YAML each, or YAML+OVERLAY: all to be kept."),
    ],
    directory: Annotated[Path, typer.Option(help="Folder that holds the results.")] = Path("."),
    yes: Annotated[bool, typer.Option("--yes", help="Delete, instead of only saying so.")] = False,
    as_json: AsJson = False,
) -> None:
    """Name what in ./results no CONFIG names; --yes deletes it.

    The size of each and of all is said.
    """
    from cdl.inventory.cleaning import drop, leftovers

    files = [[Path(file) for file in config.split("+")] for config in configs]
    grids = list(map(grid_of, files))
    os.chdir(directory)
    found = leftovers(grids)
    if yes:
        drop(found)
    size = sum(item.size for item in found)
    if as_json:
        paths = {str(item.path): item.size for item in found}
        print(json.dumps({"deleted": yes, "bytes": size, "paths": paths}, indent=2))
        return
    for item in found:
        print(f"{item.size / 1e6:>10.1f} MB  {item.path}")
    done = "freed" if yes else "would be freed; --yes deletes what is named above"
    print(f"{size / 1e6:>10.1f} MB  {done}" if found else "nothing lies there that no CONFIG names")


@app.command(epilog="Example: cdl init study && cdl run study/config.yaml --cores 2")
def init(
    folder: Annotated[Path, typer.Argument(help="A folder to make.")],
) -> None:
    """Write a starter configuration and a SLURM profile.

    Both are commented; the starter needs no download and runs for two minutes on two cores.
    """
    starter = files("cdl") / "assets" / "starter.yaml"
    profile = program() / "workflow" / "profiles" / "slurm" / "config.yaml"
    schemas = files("cdl") / "study" / "schema" / "config.schema.json"
    contents = {
        folder / "config.yaml": starter.read_text(),
        folder / "config.schema.json": schemas.read_text(),
        folder / "profiles" / "slurm" / "config.yaml": profile.read_text(),
    }
    there = [path for path in contents if path.exists()]
    if there:
        raise ConfigError(f"{there[0]}: exists and is kept; name another folder")
    for path, text in contents.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    print(f"{folder / 'config.yaml'}: edit it, then: cdl run {folder / 'config.yaml'} --cores 2")
    print(f"on SLURM: edit {folder}/profiles/slurm/config.yaml, which says how to name it")


class Kind(StrEnum):
    """What can be listed."""

    methods = "methods"
    distillers = "distillers"
    backbones = "backbones"
    datasets = "datasets"


@app.command("list", epilog="Example: cdl list distillers")
def list_(
    kind: Annotated[Kind, typer.Argument(help="What to list.")], as_json: AsJson = False
) -> None:
    """List what a configuration can name, with the paper."""
    known = dict(_known(kind))
    if as_json:
        print(json.dumps(known, indent=2))
        return
    width = max(map(len, known))
    for name, text in known.items():
        print(f"{name:<{width}}  {text}")


def _known(kind: Kind) -> Iterator[tuple[str, str]]:
    properties: dict[str, Any] = schema()["properties"]
    if kind is Kind.backbones:
        from cdl.study.validation import shape_of, shipped_backbones

        for name in shipped_backbones():
            shape = shape_of(name, "embedded", name)
            yield name, f"embedded: width {shape.width}, {shape.depth} blocks, patch {shape.patch}"
        for source in ("timm", "file"):
            field = properties["backbones"]["additionalProperties"]["properties"][source]
            yield f"{source}: ...", field["description"]
        return
    if kind is Kind.datasets:
        part = properties["datasets"]["additionalProperties"]["properties"]["source"]
    else:
        part = properties[kind.value]
    for name, block in part["properties"].items():
        yield name, block["description"]


def _usage(error: Any) -> str:
    """Return what is wrong with the arguments in one line; without any, the help."""
    text: str = error.format_message()
    if len(sys.argv) < 2:
        return text
    command = error.ctx.command_path if error.ctx else "cdl"
    text = text.replace("Value error, ", "").rstrip(".")
    return f"cdl: {text} (see `{command} --help`)"


def main() -> None:
    """Run the command line; a wrong question is one line on stderr and exit code 2."""
    try:
        sys.exit(app(prog_name="cdl", standalone_mode=False))
    except UsageError as error:
        print(_usage(error), file=sys.stderr)
    except (ConfigError, CdlError, OSError) as error:
        print(f"cdl: {error}", file=sys.stderr)
    sys.exit(2)
