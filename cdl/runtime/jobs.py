"""What every job of the workflow does first: log to its file, set threads, fail in one sentence."""

import contextlib
import functools
import logging
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from cdl.runtime.benchmarks import Meter
from cdl.runtime.errors import CdlError, Interrupted
from cdl.runtime.gpus import leased_gpu


def no_lease() -> None:
    """Wait for no GPU."""


@dataclass(frozen=True)
class Execution:
    """How a job computes; it changes no number.

    device: see `cdl.runtime.compute.Compute.select`.
    capture: replay the training step as a CUDA graph.
    limit_gb: most that the caches of all tasks together may take on disk.
    states: folder for unfinished work, see `cdl.training.checkpointing`; None keeps none.
    save_minutes: between two saves of it.
    images: digest of the user's files that the task's images come from, for the record.
    lease: waits for a GPU of the job's own; to be called before CUDA is asked anything.
    """

    device: str = "auto"
    capture: bool = False
    limit_gb: float = float("inf")
    states: str | None = None
    save_minutes: float = 1.0
    images: str = ""
    lease: Callable[[], object] = no_lease


DEFAULT = Execution()


@contextlib.contextmanager
def job(snakemake: Any) -> Iterator[Execution]:
    """Run a block as a job of the workflow.

    It logs to the rule's log and ends with one sentence instead of a traceback where the user can
    mend something; with exit code 75 (try again) if a signal stopped it after a save.

    Args:
        snakemake: what a rule's script is given. A rule with the resource `gpu` uses torch: its
            threads are set, and with `gpu: 1` its execution can wait for a GPU of its own. The
            GPU is the job's until the block ends.

    Yields:
        How it shall compute, from the rule's resources; the default for a rule without `gpu`.
    """
    resources = snakemake.resources
    learns = hasattr(resources, "gpu")
    execution = DEFAULT
    if learns:
        execution = Execution(
            device=resources.device,
            capture=bool(resources.capture),
            limit_gb=float(resources.limit_gb),
            states=snakemake.params.get("states"),
            save_minutes=float(resources.save_minutes),
            images=snakemake.params.get("images", ""),
        )
    with _in_one_sentence(snakemake.log[0]), contextlib.ExitStack() as held:
        if learns:
            import torch

            torch.set_num_threads(snakemake.threads)
            meter = held.enter_context(Meter())
            if resources.gpu:
                lease = functools.cache(lambda: _leased(held, meter, resources.jobs_per_gpu))
                execution = replace(execution, lease=lease)
        yield execution


def _leased(held: contextlib.ExitStack, meter: Meter, jobs_per_gpu: int) -> str | None:
    """Take a GPU until the job ends, and measure it."""
    gpu = held.enter_context(leased_gpu(jobs_per_gpu))
    held.enter_context(meter.on(gpu, alone=jobs_per_gpu == 1))
    return gpu


@contextlib.contextmanager
def _in_one_sentence(log: str) -> Iterator[None]:
    """Log to a file; turn what is raised into an exit code and a sentence."""
    logging.basicConfig(
        filename=log,
        filemode="w",
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        force=True,
    )
    logging.captureWarnings(True)
    try:
        yield
    except Interrupted as error:
        logging.getLogger("cdl").warning("%s", error)
        print(f"cdl: {error}", file=sys.stderr)
        sys.exit(os.EX_TEMPFAIL)
    except KeyboardInterrupt:  # before there is anything to save: nothing to show either
        logging.getLogger("cdl").warning("interrupted by Ctrl-C")
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
