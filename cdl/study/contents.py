"""What a user's files hold, told by a digest of their contents: their times do not count.

A file is read again only if its size or time has changed since it was last read, so that planning
stays fast; what was found then is kept in a small file beside the results.
"""

import contextlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cdl.runtime.artifacts import fingerprint_file, write_json
from cdl.runtime.errors import CdlError
from cdl.study.configuration import ConfigError
from cdl.study.layout import digest


def files_of(source: Mapping[str, Any]) -> list[Path]:
    """Return all files of a folder of images, or the Parquet files; none of a published source."""
    if "path" not in source:
        return []
    folder = Path(source["path"])
    if source["name"] == "folder":
        return sorted(file for file in folder.rglob("*") if file.is_file())
    return [file for s in ("train", "test") for file in sorted(folder.glob(source[s]))]


def contents(files: Iterable[Path], memory: Path) -> str:
    """Return a digest of names and contents of files.

    Args:
        files: they exist.
        memory: JSON of size, time and sha256 of each, as they were; it may be missing.

    Raises:
        ConfigError: a file cannot be read.
    """
    try:
        known = json.loads(memory.read_text())
    except (OSError, ValueError):
        known = {}
    now = {}
    for file in files:
        try:
            status = file.stat()
            stamp = [status.st_size, status.st_mtime_ns]
            found = known.get(str(file), [])
            sha256 = found[2] if found[:2] == stamp else fingerprint_file(file)
        except OSError as error:
            raise ConfigError(f"{file}: cannot be read ({error.strerror})") from error
        now[str(file)] = [*stamp, sha256]
    if now != known:
        with contextlib.suppress(CdlError):  # without it, planning takes longer the next time
            write_json(memory, now)
    return digest(sorted((name, sha256) for name, (_, _, sha256) in now.items()))
