"""Results that show their text in a Python shell and in a notebook."""

from dataclasses import asdict
from typing import Any


class Shown:
    """Base of results whose `repr` is their text; for dataclasses with `repr=False`."""

    def text(self) -> str:
        """Return the result as text."""
        raise NotImplementedError

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        fields: Any = self  # a dataclass
        return asdict(fields)

    def __repr__(self) -> str:
        """Return the text."""
        return self.text()
