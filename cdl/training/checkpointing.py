"""Saved state of an unfinished job, so that a killed job resumes where it stopped.

The state is in a folder that is not a declared output, because Snakemake deletes the outputs of a
failed job. Its name is the fingerprint of everything that the job's result depends on, so that a
job with another configuration, other inputs or another version of torch does not load it. It can
be deleted at any time.
"""

import json
import logging
import re
import signal
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from cdl.runtime import artifacts
from cdl.runtime.errors import CdlError, Interrupted
from cdl.runtime.outside import json_object

log = logging.getLogger(__name__)
_KEY = re.compile(r"[0-9a-f]{32}")
_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)  # sent by clusters before a time limit


class State:
    """Saved state of one job; as a context manager it handles SIGTERM and SIGUSR1."""

    def __init__(self, folder: str | None, job: Mapping[str, Any], minutes: float) -> None:
        """Compute the state's file name; read and write nothing.

        Args:
            folder: folder of all states; None disables saving and signal handling.
            job: everything that the result depends on.
            minutes: minutes between two saves.
        """
        self.key = artifacts.fingerprint(job)[:32]
        self._path = None if folder is None else path_of(folder, self.key)
        self._seconds, self._last = 60 * minutes, time.monotonic()
        self._signal: str | None = None
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "State":
        if self._path is not None and threading.current_thread() is threading.main_thread():
            self._handlers = {s: signal.signal(s, self._on_signal) for s in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, _: object) -> None:
        self._signal = signal.Signals(number).name

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return the saved tensors and metadata; None, with a warning, if damaged."""
        if self._path is None or not self._path.exists():
            return None
        try:
            with safe_open(self._path, framework="pt") as file:
                metadata = json_object((file.metadata() or {})["state"], "state")
            tensors, provenance = load_file(self._path), metadata.pop("provenance")
        except (OSError, ValueError, LookupError, CdlError, SafetensorError) as error:
            log.warning("cannot read the saved state, starting from the beginning: %s", error)
            return None
        if provenance != self._provenance(tensors, metadata):
            log.warning("the saved state has a wrong checksum, starting from the beginning")
            return None
        return tensors, metadata

    def _provenance(self, tensors: Mapping[str, Tensor], metadata: Any) -> list[str]:
        return [self.key, artifacts.fingerprint_tensors(tensors), artifacts.fingerprint(metadata)]

    def due(self) -> bool:
        """Return whether to save now: the time has passed or a signal has arrived."""
        if self._path is None:
            return False
        return bool(self._signal) or time.monotonic() - self._last >= self._seconds

    def save(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
        """Save the state; then raise `Interrupted` if a signal has arrived."""
        if self._path is None:
            return
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        provenance = self._provenance(tensors, metadata)
        text = json.dumps({**metadata, "provenance": provenance})
        with artifacts.replacing(self._path) as temporary:  # atomic: the file is complete or absent
            save_file(tensors, temporary, {"state": text})
        self._last = time.monotonic()
        if self._signal:
            raise Interrupted(
                f"stopped by {self._signal}; the state is saved and the next run resumes from it"
            )

    def remove(self) -> None:
        """Delete the saved state."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def path_of(folder: str, key: str) -> Path:
    """Return the path of a saved state.

    Raises:
        CdlError: the key is invalid. Keys are read from files, so a key must not be a path that
            leads out of the folder.
    """
    if not (isinstance(key, str) and _KEY.fullmatch(key)):
        raise CdlError(f"state: invalid key {key!r}; expected 32 hexadecimal digits")
    return Path(folder) / f"{key}.safetensors"


def forget(states: Iterable[Path]) -> None:
    """Delete saved states; missing files are ignored."""
    for path in states:
        path.unlink(missing_ok=True)
