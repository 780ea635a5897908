"""Options of methods in closed form: the classes of images without a label."""

from typing import Any

from cdl.runtime.options import choice

LABELLING: dict[str, Any] = {
    "labels": choice(
        None,
        ["own", "self", "nearest", "teacher"],
        "Classes of the images without a label: own (such images are not used), self (the most "
        "likely class of the head that is computed from the labelled images), nearest (the class "
        "with the nearest mean class token of its labelled images) or teacher (the teacher's most "
        "likely class; only in methods of an entry of grid.distillers, since teachers have no "
        "teacher); null: own, or the targets of the distiller, which accepts no other value.",
    ),
    "label_classes": choice(
        "task",
        ["task", "seen"],
        "Classes among which labels chooses: those of the task, or all classes seen so far, if the "
        "task of an image without a label is unknown; an image that gets a class of an earlier "
        "task is left out.",
    ),
}
