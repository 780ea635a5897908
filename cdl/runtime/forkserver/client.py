"""Proxy process for a job that runs in the fork server.

Snakemake starts `python client.py SOCKET python script.py` instead of `python script.py`. The
client sends the command to the server, which forks a child that runs the script with the client's
standard files, working directory, environment and resource limits. The client forwards its signals
to the child and exits with the child's exit status; if the client dies, the child is killed. If
there is no server, or the server dies before the child has ended, the client executes the command
itself. The client imports few modules, so that it starts fast.
"""

import json
import os
import resource
import signal
import socket
import sys

FORWARDED = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
# Numerical libraries read these once, when they are imported. The server imports them with one
# thread, so only jobs with one thread can run in it.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
LIMITS = sorted(v for name, v in vars(resource).items() if name.startswith("RLIMIT_"))


def run_in_server(address: str, command: list[str]) -> bytes:
    """Run a command in a child of the server and return its exit code as 4 bytes.

    Returns no bytes if there is no server, or if the server died before the child ended.
    """
    with socket.socket(socket.AF_UNIX) as server:
        try:
            server.connect(address)
            umask = os.umask(0)
            os.umask(umask)
            request = {
                "command": command,
                "folder": os.getcwd(),
                "environment": dict(os.environ),
                "limits": [(kind, resource.getrlimit(kind)) for kind in LIMITS],
                "umask": umask,
            }
            text = json.dumps(request).encode()
            socket.send_fds(server, [len(text).to_bytes(4, "big")], [0, 1, 2])
            server.sendall(text)
            forward_signals(server)
            return server.recv(4)
        except OSError:
            return b""


def forward_signals(server: socket.socket) -> None:
    """Send the number of each signal as a byte; ignored signals stay ignored."""

    def send(number: int, _: object) -> None:
        try:
            server.sendall(bytes([number]))
        except OSError:  # the child has just ended
            pass

    for number in FORWARDED:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, send)


def main(address: str, *command: str) -> None:
    """Run a command in the server if it supports the command, else in this process."""
    is_script = len(command) == 2 and command[0] == sys.executable
    has_one_thread = all(os.environ.get(name) == "1" for name in THREADS)
    status = run_in_server(address, list(command)) if is_script and has_one_thread else b""
    if not status:
        os.execvp(command[0], command)  # exec resets signal handlers and keeps ignored signals
    code = int.from_bytes(status, "big", signed=True)
    if code < 0:  # the child was ended by a signal, so this process ends by the same signal
        if -code in FORWARDED:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    main(*sys.argv[1:])
