"""Make folders that are whole or absent, each by one process at a time.

A folder is filled under another name next to its place, and renamed when it is complete. The file
`.owner` in it is locked by the process that fills it. The kernel releases the lock when the process
ends, also when it is killed; the next process that makes the same folder then removes the rest.
"""

import contextlib
import fcntl
import os
import platform
import secrets
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from cdl.runtime.errors import Busy, CdlError

_OWNER, _SUFFIX = ".owner", ".partial"


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder that is renamed to `target` if the block succeeds.

    If the block fails, the folder is removed, with the parent folders that were made for it.

    Raises:
        Busy: another process is making `target`; the message has its number.
        CdlError: `target` exists and is not an empty folder.
    """
    partial = target.with_name(f".{target.name}{_SUFFIX}")
    made = [parent for parent in partial.parents if not parent.exists()]
    lock = _lock(partial, target)
    try:
        if os.path.lexists(target) and not is_empty(target):
            raise CdlError(f"{target}: already exists; choose another name")
        _clear(partial)
        yield partial
        try:
            partial.rename(target)  # fails if another program has written files to it
        except OSError as error:
            raise CdlError(f"{target}: cannot be made ({error.strerror})") from error
        (target / _OWNER).unlink()
    except BaseException:
        _remove(partial)
        with contextlib.suppress(OSError):  # another process may use a parent folder, too
            for parent in made:
                parent.rmdir()
        raise
    finally:
        os.close(lock)


def partial_folders(*patterns: Path) -> Iterator[tuple[Path, str]]:
    """Yield folders that are being filled or were left by a killed process.

    Args:
        patterns: paths of complete folders, in which `*` is any name.

    Yields:
        The folder under its temporary name, and the process that fills it; empty if it was killed.
    """
    for pattern in patterns:
        place = pattern.with_name(f".{pattern.name}{_SUFFIX}")
        for partial in sorted(Path(place.anchor).glob(str(place.relative_to(place.anchor)))):
            with contextlib.suppress(OSError), open(partial / _OWNER, "rb+") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    yield partial, _owner(file.fileno())
                    continue
            if partial.exists():
                yield partial, ""


def is_empty(folder: Path) -> bool:
    """Return whether a path is a folder without any entry."""
    return folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir())


def _lock(partial: Path, target: Path) -> int:
    """Make a folder and lock its owner file; return the file's descriptor."""
    path = partial / _OWNER
    while True:
        partial.mkdir(parents=True, exist_ok=True)
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:
            continue  # another process has just renamed or removed the folder
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(file, path):
                os.ftruncate(file, 0)
                os.write(file, f"{os.getpid()} on {platform.node()}".encode())
                return file
        except BlockingIOError:
            owner = _owner(file)
            os.close(file)
            raise Busy(
                f"{target}: is being made by process {owner}; wait for its end or choose another "
                "name"
            ) from None
        os.close(file)


def _is_at(file: int, path: Path) -> bool:
    """Return whether an open file still has this path."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _owner(file: int) -> str:
    return os.pread(file, 200, 0).decode(errors="replace") or "of another user"


def _clear(partial: Path) -> None:
    """Remove everything but the owner file."""
    for path in partial.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != _OWNER:
            path.unlink()


def _remove(partial: Path) -> None:
    """Remove a folder under another name, so that no process that begins now uses it."""
    name = partial.with_name(f"{partial.name}.{secrets.token_hex(8)}")
    with contextlib.suppress(FileNotFoundError):
        partial.rename(name)
        shutil.rmtree(name, ignore_errors=True)


def busy(folders: Iterable[tuple[Path, str]]) -> None:
    """Raise `Busy` if one of the `partial_folders` is being filled."""
    for path, owner in folders:
        if owner:
            raise Busy(f"{path}: is being made by process {owner}; wait for its end")
