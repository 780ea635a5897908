"""Fetch classifiers with their heads: by timm's tag, or by their name on the Hugging Face Hub.

Only JSON, the card and safetensors are fetched. The first fetch records the sha256 of each file in
`config/checksums`; later ones verify it.
"""

import contextlib
import shutil
from pathlib import Path
from typing import Any

import timm

from cdl.backbones import weights
from cdl.backbones.classifiers import (
    CARD,
    CONFIG,
    CONFIGS,
    INPUTS,
    ORIGIN,
    TENSORS,
    ClassifierSource,
    folder_of,
    items_of,
)
from cdl.backbones.pretrained import WEIGHTS
from cdl.runtime import artifacts
from cdl.runtime.errors import CdlError
from cdl.runtime.fetching import Hub, Published, obtain, remember
from cdl.runtime.outside import json_object


def fetch_classifier(name: str, revision: str | None = None, **fetching: Any) -> ClassifierSource:
    """Fetch a classifier into the folder in which configurations look for it.

    The weights stay in the Hub's cache; the folder has a link to them, and a copy of small files.

    Args:
        name: tag of timm, or OWNER/NAME of a classifier of transformers on the Hub.
        revision: commit or branch of a model on the Hub; None: `main`.
        fetching: `mirror`, `offline` and `setting` of `cdl.runtime.fetching.obtain`.

    Raises:
        CdlError: a file is missing, cannot be fetched, or differs from the one fetched first; the
            model is no classifier, or timm has no such tag.
    """
    kind = "hf" if "/" in name else "timm"
    repository, wanted, tensors = (name, revision, TENSORS) if kind == "hf" else _of_tag(name)
    if kind == "timm" and revision:
        raise CdlError(f"--revision: only valid with OWNER/NAME; the tag {name!r} has its own")
    folder, found = folder_of(kind, name, revision), dict[str, tuple[Published, Path]]()

    def get(file: str, there: str | None = None) -> Path:
        stored = (folder / file).relative_to(WEIGHTS).as_posix()
        published = Published(stored, Hub(repository, there or file, wanted or "main"))
        (path,) = obtain([published], WEIGHTS, **fetching)
        found[file] = published, path
        return path

    config = json_object(get(CONFIG), name, schema=CONFIGS[kind])
    if kind == "hf":
        get(INPUTS[items_of(config, name)])
    weights.read(get(TENSORS, tensors), "; delete it and run again")
    with contextlib.suppress(CdlError):  # some models have no card; their licence is unknown
        get(CARD)
    for file, (published, path) in found.items():
        if file != CARD:  # whose text changes while the weights stay
            remember(published, path)
        if path != folder / file:
            _place(path, folder / file)
    commits = [path.parent.name for _, path in found.values() if "snapshots" in path.parts]
    if commits:
        about = {"repository": repository, "revision": commits[0]}
        artifacts.write_json(folder / ORIGIN, about)
    return ClassifierSource(kind, folder, published=name)


def _of_tag(tag: str) -> tuple[str, str | None, str]:
    """Return repository, revision and file of the weights of a tag."""
    try:
        config = timm.get_pretrained_cfg(tag, allow_unregistered=False)
    except RuntimeError:
        config = None
    if config is None or not config.hf_hub_id:
        raise CdlError(f"timm {timm.__version__} has no published weights for {tag!r}")
    if not config.num_classes:
        raise CdlError(f"{tag!r}: is published without a head; expected a classifier")
    repository, _, revision = config.hf_hub_id.partition("@")
    return repository, revision or None, config.hf_hub_filename or TENSORS


def _place(path: Path, target: Path) -> None:
    """Put a file of the Hub's cache into a folder: weights as a link, others as a copy."""
    if target.name == TENSORS:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        target.symlink_to(path.absolute())
    else:
        with artifacts.replacing(target) as temporary:
            shutil.copyfile(path, temporary)
