"""The progress line of `cdl run`, its messages about failures, and its summary."""

import io
import logging
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from rich.console import Console
from runs import CONFIGS, ROOT
from snakemake_interface_logger_plugins.common import LogEvent
from study import write_study_page

from cdl.cli import check_command, progress
from cdl.cli.progress import (
    PROGRESS_OPTIONS,
    RULES,
    LogHandler,
    Progress,
    about,
    describe_job,
    run_snakemake,
)
from cdl.cli.summary import show
from cdl.layout import ReportFiles, RunFiles
from cdl.reporting.summary import write_summary_and_intervals
from cdl.reporting.tables import read, write
from cdl.runtime.artifacts import write_json

STUDENT = "kd-vit_nano-from-vit_micro-q-vit_nano"


def test_the_line_shows_finished_and_running_jobs_and_the_time_left():
    run = Progress()
    run.total = 9
    assert run.line(0) == "0/9 jobs"
    run.start(1, "train teacher, task 1")
    run.start(2, "train undistilled student, task 1")
    line = "0/9 jobs; running: train teacher, task 1; train undistilled student, task 1"
    assert run.line(5) == line
    run.start(4, "queries, task 1")
    assert run.line(5) == f"{line}; 1 more"
    run.fail(4)
    run.finish(1, 60)  # packages are loaded
    run.finish(2, 60)
    for job in (5, 6):
        run.start(job, "test queries")
        run.finish(job, 60 + 10 * (job - 4))
    run.start(3, "train teacher, task 2")
    assert run.line(80) == "4/9 jobs; running: train teacher, task 2", "too few to estimate"
    run.start(7, "test queries")
    run.finish(7, 100)
    assert run.seconds_left(100) == pytest.approx(40)  # four jobs left, four took 40 s
    assert run.line(100) == "5/9 jobs, about 40 s left; running: train teacher, task 2"
    assert run.seconds_left(110) == pytest.approx(30)
    assert run.fail(3) == "train teacher, task 2"
    assert run.line(160).startswith("5/9 jobs, about 5 s left")
    run.total = 90
    assert run.seconds_left(100) is None, "one job in ten, since the first ones are not typical"


@pytest.mark.parametrize(
    ("seconds", "text"), [(2, "5 s"), (68, "70 s"), (700, "12 min"), (9000, "2.5 h")]
)
def test_estimated_durations_are_rounded(seconds, text):
    assert about(seconds) == f"about {text}"


@pytest.mark.parametrize(
    ("rule", "wildcards", "text"),
    [
        (
            "train",
            {"learner": "teacher-vit_micro-q-vit_nano", "task": "2"},
            "train teacher, task 3",
        ),
        (
            "train",
            {"learner": "student-vit_nano-q-vit_nano", "task": "0"},
            "train undistilled student, task 1",
        ),
        ("distil", {"learner": STUDENT, "task": "1"}, "distil with kd, task 2"),
        (
            "teacher_targets",
            {"learner": "teacher-a-q-b", "task": "1"},
            "teacher targets, task 2",
        ),
        ("evaluate", {"learner": STUDENT}, "evaluate kd"),
        ("prompts", {"learner": STUDENT}, "prompts that kd chooses"),
        ("test_queries", {"queried": "vit_nano-1a2b"}, "test queries"),
        ("prepare_dataset", {}, "prepare dataset"),
        ("page", {}, "results page"),
    ],
)
def test_jobs_are_described_in_words(rule, wildcards, text):
    assert describe_job(rule, wildcards) == text


def test_the_described_rules_exist():
    files = [ROOT / "workflow/Snakefile", *(ROOT / "workflow/rules").glob("*.smk")]
    text = "\n".join(file.read_text() for file in files)
    rules = re.findall(
        r"^ *(?:rule|checkpoint|use rule \w+ as) (\w+)(?::| with)", text, re.MULTILINE
    )
    assert set(RULES) <= set(rules)


def test_snakemake_ends_when_the_process_that_waits_for_it_is_killed():
    work = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    code = "import sys; from cdl.cli.progress import run_snakemake; run_snakemake(sys.argv[1:])"
    command = [sys.executable, "-c", code, sys.executable, "-c", work]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as outer:
        snakemake = psutil.Process(int(outer.stdout.readline()))
        outer.kill()
    snakemake.wait(timeout=60)
    assert not snakemake.is_running()


def record(level=logging.INFO, message="", **fields):
    made = logging.LogRecord("snakemake", level, "", 0, message, (), None)
    made.__dict__ |= fields
    return made


@pytest.fixture(autouse=True)
def sigint():
    """Restore the handler of Ctrl-C, which terminating changes."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def handler(monkeypatch):
    """A handler that prints to a file, not to a terminal; `clock` is its time."""
    made = LogHandler(None, None)
    made.console = Console(file=io.StringIO(), width=80)
    made.clock = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: made.clock)
    return made


def test_outside_a_terminal_a_line_is_printed_every_few_seconds(handler):
    handler.emit(record(event=LogEvent.RUN_INFO, stats={"train": 30, "total": 30}))
    for job in range(30):
        wildcards = {"learner": "teacher-a-q-a", "task": "0"}
        began = {"event": LogEvent.JOB_INFO, "rule_name": "train", "wildcards": wildcards}
        handler.emit(record(jobid=job, **began))
        handler.clock += 1
        handler.emit(record(event=LogEvent.JOB_FINISHED, job_id=job))
    handler.close()
    lines = handler.console.file.getvalue().splitlines()
    assert len(lines) == 7 and lines[0] == "0/30 jobs" and lines[-1] == "30/30 jobs"
    assert lines[2] == "10/30 jobs, about 20 s left; running: train teacher, task 1"


def test_failures_and_messages_of_cdl_are_printed_and_other_messages_are_not(handler):
    began = {"event": LogEvent.JOB_INFO, "rule_name": "prepare_dataset", "wildcards": None}
    handler.emit(record(jobid=3, **began))
    logs = ["a/b[0].log", "a/b[0].measured.json"]
    for _ in range(2):  # Snakemake emits the event twice
        handler.emit(record(logging.ERROR, event=LogEvent.JOB_ERROR, jobid=3, log=logs))
    handler.emit(record(message="Select jobs to execute..."))
    handler.emit(record(message="finished runs will be overwritten, 2:", cdl=True))
    handler.emit(record(logging.ERROR, "Directory cannot be locked", event=LogEvent.ERROR))
    handler.emit(record(message="Terminating processes on user request, this might take long."))
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN  # a second Ctrl-C disturbs nothing
    handler.emit(record(logging.ERROR, "Signals.SIGINT", event=LogEvent.ERROR))  # expected
    assert handler.console.file.getvalue().splitlines() == [
        "failed: prepare dataset; see a/b[0].log",
        "finished runs will be overwritten, 2:",
        "Directory cannot be locked",
        "Terminating processes on user request, this might take long.",
    ]


@pytest.mark.parametrize(
    ("more", "plain"),
    [
        (["--cores", "2"], True),
        (["-c", "2", "--keep-going", "page"], True),
        (["--cores", "2", "--workflow-profile", "none"], True),
        (["-n"], False),
        (["--cores", "2", "--verbose"], False),
        (["--cores", "2", "--quiet"], False),
        (["--unlock"], False),
        (["--report", "x.html"], False),
        (["--cores", "2", "--no-such-option"], False),
    ],
)
def test_other_options_than_those_of_a_plain_run_show_snakemakes_output(more, plain):
    _, given = check_command(["--configfile", *map(str, CONFIGS), *more])
    assert (given <= PROGRESS_OPTIONS) == plain


def test_exit_codes_and_signals_are_passed_on():
    assert run_snakemake([sys.executable, "-c", "import sys; sys.exit(3)"]) == (3, False)
    stop = "import os, signal, time; os.kill(os.getppid(), signal.SIGTERM); time.sleep(60)"
    assert run_snakemake([sys.executable, "-c", stop]) == (128 + signal.SIGTERM, True)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@dataclass
class Tables:
    results: str
    protocols: str


def test_the_summary_shows_every_mean_no_interval_over_two_seeds_and_the_next_command(tmp_path):
    results = write_study_page(tmp_path, methods=["l2p"])
    report = ReportFiles(f"{tmp_path}/made")
    write(results, report.tables.results)
    write_json(report.tables.protocols, {}, files=[report.tables.results])

    class Outputs:
        csv, md, tex = (report.tables.summary(kind) for kind in ("csv", "md", "tex"))
        intervals, contrasts = report.tables.intervals, report.tables.contrasts
        record = report.tables.record("summary")

    made = Tables(report.tables.results, report.tables.protocols)
    write_summary_and_intervals(made, Outputs, RunFiles)
    colours = {"color_system": "truecolor", "force_terminal": True, "highlight": False}
    console = Console(file=io.StringIO(), width=100, **colours)
    backbones = "{small: {embedded: vit_nano}, big: {embedded: null}}"
    Path(report.tables.configuration).write_text(f"backbones: {backbones}")
    show(report, "cdl", console)
    printed = console.file.getvalue()
    cells = read(report.tables.intervals, report.tables.record("summary"))
    for row in cells.to_dict("records"):
        assert f"{row['accuracy']:.1f}" in printed
        assert f"{row['accuracy_low']:.1f} to {row['accuracy_high']:.1f}" not in printed
    assert "█" in printed and "38;2;0;114;178" in printed  # kd's own colour, as in every figure
    for path in (
        report.page,
        report.tables.summary("md"),
        report.figure("accuracy", "digits", "svg"),
    ):
        assert path in printed
    students = results[results["role"] == "student"].groupby("distiller")["final_average_accuracy"]
    best = students.mean().idxmax()
    first = results[(results["distiller"] == best) & (results["role"] == "student")].iloc[0]
    assert printed.rstrip().endswith(f"cdl export {first['run']} -o student\x1b[0m")
    assert os.path.exists(report.tables.summary("tex"))
    assert "a pretrained ViT (cdl list backbones)" in printed
    lines = [
        line for line in printed.splitlines() if line.startswith(("Best", "Tea", "Bet", "Next"))
    ]
    assert len(lines) == 4 and "significant" not in printed
