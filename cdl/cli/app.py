"""The application `cdl`: its commands in the order of the help page, and its exit codes.

Exit codes: 0; 1 if a check fails, an image is unreadable or another process is making the same
files; 2 if the command line, a configuration or a file is invalid; 130 after Ctrl-C; 141 if the
reader of the output has gone. Errors are one line on stderr. `cdl run` exits as Snakemake does.
"""

import sys
from difflib import get_close_matches
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import cdl
from cdl.cli import configure, results, student
from cdl.cli.answers import answers
from cdl.cli.backbones import app as backbones
from cdl.cli.run import run
from cdl.device.process import end_quietly
from cdl.layout import RESULTS
from cdl.runtime.errors import Busy, CdlError

# The class from the copy of click that typer uses; older versions of typer do not export it.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]
_INTERRUPTED = 130  # 128 plus the number of SIGINT, as shells report it


class Commands(TyperGroup):
    """The group of all commands, with a help page that fits 24 lines."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that the arguments name; a message names the most similar one."""
        try:
            return super().resolve_command(ctx, args)
        except UsageError as error:
            near = get_close_matches(args[0], self.list_commands(ctx), 1)
            if near and near[0] not in str(error):
                error.message += f" Did you mean {near[0]!r}?"  # type: ignore[attr-defined]
            raise

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the commands without the section on options, which has only --help."""
        self.format_commands(ctx, formatter)


app = typer.Typer(
    cls=Commands,
    epilog="Example: cdl init study && cdl run study/config.yaml --cores 2",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(shown: bool) -> None:
    if shown:
        print(f"cdl {cdl.__version__}")
        raise typer.Exit


@app.callback()
def group(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Run continual distillation learning experiments from a YAML configuration."""


app.command(epilog="Example: cdl init study && cdl run study/config.yaml --cores 2")(configure.init)
app.command("list", epilog="Example: cdl list methods ranpac")(configure.list_)
app.command(epilog="Example: cdl data config.yaml")(configure.data)
app.command(epilog="Example: cdl answers config.yaml -o items.csv")(answers)
app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    epilog="Example: cdl run config.yaml --cores 2",
)(run)
app.command(epilog="Example: cdl status config.yaml --cores 2")(results.status)
app.command(epilog="Example: cdl tables config.yaml")(results.tables)
app.command(epilog="Example: cdl compare cifar20/coda_prompt/kd cifar20/coda_prompt/none")(
    results.compare
)
app.command(epilog="Example: cdl track config.yaml --to tensorboard")(results.track)
app.command(epilog="Example: cdl trace digits/l2p/kd-vit_nano-from-vit_micro-q-vit_nano/seed0")(
    results.trace
)
app.command(epilog="Example: cdl verify config.yaml --data")(results.verify)
app.command(epilog="Example: cdl clean one.yaml base.yaml+overlay.yaml --yes")(results.clean)
app.command(epilog=f"Example: cdl export {RESULTS}/.../seed0 -o student")(student.export)
app.command(epilog="Example: cdl push student me/birds")(student.push)
app.command(epilog="Example: cdl predict student photos/ --csv")(student.predict)
app.command(epilog="Example: cdl demo student")(student.demo)
app.command(epilog=f"Example: cdl learn {RESULTS}/.../seed0 --task new/ -o more")(student.learn)
app.add_typer(backbones, name="backbones")


def _usage_message(error: Any) -> str:
    """Return a usage error as one line; without any arguments, the help page."""
    text: str = error.format_message()
    if len(sys.argv) < 2:
        return text
    command = error.ctx.command_path if error.ctx else "cdl"
    text = text.replace("Value error, ", "").rstrip(".")
    return f"cdl: {text} (see `{command} --help`)"


def main() -> None:
    """Run the command line; an error is one line on stderr, see the exit codes above."""
    try:
        code = app(prog_name="cdl", standalone_mode=False)
        sys.stdout.flush()
        sys.exit(code)
    except BrokenPipeError:
        sys.exit(end_quietly())
    except UsageError as error:
        print(_usage_message(error), file=sys.stderr)
    except (KeyboardInterrupt, typer.Abort):
        print("cdl: interrupted", file=sys.stderr)
        sys.exit(_INTERRUPTED)
    except Busy as error:
        print(f"cdl: {error}", file=sys.stderr)
        sys.exit(1)
    except (CdlError, OSError) as error:
        print(f"cdl: {error}", file=sys.stderr)
    sys.exit(2)
