"""From a user's YAML to a complete, normalised, checked configuration. No torch here.

Order of precedence: the user's values, the protocol's preset, the schema's defaults. Numbers are
normalised by their declared type (`5` and `5.0` are one value), so that only real changes count.
"""

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml

HERE = Path(__file__).parent


class ConfigError(Exception):
    """One sentence: the field, its value, and what would be right."""


@cache
def schema() -> dict[str, Any]:
    """Return the JSON schema of a configuration."""
    return yaml.safe_load((HERE / "schema" / "config.schema.yaml").read_text())


def resolve(config: dict[str, Any]) -> dict[str, Any]:
    """Return the complete configuration; raise `ConfigError` on the first thing wrong."""
    try:
        config = json.loads(json.dumps(config, allow_nan=False))  # plain types, and a copy
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"the configuration holds a value that is no text, number, list or mapping ({error}); "
            "put dates into quotes and write finite numbers"
        ) from error
    check(config, schema(), "")
    name = config.get("protocol", {}).get("preset", "clean")
    preset = yaml.safe_load((HERE / "presets" / f"{name}.yaml").read_text())
    return complete(merge(preset, config), schema())


def check(value: Any, part: dict[str, Any], field: str) -> None:
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
        raise ConfigError(f"{where}: unknown key {unknown[0]!r}; known are {', '.join(known)}")
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
        float(text)
    except ValueError:
        return False
    return True
