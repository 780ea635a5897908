"""A local server in place of the Hugging Face Hub: models, commits, downloads; no other endpoint.

It speaks the part of the protocol that `huggingface_hub` uses for `create_repo`, `model_info`,
`create_commit` (files in the commit and by Git LFS) and `snapshot_download`.
"""

import base64
import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_the_owner"


@dataclass
class Model:
    """A model with its commits, oldest first: name and content of each file."""

    private: bool
    commits: list = field(default_factory=lambda: [{".gitattributes": b"*.onnx filter=lfs\n"}])

    def sha(self, i):
        """Return the name of a commit, 40 hexadecimal digits."""
        return hashlib.sha1(repr((i, sorted(self.commits[i].items()))).encode()).hexdigest()

    def files(self, revision):
        """Return name and files of a commit, of `main` or of its name; None if it is missing."""
        shas = {self.sha(i): files for i, files in enumerate(self.commits)}
        sha = self.sha(-1 % len(self.commits)) if revision == "main" else revision
        return (sha, shas[sha]) if sha in shas else None


class HubServer:
    """The server; `models` by `OWNER/NAME`, `uploaded` are LFS objects by sha256."""

    def __init__(self):
        self.models, self.uploaded, self.requests = {}, {}, []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.answer(self, "GET")

            def do_HEAD(self):
                server.answer(self, "HEAD")

            def do_POST(self):
                server.answer(self, "POST")

            def do_PUT(self):
                server.answer(self, "PUT")

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def replace_hub(self, monkeypatch, cache):
        """Let `huggingface_hub` ask this server, and keep its files in a folder of a test."""
        from huggingface_hub import constants, file_download

        monkeypatch.setenv("NO_PROXY", "*")
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
        monkeypatch.setattr(constants, "ENDPOINT", self.url)
        for module in (constants, file_download):  # versions before 1.0 have it in both
            monkeypatch.setattr(
                module, "HUGGINGFACE_CO_URL_TEMPLATE", self.url + template, raising=False
            )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)

    def close(self):
        self.http.shutdown()
        self.http.server_close()

    def answer(self, request, verb):
        """Answer one request."""
        path = unquote(urlsplit(request.path).path)
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        self.requests.append((verb, path))
        owner = request.headers.get("Authorization") == f"Bearer {TOKEN}"
        parts = path.strip("/").split("/")
        if verb == "PUT":
            self.uploaded[hashlib.sha256(body).hexdigest()] = body
            return reply(request, {})
        if verb == "POST" and path != "/api/validate-yaml" and not owner:
            return fail(request, 401, "", "Invalid username or password.")
        if verb == "POST":
            return self.post(request, parts, body)
        api = parts[:2] == ["api", "models"]
        name = "/".join(parts[2:4] if api else parts[:2])
        model = self.models.get(name)
        if model is None or (model.private and not owner):
            return fail(request, 401, "RepoNotFound", "Repository not found")
        revision = parts[5] if api and len(parts) > 5 else "main" if api else parts[3]
        if (found := model.files(revision)) is None:
            return fail(request, 404, "RevisionNotFound", f"Invalid rev id: {revision}")
        sha, files = found
        if api and "tree" in parts:
            return reply(request, [described(*file) for file in files.items()])
        if api:
            siblings = [{"rfilename": file} for file in files]
            about = {"id": name, "sha": sha, "private": model.private, "siblings": siblings}
            return reply(request, about)
        if (content := files.get("/".join(parts[4:]))) is None:
            return fail(request, 404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": sha})
        etag = hashlib.sha256(content).hexdigest()
        return reply(request, content, {"ETag": f'"{etag}"', "X-Repo-Commit": sha})

    def post(self, request, parts, body):
        """Answer a request that changes the Hub."""
        if parts[-1] == "validate-yaml":
            return reply(request, {"errors": [], "warnings": []})
        if parts[-1] == "create":
            given = json.loads(body)
            name = f"{given['organization']}/{given['name']}"
            private = given.get("visibility") == "private" or given.get("private", False)
            status = 409 if name in self.models else 200
            self.models.setdefault(name, Model(private))
            return reply(request, {"url": f"{self.url}/{name}", "name": name}, status=status)
        if parts[-1] == "batch":
            objects = json.loads(body)["objects"]
            for one in objects:
                one["actions"] = {"upload": {"href": f"{self.url}/lfs/{one['oid']}"}}
            return reply(request, {"transfer": "basic", "objects": objects})
        model = self.models["/".join(parts[2:4])]
        if parts[4] == "preupload":
            files = json.loads(body)["files"]
            modes = {True: "lfs", False: "regular"}
            told = [
                {"path": f["path"], "uploadMode": modes[is_large(f["path"])], "shouldIgnore": False}
                for f in files
            ]
            return reply(request, {"files": told})
        assert parts[4] == "commit", parts
        files = dict(model.commits[-1])
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.uploaded[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        model.commits.append(files)
        sha = model.sha(len(model.commits) - 1)
        url = f"{self.url}/{'/'.join(parts[2:4])}/commit/{sha}"
        return reply(request, {"success": True, "commitOid": sha, "commitUrl": url})


def is_large(name):
    return name.endswith((".onnx", ".safetensors"))


def described(name, content):
    """Return a file as a listing of a commit has it."""
    oid = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    found = {"type": "file", "path": name, "size": len(content), "oid": oid}
    if is_large(name):
        sha256 = hashlib.sha256(content).hexdigest()
        found["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 130}
    return found


def reply(request, content, headers=None, status=200):
    """Send bytes, or a value as JSON."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    request.send_response(status)
    if not isinstance(content, bytes):
        request.send_header("Content-Type", "application/json")
    for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
        request.send_header(key, value)
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(body)


def fail(request, status, code, message, headers=None):
    """Send an error as the Hub does."""
    headers = {"X-Error-Code": code, "X-Error-Message": message, **(headers or {})}
    reply(request, {"error": message}, headers, status)
