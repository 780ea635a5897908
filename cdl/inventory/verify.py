"""Verify the files of a study against the checksums in their records, and these against the plan.

Does not import torch.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from cdl import layout
from cdl.data.packing import check_images, map_pixels, modality_in, read_index
from cdl.data.sources import SPLITS
from cdl.inventory.images import changes, recorded_contents
from cdl.inventory.state import DAMAGED, OUTDATED, compared, fingerprint_of
from cdl.layout import record_of
from cdl.runtime.artifacts import check_artifact, check_files, fingerprint_file, read_json
from cdl.runtime.benchmarks import read_benchmark, read_measured
from cdl.runtime.errors import CdlError
from cdl.runtime.shown import Shown
from cdl.study.contents import UserFiles, reread
from cdl.study.jobs import OPTIONAL, Job, Record
from cdl.study.runs import as_list

SHOWN = 10  # missing files that are listed


@dataclass(frozen=True)
class Recorded:
    """Files and the record with their checksums.

    Attributes:
        record: path of the record, a JSON file; or of a benchmark, which has no checksum, so only
            its format is checked.
        check: reads the record and the files of `body`; raises `CdlError` if one is damaged.
        body: files implied by the kind of the record: tensors, or pixels and indices of packed
            data.
        files: other files with a checksum in the record.
        may_lack: whether they may be missing, as for caches; with one, all are ignored.
        plan: what the record contains if it is as planned; None if nothing is known.
    """

    record: str
    check: Callable[[str], object]
    body: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    may_lack: bool = False
    plan: Record | None = field(default=None, compare=False)

    @property
    def paths(self) -> tuple[str, ...]:
        """All files."""
        return (self.record, *self.body, *self.files)

    @property
    def ignored(self) -> bool:
        """Whether a file is missing that may be."""
        return self.may_lack and not all(map(os.path.exists, self.paths))


@dataclass(frozen=True)
class Fault:
    """A file that is `damaged`, `missing` or `outdated` (intact, but not as planned), and why."""

    state: str
    path: str
    text: str


@dataclass(frozen=True, repr=False)
class Verification(Shown):
    """The result of a verification: number of files compared, and faults."""

    checked: int
    faults: tuple[Fault, ...]

    def text(self) -> str:
        """Return the result as text, one line per fault and a summary."""
        absent = [fault for fault in self.faults if fault.state == "missing"]
        hidden = {*absent[SHOWN:]}
        lines = [
            f"{fault.state:<8} {fault.path}: {fault.text}"
            for fault in self.faults
            if fault not in hidden
        ]
        if hidden:
            lines.append(f"missing  {len(hidden)} more files, not made yet or deleted: run again")
        counts = Counter(fault.state for fault in self.faults)
        wrong = ", ".join(f"{n} {state}" for state, n in counts.items()) or "all as recorded"
        return "\n".join([*lines, f"{self.checked} files compared: {wrong}"])


def recorded_files(jobs: Iterable[Job]) -> Iterator[Recorded]:
    """Yield the records and benchmarks of jobs, with the files to verify.

    Missing files are no fault of caches, which may be deleted after training, of figures made on
    demand, and of benchmarks, which only a new table of costs reads.
    """
    for job in jobs:
        may_lack = job.rule in OPTIONAL
        for record in job.records:
            path, files = record.path, record.files
            if job.rule == "prepare_dataset":
                yield Recorded(path, _check_packed, files, plan=record)
            elif files and record_of(files[0]) == path:
                yield Recorded(path, _check_tensors, files[:1], files[1:], may_lack, record)
            else:
                yield Recorded(path, read_json, (), files, may_lack, record)
        if job.benchmark:
            yield Recorded(job.benchmark, read_benchmark, may_lack=True)
        if job.measurements:
            yield Recorded(job.measurements, read_measured, may_lack=True)


def sources_of(user: UserFiles) -> dict[str, Callable[[], object]]:
    """Return functions that read every file of a source again, by name of the source.

    A function raises `CdlError` if the files are not those that the packed data, or the backbone,
    were made from, or those that were published.
    """
    checks: dict[str, Callable[[], object]] = {}
    for name, block in user.data.items():
        if "root" in block["source"]:
            checks[name] = partial(_check_published, block["source"])
        elif user.of_data(name):
            checks[name] = partial(_reread_data, user, name)
    for name in user.backbones:
        if user.of_backbone(name):
            checks[name] = partial(_reread_backbone, user, name)
    return {f"source of {name}": check for name, check in checks.items()}


def _check_published(source: Mapping[str, Any]) -> None:
    from cdl.data.sources.archives import check

    check(**source)


def _reread_data(user: UserFiles, name: str) -> None:
    packed = layout.packed(name)
    if not Path(packed.manifest).is_file():
        raise CdlError(f"{packed.manifest} is missing, so its files cannot be compared; run again")
    recorded = recorded_contents(packed)
    if recorded is None:
        raise CdlError(
            f"{packed.manifest} has no digest of its source files, which earlier versions did not "
            "record; delete its folder and run with --until prepare_dataset, which trains nothing"
        )
    if reread(user.of_data(name)) != recorded:
        raise CdlError(
            f"{changes(user, name)} since {packed.folder} was packed; restore the files, or touch "
            "them and run again"
        )


def _reread_backbone(user: UserFiles, name: str) -> None:
    files, weights = user.of_backbone(name), layout.backbone(name)
    record = read_json(record_of(weights))
    first = next((file for file in files if file.suffix == ".safetensors"), files[0])
    recorded = {first.name: record["file_sha256"], **record.get("other_files", {})}
    for file in files:
        known = recorded.get(file.relative_to(first.parent).as_posix())
        if known is not None and fingerprint_file(file) != known:
            raise CdlError(
                f"{file} was changed since {weights} was made from it; restore the file, or touch "
                "it and run again"
            )


def verify(
    items: Iterable[Recorded], sources: Mapping[str, Callable[[], object]] | None = None
) -> Verification:
    """Compare all files with their records, and these with the plan; continue after faults.

    Args:
        items: files and records; duplicates are read once.
        sources: functions that read a source again and raise `CdlError` if it has changed, by name
            of the source (see `sources_of`).
    """
    faults: list[Fault] = []
    faults_of, checked = Faults(), 0
    for item in dict.fromkeys(items):
        if not item.ignored:
            checked += len(item.paths)
            found = faults_of(item)
            lacks = any(fault.state == "missing" for fault in found)  # which runs again anyway
            faults += [fault for fault in found if fault.state != OUTDATED or not lacks]
    for name, read_again in (sources or {}).items():
        checked += 1
        faults += _damage(name, read_again)
    return Verification(checked, tuple(faults))


class Faults:
    """Compares files with their records, and intact records with the plan.

    It keeps which records are faulty: what was made from one is not reported, too.
    """

    def __init__(self) -> None:
        self._read = cache(read_json)
        self._faulty: set[str] = set()

    def __call__(self, item: Recorded) -> list[Fault]:
        """Return the missing files of an item, and those that differ from record or plan."""
        missing = [path for path in item.paths if not os.path.exists(path)]
        wrong: list[Fault] = []
        if item.record not in missing:
            if not {*item.body} & {*missing}:
                wrong += _damage(item.record, item.check, item.record)
            for file in item.files if not wrong else ():
                if file not in missing:
                    wrong += _damage(file, check_files, item.record, file)
            wrong = wrong or list(self.differences(item))
        if wrong:
            self._faulty.add(item.record)
        return [*(Fault("missing", path, "run again") for path in missing), *wrong]

    def differences(self, item: Recorded) -> Iterator[Fault]:
        """Yield a fault if an intact record is not as planned.

        A record is not compared with inputs that are missing or faulty: only these are reported.
        """
        if item.plan is None:
            return
        made_from = {e: paths for e, paths in item.plan.made_from.items() if self._intact(paths)}
        data = item.plan.data if self._intact([*item.plan.data]) else ()
        plan = replace(item.plan, made_from=made_from, data=data)
        state = compared(plan, self._read, lambda path: fingerprint_of(self._read(path)))
        if state.name == DAMAGED:
            yield Fault("damaged", item.record, state.what)
        elif state.name == OUTDATED:
            yield Fault(
                "outdated",
                item.record,
                f"was made with {state.what} {state.before}, expected {state.now}: it belongs to "
                "another place or configuration; restore the files of this job, or run again",
            )

    def _intact(self, records: str | list[str]) -> bool:
        paths = as_list(records)
        return all(os.path.exists(path) and path not in self._faulty for path in paths)


def _damage(path: str, check: Callable[..., object], *arguments: str) -> Iterator[Fault]:
    try:
        check(*arguments)
    except CdlError as error:
        yield Fault("damaged", path, str(error))


def _check_tensors(record: str) -> None:
    check_artifact(Path(record).with_suffix(".safetensors"))


def _check_packed(manifest: str) -> None:
    folder = Path(manifest).parent
    for split in SPLITS:
        index, _, _ = read_index(folder, split)
        check_images(folder, split, index, map_pixels(folder, split), modality_in(folder))
