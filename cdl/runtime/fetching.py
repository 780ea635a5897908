"""Fetch published files and verify them; upload to the Hugging Face Hub.

Files come from the publisher, a mirror or a folder, and are fetched once. This is the only module
that uses the network. Of all jobs only the local rules `fetch_backbone` and `fetch_dataset` call
it; all other jobs read files on disk.
"""

import contextlib
import hashlib
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from cdl.runtime.artifacts import fingerprint_file, replacing
from cdl.runtime.errors import CdlError

log = logging.getLogger(__name__)

RECORDS = Path("config/checksums")


@dataclass(frozen=True)
class Hub:
    """A file of a repository on the Hugging Face Hub.

    `huggingface_hub` fetches and caches the file. The settings of `huggingface_hub` apply:
    `HF_HOME` and `HF_HUB_CACHE` for the cache folder, `HF_TOKEN` for the account, `HF_ENDPOINT` for
    another server.
    """

    repository: str
    name: str
    revision: str = "main"

    def __str__(self) -> str:
        from huggingface_hub import hf_hub_url

        return hf_hub_url(self.repository, self.name, revision=self.revision)

    def path(self, offline: bool = False) -> Path:
        """Return the path of the file in the Hub's cache; fetch a missing file.

        Raises:
            OSError: the file cannot be fetched, or is not cached and `offline` is set.
        """
        from huggingface_hub import hf_hub_download

        with _hub_errors(f"https://huggingface.co/{self.repository}"):
            found = hf_hub_download(
                self.repository, self.name, revision=self.revision, local_files_only=offline
            )
        return Path(found)

    def is_cached(self) -> bool:
        """Return whether the file is in the Hub's cache."""
        try:
            return self.path(offline=True).is_file()
        except OSError:
            return False


def snapshot(dataset: str, revision: str, folder: Path, patterns: Sequence[str]) -> None:
    """Fetch the files of a dataset on the Hub that match a pattern into a folder.

    Raises:
        OSError: the files cannot be fetched.
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


def repository_folder(repository: str, revision: str) -> Path:
    """Fetch all files of a model on the Hub; return their folder in the Hub's cache.

    Raises:
        OSError: the files cannot be fetched.
    """
    from huggingface_hub import snapshot_download

    with _hub_errors(hub_page(repository)):
        return Path(snapshot_download(repository, revision=revision))


def upload(files: Mapping[str, Path], repository: str, private: bool, mine: Sequence[str]) -> str:
    """Upload files to a model on the Hub in one commit; make the model if it is missing.

    Args:
        files: the files by their paths in the repository.
        repository: `OWNER/NAME`.
        private: whether the model must be private; a public one is refused, not changed.
        mine: names, with wildcards, of earlier files that the commit deletes if not in `files`.

    Returns:
        The address of the commit.

    Raises:
        OSError: the files cannot be uploaded.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api = HfApi()
    with _hub_errors(hub_page(repository)):
        api.create_repo(repository, private=private, exist_ok=True)
        info = api.model_info(repository)
        if private and not info.private:
            raise OSError("it exists and is public; make it private there, or give --public")
        there = {file.rfilename for file in info.siblings or ()} - files.keys()
        old = [name for name in sorted(there) if any(fnmatch(name, own) for own in mine)]
        commit = api.create_commit(
            repository,
            [
                *(CommitOperationAdd(name, str(path)) for name, path in files.items()),
                *(CommitOperationDelete(name) for name in old),
            ],
            commit_message="Upload a student with cdl",
        )
    return str(commit.commit_url)


def hub_page(repository: str) -> str:
    """Return the address of a model on the Hub."""
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{repository}"


@contextlib.contextmanager
def _hub_errors(page: str) -> Iterator[None]:
    """Turn exceptions of the Hub's client into an `OSError` of one line."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise OSError(
            f"it is gated: accept its terms at {page} and log in with `hf auth login` or HF_TOKEN"
        ) from error
    except Exception as error:  # each version of the Hub's client has its own network errors
        raise OSError(next(iter(str(error).strip().splitlines()), repr(error))) from error


@dataclass(frozen=True)
class Published:
    """A published file.

    Attributes:
        name: name of the file on disk, in a mirror, and in `RECORDS`.
        url: the publisher's address.
        checksum: `md5:...` or `sha256:...`; None: `remember` records the sha256 in `RECORDS` when
            the file has been fetched and read for the first time; later fetches verify it.
    """

    name: str
    url: str | Hub
    checksum: str | None = None

    @property
    def record(self) -> Path:
        """Path of the recorded sha256, in the format of sha256sum."""
        return RECORDS / f"{self.name}.sha256"

    @property
    def expected(self) -> str | None:
        """Checksum to verify, or None if there is none yet."""
        if self.checksum or not self.record.is_file():
            return self.checksum
        return "sha256:" + self.record.read_text().split(" ")[0].strip()


def obtain(
    files: Sequence[Published],
    folder: str | Path,
    mirror: str | None = None,
    offline: bool = False,
    setting: str = "fetch.mirror",
) -> list[Path]:
    """Fetch missing files, verify all of them and return their paths.

    Files on the Hub stay in the Hub's own cache unless they are already in `folder`. The next call
    resumes an interrupted download if the file's checksum is known, and restarts it otherwise.

    Args:
        files: the required files.
        folder: folder of the files.
        mirror: a folder or an http(s) base address with the files under their names, used instead
            of the publisher.
        offline: do not use the network.
        setting: name of the field or option for `mirror`, for messages.

    Raises:
        CdlError: a file cannot be fetched or differs from the published one; the message states
            where to place which file.
    """
    folder = Path(folder)
    remote = mirror is None or "://" in mirror
    missing = [file for file in files if not (folder / file.name).is_file()]
    if mirror is None and offline:
        missing = [f for f in missing if not (isinstance(f.url, Hub) and f.url.is_cached())]
    if missing and remote and offline:
        wanted = ", ".join(f"{folder / file.name} (from {file.url})" for file in missing)
        raise CdlError(
            f"fetch.offline is set; place these files manually: {wanted}; or set {setting} to a "
            "folder that contains them"
        )
    return [_obtain_file(file, folder / file.name, mirror, offline, setting) for file in files]


def _obtain_file(
    file: Published, target: Path, mirror: str | None, offline: bool, setting: str
) -> Path:
    if target.is_file():
        _verify(target, file, "delete it and run again")
        _part(target).unlink(missing_ok=True)  # of a killed download, before it was placed there
    elif mirror is None and isinstance(file.url, Hub):
        log.info("fetching %s", file.url)
        try:
            target = file.url.path(offline)
        except OSError as error:
            raise _unavailable(file, target, str(file.url), error, setting) from error
        remedy = f"delete {target} and run again; if that fails, the file on the Hub has changed"
        _verify(target, file, remedy)
    else:
        origin = str(file.url) if mirror is None else f"{mirror.rstrip('/')}/{file.name}"
        _fetch(file, target, origin, setting)
    return target


def remember(file: Published, path: Path) -> None:
    """Record the sha256 of a file without a published checksum, once."""
    if file.checksum is None and not file.record.exists():
        with replacing(file.record) as temporary:
            temporary.write_text(f"{fingerprint_file(path)}  {file.name}\n")
        log.info("recorded the sha256 of %s in %s", file.name, file.record)


def _fetch(file: Published, target: Path, origin: str, setting: str) -> None:
    """Copy or download a file and verify it before it is renamed to `target`."""
    part = _part(target)
    log.info("fetching %s", origin)
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        if "://" in origin:
            _download(origin, part, resume=file.expected is not None)
        else:
            shutil.copyfile(origin, part)
    except OSError as error:  # requests' errors are OSErrors too
        raise _unavailable(file, target, origin, error, setting) from error
    try:
        _verify(part, file, f"{origin} is not the published file, or the download is damaged")
    except CdlError:
        part.unlink()
        raise
    os.replace(part, target)


def _part(target: Path) -> Path:
    """Return the path of the part of a file that has been fetched."""
    return target.with_name(f".{target.name}.part")


def _unavailable(
    file: Published, target: Path, origin: str, error: OSError, setting: str
) -> CdlError:
    return CdlError(
        f"{file.name} could not be fetched from {origin} ({error}); run again, or place it "
        f"manually as {target} (from {file.url}), or set {setting} to a folder or address that "
        "contains it"
    )


def _download(url: str, part: Path, resume: bool) -> None:
    start = part.stat().st_size if resume and part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    import requests  # slow to import, and planning imports this module but never downloads

    with requests.get(url, headers=headers, stream=True, timeout=60) as response:
        if start and response.status_code == requests.codes.requested_range_not_satisfiable:
            return  # the partial file is already complete; its checksum is verified next
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
            f"{file.name} has {algorithm} {found}, expected {expected}{source}: {remedy}"
        )


def _digest(path: Path, algorithm: str) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()
