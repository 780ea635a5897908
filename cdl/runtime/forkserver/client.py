"""What stands for a warm job, started as `python client.py SOCKET python script.py`.

It asks the server for a child that runs the script and is, to Snakemake, that job: the
child has its files, folder, environment and limits, gets every signal that it gets and dies with
it; its end is the child's. Where there is no server, or it goes before the child has ended, the
client becomes what it was asked to run. It imports little, so that it is there at once.
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
# what a script's libraries read once: the server has one thread, and serves jobs of one thread
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
LIMITS = sorted(v for name, v in vars(resource).items() if name.startswith("RLIMIT_"))


def ask(address: str, command: list[str]) -> bytes:
    """Return how the server's child ended; nothing if there was none, or nobody to say it."""
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
            forward(server)
            return server.recv(4)
        except OSError:
            return b""


def forward(server: socket.socket) -> None:
    """Send a byte for every signal from now on, but those that were ignored before."""

    def send(heard: int, _: object) -> None:
        try:
            server.sendall(bytes([heard]))
        except OSError:  # the child has just ended
            pass

    for number in FORWARDED:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, send)


def main(address: str, *command: str) -> None:
    """Run a command as a child of the server, or as itself."""
    is_script = len(command) == 2 and command[0] == sys.executable
    is_alone = all(os.environ.get(name) == "1" for name in THREADS)
    answer = ask(address, list(command)) if is_script and is_alone else b""
    if not answer:  # what is handled here is handled by default there, what is ignored stays so
        os.execvp(command[0], command)
    code = int.from_bytes(answer, "big", signed=True)
    if code < 0:  # by a signal
        if -code in FORWARDED:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    main(*sys.argv[1:])
