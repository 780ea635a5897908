"""Read the lists of the grid: blocks by name, and variants with overrides."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from cdl.distillers import DISTILLERS
from cdl.methods import PROMPTS
from cdl.runtime.facts import Facts
from cdl.study.configuration import (
    ConfigError,
    align_with,
    alignment,
    alignment_schema,
    complete,
    dataset_schema,
    merge,
    near,
    optional,
    schema,
    validate_block,
)
from cdl.study.runs import Block, entry_of, label_of

PLANNED = ("joint", "training", "alignment")  # options of methods that no class is given
UNITS: dict[str, Mapping[str, Facts]] = {"methods": PROMPTS, "distillers": DISTILLERS}


def blocks_of(config: Mapping[str, Any], kind: str, entries: list[Any]) -> list[Block]:
    """Return the blocks of a list of the grid, with the overrides of variants, checked."""
    blocks = []
    for entry in entries:
        entry = entry_of(entry)
        name, variant = entry.pop("block"), entry.pop("variant")
        check_defined(f"grid.{kind}", [name], config[kind])
        varied = "alignment" in entry
        training = entry.pop("training", {}) if kind == "distillers" else {}
        validate_block(training, _training_schema(), f"grid.{kind}.{variant}.training")
        training = complete(training, _training_schema())
        methods = _method_overrides(entry.pop("methods", {})) if kind == "distillers" else {}
        aligning = entry.pop("alignment", {}) if kind == "distillers" else {}
        _validate_aligning(aligning, f"grid.{kind}.{variant}.alignment")
        same = all(config[kind][name].get(option) == value for option, value in entry.items())
        if name == "none" and variant and same and not (training or methods) and aligning == {}:
            raise ConfigError(
                f"grid.{kind}: the variant {variant!r} of none overrides nothing; write none"
            )
        section = schema()["properties"][kind]
        part = section.get("properties", {}).get(name) or dataset_schema(config[kind][name])
        validate_block(entry, optional(part), f"grid.{kind}.{variant}")
        options = complete(merge(config[kind][name], entry, part), part)
        fields = UNITS[kind][name].protocol if kind in UNITS else ()
        options |= {field: config["protocol"][field] for field in sorted(fields)}
        joint, given = options.pop("joint", False), options.pop("alignment", None)
        own = (options.pop("training", None) or {}) if kind == "methods" else {}
        training |= {name: value for name, value in own.items() if value is not None}
        field = f"{kind}.{label_of(name, variant)}.alignment"
        aligned = alignment(given, field) if given else None
        block = Block(name, variant, options, joint, aligned, training, methods, aligning)
        _check_labels(block)
        shares = (aligned or varied) and not block.starts_aligned
        blocks.append(block if shares else replace(block, trains_as=block.label))
    others = sorted({b.name for b in blocks if not b.trains_as} - {b.label for b in blocks})
    return _with_training(blocks, blocks_of(config, kind, others) if others else [])


def _validate_aligning(given: dict[str, Any] | None, field: str) -> None:
    """Check a distiller's overrides of alignment."""
    validate_block(given, optional(alignment_schema()), field)
    if given and alignment({"preset": "slca"} | given, field).next_task == "aligned":
        raise ConfigError(
            f"{field}.next_task: invalid value 'aligned' for one distiller; expected trained: the "
            "variants of a distiller share their training; set it in the block of the method"
        )


def _check_labels(method: Block) -> None:
    """Refuse labels that the teachers of a method cannot have."""
    if taught_statistics(method):
        field, entry = "alignment.labels", "labels: teacher"
        if method.alignment is None:
            field, entry = "labels", f"methods: {{{method.name}: {{labels: teacher}}}}"
        raise ConfigError(
            f"methods.{method.label}.{field}: invalid value 'teacher', since teachers "
            "have no teacher; expected own, self, nearest or null (a distilled student then uses "
            f"the labels of its teacher), or {entry} in an entry of grid.distillers"
        )


def _with_training(blocks: list[Block], plain: list[Block]) -> list[Block]:
    """Set `trains_as` where it is empty: of blocks that may differ from others in alignment alone.

    Args:
        blocks: methods or distillers of a list of the grid.
        plain: blocks without a variant that are not in the list.
    """
    fields = ("name", "options", "joint", "training", "methods")
    listed = [block for block in [*plain, *blocks] if not block.starts_aligned]
    listed.sort(key=lambda block: (bool(block.variant), not block.trains_as))

    def first(block: Block) -> str:
        own = [getattr(block, field) for field in fields]
        return next(o.label for o in listed if [getattr(o, field) for field in fields] == own)

    return [replace(block, trains_as=block.trains_as or first(block)) for block in blocks]


def _method_overrides(given: dict[str, Any]) -> dict[str, Any]:
    """Return the method options that a distiller's variant overrides, by method, checked."""
    known = schema()["properties"]["methods"]["properties"]
    check_defined("grid.distillers.methods", given, known)
    overrides = {}
    for name, options in given.items():
        part = {"type": "object", "additionalProperties": False, "properties": {}}
        fields = known[name]["properties"]
        part["properties"] = {k: v for k, v in fields.items() if k not in PLANNED}
        validate_block(options, optional(part), f"grid.distillers.methods.{name}")
        overrides[name] = {k: v for k, v in complete(options, part).items() if k in options}
    return overrides


def _training_schema() -> dict[str, Any]:
    """Return the schema of the training options of a variant: those no cache depends on."""
    fields = schema()["properties"]["training"]["properties"]
    own = {k: {n: v for n, v in fields[k].items() if n != "default"} for k in ("lr", "betas")}
    return {"type": "object", "additionalProperties": False, "properties": own}


def of_student(method: Block, distiller: Block) -> Block:
    """Return the method of a student, with the overrides of its distiller."""
    options = method.options | distiller.methods.get(method.name, {})
    given, field = distiller.aligning, f"grid.distillers.{distiller.variant}.alignment"
    if given and given.get("preset") is None and not method.alignment:
        raise ConfigError(
            f"{field}.preset: is missing, and the method {method.label!r} has no alignment to "
            "change; expected a preset, or an entry in grid.exclude"
        )
    own = replace(method, options=options, alignment=align_with(method.alignment, given, field))
    taught = taught_statistics(own) and own.starts_aligned
    if taught and not uses_teacher(distiller):
        raise ConfigError(
            f"{field}.labels: invalid value 'teacher' with the method {method.label!r}, whose next "
            "task starts from aligned heads, so that an undistilled student would be trained with "
            "its teacher; expected own or self, or next_task: trained"
        )
    return own


def taught_statistics(method: Block) -> bool:
    """Return whether a teacher labels the images for a method's head in closed form."""
    return method.statistics(taught=False) == "teacher"


def uses_teacher(distiller: Block) -> bool:
    """Return whether the students of a distiller are trained with a teacher."""
    return DISTILLERS[distiller.name].uses_teacher(distiller.options)


def renamed(block: Block, label: str) -> Block:
    """Return a block under the label of another one, without overrides of alignment."""
    return replace(block, variant=label.partition("+")[2], aligning={})


def few_labels(dataset: Mapping[str, Any]) -> list[str]:
    """Return which options of a dataset add images without a label: `labels`, `unlabelled`."""
    return [name for name in ("labels", "unlabelled") if dataset[name] is not None]


def check_defined(field: str, names: Iterable[str], defined: Iterable[str]) -> None:
    """Raise `ConfigError` if a name is not defined."""
    for name in names:
        if name not in defined:
            known = sorted(defined)
            raise ConfigError(
                f"{field}: {name!r} is not defined{near(name, known)}; expected one of "
                f"{', '.join(known)}"
            )


def check_unique(field: str, blocks: list[Block]) -> None:
    """Raise `ConfigError` if two blocks have the same label."""
    labels = [block.label for block in blocks]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice:
        raise ConfigError(f"{field}: {twice!r} is listed twice; rename the variant of one")
