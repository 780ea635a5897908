"""The command line of `student.py`; it acts on the folder that contains the file."""

import argparse
import json
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path

from cdl.data.sources.decoding import images_below
from cdl.deployment.device.images import images_by_class
from cdl.deployment.device.student import Student
from cdl.deployment.device.update import Update
from cdl.deployment.predict import JsonPrinter, TextPrinter, list_images, print_predictions
from cdl.runtime.errors import CdlError


def main(arguments: Sequence[str] | None = None, folder: Path | None = None) -> int:
    """Run a command; return the exit code: 1 after an error, which is printed in one sentence."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):  # names of files may be any bytes
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="surrogateescape")
    given = _parser().parse_args(arguments)
    try:
        return _run(Student(folder or Path(__file__).resolve().parent, given.threads), given)
    except CdlError as error:
        print(f"student: {error}", file=sys.stderr)
        return 1


def _run(student: Student, given: argparse.Namespace) -> int:
    if given.command == "predict":
        printer = JsonPrinter() if given.json else TextPrinter()
        files = list_images(given.paths, sys.stdin)
        return 0 if print_predictions(student, files, given.top, printer) else 1
    if given.command in ("info", "costs"):
        found = student.info() if given.command == "info" else student.costs()
        print(json.dumps(found, indent=2))
        return 0
    update = _updated(student, given)
    print(json.dumps(update.as_dict(), indent=2) if given.json else update.text())
    return 0


def _updated(student: Student, given: argparse.Namespace) -> Update:
    """Run a command that changes the student."""
    if given.command == "forget":
        return student.forget(given.name)
    if given.command == "undo":
        return student.undo()
    return learn_folder(
        student,
        given.folder,
        test=given.test,
        unlabelled=given.unlabelled,
        head=given.head,
        ridge=given.ridge,
        balance=given.balance,
    )


def learn_folder(
    student: Student,
    folder: Path,
    *,
    test: Path | None = None,
    unlabelled: Path | None = None,
    head: str | None = None,
    ridge: str = "all",
    balance: bool = True,
) -> Update:
    """Learn from a folder with one folder of images for each class; see `Student.learn`."""
    return student.learn(
        images_by_class(folder),
        test=None if test is None else images_by_class(test),
        unlabelled=None if unlabelled is None else images_below(unlabelled),
        head=head,
        ridge=ridge,
        balance=balance,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("student.py", description="A student that learns on.")
    parser.add_argument("--threads", type=int, default=1, help="threads of onnxruntime")
    commands = parser.add_subparsers(dest="command", required=True)
    predict = commands.add_parser("predict", help="classify images")
    predict.add_argument(
        "paths", nargs="+", metavar="PATH", help="images or folders; -: from stdin"
    )
    predict.add_argument("--top", "-k", type=int, default=5, help="number of classes to print")
    learn = commands.add_parser("learn", help="learn classes from FOLDER/CLASS/IMAGE")
    learn.add_argument("folder", type=Path)
    learn.add_argument("--test", type=Path, help="test images, TEST/CLASS/IMAGE, of any classes")
    learn.add_argument("--unlabelled", type=Path, help="images that the student labels itself")
    learn.add_argument("--head", choices=("aligned", "ridge"), help="how to compute the heads")
    learn.add_argument(
        "--ridge", choices=("all", "last"), default="all", help="images for its choice"
    )
    how = "a class with few images counts less in a ridge"
    learn.add_argument("--no-balance", dest="balance", action="store_false", help=how)
    forget = commands.add_parser("forget", help="remove a class")
    forget.add_argument("name")
    undo = commands.add_parser("undo", help="return to the version before the last change")
    commands.add_parser("info", help="print version, classes and size of the state")
    commands.add_parser("costs", help="measure a prediction, and learning 1, 10 and 100 images")
    for command in (predict, learn, forget, undo):
        command.add_argument("--json", action="store_true", help="print JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
