"""One line about a run: what is done, what is at work, and about how much time is left.

Snakemake gives its events to a logger plugin, see `snakemake_logger_plugin_cdl`. In a terminal the
line is kept up to date below warnings and errors; elsewhere a new one is printed every few seconds.
Snakemake's own, longer log lies in `.snakemake/log`.
"""

import atexit
import os
import signal
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from logging import INFO, Handler, LogRecord
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

PAUSE = 5.0  # seconds between two lines where nothing can be overwritten
# of what Snakemake says besides events, what a person needs; and what cdl says in the workflow
_STOPPING = "Terminating processes"
_SAID = ("Nothing to be done", _STOPPING, "Will exit after finishing")

# options of Snakemake that leave a run a run, which can be followed in one line
PLAIN = {"targets", "cores", "jobs", "configfile", "config", "directory", "resources", "retries"}
PLAIN |= {"keep_going", "force", "forceall", "forcerun", "rerun_incomplete", "rerun_triggers"}
PLAIN |= {"nolock", "until", "workflow_profile", "executor", "keep_incomplete", "latency_wait"}
PLAIN |= {"max_jobs_per_timespan"}  # differs from itself


def described(rule: str, wildcards: Mapping[str, str]) -> str:
    """Return what a job does, for people: `teacher of task 3`, `kd of task 1`."""
    who = wildcards.get("learner", "").split("-")[0]
    who = "student alone" if who == "student" else who
    task = f"task {int(wildcards['task']) + 1}" if "task" in wildcards else ""
    if rule in ("train", "distil"):
        return f"{who} of {task}"
    if rule == "teacher_targets":
        return f"what the teacher of {task} says"
    if rule == "evaluate":
        return f"test of {who}"
    words = rule.replace("_", " ")
    return f"{words} of {task}" if task else words


def about(seconds: float) -> str:
    """Return a duration that is guessed: `about 70 s`, `about 12 min`, `about 3.5 h`."""
    if seconds < 120:
        return f"about {max(5, 5 * round(seconds / 5))} s"
    if seconds < 5400:
        return f"about {seconds / 60:.0f} min"
    return f"about {seconds / 3600:.1f} h"


def follow(command: list[str]) -> tuple[int, bool]:
    """Run Snakemake and wait for it, whatever signals come; it gets those that end a program.

    Returns:
        Its exit code, or 128 and the signal that ended it; and whether a signal came.
    """
    came = []
    with subprocess.Popen(command) as child:

        def hand_on(number: int, _: object) -> None:
            came.append(number)
            if number != signal.SIGINT or os.getpgid(child.pid) != os.getpgrp():
                child.send_signal(number)  # the terminal sends SIGINT to both

        old = {n: signal.signal(n, hand_on) for n in (signal.SIGINT, signal.SIGTERM)}
        code = child.wait()
        for number, handler in old.items():
            signal.signal(number, handler)
    return (128 - code if code < 0 else code), bool(came)


class Progress:
    """What is known of a run; times are seconds of one clock.

    Attributes:
        done: how many jobs are finished.
        total: how many there are.
    """

    def __init__(self) -> None:
        self.done = self.total = 0
        self._left: Counter[str] = Counter()
        self._at_work: dict[int, tuple[str, str, float]] = {}
        self._took: defaultdict[str, list[float]] = defaultdict(list)
        self._began: float | None = None

    def plan(self, jobs: Mapping[str, int]) -> None:
        """Take note of how many jobs of each rule there are."""
        self._left = Counter({rule: n for rule, n in jobs.items() if rule != "total"})
        self.total = self._left.total()

    def start(self, job: int, rule: str, what: str, now: float) -> None:
        """Take note of a job that begins."""
        self._began = now if self._began is None else self._began
        self._at_work[job] = (rule, what, now)

    def finish(self, job: int, now: float) -> None:
        """Take note of a job that is finished."""
        if job in self._at_work:
            rule, _, start = self._at_work.pop(job)
            self._took[rule].append(now - start)
            self._left[rule] -= 1
            self.done += 1

    def fail(self, job: int) -> str:
        """Take note of a job that is not finished and no longer at work; return what it did."""
        return self._at_work.pop(job, ("", "a job", 0.0))[1]

    def seconds_left(self, now: float) -> float | None:
        """Guess what the other jobs take, each as long as its rule's did, as many at a time."""
        took = [seconds for many in self._took.values() for seconds in many]
        if not took or self._began is None:
            return None
        usual = sum(took) / len(took)
        means = {rule: sum(many) / len(many) for rule, many in self._took.items()}
        needed = sum(n * means.get(rule, usual) for rule, n in self._left.items())
        running = [(means.get(rule, usual), now - at) for rule, _, at in self._at_work.values()]
        needed -= sum(min(mean, since) for mean, since in running)
        at_a_time = (sum(took) + sum(since for _, since in running)) / max(now - self._began, 1e-9)
        return needed / max(1.0, at_a_time)

    def line(self, now: float) -> str:
        """Return the line: `12/40 jobs, teacher of task 3, about 70 s left`."""
        parts = [f"{self.done}/{self.total} jobs"]
        parts += list(dict.fromkeys(what for _, what, _ in self._at_work.values()))[:2]
        left = self.seconds_left(now)
        if left is not None and self.done < self.total:
            parts.append(f"{about(left)} left")
        return ", ".join(parts)


class LogHandler(LogHandlerBase):
    """Snakemake's events as one line on stderr."""

    def __post_init__(self) -> None:
        Handler.__init__(self)  # which older versions of the interface leave out
        atexit.register(self._stop)  # older Snakemakes close no handler
        self.console = Console(stderr=True, highlight=False)
        self.progress = Progress()
        self._printed = -PAUSE
        self._printed_line = ""
        self._failed: set[int] = set()
        self._stopping = False
        self._live: Live | None = None

    @property
    def writes_to_stream(self) -> bool:
        """Yes: Snakemake's own handler is not used besides."""
        return True

    @property
    def writes_to_file(self) -> bool:
        """No."""
        return False

    @property
    def has_filter(self) -> bool:
        """No: Snakemake's default one leaves out what nobody asked for."""
        return False

    @property
    def has_formatter(self) -> bool:
        """No: Snakemake's default one words errors."""
        return False

    @property
    def needs_rulegraph(self) -> bool:
        """No."""
        return False

    def emit(self, record: LogRecord) -> None:
        """Take note of an event, and show what it changes."""
        event, now = getattr(record, "event", None), time.monotonic()
        told: dict[str, Any] = record.__dict__
        if event == LogEvent.RUN_INFO:
            self.progress.plan(told["stats"])
        elif event == LogEvent.JOB_INFO:
            what = described(told["rule_name"], told["wildcards"] or {})
            self.progress.start(told["jobid"], told["rule_name"], what, now)
        elif event == LogEvent.JOB_FINISHED:
            self.progress.finish(told["job_id"], now)
        elif self._stopping:
            pass  # what jobs say that were stopped is no news
        elif event == LogEvent.JOB_ERROR:
            logs = ", ".join(map(str, told["log"] or ["Snakemake's log"]))
            if told["jobid"] not in self._failed:  # Snakemake says it once more at the end
                self._failed.add(told["jobid"])
                what = self.progress.fail(told["jobid"])
                self._say(f"failed: {what}; see {logs}", "bold red")
        elif record.levelno > INFO:
            self._say(self.format(record), "red")
        elif event is None and self._for_people(record):
            self._stopping = record.getMessage().startswith(_STOPPING)
            self._say(record.getMessage(), "")
        self._show(now)

    def close(self) -> None:
        """Leave the last line where it is."""
        self._stop()
        super().close()

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    @staticmethod
    def _for_people(record: LogRecord) -> bool:
        return hasattr(record, "cdl") or record.getMessage().startswith(_SAID)

    def _say(self, text: str, style: str) -> None:
        self.console.print(escape(text), style=style, soft_wrap=True)

    def _show(self, now: float) -> None:
        if not self.progress.total:
            return
        if self.console.is_terminal:
            if self._live is None:
                self._live = Live(
                    console=self.console, refresh_per_second=2, get_renderable=self._bar
                )
                self._live.start()
        elif now - self._printed >= PAUSE or self.progress.done == self.progress.total:
            line = self.progress.line(now)
            if line != self._printed_line:
                self._printed, self._printed_line = now, line
                self._say(line, "")

    def _bar(self) -> Any:
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        grid = Table.grid(padding=(0, 1))
        bar = ProgressBar(self.progress.total, self.progress.done, width=20)
        grid.add_row(bar, escape(self.progress.line(time.monotonic())))
        return grid
