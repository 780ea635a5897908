"""What every job of the workflow does first: log to its file, set threads, fail in one sentence."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator

from cdl.errors import CdlError, Interrupted
from cdl.gpus import leased_gpu


@contextlib.contextmanager
def job(log: str, threads: int | None = None, gpu: int = 0) -> Iterator[None]:
    """Run a block as a job; exit with 75 (try again) if a signal stopped it after a save.

    Args:
        log: file that receives the log lines.
        threads: threads for torch; None for a job that does not use it.
        gpu: with 1 the job waits for a GPU of its own, if the machine has any.
    """
    logging.basicConfig(
        filename=log,
        filemode="w",
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        force=True,
    )
    logging.captureWarnings(True)
    try:
        with leased_gpu() if gpu else contextlib.nullcontext():
            if threads is not None:
                import torch

                torch.set_num_threads(threads)
            yield
    except Interrupted as error:
        logging.getLogger("cdl").warning("%s", error)
        print(f"cdl: {error}", file=sys.stderr)
        sys.exit(os.EX_TEMPFAIL)
    except CdlError as error:
        logging.getLogger("cdl").error("%s", error)
        sys.exit(f"cdl: {error}")
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":  # torch's, known without importing torch
            sentence = (
                f"memory of the device is exhausted ({str(error).splitlines()[0]}); lower "
                "training.batch_size, set compute.precision to bf16, or take a larger GPU"
            )
            logging.getLogger("cdl").error("%s", sentence)
            sys.exit(f"cdl: {sentence}")
        logging.getLogger("cdl").exception("unexpected error")
        raise
