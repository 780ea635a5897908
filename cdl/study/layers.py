"""The layers of a configuration: YAML files, and values such as `training.epochs=5`."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
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
_FIELD = r"[A-Za-z_][^=\s/]*"
_VALUE = re.compile(f"{_FIELD}=")  # beginning of a value; a path has a slash or no =
_POWER = re.compile(r"[-+]?\d+[eE][-+]?\d+")  # a number, which YAML 1.1 reads as text


def is_value(word: str) -> bool:
    """Return whether a word of the command line is a value, FIELD=VALUE, and no file."""
    if _VALUE.match(word) is None:
        return False
    try:
        return not Path(word).is_file()
    except OSError:  # too long for the name of a file
        return True


def words_of(layer: Mapping[str, Any]) -> Iterator[str]:
    """Yield the values of a layer as words of a command line, one for each of its keys.

    Args:
        layer: values by field, such as `{"training.epochs": 5}` or `{"training": {"epochs": 5}}`.

    Raises:
        ConfigError: a key is not a field, or a value is not plain data.
    """
    for field, value in layer.items():
        if not isinstance(field, str) or not re.fullmatch(_FIELD, field):
            raise ConfigError(
                f"{field!r:.100}: is not a field; expected one such as training.epochs"
            )
        try:
            yield f"{field}={_text_of(value, field)}"
        except RecursionError:
            raise ConfigError(f"{field}: contains itself, or is too deeply nested") from None


def _text_of(value: Any, field: str) -> str:
    """Return plain data as YAML in one line; sets of numbers may be ranges, tuples or arrays."""
    if hasattr(value, "tolist"):  # numbers and arrays of numpy and torch
        value = value.tolist()
    if isinstance(value, PathLike):
        value = str(value)
    if isinstance(value, str):
        quoted = json.dumps(value, ensure_ascii=False)
        return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in quoted)
    if value is None or isinstance(value, bool | int):
        return json.dumps(value)
    if isinstance(value, float):
        text = repr(value)  # YAML reads a number without a point as text
        return text if "." in text or "e" not in text else text.replace("e", ".0e")
    if isinstance(value, Mapping):
        inner = [f"{_text_of(str(k), field)}: {_text_of(v, field)}" for k, v in value.items()]
        return f"{{{', '.join(inner)}}}"
    if isinstance(value, list | tuple | range):
        return f"[{', '.join(_text_of(one, field) for one in value)}]"
    raise ConfigError(
        f"{field}: {value!r:.100} is of type {type(value).__name__}; expected a number, a text, "
        "None, a list or a dict"
    )


def value_of(word: str) -> dict[str, Any]:
    """Return a value as a layer: `training.epochs=5` as `{"training": {"epochs": 5}}`.

    Raises:
        ConfigError: a part of the field is empty, or the value is no plain YAML.
    """
    field, _, text = word.partition("=")
    if not word.isprintable():
        raise ConfigError(f"{field!r:.100}: contains a character that cannot be printed; remove it")
    try:
        value = float(text) if _POWER.fullmatch(text) else yaml_value(text)
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
