"""Decide which names classes may have."""

import re
import unicodedata

from cdl.device.errors import CdlError

# control and format characters, halves of surrogate pairs, separators of lines; `names.js` has the
# same rule
_REFUSED = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
# between signs of scripts and emoji that need them, joiners are not invisible
_SCRIPTS = "[\u0590-\u1fff\u2100-\U0010ffff]"
_JOINERS = re.compile(f"(?<={_SCRIPTS})[\u200c\u200d](?={_SCRIPTS})")


def check_class_name(name: object, where: object) -> str:
    """Return a name that all outputs can contain: JSON, CSV, and a list with one name per line.

    Args:
        name: the name as found.
        where: file, folder or field with the name, for the message.

    Returns:
        The name in Unicode's form NFC, without space around it, so that names that look the same
        are the same.

    Raises:
        CdlError: the name is not text, is blank, or contains a line break, another control
            character, one that is invisible or turns the direction, or one that is not valid
            Unicode.
    """
    problem = ""
    if isinstance(name, str) and name.strip():
        visible = _JOINERS.sub("", name)
        refused = [c for c in visible if unicodedata.category(c) in _REFUSED]
        if not refused:
            return unicodedata.normalize("NFC", name).strip()
        problem = f"; it contains {refused[0]!r}"
    raise CdlError(
        f"{str(where)!r:.300}: invalid class name {name!r:.100}{problem}; expected text in Unicode "
        "without line breaks, control characters and invisible characters: rename the class"
    )
