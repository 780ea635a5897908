"""Read, merge, check and complete configurations. Does not import torch.

Order of precedence: the user's values, the protocol's preset, the schema's defaults. Numbers are
normalised to their declared type (`5` and `5.0` are the same value), so that only real changes
cause jobs to run again.
"""

import copy
import difflib
import json
import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, partial, reduce
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from cdl.data.modalities import DEFAULT, MODALITIES
from cdl.data.sources import SOURCES, modality_of
from cdl.distillers import DISTILLERS, DistillerFacts
from cdl.methods import PROMPTS, PromptFacts
from cdl.runtime.errors import CdlError
from cdl.runtime.facts import Facts, schema_block
from cdl.runtime.plain_yaml import yaml_value
from cdl.spec import Alignment

HERE = Path(__file__).parent
EDITOR_SCHEMA = HERE / "schema" / "config.schema.json"
LARGEST = 10**15
LARGEST_FILE = 2**19  # bytes


class ConfigError(CdlError):
    """An invalid configuration, reported in one printable line of bounded length.

    The line names the field, its value, and what is expected.
    """

    def __init__(self, message: str) -> None:
        line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in message)
        super().__init__(line if len(line) <= 700 else f"{line[:400]} ... {line[-250:]}")


@cache
def schema() -> dict[str, Any]:
    """Return the JSON schema of a configuration, with the blocks of all methods and distillers.

    Invalid entry points of other packages are left out, with a warning.
    """
    for _, sentence in (*PROMPTS.refused, *DISTILLERS.refused):
        logging.getLogger(__name__).warning("%s; it is left out", sentence)
    return _assemble_schema(PROMPTS, DISTILLERS)


def _assemble_schema(
    methods: Mapping[str, PromptFacts], distillers: Mapping[str, DistillerFacts]
) -> dict[str, Any]:
    """Return the schema with the blocks of the given methods and distillers."""
    whole, planned = _schema_part("config.schema.yaml"), _schema_part("method.schema.yaml")
    blocks = {key: whole["properties"][key]["properties"] for key in ("methods", "distillers")}
    for name, facts in methods.items():
        common = {k: v for k, v in planned.items() if k != "alignment" or facts.trains}
        blocks["methods"][name] = _unit_block(f"methods.{name}", facts, common)
    for name, distils in distillers.items():
        blocks["distillers"][name] = _unit_block(f"distillers.{name}", distils, {})
    dataset = whole["properties"]["datasets"]["additionalProperties"]
    dataset["properties"]["source"] |= {  # the source of an overlay replaces any other
        "alternatives": [*SOURCES],
        "properties": {
            name: schema_block(facts.description, facts.options) for name, facts in SOURCES.items()
        },
    }
    dataset["properties"]["view"] = MODALITIES[DEFAULT].schema()
    return whole


def dataset_schema(dataset: Any) -> dict[str, Any]:
    """Return the schema of a dataset's block; `view` is that of the modality of its source.

    For a block that is invalid it is the schema of a dataset of images.
    """
    part: dict[str, Any] = schema()["properties"]["datasets"]["additionalProperties"]
    source = dataset.get("source") if isinstance(dataset, dict) else None
    name = modality_of(source) if isinstance(source, dict) else DEFAULT
    if name == DEFAULT:
        return part
    view = MODALITIES[name].schema()
    required = [field for field in part["required"] if field != "view" or "default" not in view]
    properties = {**part["properties"], "view": view}
    return {**part, "required": required, "properties": properties}


def _schema_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema with a part of its own for each dataset that is not of images."""
    whole, datasets = schema(), config.get("datasets")
    usual = whole["properties"]["datasets"]
    if not isinstance(datasets, dict):
        return whole
    parts = {name: dataset_schema(given) for name, given in datasets.items()}
    own = {name: part for name, part in parts.items() if part is not usual["additionalProperties"]}
    properties = {**whole["properties"], "datasets": {**usual, "properties": own}}
    return {**whole, "properties": properties} if own else whole


def _unit_block(field: str, facts: Facts, planned: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of the block of a method or distiller.

    Args:
        field: name of the block, for error messages.
        facts: options and descriptions.
        planned: options that only planning reads; they are not passed to the class.

    Raises:
        ConfigError: the options of another package are not a valid JSON schema.
    """
    block = {
        "type": "object",
        "additionalProperties": False,
        "default": {},
        "description": facts.description,
        **({"alternatives": [*facts.alternatives]} if facts.alternatives else {}),
        "properties": {**facts.options, **planned},
    }
    try:
        if not facts.built_in:  # a test checks the built-in ones
            jsonschema.Draft202012Validator.check_schema(block)
    except jsonschema.SchemaError as error:
        raise ConfigError(
            f"{field}: the options of its package are not a valid JSON schema ({error.message})"
        ) from None
    return block


def _schema_part(name: str) -> dict[str, Any]:
    part: dict[str, Any] = yaml.safe_load((HERE / "schema" / name).read_text())
    return part


def editor_schema() -> str:
    """Return the schema for editors, as JSON: the content of `EDITOR_SCHEMA`.

    A YAML language server completes and checks a file with the schema that its first line names.
    The file may be a whole configuration or an overlay, so only fields inside lists are required.
    It may use methods and distillers of installed packages, whose names this file does not know.
    JSON, because language servers do not resolve YAML merge keys.
    """
    methods = {name: facts for name, facts in PROMPTS.items() if facts.built_in}
    distillers = {name: facts for name, facts in DISTILLERS.items() if facts.built_in}
    whole = _assemble_schema(methods, distillers)
    view = whole["properties"]["datasets"]["additionalProperties"]["properties"]["view"]
    for facts in MODALITIES.values():
        view["properties"] |= facts.options
    for kind, unit in (("methods", "method"), ("distillers", "distiller")):
        whole["properties"][kind]["additionalProperties"] = {
            "type": "object",
            "description": f"Options of a {unit} of an installed package, checked by cdl only.",
        }
    part = optional(whole)
    return json.dumps(part, indent=1, ensure_ascii=False) + "\n"


def optional(part: dict[str, Any]) -> dict[str, Any]:
    """Return (a part of) the schema with no required fields, except inside lists."""
    result = {key: value for key, value in part.items() if key != "required"}
    if "properties" in part:
        result["properties"] = {k: optional(inner) for k, inner in part["properties"].items()}
    if isinstance(part.get("additionalProperties"), dict):
        result["additionalProperties"] = optional(part["additionalProperties"])
    return result


def read(path: str | Path) -> dict[str, Any]:
    """Read a YAML or JSON file, more strictly than Snakemake does.

    Templates, files above `LARGEST_FILE`, and what `yaml_value` refuses are errors.

    Raises:
        ConfigError: the file is invalid; the message has its name, line and column.
    """
    try:
        config = yaml_value(_text(path))
    except CdlError as error:
        raise ConfigError(f"{path}: {error}") from None
    if not isinstance(config, dict):
        raise ConfigError(f"{path}: is not a mapping; it needs at least name, datasets and grid")
    if "__use_yte__" in config:
        raise ConfigError(
            f"{path}: YTE templates (__use_yte__) are not supported; write plain YAML"
        )
    return config


def _text(path: str | Path) -> str:
    """Return the text of a UTF-8 file; raise `ConfigError` if it cannot be read."""
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        neighbours = [file.name for file in Path(path).parent.glob("*.y*ml")]
        near = difflib.get_close_matches(Path(path).name, neighbours, 1, cutoff=0.8)
        hint = f"did you mean {Path(path).with_name(near[0])}?" if near else "name a YAML file"
        raise ConfigError(f"no such file; {hint}") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot be read ({getattr(error, 'strerror', error)})") from None
    if len(data) > LARGEST_FILE:
        raise ConfigError(f"is larger than {LARGEST_FILE // 1024} KiB; name a configuration")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"cannot be read as plain YAML in UTF-8 (line {line} contains the byte "
            f"{data[error.start]:#04x}; save the file as UTF-8)"
        ) from None


def overlay(
    files: Sequence[str | Path], given: Mapping[str, Any], config: dict[str, Any]
) -> dict[str, Any]:
    """Merge configuration files and values from the command line.

    Snakemake merges them too, but keeps both of two alternatives, such as two sources of one
    dataset. If `config` is not Snakemake's merge of these files, it was set by a workflow that
    uses this one as a module, and is returned unchanged.

    Args:
        files: configurations; later ones override earlier ones.
        given: values from `--config`, which override all files.
        config: the configuration as Snakemake merged it.
    """
    layers = [*map(read, files), dict(given)]
    by_snakemake = reduce(partial(merge, part={}), layers)
    return reduce(merge, layers) if by_snakemake == config else config


def resolve(config: dict[str, Any]) -> dict[str, Any]:
    """Return the complete configuration; raise `ConfigError` at the first invalid field."""
    try:
        config = plain(config)
    except RecursionError as error:
        raise ConfigError("the configuration: contains itself through a YAML alias") from error
    _check_entry_points(config)
    whole = _schema_of(config)
    validate_block(config, whole, "")
    name = config.get("protocol", {}).get("preset", "clean")
    completed: dict[str, Any] = complete(merge(preset(name), config), whole)
    return completed


def _check_entry_points(config: Mapping[str, Any]) -> None:
    """Raise `ConfigError` if an unchecked configuration uses an entry point that is left out."""
    grid = config.get("grid")
    lists = grid if isinstance(grid, Mapping) else {}
    methods = config.get("methods"), lists.get("methods"), lists.get("bounds")
    distillers = config.get("distillers"), lists.get("distillers")
    for known, given in ((PROMPTS, methods), (DISTILLERS, distillers)):
        used = [name for part in given for name in _names(part)]
        for name, sentence in known.refused:
            if name in used and name not in known:
                raise ConfigError(sentence)


def _names(given: Any) -> Iterator[Any]:
    """Yield the names in a mapping of blocks, or in a list of names and variants."""
    for entry in given if isinstance(given, Mapping | list) else ():
        yield entry.get("block") if isinstance(entry, Mapping) else entry


@cache
def preset(name: str) -> dict[str, Any]:
    """Return the values of a preset of the protocol, by block; of `alignment`, by its presets."""
    values: dict[str, Any] = yaml.safe_load((HERE / "presets" / f"{name}.yaml").read_text())
    return values


@cache
def alignment_schema() -> dict[str, Any]:
    """Return the schema of an alignment, which is the same for all methods that train."""
    part: dict[str, Any] = _schema_part("method.schema.yaml")["alignment"]
    return part


def alignment(given: dict[str, Any], field: str = "alignment") -> Alignment:
    """Return a classifier alignment: the preset's fields, overridden by those given.

    Args:
        given: the preset and overrides; None is the preset's value.
        field: where they are given, for error messages.

    Raises:
        ConfigError: class means have no such field.
    """
    return _overridden(preset("alignment")[given["preset"]], given, field)


def align_with(
    base: Alignment | None, given: dict[str, Any] | None, field: str = "alignment"
) -> Alignment | None:
    """Return an alignment with overrides, see `alignment`.

    Args:
        base: alignment of the method; None without one.
        given: overrides, with a preset if there is no `base`; a preset replaces all of `base`.
            None switches alignment off.
        field: where the overrides are given, for error messages.
    """
    if not given:
        return None if given is None else base
    if base is None or given.get("preset") is not None:
        return alignment(given, field)
    return _overridden(base.to_json(), given, field)


def _overridden(base: dict[str, Any], given: dict[str, Any], field: str) -> Alignment:
    own = {k: v for k, v in given.items() if v is not None and k != "preset"}
    right = {"next_task": "trained: the next task trains the method's own heads"}
    means, valid = base["kind"] == "class_means", {"labels", "label_classes", "answers", "drift"}
    for name in sorted(own.keys() - valid) if means else ():
        if (name, own[name]) != ("next_task", base["next_task"]):
            raise ConfigError(
                f"{field}.{name}: invalid value {own[name]!r} with preset: {base['kind']}, which "
                f"samples and trains nothing; expected {right.get(name, 'null')}"
            )
    return Alignment.from_json(base | own)


def plain(value: Any, field: str = "") -> Any:
    """Return a copy of a value; raise `ConfigError` if JSON cannot represent it."""
    where = field or "the configuration"
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise ConfigError(f"{where}: the key {key!r} is not text; put it in quotes")
        return {k: plain(v, f"{field}.{k}" if field else k) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner, f"{where}.{i}") for i, inner in enumerate(value)]
    if isinstance(value, int | float) and not abs(value) <= LARGEST:
        number = "a number of many digits" if isinstance(value, int) else value
        raise ConfigError(
            f"{where}: invalid value {number}; expected a finite number up to {LARGEST}"
        )
    if value is None or isinstance(value, str | int | float):
        return value
    raise ConfigError(
        f"{where}: {value!r} is not text, a number, a list or a mapping; put dates in quotes"
    )


def near(name: str, known: Iterable[str]) -> str:
    """Return the question whether a similar name is meant; empty if there is none."""
    found = difflib.get_close_matches(name, known, 1, cutoff=0.75)
    return f" (did you mean {found[0]!r}?)" if found else ""


def validate_block(value: Any, part: dict[str, Any], field: str) -> None:
    """Validate a value against (a part of) the schema."""
    errors = jsonschema.Draft202012Validator(part).iter_errors(value)
    error = jsonschema.exceptions.best_match(errors)
    if error is None:
        return
    path = ".".join(str(p) for p in ([field] if field else []) + list(error.absolute_path))
    where = path or "the configuration"
    if error.validator == "additionalProperties":
        known = sorted(error.schema.get("properties", {}))
        unknown = sorted(set(error.instance) - set(known))
        raise ConfigError(
            f"{where}: unknown key {unknown[0]!r}{near(unknown[0], known)}; expected one of "
            f"{', '.join(known) or 'none'}"
        )
    message = f"{where}: {error.message}"
    if error.validator == "type":
        message += _number_hint(error.instance, error.validator_value)
    if "description" in error.schema:
        message += f"; description: {error.schema['description']}"
    raise ConfigError(message)


def merge(
    below: dict[str, Any], above: dict[str, Any], part: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return `below` overridden by `above`, dictionaries key by key.

    Of keys that are `alternatives` in (a part of) the schema, the one in `above` replaces the
    others in `below`.
    """
    part = schema() if part is None else part
    alternatives = set(part.get("alternatives", ()))
    replaced = alternatives if any(above.get(key) is not None for key in alternatives) else set()
    result = {k: copy.deepcopy(v) for k, v in below.items() if k in above or k not in replaced}
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        inner = part.get("properties", {}).get(key, part.get("additionalProperties"))
        inner = inner if isinstance(inner, dict) else {}
        result[key] = merge(result[key], value, inner) if both else copy.deepcopy(value)
    return result


def complete(value: Any, part: dict[str, Any]) -> Any:
    """Fill in defaults and normalise the numbers of a valid value."""
    if isinstance(value, dict):
        filled = dict(value)
        for key, inner in part.get("properties", {}).items():
            if key in filled or "default" in inner:
                filled[key] = complete(filled.get(key, copy.deepcopy(inner.get("default"))), inner)
        named = part.get("additionalProperties")
        if isinstance(named, dict):
            others = filled.keys() - part.get("properties", {}).keys()
            filled |= {key: complete(filled[key], named) for key in others}
        return dict(sorted(filled.items()))
    if isinstance(value, list) and "items" in part:
        return [complete(item, part["items"]) for item in value]
    kinds = part.get("type", [])
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if "number" in kinds else int(value)
    return value


def _number_hint(text: Any, kinds: str | list[str]) -> str:
    """Return a hint which number to write, if a text looks like one; else an empty string."""
    try:
        number = float(text) if isinstance(text, str) else math.nan
    except ValueError:
        return ""
    whole = number.is_integer() and "integer" in kinds
    if not math.isfinite(number) or not (whole or "number" in kinds):
        return ""
    plain_text = isinstance(yaml.safe_load(text), str)
    why = f"YAML reads {text} as text" if plain_text else "in quotes it is text"
    return f" ({why}; write {int(number) if whole else number!r})"
