"""Refuse missing folders, pipes, devices, dead links and names that are not UTF-8."""

from pathlib import Path

from cdl.runtime.errors import CdlError


def existing_folder(path: str) -> Path:
    """Return a folder; raise `CdlError` with its absolute path if it does not exist."""
    folder = Path(path)
    if folder.is_dir():
        return folder
    what = "not a folder" if folder.exists() else "no such folder"
    raise CdlError(
        f"{path}: {what} (tried {folder.absolute()}); a path in a configuration is relative to the "
        "folder where cdl is started"
    )


def validate_file(file: Path) -> None:
    """Raise `CdlError` unless a path is a regular file with a name in UTF-8."""
    validate_name(file)
    if not file.is_file():
        raise CdlError(
            f"{file} is not a regular file (but a pipe, a device, a folder or a dead link): remove "
            "it"
        )


def validate_name(path: Path) -> None:
    """Raise `CdlError` unless a name is UTF-8."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise CdlError(f"the name {str(path)!a} is not UTF-8: rename it") from error
