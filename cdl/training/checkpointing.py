"""Unfinished work of a job, so that a killed one goes on where it was.

The state lies in a folder that is no declared output (Snakemake deletes those of a failed job),
under the fingerprint of everything that the job's result depends on: another configuration,
another input or another version of torch never finds it. It may be deleted at any time.
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

log = logging.getLogger(__name__)
_KEY = re.compile(r"[0-9a-f]{32}")
_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)  # what clusters send before a time limit


class State:
    """One job's state on disk; as a context it listens to SIGTERM and SIGUSR1."""

    def __init__(self, folder: str | None, job: Mapping[str, Any], minutes: float) -> None:
        """Name the state.

        Args:
            folder: of all states; None keeps nothing and listens to nothing.
            job: everything that the result depends on.
            minutes: between two saves.
        """
        self.key = artifacts.fingerprint(job)[:32]
        self._path = None if folder is None else path_of(folder, self.key)
        self._seconds, self._last = 60 * minutes, time.monotonic()
        self._signal: str | None = None
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "State":
        if self._path is not None and threading.current_thread() is threading.main_thread():
            self._handlers = {s: signal.signal(s, self._hear) for s in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _hear(self, number: int, _: object) -> None:
        self._signal = signal.Signals(number).name

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return what was saved last; None, with a warning, if that is damaged."""
        if self._path is None or not self._path.exists():
            return None
        try:
            with safe_open(self._path, framework="pt") as file:
                metadata = json.loads((file.metadata() or {})["state"])
            tensors, provenance = load_file(self._path), metadata.pop("provenance")
        except (OSError, ValueError, LookupError, AttributeError, SafetensorError) as error:
            log.warning("the saved state cannot be read, the job starts afresh: %s", error)
            return None
        if provenance != self._provenance(tensors, metadata):
            log.warning("the saved state is not what was saved, the job starts afresh")
            return None
        return tensors, metadata

    def _provenance(self, tensors: Mapping[str, Tensor], metadata: Any) -> list[str]:
        return [self.key, artifacts.fingerprint_tensors(tensors), artifacts.fingerprint(metadata)]

    def due(self) -> bool:
        """Return whether it is time to save, or a signal asks for it."""
        if self._path is None:
            return False
        return bool(self._signal) or time.monotonic() - self._last >= self._seconds

    def save(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
        """Save; raise `Interrupted` afterwards if a signal asked the job to stop."""
        if self._path is None:
            return
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        provenance = self._provenance(tensors, metadata)
        text = json.dumps({**metadata, "provenance": provenance})
        with artifacts.replacing(self._path) as temporary:  # one file: whole or absent
            save_file(tensors, temporary, {"state": text})
        self._last = time.monotonic()
        if self._signal:
            raise Interrupted(
                f"stopped by {self._signal}; the state is saved, the next run goes on from it"
            )

    def remove(self) -> None:
        """Forget the state."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def path_of(folder: str, key: str) -> Path:
    """Return where the state of a job lies.

    Raises:
        CdlError: the key, which may stand in a file, is none: no name leads out of the folder.
    """
    if not (isinstance(key, str) and _KEY.fullmatch(key)):
        raise CdlError(f"state: {key!r} names no saved state; its name has 32 hexadecimal digits")
    return Path(folder) / f"{key}.safetensors"


def forget(states: Iterable[Path]) -> None:
    """Remove states, as far as they are there."""
    for path in states:
        path.unlink(missing_ok=True)
