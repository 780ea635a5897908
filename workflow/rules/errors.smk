"""Errors of the functions of the rules, reported by Snakemake without a traceback."""

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

from cdl.runtime.errors import CdlError


def as_workflow_error(function):
    """Wrap a function so that its errors are reported by Snakemake without a traceback."""

    def wrapper(*arguments):
        try:
            return function(*arguments)
        except CdlError as error:
            raise WorkflowError(str(error)) from None

    return wrapper


def as_one_sentence(function):
    """Wrap an input or parameter function so that its errors end Snakemake with one sentence.

    Snakemake would add a traceback to any exception of these functions.
    """

    def wrapper(*arguments):
        try:
            return function(*arguments)
        except CdlError as error:
            logger.error(f"cdl: {error}")
            raise SystemExit(1) from None

    return wrapper
