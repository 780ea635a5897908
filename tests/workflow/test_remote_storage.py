"""Results in remote storage: the whole workflow with an S3 server on this machine."""

import shutil
from pathlib import Path

import pytest
from runs import contents, run

MISSING = "needs moto[server] and snakemake-storage-plugin-s3, of the extra `test`"
pytest.importorskip("snakemake_storage_plugin_s3", reason=MISSING)  # before a run is made
moto = pytest.importorskip("moto.server", reason=MISSING)
PREFIX = "results/of/study"  # it contains the name of the folder of results
LAST = ("digits/coda_prompt/kd-vit_nano-from-vit_micro-q-vit_nano", "tables", "figures")
KEYS = {"access_key": "someone", "secret_key": "secret"}


@pytest.fixture
def bucket():
    """An empty bucket on a server of its own, with the URL of the server."""
    import boto3

    server = moto.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    store = boto3.resource(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=KEYS["access_key"],
        aws_secret_access_key=KEYS["secret_key"],
    )
    yield store.create_bucket(Bucket="bucket"), url
    server.stop()


def store_all_but_the_last(store, copied):
    """Store a finished study without one student and what is made of all students."""
    for name in LAST:
        shutil.rmtree(copied / "results" / "tiny" / name)
    files = [path for path in (copied / "results").rglob("*") if path.is_file()]
    for path in sorted(files, key=lambda path: path.stat().st_mtime_ns):
        store.upload_file(str(path), f"{PREFIX}/{path.relative_to(copied)}")


@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.nightly)])
def test_a_study_in_remote_storage_is_the_same_and_then_rests(
    bucket, finished, copied, tmp_path, whole
):
    store, url = bucket
    if not whole:
        store_all_but_the_last(store, copied)
    here, there = tmp_path / "started", tmp_path / "downloaded"
    here.mkdir()
    options = ["--default-storage-provider", "s3", "--default-storage-prefix"]
    options += [f"s3://{store.name}/{PREFIX}", "--storage-s3-endpoint-url", url]
    options += ["--storage-s3-region", "us-east-1"]
    for name, value in KEYS.items():
        options += [f"--storage-s3-{name.replace('_', '-')}", value]
    shared = ["persistence", "software-deployment", "source-cache", "sources"]  # no results
    options += ["--shared-fs-usage", *shared]

    first = run(here, *options)
    assert ("" if whole else "8 of 8 ") + "steps (100%) done" in first.stderr
    for stored in store.objects.all():
        file = there / Path(stored.key).relative_to(PREFIX)
        file.parent.mkdir(parents=True, exist_ok=True)
        store.download_file(stored.key, str(file))
    assert contents(there) == contents(finished)
    assert not contents(here), "all files are in the storage"
    assert "Nothing to be done" in run(here, *options).stderr
