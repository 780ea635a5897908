"""Every file of a study compared with the record that vouches for it. No torch."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cdl.data.packing import check_images, map_pixels, read_index
from cdl.data.sources import SPLITS
from cdl.layout import contents_memory, record_of
from cdl.runtime.artifacts import check_artifact, check_files, read_json
from cdl.runtime.benchmarks import read_benchmark
from cdl.runtime.errors import CdlError
from cdl.study.contents import UserFiles, altered
from cdl.study.jobs import CACHES, Job

SHOWN = 10  # files of a source that are named


@dataclass(frozen=True)
class Vouched:
    """Files, and the record that vouches for them.

    Attributes:
        kind: how to compare: `record`, `artifact`, `packed` or `benchmark` (see `_KINDS`).
        record: path of what vouches: JSON, or a benchmark, of which only the form is known.
        body: what belongs to it by its kind: tensors, or pixels and indices of packed data.
        files: that it names besides.
        may_lack: whether none of it need exist, like caches that may be deleted at any time.
    """

    kind: str
    record: str
    body: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    may_lack: bool = False

    @property
    def paths(self) -> tuple[str, ...]:
        """All files."""
        return (self.record, *self.body, *self.files)


@dataclass(frozen=True)
class Fault:
    """A file that is `damaged` or `missing`, and the sentence that says so."""

    state: str
    path: str
    text: str


@dataclass(frozen=True)
class Verification:
    """The answer: how many files were compared, and what is wrong."""

    checked: int
    faults: tuple[Fault, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)

    def text(self) -> str:
        """Return it for people."""
        lines = [f"{fault.state:<8} {fault.path}: {fault.text}" for fault in self.faults]
        wrong = f"{len(self.faults)} damaged or missing" if self.faults else "all as recorded"
        return "\n".join([*lines, f"{self.checked} files compared: {wrong}"])


def vouched(jobs: Iterable[Job]) -> Iterator[Vouched]:
    """Yield what vouches for the files of jobs: their records and benchmarks.

    Caches may lack, since they may be deleted once nothing is left to learn; so may benchmarks,
    without which only a new table of costs cannot be made.
    """
    for job in jobs:
        may_lack = job.rule in (*CACHES, "fetch_dataset")
        for record in job.records:
            path, files = record.path, record.files
            if job.rule == "prepare_dataset":
                yield Vouched("packed", path, files)
            elif files and record_of(files[0]) == path:
                yield Vouched("artifact", path, files[:1], files[1:], may_lack)
            else:
                yield Vouched("record", path, (), files, may_lack)
        if job.benchmark:
            yield Vouched("benchmark", job.benchmark, may_lack=True)


def sources_of(user: UserFiles) -> dict[str, Callable[[], None]]:
    """Return, by its name, a function that reads a user's source again, every byte of it.

    It raises `CdlError` if a file is not what was read when the source was planned with: planning
    itself reads a file again only when its size or time has changed.
    """
    data = {name: (user.of_data(name), "data") for name in user.data}
    backbones = {name: (user.of_backbone(name), "backbones") for name in user.backbones}
    return {
        f"source of {name}": partial(_reread, files, contents_memory(kind, name))
        for name, (files, kind) in (data | backbones).items()
        if files
    }


def _reread(files: Sequence[Path], memory: Path) -> None:
    if not memory.is_file():
        raise CdlError(f"{memory} is missing, so nothing is known of its files; run again")
    wrong = [f"{file} is {state}" for file, state in altered(files, memory)]
    if wrong:
        more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise CdlError(
            f"{', '.join(wrong[:SHOWN])}{more}, compared with what was read before; put back what "
            "was there, or touch it and run again"
        )


def verify(
    items: Iterable[Vouched], sources: Mapping[str, Callable[[], object]] | None = None
) -> Verification:
    """Compare all files with their records, and go on behind what is damaged.

    Args:
        items: each is read once.
        sources: by a name for people, functions that read a user's source again, and raise
            `CdlError` if it is not what was read before.
    """
    faults: list[Fault] = []
    checked = 0
    for item in dict.fromkeys(items):
        if item.may_lack and not any(map(os.path.exists, item.paths)):
            continue
        checked += len(item.paths)
        faults += _faults(item)
    for name, read in (sources or {}).items():
        checked += 1
        faults += _damage(name, read)
    return Verification(checked, tuple(faults))


def _faults(item: Vouched) -> Iterator[Fault]:
    missing = [path for path in item.paths if not os.path.exists(path)]
    yield from (Fault("missing", path, "run again") for path in missing)
    if item.record in missing:
        return
    if not set(item.body) & set(missing):
        damage = list(_damage(item.record, _KINDS[item.kind], item.record))
        yield from damage
        if damage:
            return
    for file in item.files:
        if file not in missing:
            yield from _damage(file, check_files, item.record, file)


def _damage(path: str, check: Callable[..., object], *arguments: str) -> Iterator[Fault]:
    try:
        check(*arguments)
    except CdlError as error:
        yield Fault("damaged", path, str(error))


def _artifact(record: str) -> None:
    check_artifact(Path(record).with_suffix(".safetensors"))


def _packed(manifest: str) -> None:
    folder = Path(manifest).parent
    for split in SPLITS:
        index, _, _ = read_index(folder, split)
        check_images(folder, split, index, map_pixels(folder, split))


_KINDS: dict[str, Callable[[str], object]] = {
    "record": read_json,
    "artifact": _artifact,
    "packed": _packed,
    "benchmark": read_benchmark,
}
