"""From a user's YAML to a complete, normalised, checked configuration. No torch here.

Order of precedence: the user's values, the protocol's preset, the schema's defaults. Numbers are
normalised by their declared type (`5` and `5.0` are one value), so that only real changes count.
"""

import copy
import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml

HERE = Path(__file__).parent
LARGEST = 10**15


class ConfigError(Exception):
    """One printable line of bounded length: the field, its value, and what would be right."""

    def __init__(self, message: str) -> None:
        line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in message)
        super().__init__(line if len(line) <= 700 else f"{line[:400]} ... {line[-250:]}")


class _Loader(yaml.SafeLoader):
    """Safe YAML in which a key given twice is an error instead of a lost block."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen and key.value != "<<":
                line = key.start_mark.line + 1
                raise ConfigError(f"{key.value}: is given twice, again in line {line}; keep one")
            seen.add(key.value)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


@cache
def schema() -> dict[str, Any]:
    """Return the JSON schema of a configuration."""
    read: dict[str, Any] = yaml.safe_load((HERE / "schema" / "config.schema.yaml").read_text())
    return read


def editors_schemas() -> dict[Path, str]:
    """Return the schema as plain JSON for editors, by file: whole, and for overlays.

    Language servers complete and check by them what a configuration's first line names; they know
    no YAML merge keys. An overlay needs none of the required fields but those inside its lists.
    """
    whole, folder = schema(), HERE / "schema"
    kinds = {"config": whole, "overlay": _optional(whole)}
    return {
        folder / f"{kind}.schema.json": json.dumps(part, indent=1, ensure_ascii=False) + "\n"
        for kind, part in kinds.items()
    }


def _optional(part: dict[str, Any]) -> dict[str, Any]:
    """Return (a part of) the schema in which no field of an object is required."""
    result = {key: value for key, value in part.items() if key != "required"}
    if "properties" in part:
        result["properties"] = {k: _optional(inner) for k, inner in part["properties"].items()}
    if isinstance(part.get("additionalProperties"), dict):
        result["additionalProperties"] = _optional(part["additionalProperties"])
    return result


def read(path: str | Path) -> dict[str, Any]:
    """Read a YAML (or JSON) file more strictly than Snakemake: no key twice, tags or templates."""
    try:
        config = yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as plain YAML in UTF-8 ({error})") from error
    if not isinstance(config, dict):
        raise ConfigError(f"{path}: holds no mapping; write at least name, datasets and grid")
    if "__use_yte__" in config:
        raise ConfigError(f"{path}: __use_yte__ asks for a template; write out what it yields")
    return config


def resolve(config: dict[str, Any]) -> dict[str, Any]:
    """Return the complete configuration; raise `ConfigError` on the first thing wrong."""
    try:
        config = plain(config)
    except RecursionError as error:
        raise ConfigError("the configuration: is nested without end; write it out") from error
    validate_block(config, schema(), "")
    name = config.get("protocol", {}).get("preset", "clean")
    preset = yaml.safe_load((HERE / "presets" / f"{name}.yaml").read_text())
    completed: dict[str, Any] = complete(merge(preset, config), schema())
    return completed


def plain(value: Any, field: str = "") -> Any:
    """Return a copy of what JSON can hold as well; refuse anything else, naming the field."""
    where = field or "the configuration"
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise ConfigError(f"{where}: the key {key!r} is no text; put it into quotes")
        return {k: plain(v, f"{field}.{k}" if field else k) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner, f"{where}.{i}") for i, inner in enumerate(value)]
    if isinstance(value, int | float) and not abs(value) <= LARGEST:
        shown = "a number of many digits" if isinstance(value, int) else value
        raise ConfigError(f"{where}: {shown} is too large; write finite numbers up to {LARGEST}")
    if value is None or isinstance(value, str | int | float):
        return value
    raise ConfigError(
        f"{where}: {value!r} is no text, number, list or mapping; put dates into quotes"
    )


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
            f"{where}: unknown key {unknown[0]!r}; known are {', '.join(known) or 'none'}"
        )
    message = f"{where}: {error.message}"
    if error.validator == "type" and isinstance(error.instance, str) and _is_number(error.instance):
        message += f" (YAML reads {error.instance} as text; write {float(error.instance)!r})"
    if "description" in error.schema:
        message += f"; this field is: {error.schema['description']}"
    raise ConfigError(message)


def merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Return `below` overlaid by `above`, dictionaries key by key."""
    result = copy.deepcopy(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merge(result[key], value) if both else copy.deepcopy(value)
    return result


def complete(value: Any, part: dict[str, Any]) -> Any:
    """Fill in defaults and normalise numbers; the value must be valid."""
    if isinstance(value, dict):
        filled = dict(value)
        for key, inner in part.get("properties", {}).items():
            if key in filled or "default" in inner:
                filled[key] = complete(filled.get(key, copy.deepcopy(inner.get("default"))), inner)
        named = part.get("additionalProperties")
        if isinstance(named, dict):
            filled = {key: complete(inner, named) for key, inner in filled.items()}
        return dict(sorted(filled.items()))
    if isinstance(value, list) and "items" in part:
        return [complete(item, part["items"]) for item in value]
    kinds = part.get("type", [])
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if "number" in kinds else int(value)
    return value


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
