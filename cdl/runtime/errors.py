"""Exceptions that end a job with a message instead of a traceback."""

from cdl.device.errors import CdlError, Unreadable, first_line

__all__ = ["Busy", "CdlError", "Interrupted", "Unreadable", "first_line"]


class Interrupted(CdlError):
    """A signal interrupted the job; the next run resumes from its saved state."""


class Busy(CdlError):
    """Another process writes the same files; the same command works after its end."""
