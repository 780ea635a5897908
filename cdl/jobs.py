"""What every job of the workflow does first: log to its file, set threads, fail in one sentence."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator

from cdl.errors import CdlError


@contextlib.contextmanager
def job(log: str, threads: int | None = None) -> Iterator[None]:
    """Run a block as a job.

    Args:
        log: file that receives the log lines.
        threads: threads for torch; with a number, torch is also made deterministic.
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
        # cuBLAS is deterministic only with a workspace of fixed size, set before torch starts it
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        import torch

        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(True)
    try:
        yield
    except CdlError as error:
        logging.getLogger("cdl").error("%s", error)
        sys.exit(f"cdl: {error}")
    except Exception:
        logging.getLogger("cdl").exception("unexpected error")
        raise
