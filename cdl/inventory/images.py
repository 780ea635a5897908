"""Find what has changed in a user's images since they were packed, and the jobs that it affects.

The manifest of packed data has a digest of the files that they were made from. Planning, which also
happens in a dry run, changes no manifest.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from cdl import layout
from cdl.data.packing import read_index
from cdl.data.sources import SOURCES, SPLITS
from cdl.layout import PackedFiles
from cdl.runtime.artifacts import read_json
from cdl.runtime.errors import CdlError
from cdl.study.contents import UserFiles, made_of_images
from cdl.study.jobs import Job, Jobs, flat

SHOWN = 5  # changes that are listed


def outdated_data(user: UserFiles) -> list[str]:
    """Return the names of packed data whose source files have changed since.

    As in planning, a file is read only if its size or time has changed. Data that are not packed
    yet, or were packed by a version that did not record the files' digest, are left out.

    Raises:
        ConfigError: a source is missing or invalid.
    """
    return [
        name
        for name in user.data
        if (recorded := recorded_contents(layout.packed(name)))
        and recorded != user.data_digest(name)
    ]


def recorded_contents(packed: PackedFiles) -> str | None:
    """Return the digest of the files that data were packed from; None if it is not recorded."""
    try:
        contents = read_json(packed.manifest).get("contents")
    except CdlError:  # missing, or damaged, which `cdl verify` reports
        return None
    return None if contents is None else str(contents)


def affected(jobs: Jobs, outdated: list[str]) -> set[Job]:
    """Return the jobs that run again after changes of a user's images.

    Args:
        jobs: jobs of a configuration, each after the jobs that it depends on.
        outdated: result of `outdated_data`.
    """
    again: set[Job] = set()
    made: set[str] = set()
    for job in jobs if outdated else ():
        if job.rule == "prepare_dataset":
            runs = job.key["prepared"] in outdated
        else:
            same = made_of_images(job)
            inputs = {k: v for k, v in job.inputs.items() if not (same and k == "data")}
            runs = bool(made & set(flat(inputs)))
        if runs:
            again.add(job)
            made |= set(flat(job.outputs))
    return again


def changes(user: UserFiles, name: str) -> str:
    """Return what has changed in the source of packed data, such as `1 image of 'a' was removed`.

    Names of images are compared with the packed ones. An image of the same name counts as changed
    if its inode has changed since packing.
    """
    changed = list(_changes(user, name)) or ["files have other contents"]
    more = [f"and {len(changed) - SHOWN} more changes"] if len(changed) > SHOWN else []
    return ", ".join([*changed[:SHOWN], *more])


def _changes(user: UserFiles, name: str) -> Iterator[str]:
    packed, source = layout.packed(name), dict(user.data[name]["source"])
    since = Path(packed.manifest).stat().st_ctime_ns
    list_images = SOURCES[source.pop("name")].listing
    if list_images is None:
        files = [file for file in user.of_data(name) if file.stat().st_ctime_ns > since]
        yield from (f"{file} was changed" for file in files)
        return
    before: dict[str, str] = {}
    for split in SPLITS:
        index, _, classes = read_index(packed.folder, split)
        before |= {n: classes[i] for n, i in zip(index["name"], index["label"], strict=True)}
    images = list_images(**source).images
    now = {str(image.path.relative_to(source["path"])): image for image in images}
    counts: Counter[tuple[str, str]] = Counter()
    counts.update((label, "removed") for n, label in before.items() if n not in now)
    held_out = "validation" in user.data[name]  # images of neither split are not packed
    for file, image in now.items():
        newer = image.path.stat().st_ctime_ns > since
        if file not in before and (newer or not held_out):
            counts[image.label, "added"] += 1
        elif file in before and newer:
            counts[image.label, "changed"] += 1
    for (label, what), n in sorted(counts.items()):
        yield f"{n} image{'s' * (n > 1)} of {label!r} {'were' if n > 1 else 'was'} {what}"
