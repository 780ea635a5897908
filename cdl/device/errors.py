"""Exceptions that end a program with a message instead of a traceback."""


class CdlError(Exception):
    """An error that the user can correct.

    The message has the field, its value, what is expected and what to do.
    """

    def __str__(self) -> str:
        """Return the message; control characters, which names of files may have, are escaped."""
        kept = "\n", "\t"  # and lone surrogates, with which Python represents bytes of file names
        return "".join(
            c if c.isprintable() or c in kept or 0xD800 <= ord(c) <= 0xDFFF else ascii(c)[1:-1]
            for c in super().__str__()
        )


class Unreadable(CdlError):
    """An unusable image or text, with the reason; others of its source may be valid."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, at most 200 characters, or its type."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
