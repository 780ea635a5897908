"""The one exception that ends a job with a sentence instead of a traceback."""


class CdlError(Exception):
    """Something the user can mend: the message names what, its value, and what would be right."""


class Interrupted(CdlError):
    """A signal asked the job to stop; its state is saved and the next run goes on from it."""
