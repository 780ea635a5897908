"""How classes are put in order and cut into tasks: asked by planning and by learning. No torch."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cdl.runtime.artifacts import fingerprint
from cdl.runtime.errors import CdlError
from cdl.spec import Domains

Tasks = int | Sequence[int] | Mapping[str, Any] | Domains  # as configured, or as specified


def domains_of(tasks: Tasks) -> list[str]:
    """Return the domains that are the tasks, see `sizes_of`; none where classes make tasks."""
    if isinstance(tasks, Domains):
        return list(tasks.domains)
    return list(tasks["domains"]) if isinstance(tasks, Mapping) else []


def count_of(tasks: Tasks) -> int:
    """Return how many tasks there are, see `sizes_of`."""
    if isinstance(tasks, int):
        return tasks
    return len(domains_of(tasks) if isinstance(tasks, Mapping | Domains) else tasks)


def sizes_of(tasks: Tasks, n_classes: int) -> list[int]:
    """Return the number of classes that each task brings.

    Args:
        tasks: number of equal tasks, or the number of classes of each; classes may be left over;
            or the `domains`, all of which have the same classes.
        n_classes: of the dataset.

    Raises:
        CdlError: the classes cannot be cut that way.
    """
    if isinstance(tasks, int):
        if n_classes % tasks:
            raise CdlError(
                f"tasks: {tasks} equal tasks cannot be made of {n_classes} classes; "
                "give a divisor or a list of sizes"
            )
        return [n_classes // tasks] * tasks
    if isinstance(tasks, Mapping | Domains):
        return [n_classes] + [0] * (count_of(tasks) - 1)
    if sum(tasks) > n_classes:
        raise CdlError(
            f"tasks: {list(tasks)} are {sum(tasks)} classes, but there are {n_classes} in order"
        )
    return list(tasks)


def labels_of(order: Sequence[int | str], classes: Sequence[str]) -> list[int]:
    """Return the labels of classes given by label or name.

    Args:
        order: of the classes to learn, all or the first ones.
        classes: names of all classes by label.

    Raises:
        CdlError: one does not exist, or is given twice; or a name belongs to two classes.
    """
    labels = []
    for given in order:
        found = [i for i, name in enumerate(classes) if given in (i, name)]
        if len(found) != 1 or found[0] in labels:
            why = {0: "no class", 1: "a class that stands there already"}
            raise CdlError(
                f"class_order: {given!r} names {why.get(len(found), 'several classes')}; needed is "
                f"each of the {len(classes)} classes at most once, by its label or name"
            )
        labels.append(found[0])
    return labels


def digest_of(about: Mapping[str, Any], classes: Iterable[str], domains: Iterable[str] = ()) -> str:
    """Return what stands for some of the images of a split, whatever others there are.

    Args:
        about: what the manifest says of the split.
        classes: their classes; one that is not there counts as that.
        domains: their domains, all of whose images count.
    """
    if domains:  # whose heads have columns for all classes
        images = {name: about.get("domains", {}).get(name) for name in domains}
        return fingerprint([images, sorted(about["classes"])])
    return fingerprint({name: about["classes"].get(name) for name in classes})


def digests(
    splits: Mapping[str, Mapping[str, Any]], classes: Iterable[str], domains: Iterable[str]
) -> dict[str, str]:
    """Return what stands for each split of a run, from what manifests say of them.

    Of the training images those of the classes, or of the domains, that were learnt count.
    """
    whole = {split: about["sha256"] for split, about in splits.items()}
    return whole | {"train": digest_of(splits["train"], classes, domains)}
