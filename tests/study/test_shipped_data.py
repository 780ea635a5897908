"""Shipped configurations fetch their data, or report which files to place where."""

from itertools import takewhile
from pathlib import Path

import pytest

from cdl.study.configuration import read

ROOT = Path(__file__).parents[2]
SHIPPED = sorted(ROOT.glob("config/**/*.yaml"))


def own_files(config):
    """Return files and patterns that a user must provide, with their folders."""
    for dataset in config.get("datasets", {}).values():
        for name, source in dataset.get("source", {}).items():
            if "path" in source:
                yield source["path"]
            if name == "parquet":
                yield source.get("train", "train*.parquet")
                yield source.get("test", "test*.parquet")
    for backbone in config.get("backbones", {}).values():
        if "file" in backbone:
            yield str(Path(backbone["file"]).parent)
            yield Path(backbone["file"]).name


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_first_comment_names_what_to_put_where(path):
    lines = path.read_text().splitlines()
    assert lines[0].startswith("# yaml-language-server:")
    first = "\n".join(takewhile(lambda line: line.startswith("# "), lines[1:]))
    assert first
    for wanted in own_files(read(path)):
        assert wanted in first, wanted


def test_there_are_configurations_of_both_kinds():
    needing = [path for path in SHIPPED if list(own_files(read(path)))]
    assert needing
    assert len(needing) < len(SHIPPED)
