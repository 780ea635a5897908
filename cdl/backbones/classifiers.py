"""Classifiers with heads of their own, as teachers: their files and classes, for planning.

Imports neither torch nor transformers; `cdl.models.classifiers` opens the models. A classifier is

* `timm`: a folder with `config.json` and `model.safetensors` as timm saves a model for the Hub;
* `hf`: a folder as `save_pretrained` of transformers writes it, with `preprocessor_config.json` for
  images or `tokenizer.json` for texts;
* `onnx`: a file with one input and one output;
* `student`: a folder of `cdl export`.

A tag of timm, or OWNER/NAME of a model on the Hub, is such a folder in `data/backbones` once
`cdl backbones fetch --classifier` has fetched it, see `cdl.backbones.fetch_classifier`. Code and
pickles are never read.
"""

import contextlib
import csv
import re
import stat
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cdl.backbones.architectures import architectures
from cdl.backbones.pretrained import WEIGHTS, named
from cdl.runtime.artifacts import fingerprint
from cdl.runtime.errors import CdlError
from cdl.runtime.outside import json_object
from cdl.runtime.plain_yaml import card_metadata

READS = {  # kinds of classifiers, and what they classify
    "timm": ("images",),
    "hf": ("images", "texts"),
    "onnx": ("images",),
    "student": ("images", "texts"),
}
CONFIG, TENSORS = "config.json", "model.safetensors"
IMAGES, TEXTS = "preprocessor_config.json", "tokenizer.json"
INPUTS = {"images": IMAGES, "texts": TEXTS}  # files that say how items are read
_ENDS = {"ForImageClassification": "images", "ForSequenceClassification": "texts"}
CARD, ORIGIN = "README.md", "origin.json"  # the Hub's card of a model, and where it is from
LARGEST = {".onnx": 2 << 30, ".json": 64 << 20, ".csv": 64 << 20, ".md": 4 << 20}  # bytes of a file
_PICKLES = ("pytorch_model.bin", "model.pth", "model.pt")
_SYNSETS = "data/_info/imagenet_synsets.txt"  # of timm: WordNet ids in the order of ImageNet-1k
_NAMED = {"type": "array", "items": {"type": "string"}, "minItems": 2}
_MOST = 1 << 16  # classes
_LICENCE = 200  # characters
_COUNT = {"type": "integer", "minimum": 2, "maximum": _MOST}
_PUBLISHED = {  # names that are fetched
    "timm": re.compile(r"\w+\.\w+", re.ASCII),
    "hf": re.compile(r"(?!\.)[\w.-]+/(?!\.)[\w.-]+", re.ASCII),
}
CONFIGS = {
    "timm": {
        "required": ["architecture", "num_classes"],
        "properties": {
            "architecture": {"type": "string"},
            "num_classes": _COUNT,
            "label_names": _NAMED,
            "model_args": {"type": "object"},
            "pretrained_cfg": {"type": "object"},
        },
    },
    "hf": {
        "required": ["model_type", "id2label"],
        "properties": {
            "model_type": {"type": "string"},
            "id2label": {"type": "object", "additionalProperties": {"type": "string"}},
            "architectures": {"type": ["array", "null"]},
        },
    },
}


@dataclass(frozen=True)
class ClassifierSource:
    """A classifier as a configuration names it.

    kind: one of `READS`.
    path: of its folder, or of the ONNX file.
    mapping: file from its classes to those of the data; None: they have the same names.
    published: its tag or its name on the Hub, with its revision, if it is to be fetched.
    size, mean, std: input of an ONNX file alone: side in pixels, mean and deviation by channel.
    """

    kind: str
    path: Path
    mapping: Path | None = None
    published: str = ""
    size: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "ClassifierSource":
        """Create it from the block of a configuration; raise `CdlError` if that is invalid."""
        kinds = [kind for kind in READS if given.get(kind)]
        if len(kinds) != 1:
            raise CdlError(f"expected one of {', '.join(READS)}, found {kinds or 'none'}")
        (kind,) = kinds
        path, inputs = Path(given[kind]), {k: given.get(k) for k in ("size", "mean", "std")}
        revision, published = given.get("revision"), ""
        if is_published(kind, given[kind]):
            published, path = named(given[kind], revision), folder_of(kind, given[kind], revision)
        if revision and kind != "hf" or revision and not published:
            raise CdlError("revision: only valid with hf: OWNER/NAME of the Hub; remove it")
        wrong = [k for k, value in inputs.items() if (value is None) == (kind == "onnx")]
        if wrong and kind == "onnx":
            raise CdlError(f"{wrong[0]}: is missing; an ONNX file needs size, mean and std")
        if wrong:
            raise CdlError(f"{wrong[0]}: only valid with onnx, since {kind} has its own; remove it")
        if inputs["std"] and min(inputs["std"]) <= 0:
            raise CdlError(f"std: invalid value {inputs['std']}; expected numbers above 0")
        mapping = given.get("classes")
        mean, std = (tuple(inputs[k] or ()) for k in ("mean", "std"))
        mapped = Path(mapping) if mapping else None
        return cls(kind, path, mapped, published, inputs["size"] or 0, mean, std)

    @property
    def files(self) -> list[Path]:
        """Files that determine its answers; raise `CdlError` if one is missing or no plain file."""
        if self.kind == "onnx":
            found = [self.path]
        elif self.published and not (self.path / TENSORS).exists():
            raise CdlError(self._to_fetch())
        elif not self.path.is_dir():
            name = {"timm": ", nor a tag such as resnet18.a1_in1k", "hf": ", nor OWNER/NAME"}
            raise CdlError(f"{str(self.path)!r} is not a folder{name.get(self.kind, '')}")
        elif self.kind == "student":  # its manifests have the sha256 of all other files
            from cdl.device.versions import CURRENT, MANIFEST, current_version, place_of

            place = place_of(self.path, current_version(self.path))
            pointer = self.path / CURRENT
            found = [*dict.fromkeys([self.path / MANIFEST, place / MANIFEST])]
            found += [pointer] if pointer.exists() else []
        else:
            pickle = next((name for name in _PICKLES if (self.path / name).exists()), None)
            if pickle and not (self.path / TENSORS).exists():
                raise CdlError(
                    f"{self.path / pickle}: is a pickle, which may run code when it is read; save "
                    f"the model as {TENSORS}"
                )
            others = [self.path / name for name in (IMAGES, TEXTS) if self.kind == "hf"]
            found = [self.path / CONFIG, self.path / TENSORS, *filter(Path.exists, others)]
        found += [self.mapping] if self.mapping else []
        for file in found:
            plain_file(file, ".onnx" if self.kind == "onnx" and file == self.path else "")
        return found

    def _to_fetch(self) -> str:
        """Return the sentence for a model that is to be fetched, or whose tag timm lacks."""
        name, _, tag = self.published.partition(".")
        known = architectures().get(name) if self.kind == "timm" else None
        if self.kind == "timm" and (known is None or tag not in known.tags):
            tags = f"{name} with {', '.join(known.tags) or 'no tag'}" if known else f"no {name!r}"
            return f"{self.published!r} is not a folder, and no tag of timm, which has {tags}"
        model, _, revision = self.published.partition("@")
        option = f" --revision {revision}" if revision else ""
        return (
            f"{model!r} is not a folder, and is not fetched yet; run `cdl backbones fetch "
            f"--classifier {model}{option}` and then this command again"
        )

    def sha256(self, hash_of: Callable[[Path], str]) -> str:
        """Return the sha256 of all that determines its answers, from a function for its files."""
        files = [[file.name, hash_of(file)] for file in self.files]
        return fingerprint([self.kind, files, [self.size, self.mean, self.std]])

    @property
    def config(self) -> dict[str, Any]:
        """Content of `config.json` of a folder of timm or transformers."""
        return json_object(plain_file(self.path / CONFIG), schema=CONFIGS[self.kind])

    @property
    def origin(self) -> dict[str, Any]:
        """What is known of where it is from: `path`, `repository`, `revision`, `licence`."""
        known: dict[str, Any] = {}
        if self.kind != "onnx" and (self.path / ORIGIN).is_file():
            known = json_object(plain_file(self.path / ORIGIN))
        found = {key: known.get(key) for key in ("repository", "revision")}
        return {"path": str(self.path), **found, "licence": self.licence}

    @property
    def licence(self) -> str | None:
        """Licence of its weights, as its card or its configuration names it; None: unknown."""
        if self.kind == "onnx":
            return None
        card = next((f for f in (self.path / CARD, self.path / "card.md") if f.is_file()), None)
        about: dict[str, Any] = {}
        with contextlib.suppress(CdlError):  # a card that cannot be read names no licence
            about = card_metadata(plain_file(card)) if card else {}
        found = about.get("license")
        if found == "other":
            found = about.get("license_name") or about.get("license_link") or found
        if not found and self.kind == "timm":
            found = self.config.get("pretrained_cfg", {}).get("license")
        return str(found)[:_LICENCE] if found else None

    def check_items(self, items: str) -> None:
        """Raise `CdlError` unless it classifies `images` or `texts`, as the data has."""
        if items not in READS[self.kind]:
            raise CdlError(f"{self.path}: {self.kind} classifies images; the data has {items}")
        if self.kind == "hf" and (own := items_of(self.config, self.path)) != items:
            raise CdlError(f"{self.path}: classifies {own}, the data has {items}")

    @property
    def names(self) -> tuple[str, ...] | None:
        """Names of its classes in the order of its outputs; None if it names none."""
        if self.kind == "student":
            from cdl.device.student import CLASSES, read_classes
            from cdl.device.versions import current_version, place_of

            return tuple(read_classes(place_of(self.path, current_version(self.path)) / CLASSES))
        if self.kind == "onnx":
            return None
        config = self.config
        if self.kind == "hf":
            labels: dict[str, str] = config["id2label"]
            if sorted(labels) != sorted(map(str, range(len(labels)))):
                raise CdlError(f"{self.path / CONFIG}: id2label: expected the keys 0, 1, 2, ...")
            return tuple(labels[str(i)] for i in range(len(labels)))
        given, n = config.get("label_names"), config["num_classes"]
        if given is None and n == 1000:
            spec = find_spec("timm")
            assert spec and spec.submodule_search_locations, "cdl depends on timm"
            given = Path(spec.submodule_search_locations[0], _SYNSETS).read_text().split()
        if given is not None and len(given) != n:
            raise CdlError(f"{self.path / CONFIG}: has {len(given)} label_names for {n} classes")
        return given and tuple(given)

    @property
    def columns(self) -> dict[str, list[int]]:
        """Its outputs for each class of the data; several are added as probabilities.

        Raises:
            CdlError: its classes have no names, or the mapping is invalid.
        """
        names, found = self.names, dict[str, list[int]]()
        if self.mapping is None:
            if names is None:
                raise CdlError(
                    f"{self.path}: does not name its classes; expected classes: FILE, which maps "
                    "their numbers, counted from 0, to classes of the data"
                )
            pairs = [(str(i), name) for i, name in enumerate(names)]
        else:
            pairs = _pairs(self.mapping)
        own = {str(i): [i] for i in range(_MOST if names is None else len(names))}
        if self.mapping is not None and names is not None:
            named: dict[str, list[int]] = {}
            for i, name in enumerate(names):
                named.setdefault(name, []).append(i)
            own |= named
        for key, name in pairs:
            if key not in own:
                raise CdlError(
                    f"{self.mapping}: {key!r} is not a class of {self.path}; expected a name or a "
                    f"number from 0 to {len(names or own) - 1}"
                )
            found.setdefault(name, []).extend(own[key])
        return found


def items_of(config: Mapping[str, Any], where: object) -> str:
    """Return what a model of transformers classifies, `images` or `texts`.

    Raises:
        CdlError: its configuration is not of a classifier of either; `where` is the subject.
    """
    names = [str(name) for name in config.get("architectures") or ()]
    for end, items in _ENDS.items():
        if any(name.endswith(end) for name in names):
            return items
    raise CdlError(
        f"{where}: is {', '.join(names) or 'of an unknown architecture'}; expected a classifier of "
        f"images or texts, whose architecture ends with {' or '.join(_ENDS)}"
    )


def is_published(kind: str, name: str) -> bool:
    """Return whether a name is of a model that is fetched, and not the path of a folder."""
    known = _PUBLISHED.get(kind)
    return known is not None and not Path(name).is_dir() and known.fullmatch(name) is not None


def folder_of(kind: str, name: str, revision: str | None = None) -> Path:
    """Return the folder in which a fetched classifier is kept."""
    return WEIGHTS / ("timm" if kind == "timm" else "") / named(name, revision)


def _pairs(file: Path) -> list[tuple[str, str]]:
    """Return a mapping of classes: a JSON object, or CSV with the columns `model` and `data`."""
    if file.suffix == ".json":
        text = {"additionalProperties": {"type": "string"}}
        return list(json_object(plain_file(file), schema=text).items())
    try:
        with open(plain_file(file), encoding="utf-8-sig", newline="") as lines:
            rows = list(csv.DictReader(lines, strict=True))
    except (OSError, ValueError, csv.Error) as error:
        raise CdlError(f"{file}: cannot be read as CSV in UTF-8 ({error})") from error
    for number, row in enumerate(rows, 1):
        if not row.get("model") or not row.get("data"):
            raise CdlError(f"{file}: row {number} lacks a value; expected columns model and data")
    pairs = [(row["model"], row["data"]) for row in rows]
    twice = next((own for own, n in Counter(own for own, _ in pairs).items() if n > 1), None)
    if twice is not None or not pairs:
        raise CdlError(f"{file}: {f'{twice!r} is there twice' if pairs else 'has no row'}")
    return pairs


def plain_file(file: Path, suffix: str = "") -> Path:
    """Return a file; raise `CdlError` unless it is a plain one of an acceptable size.

    A link to a plain file is one, as in the cache of the Hub. The limit is that of its suffix, or
    of another one that says what it contains.
    """
    try:
        found = file.stat()
    except OSError as error:
        raise CdlError(f"{file}: cannot be read ({error.strerror})") from error
    if not stat.S_ISREG(found.st_mode):  # reading a device or a pipe might never end
        raise CdlError(f"{file}: is not a regular file")
    most = LARGEST.get(suffix or file.suffix, found.st_size)
    if found.st_size > most:
        raise CdlError(f"{file}: is larger than {most >> 20} MiB")
    return file
