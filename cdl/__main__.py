"""Questions about results: `python -m cdl trace CELL` and `python -m cdl status CONFIG ...`."""

import argparse
import subprocess
import sys
from pathlib import Path

from cdl.errors import CdlError

STATUS = Path("workflow", "status.py")


def main(arguments: list[str]) -> int:
    """Answer on stdout; return 0, 1 if a chain is broken, or 2 if the question cannot be read."""
    if arguments[:1] == ["status"]:
        if not STATUS.is_file():
            print(f"cdl: there is no {STATUS} here; ask from the project's folder", file=sys.stderr)
            return 2
        return subprocess.run([sys.executable, STATUS, *arguments[1:]], check=False).returncode
    parser = argparse.ArgumentParser(prog="python -m cdl", description=__doc__)
    commands = parser.add_subparsers(required=True)
    tracing = commands.add_parser("trace", help="from a table's cell to all that it was made of")
    tracing.add_argument(
        "cell", help="DATASET/METHOD/LEARNER/SEED, the run's folder, or their start"
    )
    tracing.add_argument("--results", default="results", help="the folder of all results")
    commands.add_parser("status", help="what is done, running, failed and missing; --help for more")
    options = parser.parse_args(arguments)
    from cdl.trace import trace  # after the arguments are right: pandas takes a second

    try:
        chains = trace(options.cell, options.results)
    except CdlError as error:
        print(f"cdl: {error}", file=sys.stderr)
        return 2
    for run, links in chains.items():
        print(run)
        for link in links:
            print(f"  {'ok    ' if link.holds else 'BROKEN'}  {link.what:<13} {link.text}")
    return 0 if all(link.holds for links in chains.values() for link in links) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
