"""The progress line of `cdl run`: finished jobs, estimated time left, running jobs.

Snakemake passes its events to a logger plugin, see `snakemake_logger_plugin_cdl`. In a terminal the
line is updated in place, below warnings and errors; otherwise a new line is printed every few
seconds. Snakemake's own, longer log is in `.snakemake/log`.
"""

import atexit
import functools
import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from logging import INFO, Handler, LogRecord
from typing import IO, Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

from cdl.cli import events
from cdl.runtime.processes import end_with

Forward = Callable[[str], None]
BAR = 20  # characters of the bar in a notebook
LATE = 2.0  # seconds for the last lines after the end of Snakemake
PAUSE = 5.0  # seconds between two lines outside a terminal
ENOUGH, SHARE = 5, 10  # finished jobs before an estimate: so many, and one in so many of all jobs
MAX_SHOWN_JOBS = 2  # running jobs that the line names
# Snakemake's messages without an event that are printed; messages of cdl are always printed
_TERMINATING = "Terminating processes"
_PRINTED_MESSAGES = ("Nothing to be done", _TERMINATING, "Will exit after finishing")
_LOCKED = "Directory cannot be locked"
# errors of Snakemake about a failed job, which are in its log; `cdl run` prints the job's own error
_REPEATED = ("RuleException", "Exiting because a job", "WorkflowError:\nAt least one job did not")

# Options of Snakemake with which a run shows the progress line. With any other option, such as
# `--dry-run`, Snakemake's own output is shown.
PROGRESS_OPTIONS = {"targets", "cores", "jobs", "configfile", "config", "directory", "resources"}
PROGRESS_OPTIONS |= {"retries", "keep_going", "force", "forceall", "forcerun", "rerun_incomplete"}
PROGRESS_OPTIONS |= {"rerun_triggers", "nolock", "until", "workflow_profile", "executor"}
PROGRESS_OPTIONS |= {"keep_incomplete", "latency_wait"}
PROGRESS_OPTIONS |= {"max_jobs_per_timespan"}  # its default value is not equal to itself


RULES = {  # descriptions of rules whose names do not explain them, with the learner
    "align": "align the heads of {}",
    "all": "final check",
    "collect": "collect results",
    "compare": "comparison with papers",
    "deploy": "export a student",
    "distil": "distil with {}",
    "evaluate": "evaluate {}",
    "evaluate_trial": "evaluate a trial",
    "halve": "select trials",
    "label_efficiency": "label efficiency figure",
    "measure": "measure exported students",
    "page": "results page",
    "plot": "figures",
    "plot_prompts": "figures of chosen prompts",
    "prompts": "prompts that {} chooses",
    "show_deployment": "deployment figures",
    "tabulate": "tables",
    "train": "train {}",
    "teacher_targets_seen": "teacher targets of all classes seen",
    "teacher_targets_test": "teacher targets at the test view",
    "teacher_targets_test_seen": "teacher targets of all classes seen at the test view",
    "tuned": "select the best options",
}


def describe_job(rule: str, wildcards: Mapping[str, str]) -> str:
    """Return what a job does: `train teacher, task 3`, `distil with kd, task 1`."""
    role = wildcards.get("learner", "").split("-")[0]
    learner = "undistilled student" if role == "student" else role
    action = RULES.get(rule, rule.replace("_", " ")).format(learner)
    return f"{action}, task {int(wildcards['task']) + 1}" if "task" in wildcards else action


def about(seconds: float) -> str:
    """Return an estimated duration as text: `about 70 s`, `about 12 min`, `about 3.5 h`."""
    if seconds < 120:
        return f"about {max(5, 5 * round(seconds / 5))} s"
    if seconds < 5400:
        return f"about {seconds / 60:.0f} min"
    return f"about {seconds / 3600:.1f} h"


def run_snakemake(
    command: list[str],
    environment: Mapping[str, str] | None = None,
    forward: Forward | None = None,
) -> tuple[int, bool]:
    """Run Snakemake, wait for it to end, and forward SIGINT and SIGTERM to it.

    If this process is killed, Snakemake gets SIGTERM. Only the main thread of Python can handle
    signals; a run of another thread is not interrupted.

    Args:
        command: command of Snakemake.
        environment: variables in addition to those of this process.
        forward: see `cdl.cli.run.start`; Snakemake then has a process group of its own, so that an
            interrupt of this process's group reaches it once.

    Returns:
        The exit code, or 128 plus the number of the signal that ended it; and whether a signal was
        received.
    """
    received = []
    ends = functools.partial(end_with, os.getpid(), signal.SIGTERM)
    variables = {**os.environ, **(environment or {})}
    options: dict[str, Any] = {}
    if forward is not None:
        variables["FORCE_COLOR"] = ""  # Jupyter sets it, but lines are printed, not a terminal
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "process_group": 0}
    with subprocess.Popen(command, env=variables, preexec_fn=ends, **options) as child:

        def pass_on(number: int, _: object) -> None:
            received.append(number)
            if number != signal.SIGINT or os.getpgid(child.pid) != os.getpgrp():
                child.send_signal(number)  # the terminal itself sends SIGINT to both processes

        numbers = (signal.SIGINT, signal.SIGTERM) if _in_main_thread() else ()
        old = {n: signal.signal(n, pass_on) for n in numbers}
        try:
            if forward is not None and child.stdout is not None:
                # a thread, since a job that outlives Snakemake would keep the pipe open
                reader = threading.Thread(
                    target=_pass_lines, args=(child.stdout, forward), daemon=True
                )
                reader.start()
                code = child.wait()
                reader.join(LATE)
            else:
                code = child.wait()
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)
    return (128 - code if code < 0 else code), bool(received)


def _pass_lines(stream: IO[bytes], forward: Forward) -> None:
    """Print each line of a stream."""
    for line in io.TextIOWrapper(stream, errors="replace"):
        forward(line.rstrip("\n"))


class Lines:
    """Print the lines of a run to stderr; in a notebook, progress is a bar in one line."""

    def __init__(self) -> None:
        self._in_notebook = type(sys.stderr).__module__.startswith("ipykernel")
        self._width = 0  # of the bar that is shown

    def __call__(self, line: str) -> None:
        """Print a line."""
        progress = re.match(r"(\d+)/(\d+) jobs", line) if self._in_notebook else None
        if progress is None:
            print("\n" * bool(self._width) + line, file=sys.stderr, flush=True)
            self._width = 0
            return
        filled = BAR * int(progress[1]) // max(1, int(progress[2]))
        shown = f"[{'#' * filled}{'.' * (BAR - filled)}] {line}"
        print("\r" + shown.ljust(self._width), end="", file=sys.stderr, flush=True)
        self._width = len(shown)


def plain_console() -> Console:
    """Return a console that prints text to stdout, also in a notebook."""
    return Console(
        file=sys.stdout, highlight=False, force_jupyter=False, force_terminal=False, no_color=True
    )


class Progress:
    """Counts of the jobs of a run, and an estimate; times are in seconds of one clock.

    Attributes:
        done: number of finished jobs.
        total: number of all jobs.
        running: description of each running job, by its number.
    """

    def __init__(self) -> None:
        self.done = self.total = 0
        self.running: dict[int, str] = {}
        self._first = self._last = 0.0  # ends of the first and of the latest finished job

    def start(self, job: int, description: str) -> None:
        """Record the start of a job."""
        self.running[job] = description

    def finish(self, job: int, now: float) -> None:
        """Record that a job has finished."""
        if self.running.pop(job, None) is not None:
            self._last = now
            self._first = self._first if self.done else now
            self.done += 1
            self.total = max(self.total, self.done)  # a checkpoint may have added jobs

    def fail(self, job: int) -> str:
        """Record that a job has failed; return its description."""
        return self.running.pop(job, "a job")

    def seconds_left(self, now: float) -> float | None:
        """Estimate the time left from the mean time per finished job; None before enough of them.

        The first one, during which packages are loaded, is not counted.
        """
        if self.done < max(ENOUGH, self.total // SHARE):
            return None
        needed = (self._last - self._first) / (self.done - 1) * (self.total - self.done)
        return max(0.0, needed - (now - self._last))

    def line(self, now: float) -> str:
        """Return the line: `12/40 jobs, about 70 s left; running: train teacher, task 3`."""
        line = f"{self.done}/{self.total} jobs"
        left = self.seconds_left(now)
        if left is not None and self.done < self.total:
            line += f", {about(left)} left"
        jobs = list(dict.fromkeys(self.running.values()))
        others = len(jobs) - MAX_SHOWN_JOBS
        named = [*jobs[:MAX_SHOWN_JOBS], *([f"{others} more"] if others > 0 else [])]
        return f"{line}; running: {'; '.join(named)}" if named else line


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


class LogHandler(LogHandlerBase):
    """Show Snakemake's events as one progress line on stderr."""

    writes_to_stream = True  # in the place of Snakemake's own handler
    writes_to_file = needs_rulegraph = False
    has_filter = has_formatter = False  # Snakemake filters messages and words errors

    def __post_init__(self) -> None:
        Handler.__init__(self)  # older versions of the interface omit this call
        atexit.register(self._stop)  # older versions of Snakemake do not close handlers
        self.console = Console(stderr=True, highlight=False)
        self.progress = Progress()
        self._printed = -PAUSE
        self._printed_line = ""
        self._failed: set[int] = set()
        self._terminating = False
        self._live: Live | None = None

    def emit(self, record: LogRecord) -> None:
        """Process an event and update the line."""
        event, now = getattr(record, "event", None), time.monotonic()
        fields: dict[str, Any] = record.__dict__
        if event == LogEvent.RUN_INFO:
            self.progress.total = fields["stats"]["total"]
        elif event == LogEvent.JOB_INFO:
            rule, wildcards = fields["rule_name"], fields["wildcards"] or {}
            if self._is_dry_run:
                events.write("planned", rule=rule, key=dict(wildcards), reason=fields["reason"])
                return
            events.write("started")
            self.progress.start(fields["jobid"], describe_job(rule, wildcards))
        elif event == LogEvent.JOB_FINISHED:
            self.progress.finish(fields["job_id"], now)
        elif event is None and self._is_printed(record):
            self._print(record.getMessage(), "")
            if record.getMessage().startswith(_TERMINATING):
                self._terminating = True
                if _in_main_thread():  # a second Ctrl-C would interrupt the end of the jobs
                    signal.signal(signal.SIGINT, signal.SIG_IGN)
        elif self._terminating:
            pass  # errors of jobs that were terminated are expected
        elif event == LogEvent.JOB_ERROR:
            # without the job's measurements, which are JSON
            logs = [log for log in map(str, fields["log"] or []) if log.endswith(".log")]
            if fields["jobid"] not in self._failed:  # Snakemake repeats the event at the end
                self._failed.add(fields["jobid"])
                description = self.progress.fail(fields["jobid"])
                events.write("failed", what=description, logs=logs)
                where = ", ".join(logs) or "Snakemake's log"
                self._print(f"failed: {description}; see {where}", "bold red")
        elif record.levelno > INFO:
            self._print_error(self.format(record))
        self._update(now)

    def close(self) -> None:
        """Stop updating and keep the last line."""
        self._stop()
        super().close()

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    @staticmethod
    def _is_printed(record: LogRecord) -> bool:
        return hasattr(record, "cdl") or record.getMessage().startswith(_PRINTED_MESSAGES)

    @property
    def _is_dry_run(self) -> bool:
        return bool(getattr(self.common_settings, "dryrun", False)) and events.watched()

    def _print_error(self, text: str) -> None:
        """Print an error, unless `cdl run` reports it in other words."""
        if events.watched() and _LOCKED in text:
            events.write("locked")
        elif not (events.watched() and text.startswith(_REPEATED)):
            self._print(text, "red")

    def _print(self, text: str, style: str) -> None:
        self.console.print(escape(text), style=style, soft_wrap=True)

    def _update(self, now: float) -> None:
        if not self.progress.total or self._is_dry_run:
            return
        if self.console.is_terminal:
            if self._live is None:
                self._live = Live(
                    console=self.console, refresh_per_second=2, get_renderable=self._bar
                )
                self._live.start()
        elif self.progress.done == self.progress.total or (
            # not between the end of one job and the start of the next: no job would be named
            now - self._printed >= PAUSE and (self.progress.running or not self.progress.done)
        ):
            line = self.progress.line(now)
            if line != self._printed_line:
                self._printed, self._printed_line = now, line
                self._print(line, "")

    def _bar(self) -> Any:
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        grid = Table.grid(padding=(0, 1))
        bar = ProgressBar(self.progress.total, self.progress.done, width=20)
        grid.add_row(bar, escape(self.progress.line(time.monotonic())))
        return grid
