"""Exceptions that end a job with a message instead of a traceback."""


class CdlError(Exception):
    """An error that the user can correct; the message has field, value and what is expected."""


class Interrupted(CdlError):
    """A signal interrupted the job after its state was saved; the next run resumes from it."""
