"""Teachers that are classifiers with heads of their own: the plan, and what is checked before it.

Does not import torch.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cdl import layout
from cdl.backbones.classifiers import READS, ClassifierSource
from cdl.data.modalities import MODALITIES
from cdl.data.order import labels_of, sizes_of
from cdl.data.sources import SOURCES, SPLITS, modality_of
from cdl.layout import contents_memory
from cdl.runtime.errors import CdlError
from cdl.spec import Answers
from cdl.study.configuration import ConfigError
from cdl.study.contents import hashes
from cdl.study.jobs import Job, Record
from cdl.study.runs import Run

if TYPE_CHECKING:
    from cdl.study.grid import Grid

FIELD = "grid.pairs.teacher.classifier"


def classifier_name(given: Mapping[str, Any]) -> str:
    """Return the name in folders and tables of a classifier: that of its folder, file or tag."""
    path = next((given[kind] for kind in READS if given.get(kind)), "")
    name = Path(path).stem if given.get("onnx") else Path(path).name
    return "classifier_" + re.sub(r"[^A-Za-z0-9]", "_", name)[:40]


def classifier_of(given: Mapping[str, Any]) -> Answers:
    """Return the specification of a classifier's answers, with the hash of its files.

    Raises:
        ConfigError: the block is invalid, or a file is missing or cannot be read.
    """
    name = classifier_name(given)
    try:
        source = ClassifierSource.of(given)
        found = hashes(source.files, contents_memory("queries", name))
        return Answers(name, source.sha256(lambda file: found[str(file)]), "classifier")
    except ConfigError:
        raise
    except CdlError as error:
        raise ConfigError(f"{FIELD}: {error}") from error


def check_classifier(given: Mapping[str, Any], grid: "Grid", run: Run) -> None:
    """Compare the classes of a classifier with those of the data, as far as these are known.

    Raises:
        ConfigError: it classifies other items, its classes or their mapping are invalid, the
            mapping names a class that the data lacks, or a class of the tasks has no output.
    """
    try:
        source = ClassifierSource.of(given)
        source.check_items(MODALITIES[modality_of(grid.dataset(run)["source"])].items)
        columns, known = source.columns, _classes_of(grid, run.dataset)
        if known is None:
            return
        learnt = learnt_classes(grid, run, known)
        extra = [name for name in columns if name not in known] if source.mapping else []
        missing = [name for name in learnt if name not in columns]
        for names, what in ((extra, "names"), (missing, "has no class for")):
            if names:
                raise CdlError(
                    f"{source.mapping or source.path}: {what} {names[0]!r}"
                    f"{', which is no class of the data' if names is extra else ''}; expected "
                    f"the classes of datasets.{run.dataset}, {len(names)} of which differ; "
                    "classes: FILE maps its classes to them"
                )
    except CdlError as error:
        raise ConfigError(f"{FIELD}: {error}") from error


def _images_per_class(grid: "Grid", dataset: str) -> dict[str, int | None]:
    """Return how many items of each class a classifier answers, by split; None for all."""
    options = grid.datasets[dataset].options
    if isinstance(options["tasks"], dict):  # drawn in each domain
        return dict.fromkeys(SPLITS)
    train, test = options["images_per_class"], options["test_images_per_class"]
    counts = None if isinstance(train, list) else train, test
    return dict(zip(SPLITS, counts, strict=True))


def classifying(grid: "Grid", dataset: str, answers: Answers) -> Job:
    """Return the job that computes a classifier's answers for the packed items of a dataset."""
    given, packed = grid.answers[answers.name]["classifier"], grid.packed(dataset)
    counts = _images_per_class(grid, dataset)
    name = layout.queries_name(answers.name, answers.to_json(), counts, grid.source(dataset))
    folder = layout.queries(name)
    outputs = layout.classified(folder)
    expected = {"classifier": answers.sha256, "images_per_class": counts}
    return Job(
        rule="classify",
        key={"classified": name},
        outputs=dict(outputs),
        records=(Record(outputs["record"], (outputs["table"],), lambda: expected),),
        files=layout.classifying(folder),
        reads=lambda: {
            "data": [*packed.split("train"), *packed.split("test")[1:]],
            "files": [str(file) for file in ClassifierSource.of(given).files],
        },
        given=lambda: {
            "classifier": given,
            "sha256": answers.sha256,
            "images_per_class": counts,
        },
        measured=True,
        alike=(dataset, answers.name),
    )


def packed_items(grid: "Grid", dataset: str) -> tuple[list[str], list[str]] | None:
    """Return the training items and the classes of packed data; None before it is packed."""
    from cdl.data.packing import read_index  # pandas, which most commands do without

    packed = grid.packed(dataset)
    if not Path(packed.manifest).exists():
        return None
    index, _, classes = read_index(packed.folder, SPLITS[0])
    return index["name"].tolist(), list(classes)


def _classes_of(grid: "Grid", dataset: str) -> list[str] | None:
    """Return the classes of a dataset that is packed or a folder of images; None if not known."""
    if (packed := packed_items(grid, dataset)) is not None:
        return packed[1]
    source = dict(grid.source(dataset)["source"])
    listing = SOURCES[source.pop("name")].listing
    return list(listing(**source).classes) if listing else None


def learnt_classes(grid: "Grid", run: Run, known: list[str]) -> list[str]:
    """Return the classes of the tasks of a run; empty if they depend on the seed."""
    order, tasks = grid.class_order(run.dataset), grid.dataset(run)["tasks"]
    if order == "natural":
        order = list(range(len(known)))
    labels = labels_of(order, known) if isinstance(order, list) else range(len(known))
    n = sum(sizes_of(tasks, len(labels)))
    some = n < len(labels) and not isinstance(order, list)
    return [] if some else [known[label] for label in labels[:n]]
