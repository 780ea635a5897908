"""Serve the web page of `cdl demo`: classify images, train on new classes.

Uses Python's HTTP server, listens on the local machine only, and serves one HTML file that loads
nothing from the internet.
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
_TOP = 5  # classes in the response
_MAX_BYTES = 2**27  # of a request


class Demo:
    """A student that classifies images and, if it is a run, learns new classes.

    Requests are processed one at a time.
    """

    def __init__(self, model: Path) -> None:
        """Load the student.

        Args:
            model: folder of an exported student or of a finished run; only a run can learn.

        Raises:
            CdlError: see `cdl.load`.
        """
        self._student: Student = load(model)
        self._run = None if (model / "classes.txt").exists() else model
        self._lock = threading.Lock()

    def about(self) -> dict[str, Any]:
        """Return the classes of the student and whether it can learn new ones."""
        return {"classes": self._student.classes, "learns": self._run is not None}

    def predict(self, raw: bytes) -> dict[str, Any]:
        """Return the most probable classes of an encoded image and the time in milliseconds."""
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
            images: base64 of encoded images, by class name.

        Returns:
            The folder of the new run, its new classes, and the accuracy on every task before and
            after, in percent.

        Raises:
            CdlError: the student is not a run, or a class name or an image is invalid.
        """
        from cdl.deployment.learn import learn

        with self._lock, TemporaryDirectory() as temporary:
            if self._run is None:
                raise CdlError(
                    "an exported student cannot learn; start cdl demo with the folder of a run"
                )
            for name, encoded in images.items():
                _write_class(Path(temporary), name, encoded)
            result = learn(self._run, Path(temporary), _free_name(self._run))
            self._run = Path(result.run)
            self._student = load(self._run)
        return result.as_dict()


def _parse_images(body: bytes) -> dict[str, list[str]]:
    """Parse the body of a request to learn; raise `CdlError` if it is invalid."""
    try:
        images = json.loads(body)
        if all(isinstance(image, str) for encoded in images.values() for image in list(encoded)):
            return {name: list(encoded) for name, encoded in images.items()}
    except (ValueError, AttributeError, TypeError):
        pass
    raise CdlError(
        "invalid request: expected JSON with a list of base64 images for each class name"
    )


def _write_class(folder: Path, name: str, images: Sequence[str]) -> None:
    """Write the images of a class; raise `CdlError` if its name or an image is invalid."""
    if not name.strip() or Path(name).name != name or name.startswith(".") or len(name) > 100:
        raise CdlError(
            f"invalid class name {name!r}: expected 1 to 100 characters, no /, no leading dot"
        )
    (folder / name).mkdir()
    for i, image in enumerate(images):
        try:
            (folder / name / f"{i}.png").write_bytes(base64.b64decode(image, validate=True))
        except binascii.Error as error:
            raise CdlError(f"image {i} of class {name} is not valid base64 ({error})") from error


def _free_name(run: Path) -> str:
    """Return the first unused name demo1, demo2, ... in the results folder of a run."""
    from cdl.layout import ResultsFolder

    root, n = ResultsFolder.of_run(run).path, 1
    while (root / f"demo{n}").exists():
        n += 1
    return f"demo{n}"


class Server(ThreadingHTTPServer):
    """Serves a demo to the local machine."""

    daemon_threads = True

    def __init__(self, demo: Demo, port: int) -> None:
        """Bind a port, 0 for any free one; raise `OSError` if it is in use."""
        super().__init__((HOST, port), _Handler)
        self.demo = demo

    @property
    def address(self) -> str:
        """URL of the page."""
        return f"http://{HOST}:{self.server_address[1]}/"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    @cached_property
    def _same_origin(self) -> bool:
        """Whether the request comes from the page itself, not from another site in the browser."""
        address = self.server.address
        host, origin = self.headers.get("Host"), self.headers.get("Origin")
        return f"http://{host}/" == address and (origin is None or f"{origin}/" == address)

    def do_GET(self) -> None:  # noqa: N802
        """Send the page or the description of the student."""
        if self.path == "/about" and self._same_origin:
            self._json(200, self.server.demo.about())
        elif self.path == "/" and self._same_origin:
            page = (files("cdl") / "assets" / "demo.html").read_bytes()
            self._send(200, "text/html; charset=utf-8", page)
        else:
            self._json(404, {"error": "not found"})

    def do_POST(self) -> None:  # noqa: N802
        """Classify an image or learn new classes."""
        length = int(self.headers.get("Content-Length") or 0)
        if not self._same_origin or self.path not in ("/predict", "/learn") or length > _MAX_BYTES:
            self._json(
                404, {"error": f"not found, or the request is larger than {_MAX_BYTES} bytes"}
            )
            return
        body, demo = self.rfile.read(length), self.server.demo
        try:
            content = (
                demo.predict(body) if self.path == "/predict" else demo.learn(_parse_images(body))
            )
        except CdlError as error:
            self._json(400, {"error": str(error)})
            return
        self._json(200, content)

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
        """Do not log single requests."""
