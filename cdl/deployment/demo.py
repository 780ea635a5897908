"""The page of `cdl demo`: an exported student that predicts and learns in a browser.

The page is a set of static files: those of `cdl/assets/demo`, the student's folder, and the
WebAssembly of onnxruntime-web, which is fetched once. `Server` serves them to this machine alone,
and `write_site` copies them for any web server.
"""

import json
import re
import secrets
import shutil
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any

from cdl.data.modalities import MODALITIES
from cdl.deployment import manifest
from cdl.deployment.bundle import program
from cdl.deployment.load import is_exported
from cdl.deployment.student import facts_of
from cdl.device.memory import Memory
from cdl.device.stored import MEMORY
from cdl.device.student import read_classes
from cdl.device.versions import (
    CURRENT,
    place_of,
    pointer_to,
    read_manifest,
    versions_of,
)
from cdl.layout import PAGE
from cdl.runtime.caches import cache_folder
from cdl.runtime.errors import CdlError
from cdl.runtime.fetching import Published, obtain
from cdl.runtime.folders import new_folder
from cdl.runtime.plain_yaml import card_metadata

HOST = "127.0.0.1"
RUNTIME = "1.22.0"  # of onnxruntime-web; its WebAssembly has 11 MB, that of 1.27 has 13
_ADDRESS = f"https://cdn.jsdelivr.net/npm/onnxruntime-web@{RUNTIME}/dist"
_SHA256 = {
    "ort.wasm.min.mjs": "6ef726f355b791129f7ddf3f62e7877a16b9b777abe87004b8ab306e6b9cf265",
    "ort-wasm-simd-threaded.mjs": (
        "30dd851d9c00622940500f71ddd2ff8820c5cb65270816080175b958705385a8"
    ),
    "ort-wasm-simd-threaded.wasm": (
        "71aef04959c5c1b6de461b6538e2058e306610034a85aad2742d0c7fd4533fe4"
    ),
}
_HEADING = re.compile("<h1>.*</h1>.*")
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".wasm": "application/wasm",
}

Site = Mapping[str, Path | bytes]  # files, or their content, by path relative to the page


def site(student: Path, runtime: str | None = None) -> Site:
    """Return the static files of the page.

    Args:
        student: folder of an exported student.
        runtime: folder or http(s) address with the files of onnxruntime-web; None: the cache, or a
            public server.

    Raises:
        CdlError: the folder is no export to ONNX, was damaged or changed, or the files of
            onnxruntime-web cannot be obtained or are not those of version `RUNTIME`.
    """
    if not (student / manifest.MODEL).is_file():
        kind = "was exported for ExecuTorch" if is_exported(student) else "is no exported student"
        raise CdlError(
            f"{student}: {kind}; expected a folder with {manifest.MODEL}, as "
            "`cdl export RUN -o FOLDER` writes it"
        )
    manifest.check(student)
    if (items := facts_of(student).items) != "images":
        raise CdlError(
            f"{student}: is a student of {items}; expected one of images; use cdl predict"
        )
    versions = versions_of(student)
    read_classes(place_of(student, versions[0]) / manifest.CLASSES)
    own = {name: student / name for name in _inside(student, _names(student, versions))}
    room = Path(str(files("cdl") / "assets" / "demo"))
    return {
        **{path.name: path for path in sorted(room.iterdir())},
        PAGE: _page(room / PAGE, student, manifest.CARD in own),
        **{f"runtime/{path.name}": path for path in runtime_files(runtime)},
        **{f"student/{name}": path for name, path in own.items()},
        f"student/{CURRENT}": pointer_to(student, versions[0]).encode(),
        "student.json": json.dumps({"files": [*own, CURRENT]}).encode(),
    }


def _page(template: Path, student: Path, described: bool) -> bytes:
    """Return the page with the student's name and the accuracy that its card has, if it has one."""
    title, accuracy = escape(student.resolve().name), ""
    found = card_metadata(student / manifest.CARD) if described else {}
    about: dict[str, Any] = next(iter(found.get("model-index", ())), {})
    scores = {
        metric["type"]: metric["value"]
        for result in about.get("results", ())
        for metric in result["metrics"]
    }
    if "accuracy" in scores:
        title += f": {escape(about['name'])}"
        accuracy = (
            f"\n<p>Accuracy as exported, before any later learning: {scores['accuracy']:.1f} %.</p>"
        )
    return _HEADING.sub(
        lambda _: f"<h1>{title}</h1>{accuracy}", template.read_text(encoding="utf-8")
    ).encode()


def _names(folder: Path, versions: list[int]) -> Iterator[str]:
    """Yield the files of the export and of versions, which exist."""
    known = (folder / manifest.MANIFEST).exists()
    names = [*(read_manifest(folder)["files"] if known else manifest.READ), manifest.MANIFEST]
    for version in filter(None, versions):
        place = place_of(folder, version).relative_to(folder).as_posix()
        names += [f"{place}/{name}" for name in (manifest.CLASSES, MEMORY, manifest.MANIFEST)]
    return (name for name in names if (folder / name).is_file())


def _inside(folder: Path, names: Iterable[str]) -> Iterator[str]:
    """Yield the names of files to publish.

    Links are not followed, since they may lead to private files. `manifest.check` lets card and
    program differ from the export; then they are left out.

    Raises:
        CdlError: another file is a link or outside the folder.
    """
    root, known = folder.resolve(), (folder / manifest.MANIFEST).exists()
    differences = manifest.compare(folder) if known else {}
    for name in names:
        file, linked = folder / name, (folder / name).resolve() != root / name
        if name == manifest.CARD and (linked or differences.get(name)):
            continue
        if name == manifest.DEVICE and (linked or not _is_program(file)):
            continue
        if linked:
            raise CdlError(
                f"{str(file)!r}: is a link or leads out of the folder; copy the file itself there"
            )
        yield name


def _is_program(file: Path) -> bool:
    """Whether a file is what this version of cdl writes for students of images."""
    programs = {program(MODALITIES["images"], kind).encode() for kind in Memory.kinds}
    return file.read_bytes() in programs


def runtime_files(source: str | None = None) -> list[Path]:
    """Return the files of onnxruntime-web in the cache; fetch missing ones; see `site`."""
    published = [
        Published(name, f"{_ADDRESS}/{name}", f"sha256:{digest}")
        for name, digest in _SHA256.items()
    ]
    folder = cache_folder() / f"onnxruntime-web-{RUNTIME}"
    try:
        return obtain(published, folder, mirror=source, setting="--runtime")
    except CdlError as error:
        if source is not None or not isinstance(error.__cause__, OSError):
            raise
        raise CdlError(
            f"onnxruntime-web {RUNTIME}, which the page needs once, could not be fetched; connect "
            f"to a network, or set --runtime to a folder with {', '.join(_SHA256)}"
        ) from error


def write_site(content: Site, folder: Path) -> None:
    """Write a site into a folder that is empty or missing; else raise `CdlError`."""
    with new_folder(folder.resolve()) as made:
        for name, source in content.items():
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            if isinstance(source, bytes):
                (made / name).write_bytes(source)
            else:
                shutil.copyfile(source, made / name)


class Server(ThreadingHTTPServer):
    """Serves a site to the local machine."""

    daemon_threads = True
    CONNECTIONS = 32  # at once; the next one waits

    def __init__(self, content: Site, port: int) -> None:
        """Bind a port, 0 for any free one; raise `OSError` if it is in use."""
        super().__init__((HOST, port), _Handler)
        self.content, self.token = content, secrets.token_urlsafe()
        self._free = threading.BoundedSemaphore(self.CONNECTIONS)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer a request in a thread, as soon as there are fewer than `CONNECTIONS`."""
        self._free.acquire()
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer a request."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report errors of this program, and not that a browser has left."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)

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
    timeout = 20  # seconds of silence after which a connection is closed

    def _requested(self) -> str | None:
        """Return the path below the address; None without the token or from another site."""
        own = self.server.origin
        host, origin = f"http://{self.headers.get('Host')}", self.headers.get("Origin", own)
        _, token, rest = (*self.path.split("/", 2), "", "")[:3]
        known = secrets.compare_digest(token.encode(), self.server.token.encode())
        return rest if known and self.path.count("/") > 1 and host == origin == own else None

    def do_GET(self) -> None:  # noqa: N802
        """Send a file of the site; its names are a fixed list."""
        name = self._requested()
        name = PAGE if name == "" else name
        source = self.server.content.get(name or "")
        try:
            body = source.read_bytes() if isinstance(source, Path) else source
        except OSError:  # it was deleted meanwhile
            body = None
        if name is None or body is None:
            self._send(404, "text/plain", b"not found")
            return
        kind = _TYPES.get(Path(name).suffix, "application/octet-stream")
        self._send(200, kind, body)

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Do not log single requests."""
