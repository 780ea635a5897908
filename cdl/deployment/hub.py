"""Students on the Hugging Face Hub: upload an exported folder, fetch one by its address."""

import re
from dataclasses import dataclass
from pathlib import Path

from cdl.deployment import manifest
from cdl.deployment.manifest import CARD, CONFIG, DEVICE, MANIFEST, READ, TENSORS
from cdl.device.versions import CURRENT, VERSIONS, current_version, place_of
from cdl.runtime.errors import CdlError
from cdl.runtime.fetching import Hub, hub_page, repository_folder, upload
from cdl.runtime.plain_yaml import card_metadata

PREFIX = "hf://"
README = "README.md"  # the Hub's name of a model card
_REPOSITORY = r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*"
_ADDRESS = re.compile(rf"{PREFIX}({_REPOSITORY})(?:@(\S+))?", re.ASCII)
_OWN = (*READ, TENSORS, CONFIG, CARD, DEVICE, MANIFEST, README, CURRENT, f"{VERSIONS}/*")
_LOG_IN = "log in with `hf auth login` or HF_TOKEN"


def fetch(address: str) -> Path:
    """Fetch an exported student; return its folder in the Hub's cache.

    Args:
        address: `hf://OWNER/NAME`, or with a branch, tag or commit `hf://OWNER/NAME@REVISION`.

    Raises:
        CdlError: the address is invalid, or the student cannot be fetched.
    """
    if not (match := _ADDRESS.fullmatch(address)):
        raise CdlError(f"{address}: invalid address; expected hf://OWNER/NAME[@REVISION]")
    repository, revision = match[1], match[2] or "main"
    try:
        Hub(repository, MANIFEST, revision).path()  # a model of another kind may be large
        return repository_folder(repository, revision)
    except OSError as error:
        raise CdlError(
            f"{address}: could not be fetched ({error}); expected a student that `cdl push` has "
            f"uploaded; check owner, name and revision, and if it is private, {_LOG_IN}"
        ) from error


@dataclass(frozen=True)
class Upload:
    """A checked folder that is to be uploaded.

    Attributes:
        repository: `OWNER/NAME`.
        private: whether it must be private.
        licence: licence in the metadata of the model card.
        files: the files by their paths in the repository.
    """

    repository: str
    private: bool
    licence: str
    files: dict[str, Path]

    @classmethod
    def of(cls, folder: Path, repository: str, private: bool) -> "Upload":
        """Check a folder and list its files; does not use the network.

        The files are those of the manifests of the export and of the current version. Versions
        between them, and files without an entry in a manifest, are not uploaded.

        Raises:
            CdlError: the name is invalid, the folder is not an exported student or differs from its
                manifest, or the model card is missing or has no licence. The card may be edited.
        """
        if not re.fullmatch(_REPOSITORY, repository, re.ASCII):
            raise CdlError(f"{repository}: invalid name; expected OWNER/NAME, such as me/birds")
        if not (folder / MANIFEST).is_file():
            raise CdlError(
                f"{folder}: is not the folder of an exported student: {MANIFEST} is missing; "
                "write one with `cdl export RUN -o FOLDER`"
            )
        found = manifest.compare(folder)
        for name, difference in found.items():
            if difference and not (name == CARD and (folder / CARD).is_file()):
                raise CdlError(f"{folder / name}: {difference}; export the student again")
        place = place_of(folder, current_version(folder)).relative_to(folder)
        names = {*found, MANIFEST, (place / MANIFEST).as_posix()}
        files = {name: folder / name for name in sorted(names)}
        licence = _licence(folder / CARD)
        return cls(repository, private, licence, {README: folder / CARD, **files})

    def text(self) -> str:
        """Return the files with their sizes, and the total, as text."""
        sizes = {name: path.stat().st_size for name, path in self.files.items()}
        seen = "private" if self.private else "public, unless it exists and is private"
        return "\n".join(
            [
                f"to {hub_page(self.repository)} ({seen}), licence {self.licence}:",
                *(f"{size / 1e6:>10.3f} MB  {name}" for name, size in sizes.items()),
                f"{sum(sizes.values()) / 1e6:>10.3f} MB  in {len(sizes)} files",
            ]
        )

    @property
    def loading(self) -> str:
        """The call that loads the student from the Hub."""
        if TENSORS in self.files:
            return f"timm.create_model('hf-hub:{self.repository}', pretrained=True)"
        return f"cdl.load('{PREFIX}{self.repository}')"

    def send(self) -> str:
        """Upload the files in one commit; return its address.

        Files of a student that the repository has and this one has not are deleted.

        Raises:
            CdlError: the files cannot be uploaded.
        """
        try:
            return upload(self.files, self.repository, self.private, _OWN)
        except OSError as error:
            raise CdlError(
                f"{hub_page(self.repository)}: could not be written ({error}); {_LOG_IN}, with a "
                "token that may write to it"
            ) from error


def _licence(card: Path) -> str:
    """Return the licence in the metadata of a model card; raise `CdlError` if there is none."""
    licence = card_metadata(card).get("license")
    if not isinstance(licence, str):
        raise CdlError(
            f"{card}: its metadata has no licence; expected a line such as `license: mit` between "
            "the lines --- at its beginning"
        )
    return licence
