"""Serve the web page of `cdl demo`: classify images, train on new classes.

Uses Python's HTTP server, listens on the local machine only, and serves one HTML file that loads
nothing from the internet.
"""

import base64
import binascii
import json
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cdl.data.sources.decoding import decode
from cdl.data.sources.names import check_class_name
from cdl.deployment.load import load
from cdl.deployment.student import ExportedStudent, Student
from cdl.runtime.errors import CdlError
from cdl.runtime.outside import json_object

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
        self._run = None if isinstance(self._student, ExportedStudent) else model
        self._lock = threading.Lock()

    def about(self) -> dict[str, Any]:
        """Return the classes of the student and whether it can learn new ones."""
        return {"classes": self._student.classes, "learns": self._run is not None}

    def predict(self, raw: bytes) -> dict[str, Any]:
        """Return the most probable classes of an encoded image and the time in milliseconds."""
        pixels = decode(raw, "the image")
        with self._lock:
            start = time.perf_counter()
            best = self._student.best(pixels, _TOP)
            took = 1e3 * (time.perf_counter() - start)
        found = [{"class": name, "probability": probability} for name, probability in best]
        return {"best": found, "milliseconds": took}

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
    images: dict[str, list[str]] = json_object(
        body,
        "invalid request",
        schema={"additionalProperties": {"type": "array", "items": {"type": "string"}}},
        remedy="expected JSON with a list of base64 images for each class name",
    )
    return images


def _write_class(folder: Path, name: str, images: Sequence[str]) -> None:
    """Write the images of a class; raise `CdlError` if its name or an image is invalid."""
    check_class_name(name, "the page")
    if Path(name).name != name or name.startswith(".") or len(name.encode()) > 100:
        raise CdlError(
            f"invalid class name {name!r}: expected 1 to 100 bytes, no /, no leading dot"
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
        self.demo, self.token = demo, secrets.token_urlsafe()

    @property
    def origin(self) -> str:
        """Scheme, host and port of the page."""
        return f"http://{HOST}:{self.server_address[1]}"

    @property
    def address(self) -> str:
        """URL of the page; its token keeps out other users of the machine."""
        return f"{self.origin}/{self.token}/"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def _requested(self) -> str | None:
        """Return the path below the address; None without the token or from another site."""
        own = self.server.origin
        host, origin = f"http://{self.headers.get('Host')}", self.headers.get("Origin", own)
        _, token, *rest = self.path.split("/", 2)
        known = secrets.compare_digest(token.encode(), self.server.token.encode())
        return rest[0] if known and rest and host == origin == own else None

    def do_GET(self) -> None:  # noqa: N802
        """Send the page or the description of the student."""
        match self._requested():
            case "about":
                self._json(200, self.server.demo.about())
            case "":
                page = (files("cdl") / "assets" / "demo.html").read_bytes()
                self._send(200, "text/html; charset=utf-8", page)
            case _:
                self._json(404, {"error": "not found"})

    def do_POST(self) -> None:  # noqa: N802
        """Classify an image or learn new classes."""
        requested, demo = self._requested(), self.server.demo
        if requested not in ("predict", "learn"):
            self._json(404, {"error": "not found"})
            return
        try:
            body = self._body()
            content = (
                demo.predict(body) if requested == "predict" else demo.learn(_parse_images(body))
            )
        except CdlError as error:
            self._json(400, {"error": str(error)})
            return
        self._json(200, content)

    def _body(self) -> bytes:
        """Read the body, never more than the limit; raise `CdlError` if its length is invalid."""
        length = self.headers.get("Content-Length", "")
        digits = length.isascii() and length.isdecimal() and len(length) <= len(str(_MAX_BYTES))
        if not digits or int(length) > _MAX_BYTES:
            raise CdlError(
                f"Content-Length: invalid value {length!r:.40}; expected 0 to {_MAX_BYTES} bytes"
            )
        return self.rfile.read(int(length))

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
