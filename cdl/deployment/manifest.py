"""The files of an exported folder, and the manifest with the sha256 of each.

`manifest.json` is a record (see `cdl.runtime.artifacts`): `files` has the sha256 of every file by
its path relative to the folder, `made_from` the hashes of the run. `device.versions` reads it, and
writes those of later versions.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cdl.device import versions
from cdl.device.versions import MANIFEST, READ, compare
from cdl.runtime import artifacts

__all__ = ["MANIFEST", "READ", "check", "compare", "write"]
MODEL, PROGRAM = "model.onnx", "model.pte"  # ONNX graph, ExecuTorch program
TENSORS, CONFIG = "model.safetensors", "config.json"  # weights of a model of timm, how to load it
CLASSES, PREPROCESSING, CARD = "classes.txt", "preprocessing.json", "card.md"
DEVICE = "student.py"  # the program, which cdl does not run

log = logging.getLogger(__name__)


def write(folder: Path, made_from: Mapping[str, Any]) -> None:
    """Write the manifest of a complete folder.

    Args:
        folder: all its files, at any depth, are covered, except those whose name begins with a dot.
        made_from: hashes of the run that the student was exported from.
    """
    names = (path for path in folder.rglob("[!.]*") if path.name != MANIFEST)
    paths = {path.relative_to(folder).as_posix(): path for path in names if path.is_file()}
    hashes = {name: artifacts.fingerprint_file(paths[name]) for name in sorted(paths)}
    artifacts.write_json(folder / MANIFEST, {"made_from": dict(made_from), "files": hashes})


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
    versions.check(folder)
