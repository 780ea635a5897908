"""The layers of a configuration: YAML files, and values such as `training.epochs=5`."""

import os
import re
from collections.abc import Iterable
from functools import reduce
from os import PathLike
from pathlib import Path
from typing import Any

import yaml

from cdl.runtime.artifacts import fingerprint, replacing
from cdl.runtime.errors import CdlError
from cdl.runtime.plain_yaml import yaml_value
from cdl.study.configuration import ConfigError, merge, read

FOLDER = Path(".snakemake", "cdl")  # of files of values
_VALUE = re.compile(r"[A-Za-z_][^=\s/]*=")  # beginning of a value; a path has a slash or no =


def is_value(word: str) -> bool:
    """Return whether a word of the command line is a value, FIELD=VALUE, and no file."""
    return _VALUE.match(word) is not None and not os.path.isfile(word)  # false for long words, too


def value_of(word: str) -> dict[str, Any]:
    """Return a value as a layer: `training.epochs=5` as `{"training": {"epochs": 5}}`.

    Raises:
        ConfigError: a part of the field is empty, or the value is no plain YAML.
    """
    field, _, text = word.partition("=")
    try:
        value = yaml_value(text)
    except CdlError as error:
        raise ConfigError(f"{field}: {error}") from None
    return nested(field, value)


def nested(field: str, value: Any) -> dict[str, Any]:
    """Return a field with dots and its value as a layer.

    Raises:
        ConfigError: a part of the field is empty.
    """
    keys = field.split(".")
    if not all(keys):
        raise ConfigError(f"{field!r}: is not a field; expected one such as training.epochs")
    return reduce(lambda inner, key: {key: inner}, reversed(keys), value)


def merged(words: Iterable[str | PathLike[str]]) -> dict[str, Any]:
    """Return the configuration of files and values, where later ones override earlier ones.

    Raises:
        ConfigError: a file or a value cannot be read.
    """
    texts = [str(word) for word in words]
    layers = [value_of(text) if is_value(text) else read(text) for text in texts]
    return reduce(merge, layers)


def as_files(words: Iterable[str], directory: Path) -> list[str]:
    """Return files and values as files, which Snakemake passes on to its jobs.

    Args:
        words: files and values.
        directory: folder that contains the results folder; a file of values is written to
            `.snakemake/cdl` there, under a name made of its content.
    """
    files = []
    for word in words:
        if not is_value(word):
            files.append(word)
            continue
        value = value_of(word)
        path = (directory / FOLDER / f"{fingerprint(word)[:16]}.yaml").absolute()
        with replacing(path) as temporary:
            temporary.write_text(f"# {word}\n{yaml.safe_dump(value)}")
        files.append(str(path))
    return files


def shown(file: str | PathLike[str]) -> str:
    """Return a configuration file as it was given, a value if it is a file of `as_files`."""
    path = Path(file)
    if path.parent.parts[-2:] != FOLDER.parts:
        return str(file)
    return path.read_text().partition("\n")[0].removeprefix("# ")
