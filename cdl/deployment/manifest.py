"""The files of an exported folder, and the manifest with the sha256 of each.

`manifest.json` is a record (see `cdl.runtime.artifacts`): `files` has the sha256 of every file by
its path relative to the folder, `made_from` the hashes of the run. A student with several versions
has one manifest in the folder of each (see `device.versions`), which covers shared files by paths
such as `../../model.onnx`.
"""

import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cdl.deployment.device.memory import MEMORY
from cdl.deployment.device.texts import TOKENIZER
from cdl.deployment.device.versions import current_version, place_of
from cdl.runtime import artifacts
from cdl.runtime.errors import CdlError

MANIFEST = "manifest.json"
MODEL, PROGRAM = "model.onnx", "model.pte"  # ONNX graph, ExecuTorch program
TENSORS = "model.safetensors"  # weights of a model of timm
CLASSES, PREPROCESSING, CARD = "classes.txt", "preprocessing.json", "card.md"
DEVICE = "student.py"  # the program, which cdl does not run
# what a student reads where it exists
READ = (MODEL, PROGRAM, CLASSES, PREPROCESSING, TOKENIZER, MEMORY)

log = logging.getLogger(__name__)


def write(folder: Path, made_from: Mapping[str, Any], shared: Iterable[Path] = ()) -> None:
    """Write the manifest of a complete folder.

    Args:
        folder: all its files, at any depth, are covered, except those whose name begins with a dot.
        made_from: hashes of the run that the student was exported from.
        shared: files outside the folder that belong to it too.
    """
    names = (path for path in folder.rglob("[!.]*") if path.name != MANIFEST)
    inside = (path for path in names if path.is_file())
    paths = {os.path.relpath(path, folder): path for path in (*inside, *shared)}
    hashes = {name: artifacts.fingerprint_file(paths[name]) for name in sorted(paths)}
    artifacts.write_json(folder / MANIFEST, {"made_from": dict(made_from), "files": hashes})


def compare(folder: Path) -> dict[str, str]:
    """Compare a folder, and its current version, with their manifests.

    Returns:
        For every file of the manifests, and for files without an entry that a student would read:
        why it differs; empty if it is as recorded.

    Raises:
        CdlError: a manifest is missing or damaged.
    """
    place = place_of(folder, current_version(folder))
    found = _compare(folder)
    if place != folder:
        own = _compare(place)
        inside = (name for name in own if not name.startswith(".."))
        found |= {(place / name).relative_to(folder).as_posix(): own[name] for name in inside}
    return found


def _compare(folder: Path) -> dict[str, str]:
    """Compare one folder with its manifest."""
    file = folder / MANIFEST
    if not file.is_file():
        raise CdlError(f"{file}: is missing, so nothing can be compared; export the student again")
    try:
        recorded = dict(artifacts.read_json(file)["files"])
    except (CdlError, KeyError, TypeError, ValueError) as error:
        raise CdlError(f"{file}: was damaged or changed; export the student again") from error
    found = {name: _difference(folder / name, sha256) for name, sha256 in recorded.items()}
    unknown = [name for name in READ if name not in recorded and (folder / name).exists()]
    return found | {name: "is not in the manifest" for name in unknown}


def _difference(file: Path, sha256: str) -> str:
    """Return how a file differs from its recorded sha256; empty if it does not."""
    try:
        found = artifacts.fingerprint_file(file)
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if found == sha256:
        return ""
    return f"was damaged or changed: its sha256 is {found[:12]}, the manifest has {sha256[:12]}"


def check(folder: Path) -> None:
    """Refuse a folder that differs from its manifest; warn if it has none.

    The model card and the program may differ, since no prediction by cdl reads them.

    Raises:
        CdlError: a file was changed, added or removed, or the manifest is damaged.
    """
    if not (folder / MANIFEST).exists():
        log.warning(
            "%s: has no %s, as exports of cdl before 0.3, so changed files are not detected; "
            "export the student again",
            *(folder, MANIFEST),
        )
        return
    for name, difference in compare(folder).items():
        if difference and name not in (CARD, DEVICE):
            raise CdlError(f"{folder / name}: {difference}; export the student again")
