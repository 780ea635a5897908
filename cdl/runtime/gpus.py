"""Find the visible GPUs and lease one of them to a job. Does not import torch.

A lease is a lock on a file in the user's cache folder, with one file for every place on a GPU of
this host. The kernel releases the lock when the process ends, also when it is killed. Inside a
SLURM job the name of the file contains the job's number: SLURM has already assigned the GPUs, and
two SLURM jobs on one host may both see their GPU as number 0.
"""

import contextlib
import logging
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from filelock import FileLock, Timeout

from cdl.runtime.caches import cache_folder
from cdl.runtime.errors import CdlError

log = logging.getLogger(__name__)

VISIBLE = "CUDA_VISIBLE_DEVICES"
NO_GPU = {"", "-1", "NoDevFiles"}
_MAX_AGE = 30 * 24 * 3600.0  # seconds; longer than any SLURM job runs


def visible_gpus() -> list[str]:
    """Return the GPUs that CUDA may use, as named in `CUDA_VISIBLE_DEVICES`."""
    if VISIBLE in os.environ:
        names = [name.strip() for name in os.environ[VISIBLE].split(",")]
        return [] if names[0] in NO_GPU else names
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    listed = subprocess.run(query, capture_output=True, text=True, check=False)
    if listed.returncode:
        log.warning("no GPU: nvidia-smi failed: %s", (listed.stdout + listed.stderr).strip())
        return []
    return listed.stdout.split()


@contextlib.contextmanager
def leased_gpu(jobs_per_gpu: int = 1, poll: float = 0.1) -> Iterator[str | None]:
    """Wait for a free place on a GPU and make that GPU the only one visible to CUDA.

    Must be entered before the first CUDA call, because CUDA reads `CUDA_VISIBLE_DEVICES` only once.
    torch may be imported earlier. Yields the GPU's name, or None on a machine without a GPU.

    Args:
        jobs_per_gpu: number of places on each GPU; the GPU with the most free places is chosen.
        poll: seconds between two attempts while all places are taken.

    Raises:
        CdlError: the lock files cannot be written.
    """
    gpus = visible_gpus()
    if not gpus:
        yield None
        return
    folder = _lock_folder()
    lease = _lock_any(folder, gpus, jobs_per_gpu)
    if lease is None:
        log.info("all GPUs (%s) are taken by other jobs; waiting for one", ", ".join(gpus))
    while lease is None:
        time.sleep(poll)
        lease = _lock_any(folder, gpus, jobs_per_gpu)
    gpu, lock = lease
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
        lock.release()


def _lock_any(folder: Path, gpus: list[str], jobs_per_gpu: int) -> tuple[str, FileLock] | None:
    """Lock the first free place; return the name of its GPU and the lock, or None."""
    job = os.environ.get("SLURM_JOB_ID")
    scope = f"{platform.node()}-slurm{job}" if job else platform.node()
    for place, gpu in product(range(jobs_per_gpu), gpus):
        name = f"{scope}-{gpu.replace('/', '_')}-{place}.lock"
        lock = FileLock(folder / name)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        except (OSError, NotImplementedError) as error:
            raise _unusable(folder, error) from error
        return gpu, lock
    return None


def _lock_folder() -> Path:
    """Create the folder of lock files in the user's cache folder and return it.

    Deletes the lock files of old SLURM jobs, because every SLURM job creates new ones.
    """
    folder = cache_folder() / "gpu-locks"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob("*-slurm*.lock"):
            with contextlib.suppress(FileNotFoundError):  # another job may delete it, too
                if time.time() - path.stat().st_mtime > _MAX_AGE:
                    path.unlink()
    except (OSError, RuntimeError) as error:  # RuntimeError: the user has no home
        raise _unusable(folder, error) from error
    return folder


def _unusable(folder: Path, error: Exception) -> CdlError:
    return CdlError(
        f"{folder}: GPU lock files cannot be written ({error}); make the folder writable or set "
        "XDG_CACHE_HOME to a folder of your own"
    )
