"""Published files: fetched, resumed, verified, from a mirror, or placed manually."""

import hashlib
import io
import json
import os
import re
import shutil
import tarfile
import threading
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from pathlib import Path

import huggingface_hub
import numpy as np
import pandas as pd
import pytest
import timm
import torch
import yaml
from forked import run_module
from PIL import Image
from safetensors.torch import save_file

from cdl.backbones import fetch as backbones
from cdl.backbones.images import FrozenViT
from cdl.data.packed import Packed
from cdl.data.packing import prepare
from cdl.data.sources import SOURCES, archives
from cdl.runtime import artifacts
from cdl.runtime.errors import CdlError
from cdl.runtime.fetching import Published, obtain

ROOT = Path(__file__).parents[2]
TAG = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
CONTENT = bytes(range(256)) * 40_000  # 10 MB


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    """Change to a temporary folder; use no proxy for 127.0.0.1."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_PROXY", "*")


class Server:
    """A local web server with files by name; records requests and simulates faults."""

    def __init__(self, files):
        self.files, self.requests, self.stop_after, self.ranges = files, [], None, True
        self.status = 200
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                name, byte_range = self.path.rsplit("/", 1)[1], self.headers.get("Range")
                server.requests.append((self.path, byte_range))
                body = server.files.get(name)
                if body is None:
                    return self.send_error(404)
                start = int(byte_range[6:-1]) if byte_range and server.ranges else 0
                if start and start >= len(body):
                    return self.send_error(416)
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(body) - start))
                self.end_headers()
                self.wfile.write(body[start : server.stop_after])
                return None

            def do_HEAD(self):  # the Hub's metadata of a file
                body = server.files.get(self.path.rsplit("/", 1)[1])
                self.send_response(server.status if body is not None else 404)
                if server.status == 401:
                    self.send_header("X-Error-Code", "GatedRepo")
                elif body is None:
                    self.send_header("X-Error-Code", "EntryNotFound")
                else:
                    self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
                self.send_header("X-Repo-Commit", hashlib.sha1(body or b"").hexdigest())
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()

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
    assert len(server.requests) == 2
    assert sorted(p.name for p in Path("data").iterdir()) == ["big.tar", "list.yaml"]


def test_an_interrupted_download_is_resumed(server):
    file, server.stop_after = server.published("big.tar"), 3_000_000
    with pytest.raises(CdlError, match="big.tar could not be fetched .* run again"):
        obtain([file], "data")
    assert not Path("data/big.tar").exists()
    server.stop_after = None
    (path,) = obtain([file], "data")
    assert path.read_bytes() == CONTENT
    start = int(server.requests[1][1].removeprefix("bytes=").removesuffix("-"))
    assert 2_000_000 < start <= 3_000_000


def test_a_complete_partial_file_is_used(server):
    Path("data").mkdir()
    Path("data/.big.tar.part").write_bytes(CONTENT)
    assert obtain([server.published("big.tar")], "data")[0].read_bytes() == CONTENT


def test_the_rest_of_a_killed_download_is_removed_when_the_file_is_there(server):
    Path("data").mkdir()
    Path("data/.big.tar.part").write_bytes(CONTENT[:1000])
    Path("data/big.tar").write_bytes(CONTENT)
    obtain([server.published("big.tar")], "data")
    assert [path.name for path in Path("data").iterdir()] == ["big.tar"]


def test_a_download_restarts_if_the_server_has_no_ranges(server):
    Path("data").mkdir()
    Path("data/.big.tar.part").write_bytes(CONTENT[:1000])
    server.ranges = False
    assert obtain([server.published("big.tar")], "data")[0].read_bytes() == CONTENT


def test_a_damaged_partial_file_is_refused_and_fetched_again(server):
    Path("data").mkdir()
    Path("data/.big.tar.part").write_bytes(b"x" * 1000)
    file = server.published("big.tar")
    with pytest.raises(CdlError, match="has md5 .* expected .* not the published file"):
        obtain([file], "data")
    assert list(Path("data").iterdir()) == []
    assert obtain([file], "data")[0].read_bytes() == CONTENT


def test_a_wrong_file_of_the_user_is_refused_and_kept(server):
    Path("data").mkdir()
    Path("data/big.tar").write_bytes(CONTENT[:-1])
    with pytest.raises(CdlError, match="big.tar has md5 .*delete it and run again"):
        obtain([server.published("big.tar")], "data")
    assert Path("data/big.tar").read_bytes() == CONTENT[:-1]
    assert server.requests == []


def test_a_mirror_replaces_the_publisher(server):
    file = server.published("big.tar")
    elsewhere = Published(file.name, "http://publisher.invalid/big.tar", file.checksum)
    obtain([elsewhere], "data", mirror=f"{server.url}/mirror/")
    assert server.requests == [("/mirror/big.tar", None)]
    Path("mine").mkdir()
    Path("mine/big.tar").write_bytes(CONTENT)
    assert obtain([elsewhere], "more", "mine", offline=True)[0].read_bytes() == CONTENT
    Path("mine/big.tar").write_bytes(CONTENT[::-1])
    with pytest.raises(CdlError, match="mine/big.tar is not the published file"):
        obtain([elsewhere], "third", "mine")
    with pytest.raises(CdlError, match="could not be fetched from empty/big.tar .*No such file"):
        obtain([elsewhere], "third", "empty")
    with pytest.raises(CdlError, match="could not be fetched from .*/gone.tar .404"):
        obtain([Published("gone.tar", f"{server.url}/gone.tar", file.checksum)], "third")


def test_offline_lists_every_missing_file_and_its_path(server):
    files = [server.published(name) for name in server.files]
    Path("data").mkdir()
    for mirror in (None, server.url):
        with pytest.raises(
            CdlError, match=r"place these files manually: data/big.tar \(from .*/big.tar\), data"
        ):
            obtain(files, "data", mirror, offline=True)
    for name, content in server.files.items():
        Path("data", name).write_bytes(content)
    assert len(obtain(files, "data", offline=True)) == 2
    assert server.requests == []


def test_a_missing_network_is_reported_in_one_sentence():
    file = Published("big.tar", "http://127.0.0.1:9/big.tar", "md5:0")  # no server on this port
    with pytest.raises(CdlError, match="could not be fetched .* manually as data/big.tar .from ht"):
        obtain([file], "data")


# ---- backbones by timm's tag


@pytest.fixture
def weights():
    """A classifier of timm with two blocks, in place of the published weights."""
    torch.manual_seed(0)
    return timm.create_model(TAG.split(".")[0], depth=2, num_classes=5)


@pytest.fixture
def hub(server, weights, monkeypatch):
    """The local server in place of the Hub."""
    save_file(weights.state_dict(), "model.safetensors")
    server.files["model.safetensors"] = Path("model.safetensors").read_bytes()
    for name in ("hf_hub_url", "hf_hub_download"):
        function = getattr(huggingface_hub, name)
        monkeypatch.setattr(huggingface_hub, name, partial(function, endpoint=server.url))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "cache")
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **o: create(name, **o, depth=2))
    return server


def test_a_timm_tag_is_fetched_recorded_and_verified_later(hub, weights):
    backbones.fetch("b.safetensors", "timm", TAG)
    assert [path for path, _ in hub.requests] == [f"/timm/{TAG}/resolve/main/model.safetensors"]
    images = torch.rand(1, 3, 224, 224)
    expected = weights.eval().forward_features((images - 0.5) / 0.5)[:, 0]
    torch.testing.assert_close(
        FrozenViT.load("b.safetensors", 224, "backbone").query(images), expected
    )
    sha256 = hashlib.sha256(hub.files["model.safetensors"]).hexdigest()
    assert json.loads(Path("b.json").read_text())["file_sha256"] == sha256
    record = Path("config/checksums", f"{TAG}.safetensors.sha256")
    assert record.read_text() == f"{sha256}  {TAG}.safetensors\n"

    backbones.fetch("b.safetensors", "timm", TAG)
    backbones.fetch("b.safetensors", "timm", TAG, offline=True)
    assert len(hub.requests) == 1  # read from the Hub's cache

    (file,) = Path("cache").glob("*/snapshots/*/model.safetensors")
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.resolve().write_bytes(raw)  # one bit flipped on disk
    with pytest.raises(
        CdlError, match="has sha256 .* expected .*config/checksums.*: delete .*cache.* and run"
    ):
        backbones.fetch("c.safetensors", "timm", TAG)
    shutil.rmtree("cache")
    hub.files["model.safetensors"] = bytes(raw)  # the published file changed
    with pytest.raises(CdlError, match="the file on the Hub has changed"):
        backbones.fetch("c.safetensors", "timm", TAG)
    assert not Path("c.safetensors").exists()


def test_gated_and_missing_weights_are_reported_with_a_remedy(hub):
    del hub.files["model.safetensors"]
    with pytest.raises(CdlError, match=f"could not .*manually as data/backbones/{TAG}.safetens"):
        backbones.fetch("b.safetensors", "timm", TAG)
    hub.status = 401
    with pytest.raises(
        CdlError, match=f"accept its terms at https://huggingface.co/timm/{TAG} and log in with"
    ):
        backbones.fetch("b.safetensors", "timm", TAG)
    assert not Path("config/checksums").exists()


def test_a_file_that_is_not_safetensors_is_neither_loaded_nor_recorded(hub):
    pickled = io.BytesIO()
    torch.save({"a": torch.ones(1)}, pickled)
    hub.files["model.safetensors"] = pickled.getvalue()
    with pytest.raises(CdlError, match="cannot be read.*delete it and run again"):
        backbones.fetch("b.safetensors", "timm", TAG)
    assert not Path("config/checksums").exists()


def test_an_interrupted_download_without_checksum_restarts(hub):
    hub.files[f"{TAG}.safetensors"] = hub.files["model.safetensors"]
    hub.stop_after = 1_000_000
    with pytest.raises(CdlError, match="could not be fetched"):
        backbones.fetch("b.safetensors", "timm", TAG, mirror=hub.url)
    hub.stop_after = None
    backbones.fetch("b.safetensors", "timm", TAG, mirror=hub.url)
    assert [byte_range for _, byte_range in hub.requests] == [None, None]


def test_backbones_offline_and_from_a_folder(hub, weights):
    with pytest.raises(CdlError, match=f"data/backbones/{TAG}.safetensors .from .*/model.safet"):
        backbones.fetch("b.safetensors", "timm", TAG, offline=True)
    Path("mirror").mkdir()
    save_file(weights.state_dict(), Path("mirror", f"{TAG}.safetensors"))
    backbones.fetch("b.safetensors", "timm", TAG, mirror="mirror", offline=True)
    assert hub.requests == []


@pytest.mark.parametrize("tag", ["vit_tiny_patch16_224.nonsense", "vit_huge_patch3_5.augreg"])
def test_an_unknown_timm_tag_is_refused(tag):
    with pytest.raises(CdlError, match=f"timm .*{tag}|{tag}.* timm"):
        backbones.fetch("b.safetensors", "timm", tag)


# ---- datasets that are published as archives


def add(tar, name, content=b"", **fields):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for field, value in fields.items():
        setattr(member, field, value)
    tar.addfile(member, io.BytesIO(content))


def publish(monkeypatch, name, files):
    """Replace the published files of a source."""
    monkeypatch.setitem(SOURCES._merged[0], name, replace(SOURCES[name], published=files))


def jpeg(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 20, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


LISTS = {  # labels are not in the order of folders; some paths have another parent folder
    "train": ["n02/art_0.jpg", "n01/toy_3.jpg", "train/n03/art_1.jpg", "n01/art_0.jpg"],
    "test": ["n03/art_0.jpg", "test/n01/sketch_7.jpg", "n02/misc_11.jpg"],
}
LABELS = {"n02": 0, "n03": 1, "n01": 2}


@pytest.fixture
def imagenet_r(server, monkeypatch):
    """Publish a small archive and lists with the structure of the real ones."""
    buffer, names = io.BytesIO(), [name for listed in LISTS.values() for name in listed]
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        add(tar, "imagenet-r", type=tarfile.DIRTYPE)
        add(tar, "imagenet-r/README.txt", b"n01 goldfish\n")
        for i, name in enumerate(names):
            add(tar, f"imagenet-r/{'/'.join(name.split('/')[-2:])}", jpeg(i))
    server.files["imagenet-r.tar"] = buffer.getvalue()
    for split, listed in LISTS.items():
        lists = {
            "data": [f"data/imagenet-r/{name}" for name in listed],
            "targets": [LABELS[name.split("/")[-2]] for name in listed],
        }
        server.files[f"imagenet-r_{split}.yaml"] = yaml.dump(lists).encode()
    files = [server.published(f.name) for f in SOURCES["imagenet_r"].published]
    publish(monkeypatch, "imagenet_r", tuple(files))
    return server


SOURCE = {"name": "imagenet_r", "root": "data/imagenet-r"}


def test_imagenet_r_is_fetched_checked_and_read_in_place(imagenet_r):
    archives.fetch("fetched.json", **SOURCE)
    assert list(artifacts.read_json("fetched.json")) == [
        "imagenet-r.tar",
        "imagenet-r_train.yaml",
        "imagenet-r_test.yaml",
    ]
    prepare("packed", SOURCE, short_side=6)
    train, test = Packed("packed", "train"), Packed("packed", "test")
    assert train.classes == ["n02", "n03", "n01"]
    assert train.labels.tolist() == [0, 2, 1, 2]
    assert test.labels.tolist() == [1, 2, 0]
    assert train.names.tolist()[2] == "n03/art_1.jpg"
    ((images, sizes, _),) = train.pixels(torch.tensor([1])).parts(torch.tensor([0]))
    assert sizes.tolist() == [[6, 10]]
    with Image.open(io.BytesIO(jpeg(1))) as image:
        expected = np.asarray(image.resize((10, 6), Image.Resampling.BILINEAR))
    assert np.array_equal(images[0].permute(1, 2, 0), expected)
    assert sorted(p.name for p in Path(SOURCE["root"]).iterdir()) == [
        "imagenet-r.tar",
        "imagenet-r_test.yaml",
        "imagenet-r_train.yaml",
    ]  # nothing was unpacked


def test_a_changed_list_or_archive_is_refused(imagenet_r):
    for name in ("imagenet-r.tar", "imagenet-r_test.yaml"):
        raw = bytearray(imagenet_r.files[name])
        raw[len(raw) // 2] ^= 1
        kept, imagenet_r.files[name] = imagenet_r.files[name], bytes(raw)
        with pytest.raises(CdlError, match=f"{name} has md5 .* expected "):
            archives.fetch("fetched.json", **SOURCE)
        imagenet_r.files[name] = kept
        assert not Path("fetched.json").exists()
    archives.fetch("fetched.json", **SOURCE)


@pytest.mark.parametrize("below", ["", "imagenet-r"])
def test_a_rearranged_tree_is_refused(imagenet_r, below):
    root = Path(SOURCE["root"])
    for split in ("train", "test"):
        (root / below / split / "n01").mkdir(parents=True)
    for attempt in (lambda: archives.fetch("f.json", **SOURCE), lambda: prepare("p", SOURCE)):
        with pytest.raises(CdlError, match="rearranged by another tool .*put imagenet-r.tar as"):
            attempt()
    assert imagenet_r.requests == []
    (root / "imagenet-r.tar").write_bytes(imagenet_r.files["imagenet-r.tar"])
    archives.fetch("f.json", **SOURCE)  # only the archive is read
    prepare("p", SOURCE)


def test_the_real_files_offline():
    with pytest.raises(CdlError, match="offline") as error:
        archives.fetch("fetched.json", **SOURCE, offline=True)
    for name, origin in (
        ("imagenet-r.tar", "https://people.eecs.berkeley.edu/~hendrycks/imagenet-r.tar"),
        ("imagenet-r_train.yaml", "https://raw.githubusercontent.com/GT-RIPL/CODA-Prompt/"),
        ("imagenet-r_test.yaml", "https://raw.githubusercontent.com/GT-RIPL/CODA-Prompt/"),
    ):
        assert f"data/imagenet-r/{name} (from {origin}" in str(error.value)
    checksums = [file.checksum for file in SOURCES["imagenet_r"].published]
    assert checksums == [
        "md5:a61312130a589d0ca1a8fca1f2bd3337",
        "md5:b90d9c763369c87dbd9becb80abd83b3",
        "md5:3ea5a3aa2e96578874254d4ee87321b3",
    ]


def hostile(tmp_path):
    """Write an archive with members outside its folder."""
    path = tmp_path / "root" / "imagenet-r.tar"
    path.parent.mkdir()
    (tmp_path / "secret.jpg").write_bytes(jpeg(0))
    with tarfile.open(path, "w") as tar:
        add(tar, "../escaped.jpg", jpeg(0))
        add(tar, f"{tmp_path}/absolute.jpg", jpeg(0))
        linked = {"type": tarfile.SYMTYPE, "linkname": f"{tmp_path}/secret.jpg"}
        add(tar, "imagenet-r/n01/link.jpg", **linked)
        hard = {"type": tarfile.LNKTYPE, "linkname": "../../secret.jpg"}
        add(tar, "imagenet-r/n01/hard.jpg", **hard)
        add(tar, "imagenet-r/n01/device.jpg", type=tarfile.FIFOTYPE)
        add(tar, "imagenet-r/n01/good.jpg", jpeg(1))
    return path


@pytest.mark.parametrize("name", ["link", "hard", "device", "absent"])
def test_a_hostile_archive_writes_nothing_and_links_nowhere(tmp_path, name):
    path = hostile(tmp_path)
    for split, file in (("train", f"a/n01/{name}.jpg"), ("test", "a/n01/good.jpg")):
        lists = {"data": [file], "targets": [0]}
        path.with_name(f"imagenet-r_{split}.yaml").write_text(yaml.dump(lists))
    before = set(tmp_path.rglob("*"))
    with pytest.raises(CdlError, match=f"contains no file 'imagenet-r/n01/{name}.jpg'"):
        prepare(tmp_path / "packed", {"name": "imagenet_r", "root": str(path.parent)})
    assert set(tmp_path.rglob("*")) - before == {tmp_path / "packed"}
    assert not (tmp_path.parent / "escaped.jpg").exists()


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ("data: [a/n01/x.jpg]", "cannot be read as a split file .'targets'"),
        ("data: [a/n01/x.jpg]\ntargets: []", "cannot be read as a split file"),
        ("data: [x.jpg]\ntargets: [0]", "invalid entry 'x.jpg' with label 0; expected FOLDER/NAME"),
        ("data: [a/n01/x.jpg]\ntargets: [one]", "with label 'one'; expected FOLDER"),
        ("data: [a/n01/x.jpg]\ntargets: [1]", "none of the 1 classes has label 0"),
        ("data: [n01/x.jpg, n02/x.jpg]\ntargets: [0, 0]", "n02/x.jpg has label 0, .* of 'n01'"),
        ("!!python/object/apply:os.mkdir [pwned]", "cannot be read as a split file"),
    ],
)
def test_an_invalid_split_file_is_refused(tmp_path, lists, message):
    path = hostile(tmp_path)
    for split in ("train", "test"):
        path.with_name(f"imagenet-r_{split}.yaml").write_text(lists)
    with pytest.raises(CdlError, match=message):
        prepare("packed", {"name": "imagenet_r", "root": str(path.parent)})
    assert not Path("pwned").exists()


@pytest.fixture
def cifar100(server, monkeypatch):
    """Three images of each split in CIFAR-100's binary edition."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        add(tar, "cifar-100-binary/fine_label_names.txt", b"apple\nbear\n")
        for split, images in (("train", pixels[:3]), ("test", pixels[3:])):
            rows = [
                bytes([19, label]) + image.transpose(2, 0, 1).tobytes()
                for label, image in zip((1, 0, 1), images, strict=True)
            ]
            add(tar, f"cifar-100-binary/{split}.bin", b"".join(rows))
    server.files["cifar-100-binary.tar.gz"] = buffer.getvalue()
    file = server.published("cifar-100-binary.tar.gz")
    publish(monkeypatch, "cifar100", (file,))
    return pixels


def test_cifar100_needs_no_pickle(cifar100, monkeypatch):
    monkeypatch.delattr("pickle.load")
    monkeypatch.delattr("pickle.loads")
    source = {"name": "cifar100", "root": "data/cifar100"}
    archives.fetch("fetched.json", **source)
    prepare("packed", source)
    test = Packed("packed", "test")
    assert test.classes == ["apple", "bear"]
    assert test.labels.tolist() == [1, 0, 1]
    ((images, _, _),) = test.pixels(torch.arange(3)).parts(torch.arange(3))
    assert np.array_equal(images.permute(0, 2, 3, 1), cifar100[3:])


def test_cifar100_with_some_of_its_classes(cifar100):
    source = {"name": "cifar100", "root": "data/cifar100", "classes": ["bear"]}
    archives.fetch("fetched.json", **source)
    archives.check(**source)
    prepare("packed", source)
    train = Packed("packed", "train")
    assert train.classes == ["bear"] and train.labels.tolist() == [0, 0]
    ((images, _, _),) = train.pixels(torch.arange(2)).parts(torch.arange(2))
    assert np.array_equal(images.permute(0, 2, 3, 1), cifar100[[0, 2]])
    with pytest.raises(CdlError, match="^classes: 'bare' is not a class; expected each of the 2"):
        prepare("packed", source | {"classes": ["bare"]})


@pytest.fixture
def cifar10(server, monkeypatch):
    """Two images in each file of CIFAR-10's binary edition."""
    pixels = np.random.default_rng(1).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    files = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        add(tar, "cifar-10-batches-bin/batches.meta.txt", b"airplane\nautomobile\n\n")
        for i, file in enumerate(files):
            images = enumerate(pixels[2 * i : 2 * i + 2])
            rows = [bytes([1 - j]) + image.transpose(2, 0, 1).tobytes() for j, image in images]
            add(tar, f"cifar-10-batches-bin/{file}.bin", b"".join(rows))
    server.files["cifar-10-binary.tar.gz"] = buffer.getvalue()
    file = server.published("cifar-10-binary.tar.gz")
    publish(monkeypatch, "cifar10", (file,))
    return pixels


def test_cifar10_is_fetched_checked_and_read_in_the_order_of_its_files(cifar10):
    source = {"name": "cifar10", "root": "data/cifar10"}
    archives.fetch("fetched.json", **source)
    prepare("packed", source)
    train, test = Packed("packed", "train"), Packed("packed", "test")
    assert train.classes == ["airplane", "automobile"]
    assert train.labels.tolist() == [1, 0] * 5 and test.labels.tolist() == [1, 0]
    assert train.names.tolist() == [f"train[{i}]" for i in range(10)]
    ((images, _, _),) = train.pixels(torch.arange(10)).parts(torch.arange(10))
    assert np.array_equal(images.permute(0, 2, 3, 1), cifar10[:10])
    ((images, _, _),) = test.pixels(torch.arange(2)).parts(torch.arange(2))
    assert np.array_equal(images.permute(0, 2, 3, 1), cifar10[10:])


def test_a_truncated_file_of_cifar10_is_reported(cifar10, server):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        add(tar, "cifar-10-batches-bin/batches.meta.txt", b"airplane\n")
        add(tar, "cifar-10-batches-bin/data_batch_1.bin", bytes(3072))
    Path("data").mkdir()
    Path("data/cifar-10-binary.tar.gz").write_bytes(buffer.getvalue())
    with pytest.raises(
        CdlError, match="data_batch_1.bin has 3072 bytes; expected a multiple of 3,073"
    ):
        prepare("packed", {"name": "cifar10", "root": "data"})


@pytest.mark.parametrize("keep", [100, 9000])
def test_a_truncated_archive_is_reported_in_one_sentence(cifar100, server, keep):
    Path("data").mkdir()
    Path("data/cifar-100-binary.tar.gz").write_bytes(server.files["cifar-100-binary.tar.gz"][:keep])
    with pytest.raises(CdlError, match="cifar-100-binary.tar.gz .*--forcerun fetch_dataset"):
        prepare("packed", {"name": "cifar100", "root": "data"})


# ---- only the two fetch rules use the network


def test_compute_jobs_open_no_connection(imagenet_r, cifar100, monkeypatch):
    for name in ("imagenet_r", "cifar100"):
        archives.fetch(f"{name}.json", name, "data")
    backbones.fetch("b.safetensors", "embedded", "vit_nano_patch4_32")

    def connect(*_):
        raise AssertionError("a compute job opened a connection")

    monkeypatch.setattr("socket.socket.connect", connect)
    monkeypatch.setattr("socket.getaddrinfo", connect)
    for source in ({"name": "imagenet_r", "root": "data"}, {"name": "cifar100", "root": "data"}):
        prepare("packed", source)
        Packed("packed", "train")
    FrozenViT.load("b.safetensors", 16, "backbone")


# ---- in the workflow

CONFIG = """
name: fetched
datasets: {pictures: {source: %s, tasks: 2, view: {size: 16}}}
backbones: {nano: {embedded: vit_nano_patch4_32}, micro: {embedded: vit_micro_patch4_32}}
grid: {methods: [head_only], pairs: [{teacher: micro, student: nano}], distillers: [none]}
"""


def snakemake(*arguments):
    command = ["snakemake", "--snakefile", ROOT / "Snakefile", "--cores", "1", *arguments]
    return run_module(*command, "--configfile", "config.yaml", "--quiet", "host", "reason")


@pytest.mark.slow
def test_offline_fails_in_one_sentence_and_other_jobs_run(server):
    Path("config.yaml").write_text(CONFIG % "{imagenet_r: {}}" + "fetch: {offline: true}\n")
    result = snakemake("--until", "fetch_dataset", "fetch_backbone", "--keep-going")
    assert result.returncode != 0
    expected = (
        "cdl: fetch.offline is set; place these files manually: data/imagenet-r/imagenet-r.tar"
    )
    assert f"{expected} (from" in result.stderr
    assert "Traceback (most recent call last)" not in result.stderr.split("cdl: ")[0][-2000:]
    assert (
        len(list(Path("results/backbones").glob("*.safetensors"))) == 2
    )  # the jobs that need no network
    plan = snakemake("-n", "--until", "fetch_backbone", "fetch_dataset").stdout
    assert "fetch_dataset" in plan
    assert "fetch_backbone" not in plan


def parquet_source():
    frame = pd.DataFrame({"image": [jpeg(0), jpeg(1)], "label": [0, 1]})
    other = frame.assign(image=[jpeg(2), jpeg(3)])
    Path("given").mkdir()
    for split in ("train", "test"):
        frame.to_parquet(f"given/{split}.parquet")
        frame = other
    file = Path("given/test.parquet")
    return "{parquet: {path: given}}", file, lambda: frame[::-1].to_parquet(file)


def folder_source():
    for i, (split, name) in enumerate(product(("train", "test"), ("ant", "bee"))):
        file = Path("given", split, name, "x.png")
        file.parent.mkdir(parents=True)
        Image.new("RGB", (4, 4), (i, 0, 0)).save(file, compress_level=0)
    size = file.stat().st_size

    def change():
        Image.new("RGB", (4, 4), (77, 0, 0)).save(file, compress_level=0)
        assert file.stat().st_size == size  # only the pixels differ

    return "{folder: {path: given}}", file, change


@pytest.mark.slow
@pytest.mark.parametrize("source", [parquet_source, folder_source])
@pytest.mark.parametrize("time", [1e9, 4e9])  # of the changed file: in the past and in the future
def test_a_dataset_changed_on_disk_is_prepared_again(source, time):
    text, file, change = source()
    Path("config.yaml").write_text(CONFIG % text)
    assert snakemake("--until", "prepare_dataset").returncode == 0
    os.utime(file, (time, time))  # unchanged content
    assert "prepare_dataset" not in snakemake("-n", "--until", "prepare_dataset").stdout
    change()
    os.utime(file, (time + 1, time + 1))
    assert "prepare_dataset" in snakemake("-n", "--until", "prepare_dataset").stdout


@pytest.mark.slow
def test_only_tasks_of_changed_images_run_again():
    folder_source()
    text = CONFIG.replace("tasks: 2", "tasks: [1, 1]") % "{folder: {path: given}}"
    text = text.replace("head_only", "simple_cil")  # whose tasks may have one class
    text += "training: {epochs: 1, batch_size: 1}\nprotocol: {class_order: natural}\n"
    Path("config.yaml").write_text(text)
    goal = "results/fetched/pictures/simple_cil/student-nano-q-nano/seed0/task1/learner.safetensors"
    result = snakemake(goal)
    assert result.returncode == 0, result.stderr
    for split in ("train", "test"):  # a further class that is in no task
        shutil.copytree(f"given/{split}/bee", f"given/{split}/cow")
    planned = snakemake("-n", goal).stdout
    assert "prepare_dataset" in planned and not re.search(r"^train +\d", planned, re.MULTILINE)
    Image.new("RGB", (4, 4), (99, 0, 0)).save("given/train/bee/x.png", compress_level=0)
    assert re.search(r"^train +1$", snakemake("-n", goal).stdout, re.MULTILINE)
