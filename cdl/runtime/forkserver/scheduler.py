"""Limit the timers of Snakemake's scheduler.

By default Snakemake starts at most 100 jobs per second. To find out when more jobs may start,
every evaluation of the open jobs starts a timer that triggers another evaluation, which starts
another timer. After n finished jobs there are n evaluations per second, each of which reads the
size of every input file (snakemake#3744).
"""

import threading
from typing import Any


def look_rarely(scheduler: Any) -> None:
    """Let a scheduler have at most one pending timer.

    Args:
        scheduler: Snakemake's scheduler, before it runs jobs. A version of Snakemake without these
            timers is not changed.
    """
    if not (hasattr(scheduler, "_open_jobs") and hasattr(scheduler, "_schedule_reevalutation")):
        return
    pending = threading.Event()

    def evaluate() -> None:
        pending.clear()  # before the release: the evaluation must be able to start the next timer
        scheduler._open_jobs.release()

    def schedule(delay: float) -> None:
        if not pending.is_set():
            pending.set()
            threading.Timer(delay, evaluate).start()

    scheduler._schedule_reevalutation = schedule
