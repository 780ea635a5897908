"""The last lines of `cdl run`, and the table of a dry run."""

import io
import logging
import os
import re
import shutil
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from lab import make_grid
from rich.console import Console
from runs import CONFIGS, ROOT
from snakemake_interface_logger_plugins.common import LogEvent

from cdl.cli import check_command, events, outcome
from cdl.cli.plan import Planned, table
from cdl.cli.progress import LogHandler
from cdl.cli.run import _split
from cdl.inventory.status import workers
from cdl.runtime.errors import CdlError

RUN, STATUS = "cdl run c.yaml --cores 2", "cdl status c.yaml"


@pytest.fixture
def handler(tmp_path, monkeypatch):
    """A handler in a process whose events `cdl run` reads; `events` returns them."""
    monkeypatch.setenv(events.FILE, str(tmp_path / "events"))
    made = LogHandler(SimpleNamespace(dryrun=False), None)
    made.console = Console(file=io.StringIO(), width=80)
    made.events = lambda: events.read(tmp_path / "events")
    return made


def record(level=logging.INFO, message="", **fields):
    made = logging.LogRecord("snakemake", level, "", 0, message, (), None)
    made.__dict__ |= fields
    return made


def begin(handler, job, rule="prepare_dataset", reason=""):
    job_info = {"event": LogEvent.JOB_INFO, "rule_name": rule, "wildcards": None}
    handler.emit(record(jobid=job, reason=reason, **job_info))


def test_a_failed_job_is_named_with_its_error_and_its_log_in_the_last_lines(handler, tmp_path):
    log = tmp_path / "job.log"
    log.write_text("2026-01-01 00:00:00,000 ERROR cdl: x.png is not readable; remove it\n")
    begin(handler, 3)
    handler.emit(record(logging.ERROR, event=LogEvent.JOB_ERROR, jobid=3, log=[str(log)]))
    error = logging.ERROR
    handler.emit(
        record(error, "RuleException:\nCalledProcessError in file x", event=LogEvent.ERROR)
    )
    handler.emit(record(error, "WorkflowError:\nAt least one job did not complete successfully."))
    assert "Exception" not in handler.console.file.getvalue()
    assert outcome.closing(handler.events(), False, RUN, STATUS).splitlines() == [
        "stopped because a job failed; the results of finished jobs are kept",
        f"Resume:        {RUN}",
        f"Show progress: {STATUS}",
        "Failed:        prepare dataset: x.png is not readable; remove it",
        f"Log:           {log}",
    ]


def test_no_job_is_said_to_have_failed_where_none_ran(handler):
    assert outcome.closing(handler.events(), False, RUN, STATUS) == ""
    begin(handler, 1)
    assert outcome.closing(handler.events(), False, RUN, STATUS).startswith("stopped; the results")
    text = outcome.closing(handler.events(), True, RUN, STATUS)
    assert text.startswith("interrupted; the results") and f"Resume:        {RUN}" in text


def test_another_run_at_work_is_named_and_a_lock_without_one_can_be_removed(
    handler, tmp_path, monkeypatch
):
    locked = "LockException:\nError: Directory cannot be locked. Please make sure that no other"
    handler.emit(record(logging.ERROR, locked, event=LogEvent.ERROR))
    assert handler.console.file.getvalue() == ""
    monkeypatch.chdir(tmp_path)
    text = outcome.closing(handler.events(), False, RUN, STATUS)
    assert "it was killed" in text and f"remove the lock: {RUN} --unlock\n" in text
    sleep = [sys.executable, "-c", "import time; time.sleep(60)", "snakemake"]
    with subprocess.Popen(sleep, cwd=tmp_path) as other:
        try:
            while not workers():
                time.sleep(0.01)
            text = outcome.closing(handler.events(), False, RUN, STATUS)
        finally:
            other.kill()
    assert re.search(rf"another run is at work .*\(process {other.pid}, since 20\d\d-", text)
    assert "unlock" not in text and text.endswith(f"Then:          {RUN}")


def test_a_dry_run_passes_every_job_with_its_reason(handler):
    handler.common_settings.dryrun = True
    begin(handler, 1, reason="Missing output files: x")
    (event,) = handler.events()
    assert event == {"kind": "planned", "rule": "prepare_dataset", "key": {}} | {
        "reason": "Missing output files: x"
    }
    assert handler.console.file.getvalue() == ""


def test_the_table_counts_jobs_by_what_they_do_and_why(finished, monkeypatch):
    monkeypatch.chdir(finished)
    grid = make_grid({"distillers": {"kd": {"alpha": 0.3, "temperature": 4.0}}})
    key = {"dataset": "digits", "method": "coda_prompt", "seed": "0"}
    key["learner"] = "kd-vit_nano-from-vit_micro-q-vit_nano"
    values = "Params have changed since last execution: Params: {'spec': 1}"
    planned = [Planned("evaluate", key, "Input files updated by another job: a, b")]
    planned += [Planned("distil", key | {"task": str(task)}, values) for task in range(2)]
    planned += [Planned("tabulate", {}, "Missing output files: a; Incomplete output files: b")]
    planned += [Planned("plot", {"dataset": "digits"}, "Some new reason: x")]
    planned += [Planned("all", {}, "Input files updated by another job: a")]
    console = Console(file=io.StringIO(), width=200)
    console.print(table(grid, planned))
    lines = [" ".join(line.split()) for line in console.file.getvalue().splitlines()]
    assert lines == [
        "what jobs because",
        "distil with kd 2 distiller.alpha was 0.5, is 0.3; distiller.temperature was 2.0, is 4.0",
        "tables 1 was interrupted",
        "figures 1 Some new reason",
        "evaluate kd 1 reads results of the jobs above",
        "in total 5",
    ]


def test_a_search_without_tune_is_refused_before_any_job():
    files = ["--configfile", *map(str, CONFIGS)]
    for target in ("tuned", "halve"):
        with pytest.raises(CdlError, match=f"{target}: the configuration has no block `tune`"):
            check_command([target, *files])
    tuned = [str(ROOT / f"config/studies/seen_classes{end}.yaml") for end in ("", "_tuned")]
    assert check_command(["tuned", "--configfile", *tuned])[0].targets == ["tuned"]


_LAYERS = ("a.yaml training.lr=0.1 b.yaml grid.seeds=[0,1]", "-n")


@pytest.mark.parametrize(
    ("words", "configs", "rest"),
    [
        ("a.yaml b.yml --cores 2", "a.yaml b.yml", "--cores 2"),
        ("a.yaml tuned", "a.yaml", "tuned"),
        ("a.yaml training.lr=0.1 b.yaml grid.seeds=[0,1] -n", *_LAYERS),
        ("-n a.yaml b.yaml", "a.yaml b.yaml", "-n"),
        ("--cores 2 a.yaml tuned -n", "a.yaml", "tuned -n --cores 2"),
        ("--until train a.yaml page", "a.yaml", "page --until train"),
        ("study/config -n", "study/config", "-n"),
    ],
)
def test_options_may_be_before_or_after_the_configuration(words, configs, rest):
    found = _split(words.split())
    assert found == (configs.split(), rest.split())


def test_options_without_a_configuration_are_one_sentence():
    with pytest.raises(CdlError, match="^CONFIG: is missing; expected cdl run CONFIG -n$"):
        _split(["-n"])


@pytest.mark.slow
def test_cdl_run_lists_the_jobs_of_a_target_and_refuses_what_is_missing(finished, tmp_path):
    def cdl(*arguments):
        command = [sys.executable, "-m", "cdl", "run", *map(str, [*CONFIGS, *arguments])]
        path = os.environ | {"PYTHONPATH": str(ROOT)}
        ended = subprocess.run(command, capture_output=True, text=True, env=path, check=False)
        return ended.returncode, ended.stdout, ended.stderr

    code, plan, errors = cdl("collect", "-n", "--directory", tmp_path)
    assert code == 0, errors
    assert re.search(r"^distil with kd +2  not made yet$", plan, re.MULTILINE)
    assert errors == "", "neither a line about the profile nor one about cdl verify"
    assert "rule distil" not in plan + errors
    folder = shutil.copytree(finished, tmp_path / "copy", symlinks=True)
    code, summary, errors = cdl("--cores", 2, "--directory", folder)  # nothing is left to do
    assert code == 0, errors
    assert "final average accuracy" in summary and "Page:    results/" in summary
    (tmp_path / "o.yaml").write_text("datasets: {digits: {source: {folder: {path: none}}}}")
    code, plan, errors = cdl(tmp_path / "o.yaml", "--cores", "1", "--directory", tmp_path)
    tried = f"cdl: datasets.digits: none: no such folder (tried {tmp_path}/none); a path in a "
    assert (code, plan) == (2, "") and errors.startswith(tried) and errors.count("\n") == 1
