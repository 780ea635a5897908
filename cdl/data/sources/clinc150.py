"""CLINC150 (Larson et al., EMNLP 2019): 22,500 requests, 150 intents in ten domains."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cdl.data.sources import CLASSES, SPLITS, SourceFacts
from cdl.data.sources.items import Source, only
from cdl.data.sources.texts import MODALITY, Text, source_of
from cdl.runtime.errors import CdlError
from cdl.runtime.fetching import Published
from cdl.runtime.options import choice, text
from cdl.runtime.outside import json_object

_COMMIT = (
    "https://raw.githubusercontent.com/clinc/oos-eval/828f8093932c8fe6ca7936c3d2e52903b1c523de"
)
TEXTS = Published(
    "clinc150.json",
    f"{_COMMIT}/data/data_full.json",
    "sha256:36923c3705a59e08fe9c3883d8bc2dd966ef93e22cb78ac41171782a698d56e0",
)
DOMAINS = Published(
    "clinc150_domains.json",
    f"{_COMMIT}/data/domains.json",
    "sha256:b947b579d3b8e74b06f93b01083d8efaff2888b43a3e362533bd88a6e1211b3a",
)
PER_CLASS = {"train": 100, "val": 20}  # texts in each training split
AGAIN = "delete it and run again with --forcerun fetch_dataset"


def read(
    root: str = "data/clinc150",
    train: str = "train",
    classes: Sequence[int | str] | None = None,
) -> Source:
    """Read the requests of the 150 intents; those that belong to no intent are not read.

    Args:
        root: folder of the two files.
        train: published split for training, `train` or `val`.
        classes: see `cdl.data.sources.items.only`. Labels are in the order of the domains, so that
            ten equal tasks in natural order are the ten domains.
    """
    texts, domains = (json_object(Path(root, file.name), remedy=AGAIN) for file in (TEXTS, DOMAINS))
    try:
        owner = {intent: domain for domain, intents in domains.items() for intent in intents}
        found = list(_texts(texts, owner, train))
    except (KeyError, TypeError, ValueError) as error:
        raise CdlError(
            f"{Path(root, TEXTS.name)} has other contents ({error!r}); {AGAIN}"
        ) from error
    return only(source_of(found, list(owner)), classes)


def _texts(texts: Mapping[str, Any], owner: Mapping[str, str], train: str) -> Iterator[Text]:
    for split, published in zip(SPLITS, (train, "test"), strict=True):
        for sentence, intent in texts[published]:
            yield Text(split, intent, sentence, f"{owner[intent]}/{intent}/{published}")


def _n_images(options: Mapping[str, Any]) -> Mapping[str, int]:
    return {"train": 150 * PER_CLASS[options.get("train", "train")], "test": 150 * 30}


CLINC150 = SourceFacts(
    read=read,
    description="CLINC150: requests of 150 intents in ten domains, two JSON files, fetched and "
    "checked.",
    options={
        "root": text("data/clinc150", "Folder of the files.", minLength=1),
        "train": choice(
            "train",
            list(PER_CLASS),
            "Published split for training: train, or val, whose texts are not in train.",
        ),
        "classes": CLASSES,
    },
    n_classes=150,
    n_images=_n_images,
    modality=MODALITY,
    licence="CC BY 3.0 (Larson et al., 2019)",
    published=(TEXTS, DOMAINS),
)
