"""Processes that end with their parent."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # option of Linux's prctl
_LIBRARY = ctypes.CDLL(None) if sys.platform == "linux" else None  # loaded before a fork


def end_with(parent: int, number: signal.Signals) -> None:
    """Let a signal end this process when its parent has ended, also when it was killed.

    Does nothing on other systems than Linux.

    Args:
        parent: number of the parent process; if it has ended already, the signal is sent now.
        number: the signal.
    """
    if _LIBRARY is not None:
        _LIBRARY.prctl(_PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:  # it ended before prctl took effect
            os.kill(os.getpid(), number)
