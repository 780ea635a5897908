"""What every job of the workflow does first: log to its file, set threads, fail in one sentence."""

import contextlib
import logging
import sys
from collections.abc import Iterator

from cdl.errors import CdlError


@contextlib.contextmanager
def job(log: str, threads: int | None = None) -> Iterator[None]:
    """Run a block as a job.

    Args:
        log: file that receives the log lines.
        threads: threads for torch; None for a job that does not use it.
    """
    logging.basicConfig(
        filename=log,
        filemode="w",
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        force=True,
    )
    logging.captureWarnings(True)
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    try:
        yield
    except CdlError as error:
        logging.getLogger("cdl").error("%s", error)
        sys.exit(f"cdl: {error}")
    except Exception:
        logging.getLogger("cdl").exception("unexpected error")
        raise
