"""Fork server: start jobs as forks of a process that has imported all modules.

Importing the modules takes about three seconds, often longer than the job itself. A local run
therefore has one server process that imports the modules of all rule scripts. The server itself
computes nothing: it starts no threads, draws no random numbers and uses no GPU. Every command of a
job is prefixed with `client.py`, which requests a fork that runs the script as a separate process
would. The server exits when Snakemake has exited and its last child has ended.
"""

import atexit
import contextlib
import functools
import gc
import importlib
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
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cdl.runtime.errors import CdlError
from cdl.runtime.forkserver import client
from cdl.runtime.outside import json_object
from cdl.runtime.processes import end_with

_MIN_JOBS = 2  # learning jobs from which a server saves time
_MAX_FOLDER = 80  # bytes; the path of a Unix socket may have at most 107
_PREFIX = "cdl-fork-"  # of the folder of a socket
_REQUEST_TIMEOUT = 2.0  # seconds from the connection to the end of the request
_NEW = 60.0  # seconds in which a server makes its socket
Command = list[str]  # python and a script
_IMPORTED = re.compile(r"^ *from (cdl[\w.]*) import ", re.MULTILINE)


def prefix_of(workflow: Any, scripts: Path, modules: Sequence[str] = ()) -> str:
    """Start a server for a run and return the prefix of its jobs' shell commands.

    Args:
        workflow: Snakemake's workflow, before it runs jobs.
        scripts: folder of the rule scripts; the server imports the modules of cdl that they import.
        modules: other modules that it imports.

    Returns:
        The prefix for Snakemake's `shell.prefix`. Returns an empty prefix and starts no server if
        jobs run on other machines or in environments of their own, if fewer than two jobs learn,
        or on systems without Linux's pidfd.
    """
    is_remote = not workflow.local_exec or workflow.deployment_settings.deployment_method
    jobs = sum("gpu" in job.rule.resources for job in workflow.dag.needrun_jobs())
    if is_remote or jobs < _MIN_JOBS or not hasattr(os, "pidfd_open"):
        return ""
    texts = (path.read_text() for path in scripts.glob("*.py"))
    imported = {name for text in texts for name in _IMPORTED.findall(text)} | set(modules)
    imported.add("torch._dynamo")  # torch's optimizers import it in their first step
    imported.add("pyarrow.dataset")  # pandas imports it for the first Parquet file
    command = start(sorted(imported))
    return shlex.join(command).replace("{", "{{").replace("}", "}}") + " "


def start(modules: Sequence[str]) -> list[str]:
    """Start a server and return the command of its client.

    The server ends with this process. Clients may connect immediately; they wait until the server
    has imported `modules`.
    """
    folder = tempfile.gettempdir()
    if len(os.fsencode(folder)) >= _MAX_FOLDER:
        folder = "/tmp"
    _remove_rests(Path(folder))
    # mkdtemp makes a folder that only this user can read, so no other user can connect
    address = tempfile.mkdtemp(prefix=_PREFIX, dir=folder) + "/socket"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(128)
        server = subprocess.Popen(
            [sys.executable, "-m", __name__, str(listener.fileno()), *modules],
            stdin=subprocess.PIPE,  # is closed when this process ends, which stops the server
            pass_fds=[listener.fileno()],
            process_group=0,  # Ctrl-C must reach the jobs only
            env=os.environ | dict.fromkeys(client.THREADS, "1"),
        )
    atexit.register(lambda: server)  # keeps a reference, so that the pipe stays open
    return [sys.executable, "-IS", client.__file__, address]


def _remove_rests(folder: Path) -> None:
    """Remove what killed servers of this user have left in the temporary folder."""
    for rest in folder.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            if rest.stat().st_uid != os.getuid():
                continue
            connection.setblocking(False)  # a server that still imports does not answer
            try:
                connection.connect(str(rest / "socket"))
            except ConnectionRefusedError:
                shutil.rmtree(rest)
            except FileNotFoundError:  # a server that has just started has no socket yet
                if time.time() - rest.stat().st_mtime > _NEW:
                    shutil.rmtree(rest)


class Server:
    """Forks a child per client until stdin is closed and all children ended."""

    def __init__(self, listener: socket.socket) -> None:
        """Serve the clients of a listening socket."""
        self._listener, self._pid = listener, os.getpid()
        self._deadlines: dict[socket.socket, float] = {}  # of clients that have sent nothing yet
        self._events = selectors.DefaultSelector()
        self._events.register(listener, selectors.EVENT_READ, self._accept)
        self._events.register(sys.stdin, selectors.EVENT_READ, self._close)

    def serve(self) -> Command | None:
        """Handle events; return a command in each child, and None in the server."""
        while self._events.get_map():
            first = min(self._deadlines.values(), default=None)
            timeout = None if first is None else max(0.0, first - time.monotonic())
            for key, _ in self._events.select(timeout)[:1]:
                handle: Callable[[], Command | None] = key.data
                if command := handle():
                    return command
            self._drop_mute_clients()
        return None

    def _drop_mute_clients(self) -> None:
        now = time.monotonic()
        for client_socket in [c for c, deadline in self._deadlines.items() if deadline <= now]:
            del self._deadlines[client_socket]
            self._events.unregister(client_socket)
            client_socket.close()

    def _close(self) -> None:
        for file in (sys.stdin, self._listener):
            self._events.unregister(file)
        self._listener.close()

    def _accept(self) -> None:
        client_socket, _ = self._listener.accept()
        self._deadlines[client_socket] = time.monotonic() + _REQUEST_TIMEOUT
        fork = functools.partial(self._fork, client_socket)
        self._events.register(client_socket, selectors.EVENT_READ, fork)

    def _fork(self, client_socket: socket.socket) -> Command | None:
        self._events.unregister(client_socket)
        try:
            request, files = receive_request(client_socket, self._deadlines.pop(client_socket))
        except (OSError, CdlError):  # the client died, or sent no valid request
            client_socket.close()
            return None
        child = os.fork()
        if child == 0:
            client_socket.close()
            return self._become(request, files)
        for file in files:
            os.close(file)
        self._watch(child, client_socket)
        return None

    def _watch(self, child: int, client_socket: socket.socket) -> None:
        """Forward signals from the client to its child, and the child's exit code back."""
        ended = os.pidfd_open(child)

        def send_exit_code() -> None:
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            self._events.unregister(ended)
            os.close(ended)
            if client_socket in self._events.get_map():
                self._events.unregister(client_socket)
            with client_socket, contextlib.suppress(OSError):
                client_socket.sendall(code.to_bytes(4, "big", signed=True))

        def forward_signals() -> None:
            try:
                numbers = client_socket.recv(64)
            except OSError:
                numbers = b""
            for number in numbers or [signal.SIGKILL]:  # no bytes: the client has died
                os.kill(child, number)
            if not numbers:
                self._events.unregister(client_socket)

        self._events.register(ended, selectors.EVENT_READ, send_exit_code)
        self._events.register(client_socket, selectors.EVENT_READ, forward_signals)

    def _become(self, request: dict[str, Any], files: Sequence[int]) -> Command:
        """Turn the forked child into the requested process; return its command."""
        end_with(self._pid, signal.SIGKILL)
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
        tempfile.tempdir = None  # TMPDIR may have changed
        command: Command = request["command"]
        sys.argv = command[1:]
        sys.path[0] = os.path.dirname(sys.argv[0])
        return command


def receive_request(
    client_socket: socket.socket, deadline: float
) -> tuple[dict[str, Any], list[int]]:
    """Return a client's request and the descriptors of its standard files.

    Args:
        client_socket: connection with the client.
        deadline: time of the monotonic clock at which the request must be complete.

    Raises:
        OSError: the client died, or its request is not complete in time.
        CdlError: the request is not a JSON object.
    """

    def wait() -> None:
        client_socket.settimeout(max(1e-3, deadline - time.monotonic()))

    wait()
    size, files, _, _ = socket.recv_fds(client_socket, 4, 3)
    try:
        text, length = bytearray(), int.from_bytes(size, "big")
        while len(text) < length:
            wait()
            part = client_socket.recv(length - len(text))
            if not part:
                raise ConnectionResetError("the client died")
            text += part
        client_socket.settimeout(None)
        return json_object(bytes(text)), files
    except (OSError, CdlError):
        for file in files:
            os.close(file)
        raise


class FastExit:
    """Runs a script and exits without freeing memory, which would take half a second."""

    def __init__(self) -> None:
        """Register first, before other imports, so that this exit handler runs last."""
        self._code: int | None = None
        atexit.register(self._exit_now)

    def run(self, script: str) -> None:
        """Run a script as `python SCRIPT` does."""
        try:
            runpy.run_path(script, run_name="__main__")
            self._code = 0
        except KeyboardInterrupt:  # the script had not begun to handle it
            self._code = os.EX_TEMPFAIL
            sys.exit("cdl: interrupted")
        except SystemExit as error:
            self._code = error.code if isinstance(error.code, int) else int(error.code is not None)
            raise
        except Exception:
            self._code = 1
            raise

    def _exit_now(self) -> None:
        if self._code is not None:  # None in the server, and in a child that Python itself must end
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(self._code & 0xFF)


if __name__ == "__main__":
    fast_exit = FastExit()
    descriptor, *names = sys.argv[1:]
    for name in names:
        importlib.import_module(name)
    gc.freeze()  # the collector would write to memory that children share with the server
    with socket.socket(fileno=int(descriptor)) as listening:
        address = listening.getsockname()
        command = Server(listening).serve()
    if command:
        fast_exit.run(command[1])
    else:
        shutil.rmtree(Path(address).parent, ignore_errors=True)
