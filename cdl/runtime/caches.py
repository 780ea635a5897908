"""Find a cache folder that can be written: for Snakemake, the locks of GPUs, fetched programs."""

import os
import stat
import tempfile
from pathlib import Path

from cdl.runtime.errors import CdlError

VARIABLE = "XDG_CACHE_HOME"


def ensure_cache() -> str:
    """Make sure that the user's cache folder can be written, else use a temporary one.

    The temporary folder is readable by the user only. Processes started later use it, too, through
    the environment variable `XDG_CACHE_HOME`.

    Returns:
        A line of text about the folder that is used instead; empty if none is needed.

    Raises:
        CdlError: the temporary folder cannot be written either.
    """
    usual = _usual()
    if usual.is_absolute() and is_writable(usual):
        return ""
    folder = Path(tempfile.gettempdir(), f"cdl-cache-{os.getuid()}")
    remedy = f"set {VARIABLE} to a folder of your own that can be written"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise CdlError(f"{usual} and {folder}: cannot be written ({error}); {remedy}") from error
    own = found.st_uid == os.getuid() and stat.S_ISDIR(found.st_mode)
    if not own or found.st_mode & 0o077 or not is_writable(folder):
        raise CdlError(f"{usual}: cannot be written, and {folder} is not private; {remedy}")
    os.environ[VARIABLE] = str(folder)
    os.environ.setdefault("MPLCONFIGDIR", str(folder / "matplotlib"))  # also below the home
    return f"{usual} cannot be written; caches are in {folder} ({VARIABLE} selects another folder)"


def cache_folder() -> Path:
    """Return the folder of this program in the user's cache folder; see `ensure_cache`."""
    ensure_cache()
    return _usual() / "cdl"


def _usual() -> Path:
    return Path(os.environ.get(VARIABLE) or os.path.expanduser("~/.cache"))


def is_writable(folder: Path) -> bool:
    """Return whether a file can be written in a folder, which is created if it is missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
