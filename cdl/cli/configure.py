"""Commands that help to write a configuration: init, list, data."""

import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import typer

from cdl.cli.options import AsJson, Configs, Directory, grid_of, print_json, program
from cdl.study.configuration import ConfigError, schema


def init(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Folder to write to; created if missing.")
    ],
    texts: Annotated[
        bool, typer.Option("--text", help="For texts in CSV files instead of images.")
    ] = False,
) -> None:
    """Write a starter configuration and a SLURM profile.

    Both contain comments on every field. The starter needs no download and runs
    for two minutes on two cores; with --text it reads your CSV files and fetches
    two encoders. Fails if one of the files exists.
    """
    starter = files("cdl") / "assets" / ("starter_text.yaml" if texts else "starter.yaml")
    profile = program() / "workflow" / "profiles" / "slurm" / "config.yaml"
    schemas = files("cdl") / "study" / "schema" / "config.schema.json"
    contents = {
        folder / "config.yaml": starter.read_text(),
        folder / "config.schema.json": schemas.read_text(),
        folder / "profiles" / "slurm" / "config.yaml": profile.read_text(),
    }
    existing = [path for path in contents if path.exists()]
    if existing:
        raise ConfigError(f"{existing[0]}: already exists; choose another folder")
    for path, text in contents.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    config = folder / "config.yaml"
    if texts:
        put = f"put your CSV files into {folder / 'tickets'}"
        print(f"wrote {config}; {put}, then: cd {folder} && cdl run config.yaml --cores 2")
    else:
        print(f"wrote {config}; edit it, then run: cdl run {config} --cores 2")
    print(f"wrote {folder}/profiles/slurm/config.yaml; its comments explain runs on SLURM")


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
    as_json: AsJson = False,
) -> None:
    """List the names that a configuration can use.

    Prints each name with a description and, for methods and distillers, the paper.
    """
    descriptions = dict(_descriptions(kind))
    if as_json:
        print_json(descriptions)
        return
    width = max(map(len, descriptions))
    for name, text in descriptions.items():
        print(f"{name:<{width}}  {text}")


def _descriptions(kind: Kind) -> Iterator[tuple[str, str]]:
    """Yield the names of one kind with their descriptions."""
    properties: dict[str, Any] = schema()["properties"]
    if kind is Kind.backbones:
        from cdl.study.validation import shape_of, shipped_backbones

        for name in shipped_backbones():
            shape = shape_of(name, "embedded", name)
            yield name, f"embedded: width {shape.width}, {shape.depth} blocks, patch {shape.patch}"
        for source in ("timm", "file", "hf", "folder"):
            field = properties["backbones"]["additionalProperties"]["properties"][source]
            yield f"{source}: ...", field["description"]
        return
    if kind is Kind.datasets:
        part = properties["datasets"]["additionalProperties"]["properties"]["source"]
    else:
        part = properties[kind.value]
    for name, block in part["properties"].items():
        yield name, block["description"]


def data(
    config: Configs,
    directory: Directory = Path("."),
    opened: Annotated[
        bool, typer.Option("--open/--no-open", help="Open every item of your own files.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Describe and check the datasets of CONFIG.

    Prints classes, numbers of images or texts, size on disk and what a run will download;
    lists all problems: unreadable items, small classes, tasks that do not fit.
    """
    from cdl.inventory.datasets import describe, text

    grid = grid_of(config, directory)
    os.chdir(directory)
    found, problems = describe(grid, opened)
    if problems:
        many = [f"{len(problems)} problems:"] if len(problems) > 1 else []
        print("cdl: " + "\n".join([*many, *problems]), file=sys.stderr)
        raise typer.Exit(2)
    if as_json:
        print_json({name: asdict(dataset) for name, dataset in found.items()})
    else:
        print(text(found))
