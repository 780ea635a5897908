"""Events that the logger plugin, in the process of Snakemake, passes to `cdl run`.

They are lines of JSON in a file that an environment variable names. Their `kind` is `planned` (a
job of a dry run), `started`, `failed`, or `locked` (another process makes the same files).
"""

import json
import os
from pathlib import Path
from typing import Any

FILE = "CDL_EVENTS"


def watched() -> bool:
    """Return whether `cdl run` reads the events of this process."""
    return FILE in os.environ


def write(kind: str, **fields: Any) -> None:
    """Append an event if `cdl run` reads them."""
    if watched():
        with open(os.environ[FILE], "a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": kind, **fields}) + "\n")


def read(file: Path) -> list[dict[str, Any]]:
    """Return all events, the first one first."""
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
