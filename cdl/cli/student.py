"""`cdl export`, `learn`, `demo` and `predict`. Torch is imported only by what needs it."""

import contextlib
import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]


class Format(StrEnum):
    """What a student can be written as."""

    onnx = "onnx"
    executorch = "executorch"


class Int8(StrEnum):
    """How weights become eight bits: inputs' ranges computed, or fixed by training images."""

    dynamic = "dynamic"
    static = "static"


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run, as the tables name it.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="A folder to make.")],
    task: Annotated[
        int | None, typer.Option(help="After which task, counted from 0; else the last.")
    ] = None,
    format: Annotated[Format, typer.Option(help="Of the model.")] = Format.onnx,
    int8: Annotated[Int8 | None, typer.Option(help="Weights in eight bits.")] = None,
    check: Annotated[bool, typer.Option(help="Compare all test images' classes.")] = True,
    as_json: AsJson = False,
) -> None:
    """Write the student of RUN as a folder that needs no torch.

    model.onnx takes uint8 images [B, H, W, 3] of any size and returns logits [B, C]; classes.txt,
    preprocessing.json and card.md lie beside it. Exit code 1 if it does not say what was evaluated.
    """
    from cdl.deployment.export import export as write

    answer = write(run, output, task, check, int8, executorch=format is Format.executorch)
    print(json.dumps(answer.as_dict(), indent=2) if as_json else answer.text())
    if answer.parity is not None and not answer.parity.holds:
        print(f"cdl: {output}: the graph does not say what was evaluated", file=sys.stderr)
        raise typer.Exit(1)


def learn(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    task: Annotated[Path, typer.Option("--task", help="One folder of images per new class.")],
    name: Annotated[str, typer.Option("--output", "-o", help="A name beside configurations'.")],
    test: Annotated[Path | None, typer.Option(help="Test images, likewise; else a fifth.")] = None,
    teacher: Annotated[Path | None, typer.Option(help="Its teacher's run after this task.")] = None,
    unlabelled: Annotated[
        Path | None, typer.Option(help="Images without labels, for a taught run.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Let the learner of RUN learn one more task.

    The new run lies below the folder of results under the name of --output: a run like any other,
    to be exported, asked, and taught again. Accuracies on all tasks are printed, before and after.
    """
    from cdl.deployment.learn import learn as go_on

    answer = go_on(run, task, name, test=test, teacher=teacher, unlabelled=unlabelled)
    print(json.dumps(answer.as_dict(), indent=2) if as_json else answer.text())


def demo(
    model: Annotated[Path, typer.Argument(help="An exported folder, or that of a run.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the page; 0: any.")] = 0,
) -> None:
    """Ask MODEL in a browser; there a run learns new classes.

    Until it is interrupted. What it learns are new runs beside MODEL's configuration.
    """
    from cdl.deployment.demo import Demo, Server

    with Server(Demo(model), port) as server:
        print(f"{server.address} (Ctrl-C ends it)", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


def predict(
    model: Annotated[Path, typer.Argument(help="An exported folder, or that of a run.")],
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH...", help="Images, folders, or - for a list.")
    ],
    top: Annotated[int, typer.Option("--top", "-k", min=1, help="Classes to name.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON for each.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="A table, one row a class.")] = False,
) -> None:
    """Say what MODEL sees in images.

    An image that cannot be read is a line on stderr; the others are answered, and the exit code
    is 1.
    """
    from cdl.deployment.load import load
    from cdl.deployment.predict import CsvPrinter, JsonPrinter, TextPrinter, ask, files_of

    if as_json and as_csv:
        raise typer.BadParameter("--json or --csv, not both")
    printer = JsonPrinter() if as_json else CsvPrinter() if as_csv else TextPrinter()
    files = files_of(paths, sys.stdin)
    if not ask(load(model), files, top, printer):
        raise typer.Exit(1)
