"""From a user's YAML to a complete, normalised, checked configuration. No torch here.

Order of precedence: the user's values, the protocol's preset, the schema's defaults. Numbers are
normalised by their declared type (`5` and `5.0` are one value), so that only real changes count.
"""

import copy
import difflib
import json
import math
import os
import re
import stat
from collections.abc import Mapping, Sequence
from functools import cache, partial, reduce
from itertools import chain
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from cdl.data.sources import SOURCES, SourceFacts
from cdl.distillers import DISTILLERS, DistillerFacts
from cdl.methods import PROMPTS, PromptFacts
from cdl.runtime.facts import Facts

HERE = Path(__file__).parent
LARGEST = 10**15
LARGEST_FILE = 2**19  # bytes
MOST_NODES = 20_000  # keys and values of a file, with its aliases written out
_OLD_NUMBER = re.compile(r"[-+]?(0[0-7_]+|[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?)")


class ConfigError(Exception):
    """One printable line of bounded length: the field, its value, and what would be right."""

    def __init__(self, message: str) -> None:
        line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in message)
        super().__init__(line if len(line) <= 700 else f"{line[:400]} ... {line[-250:]}")


class _Loader(yaml.SafeLoader):
    """Safe YAML of bounded size, in which nothing is lost or read otherwise than it looks.

    A key given twice is an error instead of a lost block, and so are numbers that are others in
    YAML 1.1 than to the eye. Aliases may neither multiply nor hold themselves.
    """

    nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.nodes += 1
        if self.nodes > MOST_NODES:
            raise ConfigError(f"holds more than {MOST_NODES} keys and values; write a shorter one")
        return super().compose_node(parent, index)

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None and _written_out(node, {}) > MOST_NODES:
            raise ConfigError(
                f"its aliases (*name) multiply to more than {MOST_NODES} keys and values; "
                "write out what is needed"
            )
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen and key.value != "<<":
                line = key.start_mark.line + 1
                raise ConfigError(f"{key.value}: is given twice, again in line {line}; keep one")
            seen.add(key.value)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        whole = node.tag.endswith(":int")
        value = self.construct_yaml_int(node) if whole else self.construct_yaml_float(node)
        if _OLD_NUMBER.fullmatch(node.value):
            raise ConfigError(
                f"{_place(node.start_mark)}: {node.value} is {value} in YAML 1.1, which is easily "
                "missed; write the number without leading zeros and colons, or text in quotes"
            )
        return value


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_number)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_number)


def _written_out(node: yaml.Node, sizes: dict[int, int]) -> int:
    """Count a node and all below it, an alias as often as it is used."""
    if id(node) in sizes:
        if not sizes[id(node)]:
            raise ConfigError(
                f"{_place(node.start_mark)}: what is named here (&name) holds itself; write it out"
            )
        return sizes[id(node)]
    sizes[id(node)] = 0
    inside: Any = node.value if isinstance(node, yaml.CollectionNode) else []
    if isinstance(node, yaml.MappingNode):
        inside = chain.from_iterable(inside)
    sizes[id(node)] = 1 + sum(_written_out(inner, sizes) for inner in inside)
    return sizes[id(node)]


def _place(mark: yaml.Mark) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}"


@cache
def schema() -> dict[str, Any]:
    """Return the JSON schema of a configuration, with the blocks of all methods and distillers.

    Raises:
        ConfigError: another package offers what cannot be taken.
    """
    for sentence in PROMPTS.refused + DISTILLERS.refused:
        raise ConfigError(sentence)
    return _assembled(PROMPTS, DISTILLERS)


def _assembled(
    methods: Mapping[str, PromptFacts], distillers: Mapping[str, DistillerFacts]
) -> dict[str, Any]:
    """Return the schema with the blocks of some methods and distillers."""
    whole, planned = _yaml("config.schema.yaml"), _yaml("method.schema.yaml")
    blocks = {key: whole["properties"][key]["properties"] for key in ("methods", "distillers")}
    for name, facts in methods.items():
        common = {k: v for k, v in planned.items() if k == "joint" or facts.trains}
        blocks["methods"][name] = _block(f"methods.{name}", facts, common)
    for name, distils in distillers.items():
        blocks["distillers"][name] = _block(f"distillers.{name}", distils, {})
    dataset = whole["properties"]["datasets"]["additionalProperties"]
    dataset["properties"]["source"] |= {  # an overlay's replaces another
        "alternatives": [*SOURCES],
        "properties": {name: _source_block(facts) for name, facts in SOURCES.items()},
    }
    return whole


def _block(field: str, facts: Facts, planned: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema's block of a method or distiller.

    Args:
        field: of the configuration.
        facts: its options and their meaning.
        planned: options that planning reads and its class does not get.
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
        if not facts.built_in:  # ours are checked by a test
            jsonschema.Draft202012Validator.check_schema(block)
    except jsonschema.SchemaError as error:
        raise ConfigError(
            f"{field}: the options that its package names are no JSON schema ({error.message})"
        ) from None
    return block


def _source_block(facts: SourceFacts) -> dict[str, Any]:
    """Return the schema's block of a source; options without a default are required."""
    required = [name for name, option in facts.options.items() if "default" not in option]
    return {
        "type": "object",
        "additionalProperties": False,
        **({"required": required} if required else {}),
        "description": facts.description,
        "properties": dict(facts.options),
    }


def _yaml(name: str) -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((HERE / "schema" / name).read_text())
    return read


def editors_schemas() -> dict[Path, str]:
    """Return the schema as plain JSON for editors, by file: whole, and for overlays.

    Language servers complete and check by them what a configuration's first line names; they know
    no YAML merge keys. An overlay needs none of the required fields but those inside its lists.
    """
    methods = {name: facts for name, facts in PROMPTS.items() if facts.built_in}
    distillers = {name: facts for name, facts in DISTILLERS.items() if facts.built_in}
    whole, folder = _assembled(methods, distillers), HERE / "schema"
    kinds = {"config": whole, "overlay": optional(whole)}
    return {
        folder / f"{kind}.schema.json": json.dumps(part, indent=1, ensure_ascii=False) + "\n"
        for kind, part in kinds.items()
    }


def optional(part: dict[str, Any]) -> dict[str, Any]:
    """Return (a part of) the schema in which no field of an object is required."""
    result = {key: value for key, value in part.items() if key != "required"}
    if "properties" in part:
        result["properties"] = {k: optional(inner) for k, inner in part["properties"].items()}
    if isinstance(part.get("additionalProperties"), dict):
        result["additionalProperties"] = optional(part["additionalProperties"])
    return result


def read(path: str | Path) -> dict[str, Any]:
    """Read a YAML (or JSON) file more strictly than Snakemake.

    No key twice, no tags, no templates, no numbers that look like others; of bounded size.

    Raises:
        ConfigError: with the file and, where there is one, line and column.
    """
    try:
        config = _parse(_text(path))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    if not isinstance(config, dict):
        raise ConfigError(f"{path}: holds no mapping; write at least name, datasets and grid")
    if "__use_yte__" in config:
        raise ConfigError(f"{path}: __use_yte__ asks for a template; write out what it yields")
    return config


def _text(path: str | Path) -> str:
    """Return the text of a small regular file; nothing else is opened."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ConfigError("is no regular file; name a YAML file")
        with open(path, "rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        beside = [file.name for file in Path(path).parent.glob("*.y*ml")]
        near = difflib.get_close_matches(Path(path).name, beside, 1, cutoff=0.8)
        hint = f"did you mean {Path(path).with_name(near[0])}?" if near else "name a YAML file"
        raise ConfigError(f"there is no such file; {hint}") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot be read ({getattr(error, 'strerror', error)})") from None
    if len(data) > LARGEST_FILE:
        raise ConfigError(f"is larger than {LARGEST_FILE // 1024} KiB; name a configuration")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _unreadable(
            f"line {line} holds the byte {data[error.start]:#04x}; save the file as UTF-8"
        ) from None


def _parse(text: str) -> Any:
    """Return what a YAML text holds."""
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = [_place(mark)] if mark else []
        said += [text for text in (error.context, error.problem) if text]
        said += ["indent by spaces, not by a tab"] if "'\\t'" in said[-1] else []
        raise _unreadable(": ".join(said)) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _unreadable(f"line {line} holds the character #x{error.character:04x}") from None
    except RecursionError:
        raise _unreadable("it is nested too deeply") from None
    except ValueError as error:
        raise _unreadable(str(error)) from None


def _unreadable(why: str) -> ConfigError:
    return ConfigError(f"cannot be read as plain YAML in UTF-8 ({why})")


def overlay(
    files: Sequence[str | Path], given: Mapping[str, Any], config: dict[str, Any]
) -> dict[str, Any]:
    """Return what files and values of the command line say together.

    Snakemake overlays files as well, but keeps both of two alternatives. Where `config` is not
    what it makes of these files, somebody else has made it (a workflow that uses this one as a
    module), and it stands.

    Args:
        files: configurations, later ones over earlier ones.
        given: overlaid last, from `--config`.
        config: Snakemake's own result.
    """
    layers = [*map(read, files), dict(given)]
    theirs = reduce(partial(merge, part={}), layers)
    return reduce(merge, layers) if theirs == config else config


def resolve(config: dict[str, Any]) -> dict[str, Any]:
    """Return the complete configuration; raise `ConfigError` on the first thing wrong."""
    try:
        config = plain(config)
    except RecursionError as error:
        raise ConfigError("the configuration: is nested without end; write it out") from error
    validate_block(config, schema(), "")
    name = config.get("protocol", {}).get("preset", "clean")
    completed: dict[str, Any] = complete(merge(preset(name), config), schema())
    return completed


@cache
def preset(name: str) -> dict[str, Any]:
    """Return what a protocol's preset sets, in every block."""
    values: dict[str, Any] = yaml.safe_load((HERE / "presets" / f"{name}.yaml").read_text())
    return values


def alignment(given: dict[str, Any]) -> dict[str, Any]:
    """Return all fields of a classifier alignment: the preset's, but for those given."""
    presets: dict[str, dict[str, Any]]
    presets = yaml.safe_load((HERE / "presets" / "alignment.yaml").read_text())
    own = {name: value for name, value in given.items() if value is not None}
    completed: dict[str, Any] = presets[own.pop("preset")] | own
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
    if error.validator == "type":
        message += _as_number(error.instance, error.validator_value)
    if "description" in error.schema:
        message += f"; this field is: {error.schema['description']}"
    raise ConfigError(message)


def merge(
    below: dict[str, Any], above: dict[str, Any], part: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return `below` overlaid by `above`, dictionaries key by key.

    Of `alternatives` in (a part of) the schema, the one above replaces another one below.
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


def _as_number(text: Any, kinds: str | list[str]) -> str:
    """Say which number to write instead of a text, if the text is one."""
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
