"""What methods and distillers are given: a wrong attribute is one sentence, no traceback."""

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from cdl.runtime.errors import CdlError


class NoAttribute(CdlError, AttributeError):
    """An object does not have an attribute; the message has those that it has."""


class Given:
    """Base of the dataclasses that methods and distillers, also of other packages, are given."""

    if not TYPE_CHECKING:  # so that wrong attributes are found in this package before it runs

        def __getattr__(self, name: str) -> Any:
            """Raise `NoAttribute`; Python calls this for attributes that do not exist."""
            known = ", ".join(field.name for field in fields(self))
            raise NoAttribute(f"{type(self).__name__} has no {name!r}; it has {known}")
