"""Which GPUs a process sees, and a lease that pins one job to one of them. No torch here.

A lease is a lock (`flock`) on a file for each place on a GPU; the kernel drops it when the process
ends, however it ends. Inside a SLURM job only that job's processes share the files: SLURM has
already chosen the GPUs, and two of its jobs may both call theirs 0.
"""

import contextlib
import fcntl
import logging
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from cdl.runtime.errors import CdlError

log = logging.getLogger(__name__)

_NAMES = 20  # of a GPU's lock file, tried in turn
VISIBLE = "CUDA_VISIBLE_DEVICES"
NO_GPU = {"", "-1", "NoDevFiles"}


def visible_gpus() -> list[str]:
    """Return the GPUs that CUDA may use, as `CUDA_VISIBLE_DEVICES` names them."""
    if VISIBLE in os.environ:
        names = [name.strip() for name in os.environ[VISIBLE].split(",")]
        return [] if names[0] in NO_GPU else names
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    listed = subprocess.run(query, capture_output=True, text=True, check=False)
    if listed.returncode:
        log.warning("no GPU: nvidia-smi says %s", (listed.stdout + listed.stderr).strip())
        return []
    return listed.stdout.split()


@contextlib.contextmanager
def leased_gpu(jobs_per_gpu: int = 1, poll: float = 0.1) -> Iterator[str | None]:
    """Wait for a place on a GPU and make that GPU the only one that CUDA sees.

    To be entered before CUDA is asked anything: it reads `CUDA_VISIBLE_DEVICES` once. torch may be
    imported earlier. Yields the GPU's name, or None where there is no GPU.

    Args:
        jobs_per_gpu: places on each GPU; the emptiest GPU is taken.
        poll: seconds between two looks at GPUs that are all taken.
    """
    gpus = visible_gpus()
    if not gpus:
        yield None
        return
    lock = _lock_any(gpus, jobs_per_gpu)
    if lock is None:
        log.info("all GPUs (%s) are taken by other jobs; waiting for one", ", ".join(gpus))
    while lock is None:
        time.sleep(poll)
        lock = _lock_any(gpus, jobs_per_gpu)
    gpu, descriptor = lock
    before = os.environ.get(VISIBLE)
    os.environ[VISIBLE] = gpu
    log.info("pinned to GPU %s", gpu)
    try:
        yield gpu
    finally:
        if before is None:
            del os.environ[VISIBLE]
        else:
            os.environ[VISIBLE] = before
        os.close(descriptor)


def _lock_any(gpus: list[str], jobs_per_gpu: int) -> tuple[str, int] | None:
    """Lock the first free place; return its GPU's name and the open file that holds the lock."""
    for place, gpu in product(range(jobs_per_gpu), gpus):
        descriptor = _open_own(f"{gpu}+{place}" if place else gpu)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return gpu, descriptor
        except BlockingIOError:
            os.close(descriptor)
    return None


def _open_own(place: str) -> int:
    """Open this user's lock file of a place; what others put under its name is passed over.

    All jobs of a user pass over the same files, so that they meet in one.
    """
    scope = f"{os.getuid()}-{os.environ.get('SLURM_JOB_ID', 'host')}"
    stem = Path(tempfile.gettempdir(), f"cdl-gpu-{scope}-{place.replace('/', '_')}")
    reason = "all belong to others"
    for suffix in ("", *(f".{i}" for i in range(1, _NAMES))):
        try:
            path = f"{stem}{suffix}.lock"
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError as error:  # another user's, a link, a folder
            reason = str(error)
            continue
        if os.fstat(descriptor).st_uid == os.getuid():
            return descriptor
        os.close(descriptor)
    raise CdlError(
        f"no lock file {stem}*.lock can be opened ({reason}); remove them or set TMPDIR to a "
        "folder of your own"
    )
