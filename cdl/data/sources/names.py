"""Decide which names classes may have."""

import unicodedata

from cdl.runtime.errors import CdlError

# control characters (line breaks, tabs, NUL), halves of surrogate pairs, separators of lines
_REFUSED = frozenset(("Cc", "Cs", "Zl", "Zp"))


def check_class_name(name: object, where: object) -> str:
    """Return a name that all outputs can contain: JSON, CSV, and a list with one name per line.

    Args:
        name: the name as found.
        where: file, folder or field with the name, for the message.

    Raises:
        CdlError: the name is not text, is blank, or contains a line break, another control
            character, or a character that is not valid Unicode.
    """
    if isinstance(name, str) and name.strip():
        refused = [c for c in name if unicodedata.category(c) in _REFUSED]
        if not refused:
            return name
        problem = f"; it contains {refused[0]!r}"
    else:
        problem = ""
    raise CdlError(
        f"{str(where)!r:.300}: invalid class name {name!r:.100}{problem}; expected text in Unicode "
        "without line breaks and control characters: rename the class"
    )
