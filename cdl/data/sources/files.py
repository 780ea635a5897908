"""Files of the user's own: those that can never be read to their end are refused by name."""

from pathlib import Path

from cdl.runtime.errors import CdlError


def validate_file(file: Path) -> None:
    """Raise `CdlError` if a file can never be read to its end, or its name is no text."""
    validate_name(file)
    if not file.is_file():
        raise CdlError(
            f"{file} is no file (but a pipe, a device, a folder or a link that leads nowhere): "
            "remove it"
        )


def validate_name(path: Path) -> None:
    """Raise `CdlError` if a name is no text."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise CdlError(f"the name {str(path)!a} is not UTF-8: rename it") from error
