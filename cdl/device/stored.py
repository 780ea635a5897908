"""Read and write the memory of a student, of any kind: tensors, and JSON in their metadata."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from cdl.device import aligned, fecam, means, ridge  # noqa: F401 each registers its kind
from cdl.device.belonging import THRESHOLD
from cdl.device.errors import CdlError
from cdl.device.kept import EXAMPLES, OWNERS
from cdl.device.memory import Memory, Tensors
from cdl.device.sealed import REMEDY, check_json

MEMORY = "memory.safetensors"
_KEY = "cdl"


def make_memory(about: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Memory:
    """Return the memory of a kind."""
    return Memory.kinds[about["kind"]](about, tensors)


def write_memory(memory: Memory, file: Path, without: str = "") -> None:
    """Write a memory, except for one tensor; raise `ValueError` if it has become invalid."""
    memory.check()
    kept = {k: np.ascontiguousarray(v) for k, v in memory.tensors.items() if k != without}
    save_file(kept, file, {_KEY: json.dumps(memory.about, sort_keys=True)})


def read_memory(
    file: Path,
    shared: Path | None = None,
    whole: bool = True,
    tokens: tuple[int, int] | None = None,
) -> Memory:
    """Read a memory.

    Args:
        file: a file of `write_memory`.
        shared: another one, with the projection if `file` lacks it.
        whole: whether to read all tensors, or those for predictions only.
        tokens: shape `[T, D]` of the tokens that it is for; None: any.

    Raises:
        CdlError: a file is missing, damaged or invalid.
    """
    try:
        found: Tensors = {}
        for path in (shared or file, file):
            with safe_open(path, framework="numpy") as opened:
                about = json.loads(opened.metadata()[_KEY])
                check_json(about, {"kind": tuple(Memory.kinds), "updates": range(2**31)})
                unused = () if whole else (*Memory.kinds[about["kind"]].updating, EXAMPLES, OWNERS)
                every = opened.keys() if path == file else {"projection"} & {*opened.keys()}
                for name in every:
                    if not {*name.split(".")} & {*unused}:
                        found[name] = opened.get_tensor(name)
        memory, n = make_memory(about, found), len(found["counts"])
        if whole:
            memory.check()
        zeros = np.zeros((1, *tokens), np.float32) if tokens else None
        probe = np.zeros((1, n)) if zeros is None else memory.logits(zeros)
        if probe.shape != (1, n) or not np.isfinite(probe).all():
            raise ValueError("its heads do not fit the features of the graph")
        if (limits := found.get(THRESHOLD)) is not None:
            if limits.shape != (n,) or not (np.abs(limits) <= 1).all():
                raise ValueError(f"{THRESHOLD}: invalid; expected a cosine of each of {n} classes")
            if zeros is not None and not np.isfinite(memory.scores(zeros)).all():
                raise ValueError("its class means do not fit the features of the graph")
        return memory
    except (OSError, SafetensorError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise CdlError(f"{file}: cannot be read ({error}); {REMEDY}") from error


@contextlib.contextmanager
def computing(folder: Path) -> Iterator[None]:
    """Report that the memory of a student, whose tensors fit together, cannot be computed with."""
    try:
        yield
    except (LookupError, TypeError, ValueError) as error:
        raise CdlError(f"{folder}: its memory is invalid ({error}); {REMEDY}") from error
