"""The command `cdl answers`: the list of items that a teacher of one's own must answer."""

import os
from pathlib import Path
from typing import Annotated

import typer

from cdl.cli.options import Configs, Directory, grid_of


def answers(
    config: Configs,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="CSV file to write.")
    ],
    directory: Directory = Path("."),
    dataset: Annotated[
        str | None, typer.Option(help="Dataset of CONFIG, if it has more than one.")
    ] = None,
) -> None:
    """Write the list of items that a teacher of your own must answer.

    One row for each training and test item: its name, the path to an image file,
    and an empty column for each class. Fill in probabilities, or logits, and name
    the file in grid.pairs: {teacher: {answers: FILE}, student: ...}. Images that
    are in no file of their own are written into a folder beside FILE.
    """
    from cdl.inventory.answers import list_items, without_teacher

    target = output.absolute()
    grid = grid_of(config, directory, without_teacher)
    os.chdir(directory)
    print(f"wrote {output}: {list_items(grid, dataset, target)} items")
