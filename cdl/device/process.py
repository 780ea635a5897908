"""Memory and end of this process. Imports only Python's library, for students on devices."""

import os
import sys
from pathlib import Path

_UNREAD = 141  # 128 plus the number of SIGPIPE, as shells report it


def end_quietly() -> int:
    """Discard the rest of the output, whose reader has gone; return the exit code."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return _UNREAD


def peak_memory() -> float | None:
    """Return the peak resident memory of this process in MB; None where the system is silent."""
    status = Path("/proc/self/status")
    if status.exists():  # `getrusage` includes the memory of the parent before exec
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) * 1024 / 1e6
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # macOS: bytes
