"""Set up a job: log file, threads, measurements, GPU lease, error messages."""

import contextlib
import functools
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cdl.runtime.artifacts import remove_rest
from cdl.runtime.benchmarks import Meter
from cdl.runtime.errors import CdlError, Interrupted, first_line
from cdl.runtime.gpus import leased_gpu
from cdl.runtime.storage import enter_folder


def no_lease() -> None:
    """Do nothing: the lease of jobs without a GPU."""


@dataclass(frozen=True)
class Execution:
    """Settings of a job's execution; they do not change its results.

    device: see `cdl.runtime.compute.Compute.select`.
    capture: replay the training step as a CUDA graph.
    limit_gb: maximum disk space of the caches of all tasks together, in GB.
    states: folder for unfinished work, see `cdl.training.checkpointing`; None: not saved.
    save_minutes: minutes between two saves of unfinished work.
    images: digest of the user's files that the task's images come from, for the record.
    lease: waits for a GPU and leases it; must be called before the first CUDA call.
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
def job(snakemake: Any, *, at_start: bool = False) -> Iterator[Execution]:
    """Run a block as a job of the workflow.

    Logs to the rule's log file. An error that the user can correct ends the job with a message
    instead of a traceback, which is in the log. The exit code is 75 (try again) if a signal
    interrupted the job.

    Args:
        snakemake: the object that Snakemake gives to a script. Rules with the resource `gpu` use
            torch, so the number of its threads is set; with `gpu: 1` the job can lease a GPU until
            the block ends.
        at_start: run in the folder where Snakemake was started also if the files are in remote
            storage, since the job reads files of the user at paths relative to this folder.

    Yields:
        Settings from the rule's resources; the default for a rule without `gpu`.
    """
    if not at_start:
        enter_folder(snakemake)
    for path in getattr(snakemake, "output", ()):  # Snakemake's lock keeps out other writers
        remove_rest(path)
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
    with _reported_errors(snakemake.log[0]), contextlib.ExitStack() as stack:
        if learns:
            import torch

            torch.set_num_threads(snakemake.threads)
            meter = stack.enter_context(Meter(getattr(snakemake.log, "measured", None)))
            if resources.gpu:
                lease = functools.cache(lambda: _lease(stack, meter, resources.jobs_per_gpu))
                execution = replace(execution, lease=lease)
        yield execution


def arguments(snakemake: Any) -> dict[str, Any]:
    """Return the inputs of a job as arguments of the function that it calls, by name.

    Packed data are folders, and backbones and several queries are by the names of the backbones in
    the parameters. Records, which the rule has to detect changes, are left out.
    """
    found = {name: file for name, file in snakemake.input.items() if file and name != "records"}
    for name in found.keys() & {"data", "unlabelled"}:
        found[name] = str(Path(found[name][0]).parent)
    for name, names in (("backbones", "names"), ("queries", "query_names")):
        if (given := snakemake.params.get(names)) is not None:
            found[name] = dict(zip(given, found.get(name, ()), strict=True))
    return found


def _lease(stack: contextlib.ExitStack, meter: Meter, jobs_per_gpu: int) -> str | None:
    """Lease a GPU until the job ends, and measure it."""
    gpu = stack.enter_context(leased_gpu(jobs_per_gpu))
    stack.enter_context(meter.on(gpu))
    return gpu


def _interrupt_once() -> None:
    """Let the first Ctrl-C interrupt the job; a second one must not interrupt its end."""

    def interrupt(number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not ignored, as by nohup
        signal.signal(signal.SIGINT, interrupt)


@contextlib.contextmanager
def _reported_errors(log: str) -> Iterator[None]:
    """Log to a file; turn exceptions into exit codes and messages."""
    _interrupt_once()
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
    except KeyboardInterrupt:  # interrupted before there was anything to save
        logging.getLogger("cdl").warning("interrupted by Ctrl-C")
        sys.exit(os.EX_TEMPFAIL)
    except CdlError as error:
        # the log has the lines below the sentence, since the code may be of another package
        logging.getLogger("cdl").error("%s", error, exc_info=True)
        sys.exit(f"cdl: {error}")
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":  # torch's class, without importing torch
            message = (
                f"out of device memory ({first_line(error)}); reduce "
                "training.batch_size, set compute.precision to bf16, or use a larger GPU"
            )
            logging.getLogger("cdl").error("%s", message)
            sys.exit(f"cdl: {message}")
        logging.getLogger("cdl").exception("unexpected error")
        raise
