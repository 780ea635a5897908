"""Classifiers by timm's tag and by their name on the Hub, from a stand-in for the Hub."""

import json
import shutil
from pathlib import Path

import pytest
import timm
from classifiers import of_timm, of_transformers
from hub import HubServer, Model

from cdl.backbones.classifiers import ClassifierSource
from cdl.backbones.fetch_classifier import fetch_classifier
from cdl.cli.backbones import fetch
from cdl.runtime.artifacts import fingerprint_file
from cdl.runtime.errors import CdlError

TAG, NAME = "test_efficientnet.r160_in1k", "own/digits"
CARD = b"---\nlicense: %s\n---\n# A classifier\n"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A stand-in for the Hub with a model of timm and one of transformers."""
    monkeypatch.chdir(tmp_path)
    server = HubServer()
    server.replace_hub(monkeypatch, tmp_path / "cache")
    for name, make in ((f"timm/{TAG}", of_timm), (NAME, of_transformers)):
        make(folder := tmp_path / "made" / name)
        files = {file.name: file.read_bytes() for file in folder.iterdir()}
        server.models[name] = Model(private=False, commits=[{**files, "README.md": CARD % b"mit"}])
    yield server
    server.close()


@pytest.mark.parametrize(("kind", "name"), [("timm", TAG), ("hf", NAME)])
def test_a_classifier_is_fetched_once_and_recorded(hub, kind, name):
    with pytest.raises(CdlError, match=f"run `cdl backbones fetch --classifier {name}`"):
        _ = ClassifierSource.of({kind: name}).files
    fetch_classifier(name)
    first, made = len(hub.requests), ClassifierSource.of({kind: name})
    repository = name if kind == "hf" else f"timm/{name}"
    assert made.origin == {
        "path": f"data/backbones/{repository}",
        "repository": repository,
        "revision": hub.models[repository].sha(0),
        "licence": "mit",
    }
    own = ClassifierSource(kind, Path("made", repository))
    assert made.sha256(fingerprint_file) == own.sha256(fingerprint_file)
    (record,) = Path("config/checksums").rglob(f"{name}/model.safetensors.sha256")
    assert record.read_text().startswith(fingerprint_file(own.path / "model.safetensors"))
    fetch_classifier(name)
    assert len(hub.requests) == first and made.origin["revision"]


def test_the_command_says_where_it_is_and_its_licence(hub, capsys):
    fetch([TAG, NAME], classifier=True)
    assert capsys.readouterr().out.splitlines() == [
        f"data/backbones/timm/{TAG}: a classifier, licence mit",
        f"data/backbones/{NAME}: a classifier, licence mit",
    ]


def test_a_revision_is_a_classifier_of_its_own(hub):
    first, commits = hub.models[NAME].sha(0), hub.models[NAME].commits
    commits.append({**commits[0], "README.md": CARD % b"other\nlicense_name: mine"})
    fetch_classifier(NAME, first)
    fetch_classifier(NAME)
    old, new = (ClassifierSource.of({"hf": NAME, "revision": own}) for own in (first, None))
    assert (old.licence, new.licence) == ("mit", "mine") and old.path != new.path


def test_a_card_that_cannot_be_read_names_no_licence(hub):
    own = Path("made", NAME)
    for text, licence in ((CARD % b"mit", "mit"), (CARD % b"mit\nlicense: [", None)):
        (own / "README.md").write_bytes(text)
        assert ClassifierSource.of({"hf": str(own.absolute())}).licence == licence


def test_a_model_that_changed_on_the_hub_is_refused(hub):
    fetch_classifier(NAME)
    (commit,) = hub.models[NAME].commits
    commit = commit | {"README.md": CARD % b"apache-2.0"}
    hub.models[NAME].commits.append(commit)
    shutil.rmtree("data")
    assert fetch_classifier(NAME).licence == "apache-2.0"  # only the card's text has changed
    hub.models[NAME].commits.append(commit | {"config.json": commit["config.json"] + b"\n"})
    shutil.rmtree("data")
    with pytest.raises(CdlError, match="config.json has sha256 .* the file on the Hub has changed"):
        fetch_classifier(NAME)


def test_the_cache_of_the_hub_is_used_without_a_network(hub, monkeypatch):
    fetch_classifier(NAME)
    shutil.rmtree("data")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    fetch_classifier(NAME)
    assert ClassifierSource.of({"hf": NAME}).licence == "mit"
    with pytest.raises(CdlError, match=f"timm/{TAG}/config.json could not be fetched from http"):
        fetch_classifier(TAG)


def test_a_folder_replaces_the_hub(hub):
    shutil.copytree("made", "mirror")
    fetch_classifier(TAG, mirror="mirror")
    assert not hub.requests and ClassifierSource.of({"timm": TAG}).files


def _without(*names):
    return lambda files: {k: v for k, v in files.items() if k not in names}


def _with_config(**changes):
    return lambda files: (
        files | {"config.json": json.dumps(json.loads(files["config.json"]) | changes).encode()}
    )


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("own/none", None, "own/none/config.json could not be fetched from http"),
        (NAME, _without("model.safetensors"), "model.safetensors could not be fetched"),
        (NAME, _without("preprocessor_config.json"), "preprocessor_config.json could not be"),
        (NAME, _with_config(architectures=["ViTModel"]), "is ViTModel; expected a classifier"),
        (NAME, lambda f: f | {"model.safetensors": b"PK"}, "cannot be read.*delete it and run"),
        ("resnet18.a9_in1k", None, "has no published weights for 'resnet18.a9_in1k'"),
        ("vit_small_patch14_dinov2.lvd142m", None, "is published without a head"),
    ],
)
def test_what_is_no_classifier_is_refused_in_a_sentence(hub, name, change, sentence):
    if change:
        hub.models[name].commits[0] = change(hub.models[name].commits[0])
    with pytest.raises(CdlError, match=sentence):
        fetch_classifier(name)
    assert not list(Path().glob("config/checksums/**/*.sha256"))


def test_planning_names_the_tags_that_timm_has():
    for given, sentence in (
        ("resnet18.a9_in1k", "no tag of timm, which has resnet18 with a1_in1k"),
        ("resnet1.a1_in1k", "no tag of timm, which has no 'resnet1'"),
    ):
        with pytest.raises(CdlError, match=sentence):
            _ = ClassifierSource.of({"timm": given}).files


def test_the_stand_in_is_a_tag_of_timm():
    assert timm.get_pretrained_cfg(TAG).hf_hub_id == f"timm/{TAG}"
