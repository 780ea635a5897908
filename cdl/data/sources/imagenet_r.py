"""ImageNet-R (Hendrycks et al., ICCV 2021) in the split `coda-v1` of CODA-Prompt."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cdl.data.sources import SPLITS, SourceFacts
from cdl.data.sources.items import Item, Source, class_names
from cdl.runtime.errors import CdlError
from cdl.runtime.fetching import Published
from cdl.runtime.options import text
from cdl.runtime.plain_yaml import yaml_value

if TYPE_CHECKING:
    import numpy as np

_SPLIT = (  # of CODA-Prompt (Smith et al., CVPR 2023), the commit that released ImageNet-R
    "https://raw.githubusercontent.com/GT-RIPL/CODA-Prompt/"
    "605ac87af91f6aae0f31695f08c8876529a22efe/dataloaders/splits/"
)
ARCHIVE = Published(
    "imagenet-r.tar",
    "https://people.eecs.berkeley.edu/~hendrycks/imagenet-r.tar",
    "md5:a61312130a589d0ca1a8fca1f2bd3337",
)
LISTS = (
    Published(
        "imagenet-r_train.yaml",
        f"{_SPLIT}imagenet-r_train.yaml",
        "md5:b90d9c763369c87dbd9becb80abd83b3",
    ),
    Published(
        "imagenet-r_test.yaml",
        f"{_SPLIT}imagenet-r_test.yaml",
        "md5:3ea5a3aa2e96578874254d4ee87321b3",
    ),
)
_MOST_NODES = 10**6  # of a list with 48,000


def read(root: str = "data/imagenet-r") -> Source:
    """Read 24,000 training and 6,000 test images of 200 classes.

    The two lists contain each image's label; labels do not follow the sorted names of the folders.
    Class names are WordNet ids.
    """
    from cdl.data.sources.archives import open_archive, validate_layout
    from cdl.device.decoding import decode

    path = Path(root, ARCHIVE.name)
    validate_layout(path.parent, path.name)
    contents = open_archive(path)

    def image(inside: str) -> "np.ndarray":
        return decode(contents(inside), f"{path}: {inside}")

    folders: dict[int, str] = {}
    items = []
    for split in SPLITS:
        lines = path.with_name(f"imagenet-r_{split}.yaml")
        for name, label in _read_split_file(lines):
            folder, file = name.split("/")[-2:]
            if folders.setdefault(label, folder) != folder:
                raise CdlError(
                    f"{lines}: {name} has label {label}, which is the label of {folders[label]!r}"
                )
            inside = f"imagenet-r/{folder}/{file}"
            items.append(Item(split, label, f"{folder}/{file}", partial(image, inside)))
    return Source(class_names(folders, root), items)


def _read_split_file(path: Path) -> list[tuple[str, int]]:
    """Return names and labels of a split file with `data` (paths) and `targets`."""
    from cdl.data.sources.archives import AGAIN

    try:
        lists: Mapping[str, list[Any]] = yaml_value(path.read_text(), _MOST_NODES, fast=True)
        pairs = list(zip(lists["data"], lists["targets"], strict=True))
    except (OSError, CdlError, KeyError, TypeError, ValueError) as error:
        raise CdlError(f"{path} cannot be read as a split file ({error}); {AGAIN}") from error
    for name, label in pairs:
        if not isinstance(name, str) or name.count("/") < 1 or type(label) is not int:
            raise CdlError(
                f"{path}: invalid entry {name!r} with label {label!r}; expected FOLDER/NAME and an "
                "integer"
            )
    return pairs


IMAGENET_R = SourceFacts(
    read=read,
    description="ImageNet-R in the split of CODA-Prompt: imagenet-r.tar, imagenet-r_train.yaml and "
    "imagenet-r_test.yaml, fetched and checked.",
    options={
        "root": text("data/imagenet-r", "Folder of the archive and the two lists.", minLength=1)
    },
    n_classes=200,
    n_images={"train": 24_000, "test": 6_000},
    licence="images of the web, for research (Hendrycks et al., 2021)",
    published=(ARCHIVE, *LISTS),
)
