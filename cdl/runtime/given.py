"""What methods and distillers are given: a wrong attribute is one sentence, no traceback."""

import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cdl.runtime.errors import CdlError


class NoAttribute(CdlError, AttributeError):
    """An object does not have an attribute; the message has those that it has."""


class Given:
    """Base of the dataclasses that methods and distillers, also of other packages, are given."""

    if not TYPE_CHECKING:  # so that wrong attributes are found in this package before it runs

        def __getattr__(self, name: str) -> Any:
            """Raise `NoAttribute` with the line that reads an attribute that does not exist."""
            known = ", ".join(field.name for field in fields(self))
            reader = sys._getframe(1)
            where = "/".join(Path(reader.f_code.co_filename).parts[-2:])
            raise NoAttribute(
                f"{type(self).__name__} has no {name!r}; it has {known} ({where}:{reader.f_lineno})"
            )
