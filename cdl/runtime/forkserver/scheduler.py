"""Snakemake's scheduler, kept from looking at its jobs ever more often.

By default it starts at most 100 jobs a second. To notice that more may start, every look at the
jobs leaves a timer behind that makes it look again, which leaves another: after n finished jobs it
looks n times a second, and asks for the size of every input each time (snakemake#3744).
"""

import threading
from typing import Any


def look_rarely(scheduler: Any) -> None:
    """Let at most one timer of a scheduler wait at a time.

    Args:
        scheduler: Snakemake's, about to run jobs. One that does this otherwise is left as it is.
    """
    if not (hasattr(scheduler, "_open_jobs") and hasattr(scheduler, "_schedule_reevalutation")):
        return
    waiting = threading.Event()

    def look() -> None:
        waiting.clear()  # first: the look that follows must find that none waits
        scheduler._open_jobs.release()

    def look_later(delay: float) -> None:
        if not waiting.is_set():
            waiting.set()
            threading.Timer(delay, look).start()

    scheduler._schedule_reevalutation = look_later
