"""Texts of new classes for `cdl learn` of a run, in a CSV file."""

import csv
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

from cdl.data.packing import prepare
from cdl.deployment.new_classes import New, NewItems
from cdl.device.texts import COLUMNS, Texts


class NewTexts(NewItems):
    """A CSV file with a text and a class in each row; unlabelled texts one in each line."""

    layout, item = Texts.layout, "text"

    def read(self, path: Path) -> list[New]:
        found = Texts.by_class(path)
        return [_new(name, text) for name, texts in found.items() for text in texts]

    def place(self, path: Path, label: str) -> str:
        return f"{path}: class {label!r}"

    def unlabelled(self, path: Path) -> list[New]:
        return [_new("any", text) for text in Texts.unlabelled(path)]

    def pack(
        self, train: Sequence[New], test: Sequence[New], output: Path, short_side: int | None
    ) -> None:
        with TemporaryDirectory() as temporary:
            for split, items in (("train", train), ("test", test)):
                with open(Path(temporary, f"{split}.csv"), "w", newline="") as file:
                    rows = csv.writer(file)
                    rows.writerow(COLUMNS)
                    rows.writerows((item.content, item.label) for item in items)
            prepare(output, {"name": "csv", "path": temporary}, short_side)


def _new(label: str, text: str) -> New:
    return New(label, sha256(text.encode()).hexdigest(), text)
