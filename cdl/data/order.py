"""Class order and division into tasks. Imports no torch, so planning can use it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cdl.runtime.artifacts import fingerprint
from cdl.runtime.errors import CdlError
from cdl.spec import Domains

Tasks = int | Sequence[int] | Mapping[str, Any] | Domains  # as configured, or as specified


def domains_of(tasks: Tasks) -> list[str]:
    """Return the domains if these are the tasks, see `sizes_of`, else an empty list."""
    if isinstance(tasks, Domains):
        return list(tasks.domains)
    return list(tasks["domains"]) if isinstance(tasks, Mapping) else []


def count_of(tasks: Tasks) -> int:
    """Return the number of tasks, see `sizes_of`."""
    if isinstance(tasks, int):
        return tasks
    return len(domains_of(tasks) if isinstance(tasks, Mapping | Domains) else tasks)


def sizes_of(tasks: Tasks, n_classes: int) -> list[int]:
    """Return the number of new classes of each task.

    Args:
        tasks: number of equal tasks; or the number of classes of each, which may leave classes
            over; or `domains`, which all have the same classes.
        n_classes: of the dataset.

    Raises:
        CdlError: the classes cannot be divided that way.
    """
    if isinstance(tasks, int):
        if n_classes % tasks:
            raise CdlError(
                f"tasks: invalid value {tasks} for {n_classes} classes; expected a divisor of "
                f"{n_classes} or a list of sizes"
            )
        return [n_classes // tasks] * tasks
    if isinstance(tasks, Mapping | Domains):
        return [n_classes] + [0] * (count_of(tasks) - 1)
    if sum(tasks) > n_classes:
        raise CdlError(
            f"tasks: {list(tasks)} needs {sum(tasks)} classes; expected at most {n_classes}, the "
            "number of classes in order"
        )
    return list(tasks)


def labels_of(
    order: Sequence[int | str], classes: Sequence[str], field: str = "class_order"
) -> list[int]:
    """Return the labels of classes given by label or name.

    Args:
        order: labels or names of the classes to learn, all or the first ones.
        classes: names of all classes by label.
        field: name of the list in error messages.

    Raises:
        CdlError: a class does not exist or is listed twice, or a name belongs to two classes.
    """
    labels = []
    for given in order:
        found = [i for i, name in enumerate(classes) if given in (i, name)]
        if len(found) != 1 or found[0] in labels:
            why = {0: "is not a class", 1: "is listed twice"}
            raise CdlError(
                f"{field}: {given!r} {why.get(len(found), 'is the name of several classes')}; "
                f"expected each of the {len(classes)} classes at most once, by label or name"
            )
        labels.append(found[0])
    return labels


def digest_of(about: Mapping[str, Any], classes: Iterable[str], domains: Iterable[str] = ()) -> str:
    """Return a digest of the images of some classes or domains of a split.

    Args:
        about: entry of the split in the manifest.
        classes: names of the classes; a missing class is part of the digest as missing.
        domains: names of the domains; if there are any, `classes` is not used.
    """
    if domains:  # here heads have columns for all classes of the split
        images = {name: about.get("domains", {}).get(name) for name in domains}
        return fingerprint([images, sorted(about["classes"])])
    return fingerprint({name: about["classes"].get(name) for name in classes})


def digests(
    splits: Mapping[str, Mapping[str, Any]], classes: Iterable[str], domains: Iterable[str]
) -> dict[str, str]:
    """Return a digest of each split of a run.

    Args:
        splits: entry of each split in the manifest.
        classes: names of the classes that were learnt.
        domains: names of the domains that were learnt, if domains are the tasks; the digest of the
            training split is over these or else over the classes.
    """
    whole = {split: about["sha256"] for split, about in splits.items()}
    return whole | {"train": digest_of(splits["train"], classes, domains)}
