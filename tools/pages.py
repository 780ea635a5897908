"""Write the tables of kept numbers into the pages that show them.

    python -m tools.pages

`docs/studies/data/NAME.csv` has one cell of a table in each line: the names of its row, then
`column`, `value`, `low`, `high`, `significant` (x) and `note`; lines with `#` in front say where
the numbers come from. A page shows it between `<!--NAME.csv-->` and `<!--end-->`, or the columns
that are listed there: `<!--NAME.csv accuracy; cell-->`.
"""

import csv
import platform
import re
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
DATA = ROOT / "docs" / "studies" / "data"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
CELL = ("column", "value", "low", "high", "significant", "note")
_SHOWN = re.compile(r"<!--([\w-]+)\.csv(?: (.+?))?-->\n.*?<!--end-->", re.DOTALL)


def read(path: Path) -> list[dict[str, str]]:
    """Return the cells of a table."""
    lines = path.read_text().splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def origin(study: str, costs: Iterable[Path]) -> list[str]:
    """Return where numbers that are computed now come from.

    Args:
        study: the files of the study.
        costs: its tables `cost.csv`.
    """
    describe = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"]
    commit = subprocess.run(describe, capture_output=True, text=True, check=False).stdout.strip()
    info = Path("/proc/cpuinfo")
    models = re.findall(r"model name\s*: (.*)", info.read_text() if info.exists() else "")
    rows = [row for path in costs for row in csv.DictReader(path.read_text().splitlines())]
    seconds = sum(float(row["processor_seconds"] or 0) for row in rows)
    return [
        f"study: {study}",
        f"commit: {commit or 'unknown'}",
        f"machine: {(models or [platform.processor()])[0]}",
        f"hours: {seconds / 3600:.2f} processor hours of training",
    ]


def write(path: Path, origin: list[str], cells: list[dict[str, Any]]) -> None:
    """Write the cells of a table, all with the same names, below lines on their origin."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        file.writelines(f"# {line}\n" for line in origin)
        names = [name for name in cells[0] if name not in CELL]
        writer = csv.DictWriter(file, [*names, *CELL], restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(cells)


def text(cell: dict[str, str]) -> str:
    """Return a cell as Markdown, such as `**+2.4** (1.5 to 3.2), planned`."""
    value, low, high, note = (cell.get(name, "") for name in ("value", "low", "high", "note"))
    ends = f"{low} to {high}" if low else ""
    shown = f"**{value}**" if cell.get("significant") else value
    number = f"{shown} ({ends})" if value and ends else shown or ends
    return ", ".join(filter(None, [number, note]))


def table(cells: list[dict[str, str]], columns: Sequence[str] = ()) -> str:
    """Return cells as a table in Markdown: all columns, or those that are given."""
    names = [name for name in cells[0] if name not in CELL]
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    for cell in cells:
        rows.setdefault(tuple(cell[name] for name in names), {})[cell["column"]] = text(cell)
    columns = list(columns) or list(dict.fromkeys(cell["column"] for cell in cells))
    lines = [[*names, *columns]]
    lines += [[*row, *(found.get(name, "") for name in columns)] for row, found in rows.items()]
    shown = ["|" + "".join(f" {entry} |" if entry else " |" for entry in line) for line in lines]
    return "\n".join([shown[0], "|" + "---|" * len(lines[0]), *shown[1:]])


def with_tables(page: str) -> str:
    """Return the text of a page with all its tables as they are kept."""

    def replace(found: re.Match[str]) -> str:
        columns = [name.strip() for name in (found[2] or "").split(";") if name.strip()]
        shown = table(read(DATA / f"{found[1]}.csv"), columns)
        return f"{found[0].splitlines()[0]}\n\n{shown}\n\n<!--end-->"

    return _SHOWN.sub(replace, page)


def main() -> None:
    """Write all tables into their pages."""
    for page in PAGES:
        before = page.read_text()
        if (after := with_tables(before)) != before:
            page.write_text(after)
            print(page.relative_to(ROOT))


if __name__ == "__main__":
    main()
