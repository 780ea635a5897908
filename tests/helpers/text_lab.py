"""Labs of a tiny configuration of texts, see `lab.py`."""

import csv

from lab import Lab
from toy_text import WORDS, save

from cdl.backbones.fetch import fetch
from cdl.data.packing import prepare
from cdl.study.configuration import resolve
from cdl.study.grid import Grid

CLASSES = {"booking": "book a table for", "refund": "cancel refund please", "parcel": "where is my"}
CLASSES |= {"count": "one two three four"}
OTHERS = [word for word in reversed(WORDS) if word != "parcel"]  # the teacher's vocabulary


def write_csv(folder, n=12):
    """Write texts of four classes that differ in their words."""
    folder.mkdir(parents=True)
    for split, first in (("train", 0), ("test", n)):
        with open(folder / f"{split}.csv", "w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["text", "label"])
            for name, words in CLASSES.items():
                own = words.split()
                for i in range(first, first + n):
                    text = [own[(i + j * (1 + i % 3)) % len(own)] for j in range(2 + i % 5)]
                    rows.writerow([" ".join([*text, f"word{i}"]), name])
    return folder


def text_config(folder, **changes):
    """A configuration of texts whose teacher and student have different tokenizers."""
    config = {
        "name": "texts",
        "datasets": {
            "tickets": {
                "source": {"csv": {"path": str(folder / "csv")}},
                "tasks": 2,
                "view": {"tokens": 16, "drop": 0.1},
            }
        },
        "backbones": {name: {"folder": str(folder / name)} for name in ("large", "small")},
        "training": {"epochs": 2, "batch_size": 8, "lr": 0.01},
        "methods": {
            "l2p": {"pool": 4, "length": 4, "top_k": 2},
            "head_only": {},
            "ranpac": {"projection": 64, "logit_scale": 10.0},  # a ridge teaches by softened logits
        },
        "distillers": {"kd": {}, "cdl_prompt": {"pool_per_task": 4}},
        "compute": {"device": "cpu"},
        "grid": {
            "methods": ["l2p"],
            "pairs": [{"teacher": "large", "student": "small"}],
            "distillers": ["none", "kd"],
            "seeds": [0],
        },
    }
    return {**config, **changes}


def write_inputs(folder, words=OTHERS):
    """Write the files of `text_config` and the folders and artifacts that a lab reads."""
    write_csv(folder / "csv")
    save(folder / "large", "mpnet", words=words, seed=1, num_hidden_layers=3)
    save(folder / "small", "bert", pooling="cls")
    prepare(folder / "data", {"name": "csv", "path": str(folder / "csv")})
    for name in ("large", "small"):
        fetch(folder / f"{name}.safetensors", "folder", str(folder / name))
    return folder


def text_lab(inputs, folder, **changes):
    """A lab of `text_config`."""
    return Lab(Grid(resolve(text_config(inputs, **changes))), inputs, folder)
