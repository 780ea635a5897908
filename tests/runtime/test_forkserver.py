"""A job that the server forks behaves like a separate process."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from cdl.runtime.forkserver import client, server

# lines of a traceback that a script in its own process does not have
SERVER_FRAMES = r'  File "(<frozen runpy>|.*server\.py)", .*\n(    (runpy|fast_exit)\..*\n)?'
ONE_THREAD = os.environ | dict.fromkeys(client.THREADS, "1") | {"OF": "the job"}
PARENT = """
import json, sys
from cdl.runtime.forkserver.server import start
print(json.dumps(start(sys.argv[1:])), flush=True)
sys.stdin.read()
"""


pytestmark = pytest.mark.slow  # each starts a server and waits for its end


@pytest.fixture
def parent():
    """Yield a process that has a server; `command` starts a client."""
    # colorsys is in place of torch: no other module imports it
    command = [sys.executable, "-c", PARENT, "colorsys"]
    with popen(command, stderr=None, env=None) as process:
        process.command = json.loads(process.stdout.readline())
        (process.server,) = psutil.Process(process.pid).children()
        yield process
        process.kill()
        psutil.wait_procs([process.server], timeout=30)
        assert not process.server.is_running()
        assert not Path(process.command[-1]).parent.exists()


def script_command(folder, text):
    path = folder / "script.py"
    path.write_text(text)
    return [sys.executable, str(path)]


def popen(command, **options):
    options = {"stdin": -1, "stdout": -1, "stderr": -1, "text": True, "env": ONE_THREAD} | options
    # the process that runs the tests may ignore Ctrl-C, and with it a server and its children
    default = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    return subprocess.Popen(command, **default | options)


def wait_for(condition):
    """Wait until a condition is true, without a timeout."""
    while not (found := condition()):
        time.sleep(0.01)
    return found


def child_of(parent):
    return wait_for(parent.server.children)[0]


SCRIPTS = {
    "its inputs": """
import os, resource, sys, tempfile
print(sorted((k, v) for k, v in os.environ.items() if k not in ("_", "SHLVL")))
print(os.getcwd(), sys.argv, __file__, sys.path[0], oct(os.umask(0)), tempfile.gettempdir())
print(resource.getrlimit(resource.RLIMIT_NOFILE), resource.getrlimit(resource.RLIMIT_AS))
print(sorted(os.listdir('/proc/self/fd'))[:3], sys.stdin.read(), __name__)
print("to stderr", file=sys.stderr)
""",
    "success": "",
    "an exit code": "raise SystemExit(75)",
    "an error message": "import sys; sys.exit('cdl: a message')",
    "an exception": "raise ValueError('of this script')",
    "a signal": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "an abort": "import os; os.abort()",
    "exhausted memory": "bytearray(10**9)",
    "exit handlers and threads": """
import atexit, threading, time
atexit.register(print, "registered")
threading.Thread(target=lambda: (time.sleep(0.1), print("in a thread"))).start()
""",
}


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_a_script_runs_as_in_a_separate_process(parent, tmp_path, script):
    command = script_command(tmp_path, script)
    limited = ["bash", "-c", 'ulimit -n 100; ulimit -v 900000; umask 027; exec "$@"', "-"]
    ends = []
    for how in ([], parent.command):
        options = {"cwd": tmp_path, "env": ONE_THREAD | {"TMPDIR": str(tmp_path)}}
        with popen([*limited, *how, *command], **options) as process:
            out, error = process.communicate("its input")
        ends.append((process.returncode, out, re.sub(SERVER_FRAMES, "", error)))
    assert ends[0] == ends[1]


def test_modules_are_already_imported(parent, tmp_path):
    script = "import sys, os; print('colorsys' in sys.modules, os.getppid())"
    with popen([*parent.command, *script_command(tmp_path, script)]) as process:
        assert process.communicate()[0].split() == ["True", str(parent.server.pid)]


@pytest.mark.parametrize(
    "change",
    [
        {
            "env": ONE_THREAD | {"OMP_NUM_THREADS": "2"}
        },  # libraries read it when the server imported them
        {"executable": "/bin/sh"},
    ],
)
def test_unsupported_commands_run_in_their_own_process(parent, tmp_path, change):
    command = script_command(tmp_path, "import sys; print('colorsys' in sys.modules)")
    if program := change.pop("executable", None):
        command = [program, "-c", "echo False"]
    with popen([*parent.command, *command], **change) as process:
        assert process.communicate()[0].strip() == "False"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.parametrize("handled", [True, False])
def test_a_signal_is_delivered_once(parent, tmp_path, number, handled):
    script = """
import signal, sys, time
received = []
if sys.stdin.readline() == "listen\\n":
    signal.signal(int(sys.stdin.readline()), lambda n, _: received.append(n))
else:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
print("ready", flush=True)
while not received:
    time.sleep(0.01)
time.sleep(0.1)
print(received, flush=True)
raise SystemExit(75)
"""
    with popen([*parent.command, *script_command(tmp_path, script)], process_group=0) as process:
        process.stdin.write(f"{'listen' if handled else 'do not'}\n{int(number)}\n")
        process.stdin.flush()
        process.stdout.readline()
        os.killpg(process.pid, number)  # as Ctrl-C does
        out, _ = process.communicate()
    assert (process.returncode, out) == ((75, f"[{int(number)}]\n") if handled else (-number, ""))


SLOW = """
import sys, time
print('began', flush=True)
if sys.stdin.readline() == 'wait\\n':
    time.sleep(600)
print('done')
"""


def test_an_ignored_signal_is_not_forwarded(parent, tmp_path):
    options = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)}  # as by nohup
    command = [*parent.command, *script_command(tmp_path, SLOW)]
    with popen(command, process_group=0, **options) as process:
        process.stdout.readline()
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.1)
        assert process.communicate("go\n")[0] == "done\n"
    assert process.returncode == 0


def test_a_job_ends_by_the_signal_that_killed_its_child(parent, tmp_path):
    with popen([*parent.command, *script_command(tmp_path, SLOW)]) as process:
        child_of(parent).kill()
        assert process.communicate()[0] in ("", "began\n")
    assert process.returncode == -signal.SIGKILL


def test_killing_a_job_kills_its_child_and_no_other(parent, tmp_path):
    command = [*parent.command, *script_command(tmp_path, SLOW)]
    with popen(command) as one, popen(command) as other:
        wait_for(lambda: len(parent.server.children()) == 2)
        one.kill()
        wait_for(lambda: len(parent.server.children()) == 1)
        assert other.communicate("go\n") == ("began\ndone\n", "")
        assert other.returncode == 0


def test_jobs_restart_in_their_own_process_if_the_server_is_killed(parent, tmp_path):
    command = [*parent.command, *script_command(tmp_path, SLOW)]
    with popen(command) as process:
        child = child_of(parent)
        assert process.stdout.readline() == "began\n"
        parent.server.kill()
        psutil.wait_procs([child], timeout=30)
        assert not child.is_running()
        assert process.communicate("go\n")[0] == "began\ndone\n"
        assert process.returncode == 0
    with popen(command) as process:  # there is no server
        assert process.communicate("go\n")[0] == "began\ndone\n"
    Path(parent.command[-1]).unlink()
    Path(parent.command[-1]).parent.rmdir()  # a killed server leaves its socket


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, None])
def test_the_server_ends_with_its_parent_after_the_last_job(parent, tmp_path, how):
    command = [*parent.command, *script_command(tmp_path, SLOW)]
    with popen(command) as process:
        child_of(parent)
        parent.stdin.close() if how is None else parent.send_signal(how)
        parent.wait()
        assert process.communicate("go\n")[0] == "began\ndone\n"
    with popen(command) as process:  # the server has ended: runs in its own process
        assert process.communicate("go\n")[0] == "began\ndone\n"


@pytest.mark.parametrize("name", ["long" * 30, "長い" * 20])  # 40 characters are 120 bytes
def test_a_temporary_folder_too_long_for_a_socket_is_not_used(monkeypatch, tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    monkeypatch.setattr(server.tempfile, "tempdir", str(folder))
    monkeypatch.setattr(server.subprocess, "Popen", lambda *_, **__: None)
    address = Path(server.start([])[-1])
    assert address.is_socket() and address.parent.parent == Path("/tmp")
    assert address.parent.stat().st_mode & 0o777 == 0o700
    address.unlink()
    address.parent.rmdir()


def test_ctrl_c_before_a_script_handles_it_is_one_sentence(parent, tmp_path):
    command = script_command(tmp_path, "print('ready', flush=True)\nwhile True: pass")
    with popen([*parent.command, *command], process_group=0) as process:
        process.stdout.readline()
        os.killpg(process.pid, signal.SIGINT)
        assert process.communicate() == ("", "cdl: interrupted\n")
    assert process.returncode == os.EX_TEMPFAIL


def test_an_incomplete_request_does_not_stop_the_server(parent, tmp_path):
    with server.socket.socket(server.socket.AF_UNIX) as connection:
        connection.connect(parent.command[-1])
        server.socket.send_fds(connection, [b"\0\0\0\1"], [0])
    with popen([*parent.command, *script_command(tmp_path, "print('ran')")]) as process:
        assert process.communicate()[0] == "ran\n"


SERVER = """
import socket, sys
from cdl.runtime.forkserver import server
server._REQUEST_TIMEOUT = float(sys.argv[2])
with socket.socket(socket.AF_UNIX) as listener:
    listener.bind(sys.argv[1])
    listener.listen()
    print(flush=True)
    command = server.Server(listener).serve()
if command:
    server.FastExit().run(command[1])
"""


def serve(folder, timeout):
    """Start a server with another timeout; return its process and the command of its client."""
    address = str(folder / "socket")
    command = [sys.executable, "-c", SERVER, address, str(timeout)]
    process = subprocess.Popen(command, stdin=-1, stdout=-1)
    process.stdout.readline()
    return process, [sys.executable, "-IS", client.__file__, address]


def connect(folder):
    connection = server.socket.socket(server.socket.AF_UNIX)
    connection.connect(str(folder / "socket"))
    return connection


def test_mute_connections_delay_no_job(tmp_path):
    process, command = serve(tmp_path, 1e6)  # would wait for days
    with process, connect(tmp_path), connect(tmp_path):
        script = "import os; print(os.getppid())"
        with popen([*command, *script_command(tmp_path, script)]) as job:
            assert job.communicate()[0] == f"{process.pid}\n"
        process.kill()


def test_a_connection_that_says_nothing_in_time_is_closed(tmp_path):
    process, _ = serve(tmp_path, 0.01)
    with process, connect(tmp_path) as mute, connect(tmp_path) as slow:
        slow.sendall(b"\0\0")
        assert mute.recv(1) == slow.recv(1) == b""
        process.kill()


def test_the_rest_of_a_killed_server_is_removed_at_the_next_start(monkeypatch, tmp_path):
    running, killed, other = (tmp_path / f"cdl-fork-{name}" for name in ("x", "y", "z"))
    for folder in (running, killed, other):
        folder.mkdir()
    process, _ = serve(running, 2)
    gone, _ = serve(killed, 2)
    gone.kill()
    with gone, process:
        gone.wait()
        monkeypatch.setattr(server.tempfile, "tempdir", str(tmp_path))
        monkeypatch.setattr(server.subprocess, "Popen", lambda *_, **__: None)
        address = Path(server.start([])[-1])
        found = {path.name for path in tmp_path.glob("cdl-fork-*")}
        assert found == {running.name, other.name, address.parent.name}  # `other` is new
        os.utime(other, (0, 0))
        server.start([])
        assert running.exists() and not other.exists()
        process.kill()


SCRIPTS = Path(__file__).parents[2] / "workflow" / "scripts"


def workflow(jobs, local=True, deployed=()):
    learning, other = {"gpu": 1}, {"mem_mb": 1}
    rules = [
        SimpleNamespace(rule=SimpleNamespace(resources=r)) for r in [other] + jobs * [learning]
    ]
    return SimpleNamespace(
        local_exec=local,
        deployment_settings=SimpleNamespace(deployment_method=set(deployed)),
        dag=SimpleNamespace(needrun_jobs=lambda: iter(rules)),
    )


@pytest.mark.parametrize(
    "case", [workflow(1), workflow(9, local=False), workflow(9, deployed=["conda"])]
)
def test_no_server_is_started_where_it_saves_no_time(monkeypatch, case):
    monkeypatch.delattr(server, "start")
    assert server.prefix_of(case, SCRIPTS) == ""


def test_the_server_imports_the_modules_of_the_scripts(monkeypatch):
    def start(modules):
        assert {"cdl.training.task", "cdl.evaluation.evaluate", "cdl.runtime.jobs"} <= set(modules)
        assert {"torch._dynamo", "cdl.backbones.encoders"} <= set(modules)
        return ["a {python}"]

    monkeypatch.setattr(server, "start", start)
    modules = ["cdl.backbones.encoders"]
    assert server.prefix_of(workflow(2), SCRIPTS, modules) == "'a {{python}}' "
