"""What methods and distillers are given: a wrong attribute is one sentence, no traceback."""

from dataclasses import fields, is_dataclass
from typing import Any

from cdl.runtime.errors import CdlError


class NoAttribute(CdlError, AttributeError):
    """An object does not have an attribute; the message has those that it has."""


class Given:
    """Base of the dataclasses that methods and distillers, also of other packages, are given."""

    def __getattr__(self, name: str) -> Any:
        """Raise `NoAttribute`; Python calls this for attributes that do not exist."""
        known = [field.name for field in fields(self)] if is_dataclass(self) else []
        raise NoAttribute(f"{type(self).__name__} has no {name!r}; it has {', '.join(known)}")
