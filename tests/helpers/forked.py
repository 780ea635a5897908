"""Programs in forks of a process that has imported them: real processes, without the imports.

To start Snakemake takes more than a second of imports, and a job or `cdl export` three; the work
itself is often a tenth of that. So each test process has two servers of `cdl.runtime.forkserver`:
one has imported what planning imports, the other what jobs import. The first forks Snakemake, whose
jobs the second forks, as the workflow's own server does, which `runs.popen` can start.
"""

import functools
import json
import os
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

from cdl.runtime.forkserver import client, server

SCRIPTS = Path(__file__).parents[2] / "workflow" / "scripts"
ENCODERS = ("cdl.backbones.encoders",)  # what jobs on texts import
REQUEST = "CDL_FORKED"  # the server's clients take a script without arguments
PLANNING = (  # without torch, as every plan must be
    *("snakemake.cli", "snakemake.report.html_reporter", "PIL.Image", "requests", "yte"),
    *("cdl.cli.progress", "cdl.inventory.overwriting", "cdl.runtime.forkserver.scheduler"),
    *("cdl.study.report_jobs", "cdl.study.trials"),
)


@functools.cache
def planning_client():
    """The command of the client of a server that has imported what planning imports."""
    return server.start(PLANNING)


@functools.cache
def jobs_prefix():
    """What stands before the commands of jobs, as the workflow writes it in `onstart`."""
    learning = SimpleNamespace(rule=SimpleNamespace(resources={"gpu": 1}))
    workflow = SimpleNamespace(
        local_exec=True,
        deployment_settings=SimpleNamespace(deployment_method=set()),
        dag=SimpleNamespace(needrun_jobs=lambda: [learning] * 9),
    )
    return server.prefix_of(workflow, SCRIPTS, ENCODERS)


def request_for(name, *arguments, before=""):
    """The environment variable that makes this file, as a script, `python -m name` with arguments.

    `before` is Python code that is executed first.
    """
    runs_jobs = name == "snakemake" and "-n" not in arguments
    request = {
        "command": [name, *map(str, arguments)],
        "before": before,
        "prefix": jobs_prefix() if runs_jobs else "",
    }
    return {REQUEST: json.dumps(request)}


def jobs_client():
    """The command of the client of the server that has imported what jobs import, torch too."""
    return shlex.split(jobs_prefix())


def run_module(name, *arguments, before="", torch=False, **options):
    """Run `python -m name` with arguments; return what `subprocess.run` does with its options.

    With `torch`, in a fork of the server that has imported it.
    """
    environment = dict(options.pop("env", os.environ)) | dict.fromkeys(client.THREADS, "1")
    environment |= request_for(name, *arguments, before=before)
    options = {"capture_output": True, "text": True, "check": False} | options
    command = [*(jobs_client() if torch else planning_client()), sys.executable, __file__]
    return subprocess.run(command, env=environment, **options)


def main(command, before, prefix):
    """Turn this process into the one that was asked for."""
    server.prefix_of = lambda *_: prefix  # the workflow's jobs are forked by the other server
    exec(before, {})
    sys.path[0] = os.getcwd()  # as `python -m` does
    sys.argv = command
    runpy.run_module(command[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(**json.loads(os.environ.pop(REQUEST)))
