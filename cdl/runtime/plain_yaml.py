"""Read YAML that this process did not write, as plain data and in bounded time."""

import itertools
import re
from pathlib import Path
from typing import Any

import yaml

from cdl.runtime.errors import CdlError

MOST_NODES = 10**5  # keys, values, lists and mappings, with those that aliases repeat
_OLD_NUMBER = re.compile(r"[-+]?(0[0-7_]+|[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?)")


def yaml_value(text: str, most: int = MOST_NODES, *, fast: bool = False) -> Any:
    """Return the content of a YAML document; it is stricter than PyYAML.

    PyYAML keeps the last of two equal keys, which silently drops a block, reads numbers by YAML
    1.1, in which `010` is 8 and `1:30` is 90, and lets aliases repeat aliases, so that a few bytes
    become billions of values.

    Args:
        text: the document.
        most: largest number of nodes, where each alias counts as what it repeats.
        fast: parse in C, if PyYAML has it: ten times as fast, with less clear messages.

    Raises:
        CdlError: it is invalid; the message has line and column.
    """
    kind = type("Loader", (_FastLoader if fast else _Loader,), {"most": most})
    try:
        return yaml.load(text, kind)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        parts = [_place(mark)] if mark else []
        parts += [text for text in (error.context, error.problem) if text]
        parts += ["indent with spaces, not tabs"] if "'\\t'" in parts[-1] else []
        raise _unreadable(": ".join(parts)) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _unreadable(f"line {line} contains the character #x{error.character:04x}") from None
    except RecursionError:
        raise _unreadable("too deeply nested") from None
    except (yaml.YAMLError, ValueError) as error:
        raise _unreadable(str(error)) from None


def card_metadata(card: Path) -> dict[str, Any]:
    """Return the metadata of a model card in Markdown; empty without any.

    Raises:
        CdlError: the card cannot be read.
    """
    try:
        between = re.match(r"---\n(.*?)\n---\n", card.read_text(encoding="utf-8"), re.DOTALL)
        found = yaml_value(between[1]) if between else None
    except (OSError, ValueError, CdlError) as error:
        raise CdlError(f"{card}: cannot be read as a model card ({error})") from error
    return found if isinstance(found, dict) else {}


class _Strict:
    """Bounds the nodes; rejects duplicate keys, ambiguous numbers and values against their tag."""

    most = MOST_NODES

    def get_single_node(self) -> yaml.Node | None:
        node: yaml.Node | None = super().get_single_node()  # type: ignore[misc]
        if node is not None:
            _count(node, self.most, {})
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)  # type: ignore[misc]
        except (CdlError, yaml.YAMLError, RecursionError):
            raise
        except Exception as error:  # constructors raise errors of various types, as of `!!int ""`
            value = f"{node.value!r:.50} is no {node.tag.rpartition(':')[2]}"
            reason = f" ({error})" if isinstance(error, ValueError) else ""
            raise _unreadable(f"{_place(node.start_mark)}: {value}{reason}") from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen and key.value != "<<":
                line = key.start_mark.line + 1
                raise CdlError(f"{key.value}: duplicate key, again in line {line}; keep one")
            seen.add(key.value)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)  # type: ignore[misc]
        return mapping


class _Loader(_Strict, yaml.SafeLoader):
    """In Python."""


class _FastLoader(_Strict, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """In C, if PyYAML has it."""


def _number(loader: Any, node: yaml.ScalarNode) -> int | float:
    whole = node.tag.endswith(":int")
    value: int | float = (loader.construct_yaml_int if whole else loader.construct_yaml_float)(node)
    if _OLD_NUMBER.fullmatch(node.value):
        raise CdlError(
            f"{_place(node.start_mark)}: {node.value} is {value} in YAML 1.1; write the "
            "number without leading zeros and colons, or put text in quotes"
        )
    return value


for _kind in (_Loader, _FastLoader):
    for _tag in ("int", "float"):
        _kind.add_constructor(f"tag:yaml.org,2002:{_tag}", _number)


def _count(node: yaml.Node, most: int, sizes: dict[int, int | None]) -> int:
    """Return the number of nodes at and below a node; raise `CdlError` if it is above `most`.

    Args:
        node: the node; aliases are nodes that have several parents.
        most: largest number.
        sizes: results by identity of the node, None for those in progress.
    """
    if (known := sizes.get(id(node), 0)) is None:
        raise CdlError(f"{_place(node.start_mark)}: contains itself through a YAML alias")
    if known:
        return known
    sizes[id(node)] = None
    inner = node.value if isinstance(node, yaml.CollectionNode) else ()
    if isinstance(node, yaml.MappingNode):
        inner = itertools.chain.from_iterable(inner)
    size = 1
    for one in inner:
        size += _count(one, most, sizes)
        if size > most:
            raise _unreadable(
                f"{_place(node.start_mark)}: aliases or lists make more than {most} values; "
                "expected fewer"
            )
    sizes[id(node)] = size
    return size


def _place(mark: yaml.Mark) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}"


def _unreadable(why: str) -> CdlError:
    return CdlError(f"cannot be read as plain YAML in UTF-8 ({why})")
