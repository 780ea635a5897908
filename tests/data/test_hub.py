"""Datasets of the Hugging Face Hub: fetched at one commit, recorded, verified, mirrored, offline.

A folder replaces the Hub; the fake client copies matching files from it.
"""

import io
import json
import shutil
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from forked import run_module
from huggingface_hub import errors
from PIL import Image

from cdl.data.packed import Packed
from cdl.data.packing import prepare
from cdl.data.sources import archives
from cdl.data.sources.summary import summarise
from cdl.runtime.errors import CdlError
from cdl.study.configuration import ConfigError, resolve
from cdl.study.grid import Grid

ROOT = Path(__file__).parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
SOURCE = {
    **{"name": "hub", "id": "owner/birds", "revision": COMMIT, "root": "data/hub"},
    **{"train": "data/train-*.parquet", "test": "data/test-*.parquet"},
    **{"image": "image", "label": "label"},
}
FOLDER = Path("data/hub/owner/birds", COMMIT)
RECORD = Path("config/checksums", f"owner--birds@{COMMIT}.sha256")
NAMES = {"names": ["wren", "crow"], "_type": "ClassLabel"}


def png(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def table(seed, label=NAMES):
    images = [{"bytes": png(seed + i), "path": f"{i}.png"} for i in range(4)]
    described = json.dumps({"info": {"features": {"label": label}}})
    return pa.table({"image": images, "label": pa.array([0, 1, 1, 0])}).replace_schema_metadata(
        {"huggingface": described}
    )


class Hub:
    """Fake Hub client: files in a folder, and a record of the requests."""

    def __init__(self, folder):
        self.folder, self.requests, self.error = folder, [], None

    def snapshot_download(self, repo, *, repo_type, revision, allow_patterns, local_dir):
        self.requests.append((repo, repo_type, revision))
        if self.error:
            raise self.error
        for file in self.folder.rglob("*.*"):
            name = file.relative_to(self.folder).as_posix()
            if any(fnmatch(name, pattern) for pattern in allow_patterns):
                target = Path(local_dir, name)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = Hub(tmp_path / "remote")
    (made.folder / "data").mkdir(parents=True)
    for i, name in enumerate(["train-0", "train-1", "test-0", "extra-0"]):
        pq.write_table(table(10 * i), made.folder / "data" / f"{name}.parquet")
    (made.folder / "script.py").write_text("raise SystemExit")
    monkeypatch.setattr("huggingface_hub.snapshot_download", made.snapshot_download)
    return made


def test_files_of_one_commit_are_fetched_once_recorded_and_packed(hub):
    archives.fetch("fetched.json", **SOURCE)
    archives.fetch("fetched.json", **SOURCE, offline=True)
    archives.fetch("fetched.json", **SOURCE)
    assert hub.requests == [("owner/birds", "dataset", COMMIT)]
    lines = [line.split("  ") for line in RECORD.read_text().splitlines()]
    assert [name for _, name in lines] == [
        f"data/{n}.parquet" for n in ("test-0", "train-0", "train-1")
    ]
    assert {n: s for s, n in lines}.items() <= json.loads(Path("fetched.json").read_text()).items()
    assert not (FOLDER / "script.py").exists()
    prepare("packed", SOURCE)
    train = Packed("packed", "train")
    assert train.classes == ["wren", "crow"]
    assert train.labels.tolist() == [0, 1, 1, 0] * 2
    assert train.names[4] == "data/train-1.parquet[0]"


def test_planning_from_the_files_needs_the_files(hub):
    with pytest.raises(CdlError, match=f"{FOLDER} does not exist yet.*--until fetch_dataset"):
        summarise(SOURCE, str)
    archives.fetch("fetched.json", **SOURCE)
    found = summarise(SOURCE, str)
    assert found.classes == {"wren": (4, 2), "crow": (4, 2)}


@pytest.mark.parametrize("described", [{"names": ["one"]}, {"dtype": "int64"}, {"names": [1, 1]}])
def test_labels_without_valid_names_are_their_own_names(hub, described):
    for i, file in enumerate(sorted((hub.folder / "data").iterdir())):
        pq.write_table(table(10 * i, described), file)
    archives.fetch("fetched.json", **SOURCE)
    assert list(summarise(SOURCE, str).classes) == ["0", "1"]


def test_a_changed_file_is_refused_by_fetching_and_by_verifying(hub):
    archives.fetch("fetched.json", **SOURCE)
    Path("fetched.json").unlink()
    pq.write_table(table(99), FOLDER / "data" / "test-0.parquet")
    message = "test-0.parquet has sha256 .* expected .*config/checksums.*: delete it and run"
    for attempt in (partial(archives.fetch, "fetched.json"), archives.check):
        with pytest.raises(CdlError, match=message):
            attempt(**SOURCE)
    assert not Path("fetched.json").exists()
    (FOLDER / "data" / "test-0.parquet").unlink()
    archives.fetch("fetched.json", **SOURCE)  # downloads the recorded file again
    archives.check(**SOURCE)


def test_a_recorded_file_that_the_hub_lost_is_an_error(hub):
    archives.fetch("fetched.json", **SOURCE)
    for folder in (hub.folder, FOLDER):
        (folder / "data" / "train-1.parquet").unlink()
    with pytest.raises(
        CdlError, match=r"train-1.parquet is missing but recorded in config/checksums/"
    ):
        archives.fetch("fetched.json", **SOURCE)


def test_offline_lists_the_files_to_place_and_uses_them(hub):
    message = (
        f"fetch.offline is set; place these files manually: data/train-.*owner/birds/tree/{COMMIT} "
        f"into {FOLDER}; or set fetch.mirror to a folder that contains owner/birds/{COMMIT}"
    )
    with pytest.raises(CdlError, match=message):
        archives.fetch("fetched.json", **SOURCE, offline=True)
    shutil.copytree(hub.folder / "data", FOLDER / "data")
    archives.fetch("fetched.json", **SOURCE, offline=True)
    (FOLDER / "data" / "train-0.parquet").unlink()  # the record now lists two training files
    with pytest.raises(CdlError, match="place these files manually"):
        archives.fetch("fetched.json", **SOURCE, offline=True)
    assert hub.requests == []


def test_a_mirror_is_a_folder_and_not_an_address(hub):
    with pytest.raises(CdlError, match="mirror/owner/birds/.* does not contain data/train"):
        archives.fetch("fetched.json", **SOURCE, mirror="mirror")
    shutil.copytree(hub.folder, Path("mirror/owner/birds", COMMIT))
    archives.fetch("fetched.json", **SOURCE, mirror="mirror", offline=True)
    assert not (FOLDER / "data" / "extra-0.parquet").exists()
    shutil.rmtree(FOLDER)
    with pytest.raises(CdlError, match="http://x is an address, .* or set HF_ENDPOINT"):
        archives.fetch("fetched.json", **SOURCE, mirror="http://x")
    assert hub.requests == []


def test_an_unreachable_hub_is_one_error(hub):
    hub.error = ConnectionError("no route\nto host")
    with pytest.raises(
        CdlError, match=r"owner/birds at .* could not be fetched .*\(no route\); run"
    ):
        archives.fetch("fetched.json", **SOURCE)
    hub.error = errors.GatedRepoError.__new__(errors.GatedRepoError)
    with pytest.raises(
        CdlError, match="gated: accept its terms at .*/datasets/owner/birds and log"
    ):
        archives.fetch("fetched.json", **SOURCE)


def config(change):
    block = {"id": "owner/birds", "revision": COMMIT} | change
    return {
        "name": "birds",
        "datasets": {"birds": {"source": {"hub": block}, "tasks": 2, "view": {"size": 16}}},
        "backbones": {
            "nano": {"embedded": "vit_nano_patch4_32"},
            "micro": {"embedded": "vit_micro_patch4_32"},
        },
        "grid": {
            "methods": ["head_only"],
            "pairs": [{"teacher": "micro", "student": "nano"}],
            "distillers": ["none"],
        },
    }


@pytest.mark.slow
def test_the_workflow_fetches_from_a_mirror_and_packs(hub):
    shutil.copytree(hub.folder, Path("mirror/owner/birds", COMMIT))
    Path("config.yaml").write_text(json.dumps(config({}) | {"fetch": {"mirror": "mirror"}}))
    command = ["snakemake", "--snakefile", ROOT / "Snakefile", "--cores", "1"]
    result = run_module(*command, "--until", "prepare_dataset", "--configfile", "config.yaml")
    assert result.returncode == 0, result.stderr[-3000:]
    (manifest,) = Path("results/data").glob("*/manifest.json")
    assert json.loads(manifest.read_text())["classes"] == ["wren", "crow"]
    assert len(RECORD.read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"revision": "main"}, "hub.revision: .*40 hexadecimal digits"),
        ({"id": "../birds"}, "hub.id: .*OWNER/NAME"),
        ({"train": "../x/*.parquet"}, "hub.train: .* without '..'"),
        ({"test": "**/*.parquet"}, "hub.test: .* without '..'"),
    ],
)
def test_an_invalid_block_is_refused_at_planning(change, message):
    with pytest.raises(ConfigError, match=f"datasets.birds.source.{message}"):
        Grid(resolve(config(change)))
