"""Published files, brought to this disk once and checked: from the publisher, a mirror or a folder.

The only module that uses the network, and only the local rules `fetch_backbone` and
`fetch_dataset` call it; every other job reads what lies on the disk.
"""

import contextlib
import hashlib
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cdl.runtime.artifacts import fingerprint_file, replacing
from cdl.runtime.errors import CdlError

log = logging.getLogger(__name__)

RECORDS = Path("config/checksums")


@dataclass(frozen=True)
class Hub:
    """A file of a repository on the Hugging Face Hub; `huggingface_hub` fetches and keeps it.

    Its own settings hold: `HF_HOME` and `HF_HUB_CACHE` for where, `HF_TOKEN` for who asks,
    `HF_ENDPOINT` for another server.
    """

    repository: str
    name: str
    revision: str = "main"

    def __str__(self) -> str:
        from huggingface_hub import hf_hub_url

        return hf_hub_url(self.repository, self.name, revision=self.revision)

    def path(self, offline: bool = False) -> Path:
        """Return where the file lies in the Hub's cache; fetch it if it is not there.

        Raises:
            OSError: it cannot be had.
        """
        from huggingface_hub import hf_hub_download

        with _hub_errors(f"https://huggingface.co/{self.repository}"):
            found = hf_hub_download(
                self.repository, self.name, revision=self.revision, local_files_only=offline
            )
        return Path(found)

    def is_cached(self) -> bool:
        """Return whether the file lies in the Hub's cache."""
        try:
            return self.path(offline=True).is_file()
        except OSError:
            return False


def snapshot(dataset: str, revision: str, folder: Path, patterns: Sequence[str]) -> None:
    """Fetch the files of a dataset on the Hub that match a pattern into a folder.

    Raises:
        OSError: they cannot be had.
    """
    from huggingface_hub import snapshot_download

    with _hub_errors(f"https://huggingface.co/datasets/{dataset}"):
        snapshot_download(
            dataset,
            repo_type="dataset",
            revision=revision,
            allow_patterns=list(patterns),
            local_dir=folder,
        )


@contextlib.contextmanager
def _hub_errors(page: str) -> Iterator[None]:
    """Turn what the Hub's client raises into an `OSError` of one line."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise OSError(
            f"it is gated: accept its terms at {page} and log in by `hf auth login` or HF_TOKEN"
        ) from error
    except Exception as error:  # each version of the Hub's client has its own network errors
        raise OSError(next(iter(str(error).strip().splitlines()), repr(error))) from error


@dataclass(frozen=True)
class Published:
    """A file as its publisher offers it.

    Attributes:
        name: of the file on this disk, in a mirror, and in `RECORDS`.
        url: the publisher's address of it.
        checksum: `md5:...` or `sha256:...`; None: its sha256 is recorded in `RECORDS` by
            `remember` when it is first fetched and found readable, and verified after.
    """

    name: str
    url: str | Hub
    checksum: str | None = None

    @property
    def record(self) -> Path:
        """The recorded sha256, in the format of sha256sum."""
        return RECORDS / f"{self.name}.sha256"

    @property
    def expected(self) -> str | None:
        """The checksum to verify, or None if there is none yet."""
        if self.checksum or not self.record.is_file():
            return self.checksum
        return "sha256:" + self.record.read_text().split(" ")[0].strip()


def obtain(
    files: Sequence[Published],
    folder: str | Path,
    mirror: str | None = None,
    offline: bool = False,
) -> list[Path]:
    """Return the paths of files in `folder`, all of them checked; fetch those that are missing.

    What the Hub publishes stays in the Hub's own cache, unless it lies in `folder` already. An
    interrupted download is continued by the next call if the file's checksum is known, and
    started anew otherwise.

    Args:
        files: what is needed.
        folder: where the files lie or are put.
        mirror: a folder, or the beginning of an http(s) address, that holds the files under
            their names; it is asked instead of the publisher.
        offline: use no network.

    Raises:
        CdlError: a file cannot be had or is not the one that was published; the sentence says
            which file to put where.
    """
    folder = Path(folder)
    remote = mirror is None or "://" in mirror
    missing = [file for file in files if not (folder / file.name).is_file()]
    if mirror is None and offline:
        missing = [f for f in missing if not (isinstance(f.url, Hub) and f.url.is_cached())]
    if missing and remote and offline:
        wanted = ", ".join(f"{folder / file.name} (from {file.url})" for file in missing)
        raise CdlError(
            f"fetch.offline is true, so put by hand: {wanted}; or name a folder that holds "
            f"{'it' if len(missing) == 1 else 'them'} in fetch.mirror"
        )
    return [_obtain(file, folder / file.name, mirror, offline) for file in files]


def _obtain(file: Published, target: Path, mirror: str | None, offline: bool) -> Path:
    if target.is_file():
        _verify(target, file, "delete it and run again")
    elif mirror is None and isinstance(file.url, Hub):
        log.info("fetching %s", file.url)
        try:
            target = file.url.path(offline)
        except OSError as error:
            raise _unavailable(file, target, str(file.url), error) from error
        _verify(target, file, f"delete {target} and run again, or what the Hub offers has changed")
    else:
        place = str(file.url) if mirror is None else f"{mirror.rstrip('/')}/{file.name}"
        _bring(file, target, place)
    return target


def remember(file: Published, path: Path) -> None:
    """Record the sha256 of a file without a published checksum, once."""
    if file.checksum is None and not file.record.exists():
        with replacing(file.record) as temporary:
            temporary.write_text(f"{fingerprint_file(path)}  {file.name}\n")
        log.info("recorded the sha256 of %s in %s", file.name, file.record)


def _bring(file: Published, target: Path, place: str) -> None:
    """Copy or download a file to `target`, which appears only when it is whole and checked."""
    part = target.with_name(f".{target.name}.part")
    log.info("fetching %s", place)
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        if "://" in place:
            _download(place, part, resume=file.expected is not None)
        else:
            shutil.copyfile(place, part)
    except OSError as error:  # requests' errors are OSErrors too
        raise _unavailable(file, target, place, error) from error
    try:
        _verify(part, file, f"what {place} offers is not the published file, or came damaged")
    except CdlError:
        part.unlink()
        raise
    os.replace(part, target)


def _unavailable(file: Published, target: Path, place: str, error: OSError) -> CdlError:
    return CdlError(
        f"{file.name} could not be fetched from {place} ({error}); run again, or put it by "
        f"hand as {target} (from {file.url}), or name a folder or address that holds it in "
        "fetch.mirror"
    )


def _download(url: str, part: Path, resume: bool) -> None:
    start = part.stat().st_size if resume and part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    import requests  # here, since planning reads what is published and waits for no network

    with requests.get(url, headers=headers, stream=True, timeout=60) as response:
        if start and response.status_code == requests.codes.requested_range_not_satisfiable:
            return  # all of it had come before; the checksum decides
        response.raise_for_status()
        partial = response.status_code == requests.codes.partial_content
        with open(part, "ab" if partial else "wb") as stream:
            for chunk in response.iter_content(2**20):
                stream.write(chunk)


def _verify(path: Path, file: Published, remedy: str) -> None:
    if file.expected is None:
        return
    algorithm, expected = file.expected.split(":")
    found = _digest(path, algorithm)
    if found != expected:
        source = "" if file.checksum else f" ({file.record})"
        raise CdlError(
            f"{file.name} has {algorithm} {found}, expected is {expected}{source}: {remedy}"
        )


def _digest(path: Path, algorithm: str) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()
