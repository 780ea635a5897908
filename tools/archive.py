"""Write an archive of the tables, the records and the page of a study, for `cdl trace`.

    python -m tools.archive default docs/studies/data/default_run.tar.xz

It has no tensors, predictions, pixels or caches, which `cdl trace` reports as not included. The
same files give the same bytes.
"""

import argparse
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

from cdl.layout import RESULTS, Layout, record_of
from cdl.runtime.errors import CdlError

RECORDS = ("results.json", "learner.json", "aligned.json", "losses.csv")  # of a run and its tasks


def chosen(name: str) -> Iterator[Path]:
    """Yield tables, page and records of a study, and the records of data and backbones.

    Raises:
        CdlError: the study has no table.
    """
    study = Layout(name)
    report = study.report
    if not Path(report.tables.results).is_file():
        raise CdlError(f"{report.tables.results}: no such table; finish `cdl run` of {name} first")
    yield from filter(Path.is_file, [Path(report.page)])
    yield from (file for file in Path(report.tables.folder).glob("*.*") if file.suffix != ".log")
    for kind in RECORDS:
        yield from Path(study.root).rglob(kind)
    yield from Path(RESULTS, "data").glob("*/manifest.json")
    for weights in Path(RESULTS, "backbones").glob("*.safetensors"):
        yield Path(record_of(str(weights)))


def write(name: str, output: Path) -> None:
    """Write the archive of a study, without owners and times."""

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.mtime = entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        return entry

    files = sorted(set(chosen(name)))
    output.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(output, "w:xz") as archive:
        for file in files:
            archive.add(file, filter=plain)


def main() -> None:
    """Write the archive of a study in ./results."""
    parser = argparse.ArgumentParser(description="Archive a study's tables, records and page.")
    parser.add_argument("name", help="the name of the configuration")
    parser.add_argument("output", type=Path, help="a file NAME.tar.xz")
    given = parser.parse_args()
    try:
        write(given.name, given.output)
    except CdlError as error:
        sys.exit(f"archive: {error}")
    print(f"{given.output}: {given.output.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
