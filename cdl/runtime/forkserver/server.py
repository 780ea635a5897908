"""Warm starts: jobs are forked from one process that has imported everything.

A job's own work is often shorter than its three seconds of imports. So a local run has one server
that imports what the rules' scripts import and computes nothing: no thread, no number, no GPU.
`client.py` stands before every command of a job and has the server fork a child that runs the
script as a process of its own would. The server ends with Snakemake, after its last child.
"""

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import re
import resource
import runpy
import selectors
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cdl.runtime.forkserver import client

_WORTH = 2  # learning jobs, from which on a server is started
_LONGEST = 80  # characters of a folder: a socket's whole path may have 107
_PATIENCE = 5.0  # seconds for a client to say what it wants
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux' prctl
Command = list[str]  # python and a script
_IMPORTED = re.compile(r"^ *from (cdl[\w.]*) import ", re.MULTILINE)


def prefix_of(workflow: Any, scripts: Path) -> str:
    """Start a server for a run, and return what makes the commands of its jobs ask it.

    Args:
        workflow: Snakemake's, about to run jobs.
        scripts: folder of its scripts; what they import is imported once.

    Returns:
        For Snakemake's `shell.prefix`. Nothing, and no server, where jobs run on other machines or
        in environments of their own, where fewer than two learn, or without Linux' pidfd.
    """
    elsewhere = not workflow.local_exec or workflow.deployment_settings.deployment_method
    jobs = sum("gpu" in job.rule.resources for job in workflow.dag.needrun_jobs())
    if elsewhere or jobs < _WORTH or not hasattr(os, "pidfd_open"):
        return ""
    texts = (path.read_text() for path in scripts.glob("*.py"))
    modules = sorted({name for text in texts for name in _IMPORTED.findall(text)})
    command = start([*modules, "torch._dynamo"])  # which a first step of torch's optimizers imports
    return shlex.join(command).replace("{", "{{").replace("}", "}}") + " "


def start(modules: Sequence[str]) -> list[str]:
    """Start a server that ends with this process; return the command of its client.

    Clients may ask it at once: they wait until it has imported `modules`.
    """
    usual = tempfile.gettempdir()
    folder = usual if len(usual) < _LONGEST else "/tmp"
    address = tempfile.mkdtemp(prefix="cdl-warm-", dir=folder) + "/socket"  # for this user alone
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(128)
        server = subprocess.Popen(
            [sys.executable, "-m", __name__, str(listener.fileno()), *modules],
            stdin=subprocess.PIPE,  # ends when this process does
            pass_fds=[listener.fileno()],
            process_group=0,  # Ctrl-C is for the jobs
            env=os.environ | dict.fromkeys(client.THREADS, "1"),
        )
    atexit.register(lambda: server)  # keeps the pipe
    return [sys.executable, "-IS", client.__file__, address]


class Server:
    """Forks a child for every caller, until standard input and then the last child have ended."""

    def __init__(self, listener: socket.socket) -> None:
        """Take a socket that listens."""
        self._listener, self._pid = listener, os.getpid()
        self._events = selectors.DefaultSelector()
        self._events.register(listener, selectors.EVENT_READ, self._fork)
        self._events.register(sys.stdin, selectors.EVENT_READ, self._close)

    def serve(self) -> Command | None:
        """Return in a child what it shall run, in the server nothing."""
        while self._events.get_map():
            key, _ = self._events.select()[0]
            handle: Callable[[], Command | None] = key.data
            if command := handle():
                return command
        return None

    def _close(self) -> None:
        for file in (sys.stdin, self._listener):
            self._events.unregister(file)
        self._listener.close()

    def _fork(self) -> Command | None:
        caller, _ = self._listener.accept()
        try:
            request, files = received(caller)
        except (OSError, ValueError):  # it died meanwhile
            caller.close()
            return None
        child = os.fork()
        if child == 0:
            caller.close()
            return self._become(request, files)
        for file in files:
            os.close(file)
        ended = os.pidfd_open(child)

        def tell() -> None:
            """Tell the caller how its child ended."""
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            self._events.unregister(ended)
            os.close(ended)
            if caller in self._events.get_map():
                self._events.unregister(caller)
            with caller, contextlib.suppress(OSError):
                caller.sendall(code.to_bytes(4, "big", signed=True))

        def hear() -> None:
            """Give the child the signals of its caller, and its death."""
            try:
                heard = caller.recv(64)
            except OSError:
                heard = b""
            for number in heard or [signal.SIGKILL]:
                os.kill(child, number)
            if not heard:
                self._events.unregister(caller)

        self._events.register(ended, selectors.EVENT_READ, tell)
        self._events.register(caller, selectors.EVENT_READ, hear)
        return None

    def _become(self, request: dict[str, Any], files: Sequence[int]) -> Command:
        """Be, in a child, the process that the caller was asked to be; return its command."""
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        if os.getppid() != self._pid:
            os.kill(os.getpid(), signal.SIGKILL)
        for file in [key.fileobj for key in self._events.get_map().values()]:
            if isinstance(file, int):
                os.close(file)
            elif isinstance(file, socket.socket):
                file.close()
        self._events.close()
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        os.chdir(request["folder"])
        os.umask(request["umask"])
        for kind, limits in request["limits"]:
            resource.setrlimit(kind, limits)
        os.environ.clear()
        os.environ.update(request["environment"])
        tempfile.tempdir = None
        command: Command = request["command"]
        sys.argv = command[1:]
        sys.path[0] = os.path.dirname(sys.argv[0])
        return command


def received(caller: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Return what a caller asks for, and its standard files."""
    caller.settimeout(_PATIENCE)
    size, files, _, _ = socket.recv_fds(caller, 4, 3)
    with caller.makefile("rb") as stream:
        text = stream.read(int.from_bytes(size, "big"))
    caller.settimeout(None)
    return json.loads(text), files


class QuickEnd:
    """Runs a script; at the end it leaves out the freeing of memory alone, half a second."""

    def __init__(self) -> None:
        """Be first in `atexit`, whose functions run backwards: before anything is imported."""
        self._code: int | None = None
        atexit.register(self._leave)

    def run(self, script: str) -> None:
        """Run a script as `python script` does."""
        try:
            runpy.run_path(script, run_name="__main__")
            self._code = 0
        except SystemExit as error:
            self._code = error.code if isinstance(error.code, int) else int(error.code is not None)
            raise
        except Exception:
            self._code = 1
            raise

    def _leave(self) -> None:
        if self._code is not None:  # in a child, and nothing that is Python's own to end
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(self._code & 0xFF)


if __name__ == "__main__":
    end = QuickEnd()
    given, *names = sys.argv[1:]
    for name in names:
        importlib.import_module(name)
    gc.freeze()
    with socket.socket(fileno=int(given)) as asked:
        address = asked.getsockname()
        command = Server(asked).serve()
    if command:
        end.run(command[1])
    else:
        shutil.rmtree(Path(address).parent)
