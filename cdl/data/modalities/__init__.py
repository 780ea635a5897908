"""Kinds of items, such as images: how they are packed, viewed, encoded and deployed.

Each modality is one file with its facts for planning, which imports no torch and no numpy; what the
facts name by `module:NAME` is imported when it is used. A dataset has the modality of its source.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cdl.runtime.errors import CdlError
from cdl.runtime.facts import schema_block
from cdl.runtime.registry import Registry, load

if TYPE_CHECKING:
    from cdl.data.modalities.items import ItemViews
    from cdl.spec import InputView

DEFAULT = "images"  # of sources, manifests and specifications that name no modality


@dataclass(frozen=True, kw_only=True)
class ModalityFacts:
    """Facts of a modality.

    items: what its items are called in messages, in the plural.
    description: of the block `view` of a dataset, one sentence.
    options: JSON schema of the block `view` of a dataset, by the name of the field.
    size: the field of `options` that is the size of an input.
    channels: bytes of each of the height x width places that an item is packed as.
    resizes: whether items can be stored smaller, by `short_side`.
    part: function from the fields of a view in a specification to its class, a
        `cdl.spec.InputView`.
    views: path of the class that makes views; its `of` gets the part of the specification.
    backbone: path of the class of its backbones, which has the interface of
        `cdl.backbones.frozen.Backbone`.
    student: path of the class of its finished students, a `cdl.deployment.trained.TrainedStudent`.
    device: path of the class of its exported students, a `cdl.device.student.DeviceStudent`.
    device_parts: modules of `cdl.device` in the program of an exported folder, beside
        `cdl.device.PARTS`; the last one has the class `device`.
    new: path of the class that reads new classes for `cdl learn` of a run, a
        `cdl.deployment.new_classes.NewItems`.
    formats: formats of `cdl export`.
    int8: kinds of int8 quantisation of `cdl export`.
    check: function from the field and the value of a `view` that raises `CdlError` if its options
        contradict each other.
    """

    items: str
    description: str
    options: Mapping[str, Any]
    size: str
    channels: int
    resizes: bool
    part: "Callable[[Mapping[str, Any]], type[InputView]]"
    views: str
    backbone: str
    student: str
    device: str
    device_parts: tuple[str, ...]
    new: str
    formats: tuple[str, ...] = ("onnx",)
    int8: tuple[str, ...] = ("dynamic",)
    check: Callable[[str, Mapping[str, Any]], None] = field(default=lambda name, view: None)

    @property
    def item(self) -> str:
        """What one of its items is called in messages."""
        return self.items.removesuffix("s")

    def schema(self) -> dict[str, Any]:
        """Return the JSON schema of the block `view`; options without a default are required."""
        return schema_block(self.description, self.options, optional=True)


MODALITIES = Registry(
    ModalityFacts,
    {
        "images": "cdl.data.modalities.images:IMAGES",
        "text": "cdl.data.modalities.text:TEXT",
    },
)


def modality(name: str, where: str) -> ModalityFacts:
    """Return the facts of a modality; raise `CdlError` if `where` names an unknown one."""
    if name not in MODALITIES:
        raise CdlError(
            f"{where}: invalid value {name!r}; expected one of {', '.join(MODALITIES)}: update cdl"
        )
    return MODALITIES[name]


def views_of(view: "InputView") -> "ItemViews":
    """Return the views of a specification's `view`."""
    made: ItemViews = load(MODALITIES[view.modality].views).of(view)
    return made


def student_class(view: "InputView") -> Any:
    """Return the class of finished students that read views of a specification."""
    return load(MODALITIES[view.modality].student)


def backbone_class(view: "InputView") -> Any:
    """Return the class of the backbones that read views of a specification."""
    return load(MODALITIES[view.modality].backbone)
