"""Students are uploaded to a stand-in for the Hub and loaded from it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from exported import MADE_FROM, write_student
from hub import TOKEN, HubServer
from huggingface_hub import ModelCard
from PIL import Image

import cdl
from cdl.deployment import manifest
from cdl.deployment.hub import Upload, fetch
from cdl.device.versions import add_version
from cdl.runtime.errors import CdlError

ROOT = Path(__file__).parents[2]
CARD = "---\nlicense: mit\ntags: [continual-learning]\n---\n# A student\n"
IMAGE = np.zeros((4, 4, 3), np.uint8) + np.uint8([1, 9, 5])  # green
NAME = "me/birds"


@pytest.fixture
def server():
    made = HubServer()
    yield made
    made.close()


@pytest.fixture
def hub(server, tmp_path, monkeypatch):
    """The server in place of the Hub, with the token of its owner."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    server.replace_hub(monkeypatch, tmp_path / "cache")
    return server


def student(folder="student", card=CARD, **options):
    folder = write_student(Path(folder), **options)
    (folder / "card.md").write_text(card)
    manifest.write(folder, MADE_FROM)
    return folder


def push(folder, private=False):
    return Upload.of(folder, NAME, private).send()


def test_a_pushed_student_is_loaded_with_its_card_as_readme(hub):
    folder = student()
    (folder / "notes.txt").write_text("of my own")
    url = push(folder)
    model = hub.models[NAME]
    assert url == f"{hub.url}/{NAME}/commit/{model.sha(1)}" and not model.private
    files = {**model.commits[1]}
    assert files.pop("README.md").decode() == CARD
    assert ModelCard(CARD).data.license == "mit"
    del files[".gitattributes"]
    names = {path.name for path in folder.iterdir()} - {"notes.txt"}
    assert files == {name: (folder / name).read_bytes() for name in names}
    loaded = cdl.load(f"hf://{NAME}")
    assert loaded.predict([IMAGE]) == ["green"]
    assert not any(manifest.compare(fetch(f"hf://{NAME}")).values())


def test_an_earlier_revision_is_loaded_by_its_name(hub):
    push(student())
    first = hub.models[NAME].sha(1)
    push(student("other", names=("rot", "gelb", "blau")))
    assert cdl.load(f"hf://{NAME}").predict([IMAGE]) == ["gelb"]
    assert cdl.load(f"hf://{NAME}@{first}").predict([IMAGE]) == ["green"]
    assert cdl.load(f"hf://{NAME}@main").predict([IMAGE]) == ["gelb"]
    with pytest.raises(CdlError, match=f"hf://{NAME}@v9: could not be fetched"):
        cdl.load(f"hf://{NAME}@v9")


def test_the_current_version_is_uploaded_without_those_between(hub):
    folder = student()
    for i, names in enumerate([("rot", "gelb", "blau"), ("rouge", "vert", "bleu")]):
        text = "".join(f"{name}\n" for name in names)
        add_version(folder, i, lambda made, text=text: (made / "classes.txt").write_text(text))
    push(folder)
    names = hub.models[NAME].commits[-1].keys()
    assert {"current", "versions/2/classes.txt", "versions/2/manifest.json"} <= names
    assert not any(name.startswith("versions/1/") for name in names)
    found = manifest.compare(fetch(f"hf://{NAME}"))
    assert found["versions/2/classes.txt"] == "" and not any(found.values())


def test_files_of_the_student_before_are_deleted_and_others_kept(hub):
    push(student())
    old = {"current": b"1\n", "versions/1/classes.txt": b"a\n", "figure.png": b"png"}
    hub.models[NAME].commits.append(hub.models[NAME].commits[-1] | old)
    push(student("other", scale=2.0))
    assert old.keys() & hub.models[NAME].commits[-1].keys() == {"figure.png"}


def test_a_private_student_needs_the_token(hub, monkeypatch):
    push(student(), private=True)
    assert hub.models[NAME].private
    assert cdl.load(f"hf://{NAME}").predict([IMAGE]) == ["green"]
    monkeypatch.setenv("HF_TOKEN", "hf_of_another")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "empty")
    with pytest.raises(CdlError, match="could not be fetched .* if it is private, log in with"):
        cdl.load(f"hf://{NAME}")
    with pytest.raises(CdlError, match=f"{NAME}: could not be written .*401.* log in with"):
        push(Path("student"))


def test_a_public_model_is_not_written_as_if_it_were_private(hub):
    push(student())
    with pytest.raises(CdlError, match="it exists and is public; make it private there"):
        push(student("other"), private=True)
    assert len(hub.models[NAME].commits) == 2


def test_a_student_for_timm_says_that_timm_loads_it(hub):
    folder = student()
    (folder / "model.onnx").rename(folder / "model.safetensors")
    manifest.write(folder, MADE_FROM)
    upload = Upload.of(folder, NAME, private=True)
    assert upload.loading == f"timm.create_model('hf-hub:{NAME}', pretrained=True)"
    upload.send()
    with pytest.raises(CdlError, match="is a student exported for timm, which loads it"):
        cdl.load(f"hf://{NAME}")


def test_a_model_of_another_kind_is_not_downloaded(hub):
    push(student())
    del hub.models[NAME].commits[-1]["manifest.json"]
    with pytest.raises(CdlError, match="expected a student that `cdl push` has uploaded"):
        cdl.load(f"hf://{NAME}")
    assert not any("model.onnx" in path for verb, path in hub.requests if verb == "GET")


def test_a_student_that_was_changed_on_the_hub_is_refused(hub):
    push(student())
    hub.models[NAME].commits[-1]["classes.txt"] = b"blue\ngreen\nred\n"
    with pytest.raises(CdlError, match="classes.txt: was damaged or changed"):
        cdl.load(f"hf://{NAME}")


def change(name, content):
    def apply(folder):
        (folder / name).write_text(content)

    return apply


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (change("classes.txt", "a\nb\nc\n"), "student/classes.txt: was damaged or changed"),
        (change("manifest.json", "{}"), "student/manifest.json: was damaged or changed"),
        (lambda f: (f / "model.onnx").unlink(), "student/model.onnx: is missing; export"),
        (lambda f: (f / "card.md").unlink(), "student/card.md: is missing; export"),
        (lambda f: (f / "manifest.json").unlink(), "not the folder of an exported student"),
        (change("card.md", "# A student\n"), "card.md: its metadata has no licence; expected"),
        (change("card.md", "---\na: [\n---\n"), "card.md: cannot be read as a model card"),
    ],
)
def test_a_folder_that_is_not_as_exported_is_refused_before_any_request(hub, edit, message):
    folder = student()
    edit(folder)
    with pytest.raises(CdlError, match=message):
        push(folder)
    assert hub.requests == [] and hub.models == {}


def test_the_card_may_be_edited(hub):
    folder = student()
    (folder / "card.md").write_text(CARD.replace("mit", "cc-by-4.0"))
    push(folder)
    assert b"license: cc-by-4.0" in hub.models[NAME].commits[-1]["README.md"]
    assert cdl.load(f"hf://{NAME}").predict([IMAGE]) == ["green"]


@pytest.mark.parametrize("name", ["birds", "me/", "me/birds/x", "../birds", "me/bi rds"])
def test_an_invalid_name_is_refused(hub, name):
    with pytest.raises(CdlError, match="expected OWNER/NAME"):
        Upload.of(student(), name, False)
    with pytest.raises(CdlError, match=r"expected hf://OWNER/NAME\[@REVISION\]"):
        cdl.load(f"hf://{name}")
    assert hub.requests == []


def cdl_command(server, folder, *arguments):
    """Start `cdl` with the Hub's own environment variables."""
    environment = {
        **os.environ,
        **{"HF_ENDPOINT": server.url, "HF_TOKEN": TOKEN, "HF_HOME": str(folder / "home")},
        **{"NO_PROXY": "*", "HF_HUB_DISABLE_XET": "1", "PYTHONPATH": str(ROOT)},
    }
    environment.pop("HF_HUB_CACHE", None)
    command = [sys.executable, "-m", "cdl", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=folder, env=environment
    )


def test_the_commands_list_upload_and_predict(server, tmp_path):
    student(tmp_path / "student")
    Image.fromarray(IMAGE).save(tmp_path / "photo.png")
    listed = cdl_command(server, tmp_path, "push", "student", NAME, "--dry-run")
    assert listed.returncode == 0 and server.requests == [], listed.stderr
    assert f"to {server.url}/{NAME} (private)" in listed.stdout and "licence mit" in listed.stdout
    for name in ("README.md", "model.onnx", "classes.txt", "manifest.json"):
        assert f" MB  {name}\n" in listed.stdout
    public = cdl_command(server, tmp_path, "push", "student", NAME, "--dry-run", "--public")
    assert f"to {server.url}/{NAME} (public, unless it exists" in public.stdout
    pushed = cdl_command(server, tmp_path, "push", "student", NAME)
    assert pushed.returncode == 0, pushed.stderr
    assert f"load it with cdl.load('hf://{NAME}')" in pushed.stdout
    assert server.models[NAME].private
    other = cdl_command(server, tmp_path, "push", "student", "me/open", "--public")
    assert other.returncode == 0 and not server.models["me/open"].private
    refused = cdl_command(server, tmp_path, "push", "student", "me/open", "--private")
    assert "it exists and is public; make it private there, or give --public" in refused.stderr
    found = cdl_command(server, tmp_path, "predict", f"hf://{NAME}", "photo.png", "--csv")
    assert found.returncode == 0, found.stderr
    assert "green" in found.stdout.splitlines()[1]
    wrong = cdl_command(server, tmp_path, "predict", "hf://me/cats", "photo.png")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("cdl: hf://me/cats: could not be fetched (")
    assert len(wrong.stderr.splitlines()) == 1
