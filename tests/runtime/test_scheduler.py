"""At most one timer of Snakemake's scheduler is pending."""

import inspect
import threading
from types import SimpleNamespace

import pytest
from snakemake.scheduling.job_scheduler import JobScheduler

from cdl.runtime.forkserver.scheduler import look_rarely


class OpenJobs:
    """Counts the evaluations that a scheduler is triggered to do."""

    def __init__(self):
        self.released = threading.Semaphore(0)

    def release(self):
        self.released.release()

    def wait(self):
        assert self.released.acquire(timeout=60)


def test_at_most_one_timer_is_pending():
    jobs = OpenJobs()
    scheduler = SimpleNamespace(_open_jobs=jobs, _schedule_reevalutation=None)
    look_rarely(scheduler)
    before = threading.active_count()
    for _ in range(50):  # jobs that end within a second
        scheduler._schedule_reevalutation(0.3)
    assert threading.active_count() <= before + 1
    jobs.wait()
    for _ in range(3):  # each evaluation schedules the next, as in Snakemake
        scheduler._schedule_reevalutation(0.01)
        jobs.wait()
    assert not jobs.released.acquire(timeout=0.5)  # no further timer is pending


def test_a_scheduler_without_timers_is_not_changed():
    scheduler = SimpleNamespace(_open_jobs=OpenJobs())
    look_rarely(scheduler)
    assert not hasattr(scheduler, "_schedule_reevalutation")


def test_snakemake_still_starts_timers():
    if not hasattr(JobScheduler, "_schedule_reevalutation"):
        pytest.skip("this version of Snakemake has no such timers: remove look_rarely")
    assert "_open_jobs.release" in inspect.getsource(JobScheduler._schedule_reevalutation)
