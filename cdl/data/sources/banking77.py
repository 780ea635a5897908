"""BANKING77 (Casanueva et al., 2020): 13,083 questions to a bank, 77 intents."""

from collections.abc import Sequence
from pathlib import Path

from cdl.data.sources import CLASSES, SPLITS, SourceFacts
from cdl.data.sources.items import Source, only
from cdl.data.sources.texts import MODALITY, Text, source_of
from cdl.device.reading import rows_of
from cdl.runtime.fetching import Published
from cdl.runtime.options import text

_COMMIT = (
    "https://raw.githubusercontent.com/PolyAI-LDN/task-specific-datasets/"
    "57ec275d8078af65b7731c2a98be812d844a6d6b/banking_data"
)
FILES = (
    Published(
        "banking77_train.csv",
        f"{_COMMIT}/train.csv",
        "sha256:b06e26ac675513959a63135f11b94ea7786ed02da65db93a5650d8838cbc664b",
    ),
    Published(
        "banking77_test.csv",
        f"{_COMMIT}/test.csv",
        "sha256:d12d6e3bc4c3103966ae786dc435913c0c563dfa328f5a3646d0e62cfeeb474d",
    ),
)


def read(root: str = "data/banking77", classes: Sequence[int | str] | None = None) -> Source:
    """Read the questions; intents are in alphabetical order.

    `classes`: see `cdl.data.sources.items.only`.
    """
    found = [
        Text(split, label, sentence, f"{label}/{split}")
        for split, file in zip(SPLITS, FILES, strict=True)
        for sentence, label, _ in rows_of(Path(root, file.name), "text", "category")
    ]
    return only(source_of(found, sorted({row.label for row in found})), classes)


BANKING77 = SourceFacts(
    read=read,
    description="BANKING77: questions of 77 intents, two CSV files, fetched and checked.",
    options={
        "root": text("data/banking77", "Folder of the files.", minLength=1),
        "classes": CLASSES,
    },
    n_classes=77,
    n_images={"train": 10_003, "test": 3_080},
    modality=MODALITY,
    licence="CC BY 4.0 (Casanueva et al., 2020)",
    published=FILES,
)
