"""Snakemake's scheduler looks again once, however often it has looked."""

import inspect
import threading
from types import SimpleNamespace

import pytest
from snakemake.scheduling.job_scheduler import JobScheduler

from cdl.runtime.forkserver.scheduler import look_rarely


class Looks:
    """What a scheduler waits for: how many looks wait, and how many came."""

    def __init__(self):
        self.came = threading.Semaphore(0)

    def release(self):
        self.came.release()

    def wait(self):
        assert self.came.acquire(timeout=60)


def test_one_look_waits_at_a_time():
    looks = Looks()
    scheduler = SimpleNamespace(_open_jobs=looks, _schedule_reevalutation=None)
    look_rarely(scheduler)
    before = threading.active_count()
    for _ in range(50):  # jobs that end within a second
        scheduler._schedule_reevalutation(0.3)
    assert threading.active_count() <= before + 1
    looks.wait()
    for _ in range(3):  # each look asks for the next, as the scheduler does
        scheduler._schedule_reevalutation(0.01)
        looks.wait()
    assert not looks.came.acquire(timeout=0.5)  # and none is left


def test_a_scheduler_that_does_otherwise_is_left_alone():
    scheduler = SimpleNamespace(_open_jobs=Looks())
    look_rarely(scheduler)
    assert not hasattr(scheduler, "_schedule_reevalutation")


def test_snakemake_still_leaves_timers():
    if not hasattr(JobScheduler, "_schedule_reevalutation"):
        pytest.skip("this Snakemake looks at its jobs otherwise: look_rarely can go")
    assert "_open_jobs.release" in inspect.getsource(JobScheduler._schedule_reevalutation)
