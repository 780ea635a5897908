"""Processes that end with their parent."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # option of Linux's prctl


def end_with(parent: int, number: signal.Signals) -> None:
    """Let a signal end this process when its parent has ended, also when it was killed.

    Does nothing on other systems than Linux.

    Args:
        parent: number of the parent process; if it has ended already, the signal is sent now.
        number: the signal.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:  # it ended before prctl took effect
            os.kill(os.getpid(), number)
