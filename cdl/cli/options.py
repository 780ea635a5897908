"""Arguments and options that several commands share."""

import contextlib
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from shutil import which
from typing import Annotated, Any, Protocol

import typer

from cdl.layout import RESULTS
from cdl.study.configuration import resolve
from cdl.study.grid import Grid
from cdl.study.layers import merged

CONFIG_HELP = "YAML files and values such as training.epochs=5; later ones override earlier ones."
Configs = Annotated[list[str], typer.Argument(metavar="CONFIG", help=CONFIG_HELP)]
OptionalConfigs = Annotated[
    list[str] | None,
    typer.Argument(metavar="CONFIG", help=f"{CONFIG_HELP} Default: config/default.yaml."),
]
Directory = Annotated[Path, typer.Option(help="Folder that contains the results folder.")]
Results = Annotated[Path, typer.Option(help="Results folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DEFAULT_RESULTS = Path(RESULTS)


def program() -> Path:
    """Return the folder with Snakefile, workflow, profiles and config: in a wheel or a checkout."""
    package = Path(str(files("cdl")))
    packaged = package / "_program"
    return packaged if packaged.is_dir() else package.parent


def grid_of(
    configs: Sequence[str] | None,
    directory: Path = Path("."),
    changed: Callable[[dict[str, Any]], dict[str, Any]] = dict,
) -> Grid:
    """Return the grid of a configuration and its overlays.

    Args:
        configs: files and values, see `cdl.study.layers`; None is the default configuration.
        directory: folder that contains the results folder, in which relative paths in the
            configuration start.
        changed: function from the complete configuration to the one that is expanded.

    Raises:
        ConfigError: a file cannot be read or a value is invalid.
    """
    content = merged(configs or [str(program() / "config" / "default.yaml")])
    with contextlib.chdir(directory):
        return Grid(changed(resolve(content)))


def cdl_command() -> str:
    """Return the command that starts this program, for messages."""
    if which("cdl"):
        return "cdl"
    started = sys.argv[0]  # `.venv/bin/cdl`, or a file when started with `python -m cdl`
    return shlex.quote(started) if Path(started).name == "cdl" else "python -m cdl"


class Printable(Protocol):
    """The result of a command, as text or JSON."""

    def text(self) -> str:
        """Return the text for the terminal."""

    def as_dict(self) -> dict[str, Any]:
        """Return the content for JSON."""


def print_result(result: Printable, as_json: bool) -> None:
    """Print a result as text, or as JSON for the option --json."""
    if as_json:
        print_json(result.as_dict())
    else:
        print(result.text())


def print_json(value: Any) -> None:
    """Print a value as indented JSON."""
    print(json.dumps(value, indent=2))
