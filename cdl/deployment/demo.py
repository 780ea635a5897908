"""A page that asks a student and lets it learn, served to this machine alone.

Python's own server and one file of HTML: nothing is fetched when the page is viewed, and nothing
more is installed than what asks the student.
"""

import base64
import binascii
import json
import threading
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cdl.data.sources.decoding import decode
from cdl.deployment.load import load
from cdl.deployment.student import Student
from cdl.runtime.errors import CdlError

HOST = "127.0.0.1"
_TOP = 5
_LARGEST = 2**27  # bytes of a request


class Demo:
    """A student that answers, and that learns where it is a run; one request at a time."""

    def __init__(self, model: Path) -> None:
        """Load it.

        Args:
            model: an exported folder, or that of a finished run, which alone can learn.

        Raises:
            CdlError: as `cdl.load`.
        """
        self._student: Student = load(model)
        self._run = None if (model / "classes.txt").exists() else model
        self._lock = threading.Lock()

    def about(self) -> dict[str, Any]:
        """Return which classes it knows, and whether it learns."""
        return {"classes": self._student.classes, "learns": self._run is not None}

    def predict(self, raw: bytes) -> dict[str, Any]:
        """Return the best classes of an encoded image, and the milliseconds that asking took."""
        pixels = decode(raw, "the image")
        with self._lock:
            start = time.perf_counter()
            (probabilities,) = self._student.predict_proba(pixels)
            took = 1e3 * (time.perf_counter() - start)
            classes = self._student.classes
        order = probabilities.argsort(kind="stable")[::-1][:_TOP]
        best = [{"class": classes[i], "probability": float(probabilities[i])} for i in order]
        return {"best": best, "milliseconds": took}

    def learn(self, images: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        """Learn one more task.

        Args:
            images: encoded images in base64, by the name of their class.

        Returns:
            Where the new run lies, its new classes, and the accuracy on every task before and
            after.

        Raises:
            CdlError: it is no run, or what is given cannot be learnt.
        """
        from cdl.deployment.learn import learn

        with self._lock, TemporaryDirectory() as temporary:
            if self._run is None:
                raise CdlError("an exported student does not learn; start with the folder of a run")
            for name, given in images.items():
                _write(Path(temporary), name, given)
            answer = learn(self._run, Path(temporary), _free_name(self._run))
            self._run = Path(answer.run)
            self._student = load(self._run)
        return answer.as_dict()


def _images(body: bytes) -> dict[str, list[str]]:
    """Return what a request gives to learn; raise `CdlError` if it is something else."""
    try:
        images = json.loads(body)
        if all(isinstance(one, str) for given in images.values() for one in list(given)):
            return {name: list(given) for name, given in images.items()}
    except (ValueError, AttributeError, TypeError):
        pass
    raise CdlError("the request is no JSON of images in base64 by the name of their class")


def _write(folder: Path, name: str, images: Sequence[str]) -> None:
    """Write the images of a class; raise `CdlError` if it cannot be called that."""
    if not name.strip() or Path(name).name != name or name.startswith(".") or len(name) > 100:
        raise CdlError(f"{name!r} cannot be the name of a class; needed is a word or two")
    (folder / name).mkdir()
    for i, image in enumerate(images):
        try:
            (folder / name / f"{i}.png").write_bytes(base64.b64decode(image, validate=True))
        except binascii.Error as error:
            raise CdlError(f"image {i} of {name} is not in base64 ({error})") from error


def _free_name(run: Path) -> str:
    """Return a name beside that of a run's configuration under which nothing lies."""
    from cdl.layout import ResultsFolder

    root, n = ResultsFolder.of_run(run).path, 1
    while (root / f"demo{n}").exists():
        n += 1
    return f"demo{n}"


class Server(ThreadingHTTPServer):
    """Serves a demo to this machine."""

    daemon_threads = True

    def __init__(self, demo: Demo, port: int) -> None:
        """Bind a port, 0 for any that is free; raise `OSError` if it is taken."""
        super().__init__((HOST, port), _Handler)
        self.demo = demo

    @property
    def address(self) -> str:
        """Where the page is."""
        return f"http://{HOST}:{self.server_address[1]}/"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    @cached_property
    def _own(self) -> bool:
        """Whether the page itself asks, and not one from elsewhere in the same browser."""
        address = self.server.address
        host, origin = self.headers.get("Host"), self.headers.get("Origin")
        return f"http://{host}/" == address and (origin is None or f"{origin}/" == address)

    def do_GET(self) -> None:  # noqa: N802
        """Answer with the page or with what it shows of the student."""
        if self.path == "/about" and self._own:
            self._json(200, self.server.demo.about())
        elif self.path == "/" and self._own:
            page = (files("cdl") / "assets" / "demo.html").read_bytes()
            self._send(200, "text/html; charset=utf-8", page)
        else:
            self._json(404, {"error": "there is nothing here"})

    def do_POST(self) -> None:  # noqa: N802
        """Answer a question, or learn."""
        length = int(self.headers.get("Content-Length") or 0)
        if not self._own or self.path not in ("/predict", "/learn") or length > _LARGEST:
            self._json(
                404, {"error": f"nothing is taken here, and never more than {_LARGEST} bytes"}
            )
            return
        body, demo = self.rfile.read(length), self.server.demo
        try:
            answer = demo.predict(body) if self.path == "/predict" else demo.learn(_images(body))
        except CdlError as error:
            self._json(400, {"error": str(error)})
            return
        self._json(200, answer)

    def _json(self, status: int, content: Mapping[str, Any]) -> None:
        self._send(status, "application/json", json.dumps(content).encode())

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header(
            "Content-Security-Policy", "default-src 'self' 'unsafe-inline' data: blob:"
        )
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing of single requests."""
