"""The command line of `student.py`; it acts on the folder that contains the file."""

import argparse
import json
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path

from cdl.device.errors import CdlError
from cdl.device.items import Items
from cdl.device.memory import CHOICES
from cdl.device.predict import JsonPrinter, TextPrinter, print_predictions, uses_scores
from cdl.device.process import end_quietly
from cdl.device.student import DeviceStudent
from cdl.device.update import Update


def main(
    kind: type[DeviceStudent],
    arguments: Sequence[str] | None = None,
    folder: Path | None = None,
) -> int:
    """Run a command; return the exit code: 1 after an error, which is printed in one sentence.

    Args:
        kind: the class of the student.
        arguments: of the command line; None: those of the process.
        folder: of the student; None: the folder of this file.
    """
    for stream in (sys.stdin, sys.stdout, sys.stderr):  # names of files may be any bytes
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="surrogateescape")
    given = _parser(kind.takes).parse_args(arguments)
    try:
        code = _run(kind(folder or Path(__file__).resolve().parent, given.threads), given)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        return end_quietly()
    except CdlError as error:
        print(f"student: {error}", file=sys.stderr)
        return 1


def _run(student: DeviceStudent, given: argparse.Namespace) -> int:
    if given.command == "predict":
        printer = JsonPrinter(student.items.column) if given.json else TextPrinter()
        scored = uses_scores(student, given.unknown, given.threshold)
        files = student.items.listed(given.items, sys.stdin)
        all_read = print_predictions(student, files, given.top, printer, scored, given.threshold)
        return 0 if all_read else 1
    if given.command in ("info", "costs"):
        found = student.info() if given.command == "info" else student.costs()
        print(json.dumps(found, indent=2))
        return 0
    show_progress(student)
    update = _updated(student, given)
    print(json.dumps(update.as_dict(), indent=2) if given.json else update.text())
    return 0


def _updated(student: DeviceStudent, given: argparse.Namespace) -> Update:
    """Run a command that changes the student."""
    if given.command == "forget":
        return student.forget(given.name, given.check)
    if given.command == "undo":
        return student.undo()
    return student.learn(
        given.path,
        test=given.test,
        unlabelled=given.unlabelled and student.items.unlabelled(given.unlabelled),
        head=given.head,
        ridge=given.ridge,
        balance=given.balance,
        check=given.check,
        keep_earlier=given.keep_earlier,
    )


def show_progress(student: DeviceStudent) -> None:
    """Show on stderr how many items are done, if it is a terminal."""
    if sys.stderr.isatty():
        student.progress = lambda done, n: print(
            f"{done} of {n} {student.items.kind}",
            end="\n" if done == n else "\r",
            file=sys.stderr,
        )


def _parser(takes: type[Items]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("student.py", description="A student that learns on.")
    parser.add_argument("--threads", type=int, default=1, help="threads of onnxruntime")
    commands = parser.add_subparsers(dest="command", required=True)
    predict = commands.add_parser("predict", help=f"classify {takes.kind}")
    predict.add_argument("items", nargs="+", metavar=takes.argument, help=takes.given)
    predict.add_argument("--top", "-k", type=int, default=5, help="number of classes to print")
    lower = "score below which one is unknown, for all classes; without it, that of each class"
    predict.add_argument("--threshold", type=float, help=lower)
    silent = "do not say what is unknown"
    predict.add_argument("--no-unknown", dest="unknown", action="store_false", help=silent)
    learn = commands.add_parser("learn", help=f"learn classes from {takes.layout}")
    learn.add_argument("path", type=Path, metavar=takes.path)
    learn.add_argument("--test", type=Path, help=f"test {takes.kind} of any classes, the same way")
    more = f"{takes.kind} that the student labels itself"
    learn.add_argument("--unlabelled", type=Path, help=more)
    learn.add_argument("--head", choices=("aligned", "ridge"), help="how to compute the heads")
    learn.add_argument("--ridge", choices=CHOICES, default="all", help="tasks for its choice")
    how = f"a class with few {takes.kind} counts less in a ridge"
    learn.add_argument("--no-balance", dest="balance", action="store_false", help=how)
    keep = "leave the order among earlier classes; PERCENT of their examples may become new classes"
    learn.add_argument("--keep-earlier", type=float, metavar="PERCENT", help=keep)
    forget = commands.add_parser("forget", help="remove a class")
    forget.add_argument("name")
    for command in (learn, forget):
        how = f"{takes.kind} of earlier classes, the same way, whose answers are compared"
        command.add_argument("--check", type=Path, help=how)
    undo = commands.add_parser("undo", help="return to the version before the last change")
    commands.add_parser("info", help="print version, classes and size of the state")
    commands.add_parser("costs", help=f"measure a prediction, and learning 1, 10, 100 {takes.kind}")
    for command in (predict, learn, forget, undo):
        command.add_argument("--json", action="store_true", help="print JSON")
    return parser
