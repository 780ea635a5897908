"""Results that show their text in a Python shell and in a notebook."""


class Shown:
    """Base of results whose `repr` is their text; for dataclasses with `repr=False`."""

    def text(self) -> str:
        """Return the result as text."""
        raise NotImplementedError

    def __repr__(self) -> str:
        """Return the text."""
        return self.text()
