"""Suggest a configuration that fits a folder of photos or a CSV file of texts. Imports no torch."""

import csv
import math
import re
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median
from typing import Any

import yaml

from cdl.backbones.weights_facts import is_research_only, size_of
from cdl.data.sources.csv import read as read_texts
from cdl.data.sources.folder import Image, Listing, drawn, survey
from cdl.runtime.errors import CdlError
from cdl.runtime.plain_yaml import yaml_value
from cdl.study.configuration import ConfigError, resolve
from cdl.study.grid import Grid

PUBLIC = "vit_small_patch16_224.augreg_in21k_ft_in1k"  # Apache 2.0, 22 M parameters
EMBEDDED = {"vit_micro": "vit_micro_patch4_32", "vit_nano": "vit_nano_patch4_32"}
ENCODERS = {
    "mpnet": "sentence-transformers/all-mpnet-base-v2",
    "minilm": "sentence-transformers/paraphrase-MiniLM-L3-v2",
}
_TEST_FOLDERS = ("test", "val", "valid", "validation")
_SAMPLE, _STEPS = 200, 60  # photos measured, steps of a task
_SHOWN = 5  # folders in a message
_MANY = 15  # photos of a class, of which a fifth is enough for the test
_TEXT, _LABEL = ("text", "utterance", "sentence", "question"), ("label", "category", "intent")
_TOKENS = (32, 64, 128, 256, 512)


@dataclass(frozen=True)
class Suggestion:
    """A configuration that fits a user's files.

    text: the configuration, commented YAML.
    reasons: what was chosen and why, by topic.
    """

    text: str
    reasons: Mapping[str, str]

    @property
    def grid(self) -> Grid:
        """The grid of the configuration; raises `ConfigError` if a value is invalid."""
        return Grid(resolve(yaml_value(self.text)))


@dataclass(frozen=True)
class _Files:
    """What was found in a user's files.

    name: of the files, for the blocks of the configuration.
    items: photos or texts.
    source: block `source`, as YAML.
    counts: training items of each class.
    view: lines of the dataset's block that depend on the modality.
    reasons: see `Suggestion`.
    """

    name: str
    items: str
    source: str
    counts: Mapping[str, int]
    view: str
    reasons: dict[str, str] = field(default_factory=dict)


def suggest(path: Path, backbone: str | None = None) -> Suggestion:
    """Return a configuration for photos, `path/CLASS/*.jpg`, or for a CSV file of texts.

    Args:
        path: a folder of photos, perhaps below train and test; or a CSV file with a header.
        backbone: full name of timm, or of a text encoder on the Hub, of a student without a
            teacher; None: a teacher and a student.

    Raises:
        CdlError: nothing can be found there, there are fewer than two classes, or a class that is
            to be split has one photo.
    """
    files = _photos(path, backbone) if path.is_dir() else _texts(path)
    if len(files.counts) < 2:
        n = f"{len(files.counts)} class{'es' * (not files.counts)}"
        layout = f"{path}/CLASS/*.jpg" if path.is_dir() else "a column of class names"
        raise ConfigError(f"{path}: has {n}; expected two or more, in {layout}")
    sizes = _task_sizes(len(files.counts))
    tasks = str(len(sizes)) if len(set(sizes)) == 1 else str(sizes)
    each = " and ".join(str(size) for size in sorted(set(sizes)))
    smallest = sum(sorted(files.counts.values())[: min(sizes)])
    batch, epochs = _passes(smallest)
    learners = _learners(files, backbone, batch, epochs, len(sizes) > 1)
    whole = sum(files.counts.values())
    text = f"""\
# yaml-language-server: $schema=config.schema.json
# Made by cdl init for {path}: {len(files.counts)} classes, {whole} training {files.items}.
# All fields: config.schema.json. After an edit only the jobs that depend on it run again.
name: {files.name}  # of the results

datasets:
  {files.name}:
    source: {files.source}
    tasks: {tasks}  # number of equal tasks, or the classes of each
{files.view}
{learners}
compute:
  device: auto  # a GPU if there is one
"""
    reasons = files.reasons | {
        "tasks": f"{len(sizes)}, of {each} classes, which are learnt one after the other"
        if len(sizes) > 1
        else f"1: {len(files.counts)} classes are too few for two tasks of two",
    }
    if backbone is None:
        reasons["training"] = (
            f"batches of {batch}, {epochs} epochs: about {epochs * (smallest // batch)} steps "
            f"on the {smallest} {files.items} that the smallest task can have"
        )
    return Suggestion(text, reasons | {"backbones": _about_backbones(files, backbone)})


def _task_sizes(n: int) -> list[int]:
    """Return the classes of each task, two or more where possible."""
    tasks = 1 if n < 4 else 2 if n < 10 else 5
    return [n // tasks + (t < n % tasks) for t in range(tasks)]


def _passes(smallest: int) -> tuple[int, int]:
    """Return batch size and epochs for a task with that many training items."""
    batch = 16
    while batch > 1 and 4 * batch > smallest:
        batch //= 2
    return batch, min(20, max(3, round(_STEPS / max(1, smallest // batch))))


def _learners(files: _Files, backbone: str | None, batch: int, epochs: int, aligned: bool) -> str:
    """Return the blocks from backbones to grid, as YAML."""
    photos = files.items == "photos"
    ridge = "  ranpac: {projection: 2000}  # a ridge on the frozen features\n"
    if backbone is not None:
        return f"""
backbones:
  student: {{{"timm" if photos else "hf"}: {backbone}}}

methods:
{ridge}
grid:
  methods: [ranpac, simple_cil]  # a ridge and class means, which train nothing
  pairs:
    - {{teacher: null, student: student}}
  distillers: [none]
  seeds: [0]  # several seeds give means and intervals
"""
    kind, models = ("embedded", EMBEDDED) if photos else ("hf", ENCODERS)
    blocks = "\n".join(f"  {name}: {{{kind}: {model}}}" for name, model in models.items())
    teacher, student = models
    more = ["pool_per_task: 10"] + ([] if photos else ["layers: [0, 1, 2]"])
    more += ["alignment: {preset: slca, statistic: centroid}"] * aligned
    return f"""
backbones:  # frozen; a larger one teaches a smaller one
{blocks}

training:
  epochs: {epochs}  # passes over the {files.items} of each task
  batch_size: {batch}
  lr: 0.005  # learning rate of Adam at the start of a task

methods:
  coda_prompt: {{{", ".join(more)}}}
{ridge}
grid:
  methods: [coda_prompt]
  bounds: [simple_cil, ranpac]  # class means and a ridge, which train nothing
  pairs:
    - {{teacher: {teacher}, student: {student}}}
  distillers: [none, kd]
  seeds: [0]  # several seeds give means and intervals
"""


def _about_backbones(files: _Files, backbone: str | None) -> str:
    if backbone is not None:
        only = is_research_only("timm", backbone)
        return f"{backbone}, fetched once" + ("; for research only" if only else "")
    if files.items == "texts":
        return f"{' teaches '.join(ENCODERS.values())}, Apache 2.0; about 0.5 GB, fetched once"
    return (
        f"{' teaches '.join(EMBEDDED.values())}; no download, for research only; for photos above "
        f"32 px and for products: --backbone {PUBLIC}"
    )


def _photos(path: Path, backbone: str | None) -> _Files:
    """Look at a folder of photos."""
    options, listing, why = _layout(path)
    counts = Counter({label: 0 for label in listing.classes})
    counts.update(image.label for image in listing.images if image.split != "test")
    side = _short_side(listing.images)
    more, resize = "", ""
    reasons = {"split": why}
    if backbone is None:
        size = size_of("embedded", EMBEDDED["vit_nano"]) or 0
    else:
        size = size_of("timm", backbone) or 224  # planning reports an unknown name
        resize = f", test_resize: {round(size * 8 / 7)}"
    view = f"    view: {{size: {size}, crop_scale: [0.5, 1.0], flip: 0.5{resize}}}"
    reasons["view"] = (
        f"{size} px, the size of the backbone's pretraining; half of the training views are "
        "mirrored (flip: 0 where left and right matter)"
    )
    if side > 2 * size:
        more = f"    short_side: {2 * size}  # photos are stored at this size\n"
        reasons["storage"] = f"at a short side of {2 * size} px; most photos have {side} or more"
    source = _flow({"folder": options})
    return _Files(_block_name(path), "photos", source, counts, more + view, reasons)


def _layout(path: Path) -> tuple[dict[str, Any], Listing, str]:
    """Return options of the source `folder`, its listing with splits, and why."""
    folders = {entry.name for entry in path.iterdir() if entry.is_dir()}
    test = next((name for name in _TEST_FOLDERS if name in folders), None)
    if "train" in folders and test:
        options = {"path": str(path)} | ({"test": test} if test != "test" else {})
        return options, survey(str(path), test=test), f"the folders train and {test}"
    if folders == {"train"}:
        path = path / "train"
    listing = survey(str(path), split={})
    counts = Counter(image.label for image in listing.images)
    if not listing.problems and (
        alone := [str(path / name) for name in counts if counts[name] < 2]
    ):
        more = f" and {len(alone) - _SHOWN} more" if len(alone) > _SHOWN else ""
        have = "have 1 photo each" if len(alone) > 1 else "has 1 photo"
        raise ConfigError(
            f"{', '.join(alone[:_SHOWN])}{more}: {have}; a class needs two, one of them for the "
            "test: add one, or begin the folder's name with a dot"
        )
    smallest = min(counts, key=counts.__getitem__, default="")
    large = counts[smallest] >= _MANY
    split = {"test": 0.2 if large else 0.3, "seed": 0}
    with suppress(CdlError):  # a class of equal photos, which `check` reports
        listing = drawn(listing, split | {"stratified": True})
    n = sum(image.split == "test" for image in listing.images)
    why = (
        f"no folders train and test: {n} of {len(listing.images)} photos are kept for the test, "
        f"{'a fifth' if large else '3 of 10'} of each class"
    )
    if not large:
        why += f", since {smallest!r} has {counts[smallest]} photos, fewer than {_MANY}"
    return {"path": str(path), "split": split}, listing, why


def _short_side(images: tuple[Image, ...]) -> int:
    """Return the median short side in pixels of some photos; 0 if none can be read."""
    import PIL.Image

    sides = []
    for image in images[:: max(1, len(images) // _SAMPLE)]:
        try:
            with PIL.Image.open(image.path) as photo:
                sides.append(min(photo.size))
        except (OSError, ValueError, PIL.Image.DecompressionBombError):
            continue  # `cdl data` reports it
    return int(median(sides)) if sides else 0


def _texts(path: Path) -> _Files:
    """Look at a CSV file of texts."""
    options: dict[str, Any] = {"path": str(path)}
    columns, rows = _table(path, options)
    text, label = _columns_of(path, columns, rows)
    options |= {k: v for k, v in (("text", text), ("label", label)) if k != v}
    options["test_share"] = 0.2
    source = read_texts(**options)
    items = list(source.items)
    counts = Counter({name: 0 for name in source.classes})
    counts.update(source.classes[item.label] for item in items if item.split == "train")
    words = sorted(len(row[text].split()) for row in rows)
    longest = 1.5 * words[int(0.95 * (len(words) - 1))] + 2  # tokens; English has 1.3 a word
    tokens = next((n for n in _TOKENS if n >= longest), _TOKENS[-1])
    n = sum(item.split == "test" for item in items)
    reasons = {
        "columns": f"{text!r} has the texts, {label!r} the classes",
        "split": f"{n} of {len(items)} texts are kept for the test, a fifth of each class",
        "view": f"{tokens} tokens, enough for 19 of 20 texts",
    }
    view = f"    view: {{tokens: {tokens}}}  # the end of longer texts is cut off"
    name = _block_name(path.with_suffix(""))
    return _Files(name, "texts", _flow({"csv": options}), counts, view, reasons)


def _table(path: Path, options: dict[str, Any]) -> tuple[list[str], list[dict[str, str]]]:
    """Return columns and rows of a CSV file; add its delimiter, if it is no comma, to options."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            first = lines.readline()
            delimiter = max(",;\t|", key=first.count)
            lines.seek(0)
            table = csv.DictReader(lines, delimiter=delimiter)
            rows = [{k: v or "" for k, v in row.items() if k} for row in table]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{path}: cannot be read as CSV in UTF-8 ({reason})") from error
    if delimiter != ",":
        options["delimiter"] = delimiter
    return list(table.fieldnames or []), rows


def _columns_of(path: Path, columns: list[str], rows: list[dict[str, str]]) -> tuple[str, str]:
    """Return the columns of the texts and of the class names: by name, else by content."""
    if len(columns) < 2 or not rows:
        raise ConfigError(
            f"{path}: has {len(columns)} columns and {len(rows)} rows; expected a header and two "
            "columns or more: texts and class names"
        )
    length = {column: mean(len(row[column]) for row in rows) for column in columns}
    distinct = {column: len({row[column] for row in rows}) for column in columns}
    named = next((name for name in _TEXT if name in columns), None)
    text = named or max(columns, key=length.__getitem__)
    others = [column for column in columns if column != text]
    several = [column for column in others if distinct[column] > 1] or others
    named = next((name for name in _LABEL if name in others), None)
    return text, named or min(several, key=distinct.__getitem__)


def _block_name(path: Path) -> str:
    """Return a name for blocks, made of that of a file or folder."""
    name = re.sub(r"[^A-Za-z0-9_.]+", "_", path.resolve().name).strip("_.")[:50]
    return name or "mine"


def _flow(value: Any) -> str:
    """Return a value as YAML in one line."""
    text = yaml.safe_dump(
        value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=math.inf
    )
    return text.strip()
