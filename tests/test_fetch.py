"""What comes over the network: checked, continued, from a mirror, or named for doing by hand."""

import hashlib
import io
import json
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from cdl import backbones
from cdl.backbones import Backbone
from cdl.errors import CdlError
from cdl.fetching import Published, obtain

TAG = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
CONTENT = bytes(range(256)) * 40_000  # 10 MB


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    """Paths are relative to the folder of a run; a proxy must not see what goes to 127.0.0.1."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_PROXY", "*")


class Server:
    """A web server on this machine: files by name, the ranges asked for, and faults."""

    def __init__(self, files):
        self.files, self.asked, self.stop_after, self.ranges = files, [], None, True
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                name, wanted = self.path.rsplit("/", 1)[1], self.headers.get("Range")
                server.asked.append((self.path, wanted))
                body = server.files.get(name)
                if body is None:
                    return self.send_error(404)
                start = int(wanted[6:-1]) if wanted and server.ranges else 0
                if start and start >= len(body):
                    return self.send_error(416)
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(body) - start))
                self.end_headers()
                self.wfile.write(body[start : server.stop_after])
                return None

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def published(self, name, algorithm="md5"):
        checksum = f"{algorithm}:{hashlib.new(algorithm, self.files[name]).hexdigest()}"
        return Published(name, f"{self.url}/a/{name}", checksum)


@pytest.fixture
def server():
    made = Server({"big.tar": CONTENT, "list.yaml": b"data: []\n"})
    yield made
    made.http.shutdown()
    made.http.server_close()


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_files_are_fetched_once(server, algorithm):
    files = [server.published(name, algorithm) for name in server.files]
    for _ in range(2):
        paths = obtain(files, "data")
        assert [path.read_bytes() for path in paths] == list(server.files.values())
    assert len(server.asked) == 2
    assert sorted(p.name for p in Path("data").iterdir()) == ["big.tar", "list.yaml"]


def test_an_interrupted_download_goes_on_where_it_stopped(server):
    file, server.stop_after = server.published("big.tar"), 3_000_000
    with pytest.raises(CdlError, match="big.tar could not be fetched .* run again"):
        obtain([file], "data")
    assert not Path("data/big.tar").exists()
    server.stop_after = None
    (path,) = obtain([file], "data")
    assert path.read_bytes() == CONTENT
    start = int(server.asked[1][1].removeprefix("bytes=").removesuffix("-"))
    assert 2_000_000 < start <= 3_000_000


def test_a_download_killed_after_its_last_byte_is_taken_over(server):
    Path("data").mkdir()
    Path("data/.big.tar.part").write_bytes(CONTENT)
    assert obtain([server.published("big.tar")], "data")[0].read_bytes() == CONTENT


def test_a_server_that_cannot_continue_is_asked_from_the_start(server):
    Path("data").mkdir()
    Path("data/.big.tar.part").write_bytes(CONTENT[:1000])
    server.ranges = False
    assert obtain([server.published("big.tar")], "data")[0].read_bytes() == CONTENT


def test_a_damaged_remainder_is_refused_and_then_fetched_anew(server):
    Path("data").mkdir()
    Path("data/.big.tar.part").write_bytes(b"x" * 1000)
    file = server.published("big.tar")
    with pytest.raises(CdlError, match="has md5 .* expected is .* not the published file"):
        obtain([file], "data")
    assert list(Path("data").iterdir()) == []
    assert obtain([file], "data")[0].read_bytes() == CONTENT


def test_a_wrong_file_put_there_by_hand_is_refused_and_left_alone(server):
    Path("data").mkdir()
    Path("data/big.tar").write_bytes(CONTENT[:-1])
    with pytest.raises(CdlError, match="big.tar has md5 .*delete it and run again"):
        obtain([server.published("big.tar")], "data")
    assert Path("data/big.tar").read_bytes() == CONTENT[:-1]
    assert server.asked == []


def test_a_mirror_is_asked_instead_of_the_publisher(server):
    file = server.published("big.tar")
    elsewhere = Published(file.name, "http://publisher.invalid/big.tar", file.checksum)
    obtain([elsewhere], "data", mirror=f"{server.url}/mirror/")
    assert server.asked == [("/mirror/big.tar", None)]
    Path("mine").mkdir()
    Path("mine/big.tar").write_bytes(CONTENT)
    assert obtain([elsewhere], "more", "mine", offline=True)[0].read_bytes() == CONTENT
    Path("mine/big.tar").write_bytes(CONTENT[::-1])
    with pytest.raises(CdlError, match="what mine/big.tar offers is not the published file"):
        obtain([elsewhere], "third", "mine")
    with pytest.raises(CdlError, match="could not be fetched from empty/big.tar .*No such file"):
        obtain([elsewhere], "third", "empty")
    with pytest.raises(CdlError, match="could not be fetched from .*/gone.tar .404"):
        obtain([Published("gone.tar", f"{server.url}/gone.tar", file.checksum)], "third")


def test_offline_says_every_file_and_its_place(server):
    files = [server.published(name) for name in server.files]
    Path("data").mkdir()
    for mirror in (None, server.url):
        with pytest.raises(CdlError, match=r"put by hand: data/big.tar \(from .*/big.tar\), data"):
            obtain(files, "data", mirror, offline=True)
    for name, content in server.files.items():
        Path("data", name).write_bytes(content)
    assert len(obtain(files, "data", offline=True)) == 2
    assert server.asked == []


def test_a_missing_network_is_one_sentence():
    file = Published("big.tar", "http://127.0.0.1:9/big.tar", "md5:0")  # nobody listens there
    with pytest.raises(CdlError, match="could not be fetched .* by hand as data/big.tar .from htt"):
        obtain([file], "data")


# ---- backbones by timm's tag


@pytest.fixture
def weights():
    """A stand-in for what timm publishes: a classifier's weights, cut to two blocks."""
    torch.manual_seed(0)
    return timm.create_model(TAG.split(".")[0], depth=2, num_classes=5)


@pytest.fixture
def hub(server, weights, monkeypatch):
    """The server as the hub that timm's tags point to."""
    save_file(weights.state_dict(), "model.safetensors")
    server.files["model.safetensors"] = Path("model.safetensors").read_bytes()
    url = partial("{server}/{0}/resolve/main/{1}".format, server=server.url)
    monkeypatch.setattr("huggingface_hub.hf_hub_url", url)
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **o: create(name, **o, depth=2))
    return server


def test_a_timm_tag_is_fetched_recorded_and_verified_after(hub, weights):
    backbones.fetch("b.safetensors", "timm", TAG)
    assert hub.asked == [(f"/timm/{TAG}/resolve/main/model.safetensors", None)]
    images = torch.rand(1, 3, 224, 224)
    expected = weights.eval().forward_features((images - 0.5) / 0.5)[:, 0]
    torch.testing.assert_close(
        Backbone.load("b.safetensors", 224, "backbone").query(images), expected
    )
    sha256 = hashlib.sha256(hub.files["model.safetensors"]).hexdigest()
    assert json.loads(Path("b.json").read_text())["file_sha256"] == sha256
    record = Path("config/checksums", f"{TAG}.safetensors.sha256")
    assert record.read_text() == f"{sha256}  {TAG}.safetensors\n"

    file = Path("data/backbones", f"{TAG}.safetensors")
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)  # one bit on this disk
    with pytest.raises(
        CdlError, match="has sha256 .* expected .*config/checksums.*delete it and r"
    ):
        backbones.fetch("c.safetensors", "timm", TAG)
    file.unlink()
    hub.files["model.safetensors"] = bytes(raw)  # the publisher changed its mind
    with pytest.raises(CdlError, match="not the published file"):
        backbones.fetch("c.safetensors", "timm", TAG)
    assert not file.exists()
    assert not Path("c.safetensors").exists()


def test_what_is_no_safetensors_is_neither_loaded_nor_recorded(hub):
    pickled = io.BytesIO()
    torch.save({"a": torch.ones(1)}, pickled)
    hub.files["model.safetensors"] = pickled.getvalue()
    with pytest.raises(CdlError, match="cannot be read.*delete it and run again"):
        backbones.fetch("b.safetensors", "timm", TAG)
    assert not Path("config/checksums").exists()


def test_an_unrecorded_download_that_broke_off_is_started_anew(hub):
    hub.stop_after = 1_000_000
    with pytest.raises(CdlError, match="could not be fetched"):
        backbones.fetch("b.safetensors", "timm", TAG)
    hub.stop_after = None
    backbones.fetch("b.safetensors", "timm", TAG)
    assert [wanted for _, wanted in hub.asked] == [None, None]


def test_backbones_offline_and_from_a_folder(hub, weights):
    with pytest.raises(CdlError, match=f"data/backbones/{TAG}.safetensors .from .*/model.safet"):
        backbones.fetch("b.safetensors", "timm", TAG, offline=True)
    Path("mirror").mkdir()
    save_file(weights.state_dict(), Path("mirror", f"{TAG}.safetensors"))
    backbones.fetch("b.safetensors", "timm", TAG, mirror="mirror", offline=True)
    assert hub.asked == []


@pytest.mark.parametrize("tag", ["vit_tiny_patch16_224.nonsense", "vit_huge_patch3_5.augreg"])
def test_a_tag_that_timm_does_not_know(tag):
    with pytest.raises(CdlError, match=f"timm .*{tag}|{tag}.* timm"):
        backbones.fetch("b.safetensors", "timm", tag)
