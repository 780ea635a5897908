"""Commands that help to write a configuration: init, list, data."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cdl.cli.options import (
    AsJson,
    Configs,
    Directory,
    cdl_command,
    grid_of,
    print_json,
    program,
)
from cdl.study.configuration import ConfigError, near, schema

if TYPE_CHECKING:
    from cdl.inventory.suggesting import Suggestion


def init(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Folder to write to; created if missing.")
    ],
    images: Annotated[
        Path | None, typer.Option(metavar="PHOTOS", help="Your photos, PHOTOS/CLASS/*.jpg.")
    ] = None,
    texts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Your texts, a CSV with class names.")
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="With your files: a public backbone, no teacher."),
    ] = None,
    text_starter: Annotated[
        bool, typer.Option("--text", help="The example is for texts in CSV files.")
    ] = False,
) -> None:
    """Write a configuration, an example or one for your files.

    For photos or texts it prints what was chosen and why. Else it writes a commented
    example on digits, without a download, and a SLURM profile. Fails if a file exists.
    """
    schemas = files("cdl") / "study" / "schema" / "config.schema.json"
    config = folder / "config.yaml"
    contents = {config: "", folder / "config.schema.json": schemas.read_text()}  # in this order
    paths = [path for path in (images, texts) if path is not None]
    if len(paths) + text_starter > 1:
        raise typer.BadParameter("--images, --texts and --text exclude each other")
    if backbone and not paths:
        raise typer.BadParameter("--backbone: needs --images or --texts")
    if paths:
        from cdl.inventory.datasets import check, remarks
        from cdl.inventory.datasets import text as summary

        made = suggested(paths[0], images is not None, backbone)
        grid = made.grid
        summaries, notes = check(grid, opened=False), [*remarks(grid)]
        contents[config] = made.text
        _write(contents)
        print(summary(summaries))
        for topic, reason in made.reasons.items():
            print(f"  {topic}: {reason}")
        for note in notes:
            print(f"note: {note}")
        print(f"wrote {config}; run: {cdl_command()} run {config} --cores 2")
        return
    starter = files("cdl") / "assets" / ("starter_text.yaml" if text_starter else "starter.yaml")
    profile = program() / "workflow" / "profiles" / "slurm" / "config.yaml"
    contents[config] = starter.read_text()
    contents[folder / "profiles" / "slurm" / "config.yaml"] = profile.read_text()
    _write(contents)
    if text_starter:
        put = f"put your CSV files into {folder / 'tickets'}"
        print(f"wrote {config}; {put}, then: cd {folder} && cdl run config.yaml --cores 2")
    else:
        print(f"wrote {config}, an example on digits; for your own: --images PHOTOS, --texts FILE")
        print(f"edit it, then run: cdl run {config} --cores 2")
    print(f"wrote {folder}/profiles/slurm/config.yaml; its comments explain runs on SLURM")


def _write(contents: dict[Path, str]) -> None:
    """Write files; raise `ConfigError` if one exists, with the name of the first."""
    if existing := [path for path in contents if path.exists()]:
        raise ConfigError(f"{existing[0]}: already exists; choose another folder")
    for path, text in contents.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def suggested(path: Path, photos: bool, backbone: str | None = None) -> "Suggestion":
    """Return a configuration for photos or texts; raise `ConfigError` if they are not there."""
    from cdl.inventory.suggesting import suggest

    wanted = f"a folder with {path}/CLASS/*.jpg" if photos else "a CSV file with a header"
    if not (path.is_dir() if photos else path.is_file()):
        problem = "is not" if path.exists() else "does not exist; expected"
        raise ConfigError(f"{path}: {problem} {wanted}")
    return suggest(path, backbone)


class Kind(StrEnum):
    """Kinds of names that can be listed."""

    methods = "methods"
    distillers = "distillers"
    backbones = "backbones"
    datasets = "datasets"


def list_(
    kind: Annotated[
        Kind,
        typer.Argument(metavar="KIND", help="methods, distillers, backbones or datasets."),
    ],
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="One of them: its options.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the names that a configuration can use, or options.

    Prints each name with a description and, for methods and distillers, the paper.
    With NAME of a method, distiller or dataset it prints each option with its values,
    its default and its meaning.
    """
    descriptions = dict(_descriptions(kind))
    if name is not None:
        _print_options(kind, name, descriptions, as_json)
        return
    if as_json:
        print_json(descriptions)
        return
    width = max(map(len, descriptions))
    for name, text in descriptions.items():
        print(f"{name:<{width}}  {text}")


def _print_options(kind: Kind, name: str, known: Mapping[str, str], as_json: bool) -> None:
    """Print the options of one name, see `list_`; raise `ConfigError` if it is unknown."""
    if kind is Kind.backbones:
        raise ConfigError("cdl list backbones: has no NAME; expected methods, distillers, datasets")
    if name not in known:
        some = f"{near(name, known)}; expected one of {', '.join(known)}"
        raise ConfigError(f"{name}: is not the name of one of the {kind.value}{some}")
    options = dict(_options(_blocks(kind)[name]["properties"]))
    if as_json:
        print_json(options)
        return
    print(f"{name}: {known[name]}")
    for option, part in options.items():
        default = f"default {json.dumps(part['default'])}" if "default" in part else "required"
        print(f"  {option}: {_values(part)}; {default}")
        print(f"      {part.get('description', '')}")


def _options(properties: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the schema of each option by its name, those inside an option after it."""
    for name, part in properties.items():
        yield above + name, part
        yield from _options(part.get("properties", {}), f"{above}{name}.")


def _values(part: Mapping[str, Any]) -> str:
    """Return the values that the schema of an option allows, in words: `integer, >= 1, or null`."""
    if "enum" in part:
        return ", ".join("null" if value is None else str(value) for value in part["enum"])
    kinds = [part["type"]] if isinstance(part.get("type"), str) else part.get("type", ["any value"])
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    signs |= {"multipleOf": "a multiple of"}
    words = [" or ".join(kind for kind in kinds if kind != "null")]
    words += [f"{sign} {part[key]}" for key, sign in signs.items() if key in part]
    return ", ".join(words) + ", or null" * ("null" in kinds)


def _blocks(kind: Kind) -> dict[str, Any]:
    """Return the schemas of the blocks of methods, distillers or sources by name."""
    properties: dict[str, Any] = schema()["properties"]
    part = properties[kind.value]
    if kind is Kind.datasets:
        part = part["additionalProperties"]["properties"]["source"]
    return dict(part["properties"])


def _descriptions(kind: Kind) -> Iterator[tuple[str, str]]:
    """Yield the names of one kind with their descriptions."""
    if kind is Kind.backbones:
        from cdl.study.validation import shape_of, shipped_backbones

        for name in shipped_backbones():
            shape = shape_of(name, "embedded", name)
            facts = f"width {shape.width}, {shape.depth} blocks, patch {shape.patch}"
            yield name, f"embedded: {facts}; for research only"
        fields = schema()["properties"]["backbones"]["additionalProperties"]["properties"]
        for source in ("timm", "file", "hf", "folder", "onnx"):
            field = fields[source]
            yield f"{source}: ...", field["description"]
        return
    for name, block in _blocks(kind).items():
        yield name, block["description"]


def data(
    config: Configs,
    directory: Directory = Path("."),
    opened: Annotated[
        bool, typer.Option("--open/--no-open", help="Open every item of your own files.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Describe and check the data of CONFIG, or of a folder.

    Takes a configuration, or photos in FOLDER/CLASS, or a CSV file of texts. Prints
    classes, numbers of images or texts, size on disk and what a run will download;
    lists all problems: unreadable items, small classes, tasks that do not fit.
    """
    from cdl.inventory.datasets import check, remarks, text

    first = directory / config[0]
    if first.is_dir() or first.suffix == ".csv":
        os.chdir(directory)
        grid = suggested(Path(config[0]), first.is_dir()).grid
    else:
        grid = grid_of(config, directory)
        os.chdir(directory)
    summaries = check(grid, opened)
    if as_json:
        print_json({name: asdict(dataset) for name, dataset in summaries.items()})
        return
    print(text(summaries))
    for note in remarks(grid):
        print(f"note: {note}")
