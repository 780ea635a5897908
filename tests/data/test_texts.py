"""Texts as packed data: sources, splits, hashes, views."""

import csv
import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from cdl.data.modalities import views_of
from cdl.data.packed import JoinedPixels, Packed, joined
from cdl.data.packing import domain_of, prepare
from cdl.data.sources import SOURCES
from cdl.data.sources.archives import fetch
from cdl.data.sources.heldout import hold_out
from cdl.data.sources.summary import summarise
from cdl.data.text import TextViews, decoded, encoded
from cdl.runtime.artifacts import read_json
from cdl.runtime.errors import CdlError, Unreadable
from cdl.spec import InputView
from cdl.study.configuration import ConfigError
from cdl.study.contents import files_of

COPIES = Path(__file__).parents[3] / "shared" / "data" / "text"  # beside the checkout
ROWS = {
    "train": [("Wo ist mein Paket?", "parcel"), ("refund, please", "refund")]
    + [("I want my money back", "refund"), ("naïve café ☕", "parcel"), ("one  two", "other")]
    + [("three four five six", "other")],
    "test": [("where is it", "parcel"), ("pay me", "refund"), ("hm", "other")],
}


def write(folder, rows=ROWS, header=("text", "label"), **options):
    folder.mkdir(exist_ok=True)
    for split, own in rows.items():
        with open(folder / f"{split}.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file, **options).writerows([header, *own])
    return folder


def packed(folder, rows=ROWS):
    write(folder / "csv", rows)
    prepare(folder / "packed", {"name": "csv", "path": str(folder / "csv")})
    return folder / "packed"


def test_a_packed_text_is_its_bytes(tmp_path):
    folder = packed(tmp_path)
    assert read_json(folder / "manifest.json")["modality"] == "text"
    train = Packed(folder, "train")
    assert train.classes == ["other", "parcel", "refund"]
    pixels = train.pixels(torch.tensor([3, 0, 4]))
    assert pixels.channels == 1 and pixels.sizes[:, 0].tolist() == [1, 1, 1]
    views = joined(
        [TextViews().test(items, sizes) for items, sizes, _ in pixels.parts(torch.arange(3))]
    )
    assert decoded(views) == ["naïve café ☕", "Wo ist mein Paket?", "one  two"]
    copied = pixels.resident("cpu")
    again = joined([TextViews().test(x, s) for x, s, _ in copied.parts(torch.arange(3))])
    assert torch.equal(again, views)


def test_a_damaged_text_is_named(tmp_path):
    folder = packed(tmp_path)
    with open(folder / "train.pixels", "r+b") as file:
        file.write(b"?")
    with pytest.raises(CdlError, match=r"the text train.csv\[0\] does not have its recorded"):
        Packed(folder, "train").pixels(torch.tensor([0]))


def test_equal_texts_are_reported(tmp_path, caplog):
    rows = {**ROWS, "train": [*ROWS["train"], ("pay me", "parcel")]}
    with caplog.at_level(logging.WARNING):
        folder = packed(tmp_path, rows)
    assert "1 texts have identical copies in the other split" in caplog.text
    assert "2 texts have copies with another label: " in caplog.text
    assert read_json(folder / "manifest.json")["equal_pixels_in_both_splits"] == 1


def test_unlabelled_texts_of_another_length_are_joined(tmp_path):
    pixels = Packed(packed(tmp_path), "train").pixels(torch.arange(6))
    both = JoinedPixels(pixels, replace(pixels))
    parts = both.parts(torch.tensor([4, 7]))
    assert decoded(joined([TextViews().test(x, s) for x, s, _ in parts])) == [
        "one  two",
        "refund, please",
    ]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([(" ", "a")], r"train.csv: line 2 contains ' '; expected a text that is not blank"),
        ([("x\0", "a")], r"train.csv: line 2 contains a NUL character; remove it"),
    ],
)
def test_texts_that_cannot_be_used_are_listed(tmp_path, rows, message):
    write(tmp_path, {"train": rows, "test": [("x", "a")]})
    (item, *_) = SOURCES["csv"].read(str(tmp_path)).items
    with pytest.raises(Unreadable, match=message):
        item.read()


def test_invalid_files_are_reported_in_one_sentence(tmp_path):
    read = SOURCES["csv"].read
    with pytest.raises(CdlError, match="no train file matches 'train.*' in the folder"):
        read(str(tmp_path))
    write(tmp_path, header=("sentence", "label"))
    problem = r"train.csv has no column 'text'; with ',' between columns it has \['sentence', "
    with pytest.raises(CdlError, match=problem):
        read(str(tmp_path))
    for twice, header in (("text", "text,label,text"), ("label", "label,text,label")):
        (tmp_path / "train.csv").write_text(f"{header}\nx,a,y\n")
        with pytest.raises(CdlError, match=f"train.csv has 2 columns '{twice}'; expected one"):
            read(str(tmp_path))
    write(tmp_path, {"train": [("x", " ")], "test": [("x", "a")]})
    with pytest.raises(CdlError, match="train.csv: line 2 has no 'label'; fill it in, or remove"):
        read(str(tmp_path))
    long = b"x,a\n" * 9000  # more than one buffer
    (tmp_path / "train.csv").write_bytes(b"text,label\n" + long + b"caf\xe9,a\n")
    problem = "train.csv: line 9002 is not UTF-8, at the byte 0xe9; save the file as UTF-8"
    with pytest.raises(CdlError, match=problem):
        read(str(tmp_path))
    (tmp_path / "train.csv").write_text('text,label\n"x"y,a\n')
    with pytest.raises(CdlError, match="the row that begins in line 2 is not valid CSV"):
        read(str(tmp_path))
    (tmp_path / "train.csv").write_text('text,label\n"a\nb",c\n"unclosed,a\nb,b\nc,c\n')
    with pytest.raises(CdlError, match="the row that begins in line 4 is not valid CSV"):
        read(str(tmp_path))


def test_planning_refuses_a_wrong_header_and_a_first_row_without_class(tmp_path):
    options = {"text": "text", "label": "label", "delimiter": ",", "test_share": None}
    source = {"name": "csv", "path": str(tmp_path), "train": "train.csv", "test": "test.csv"}
    source |= options
    write(tmp_path)
    assert [file.name for file in files_of(source)] == ["train.csv", "test.csv"]
    with pytest.raises(ConfigError, match="train.csv has no column 'queue'"):
        files_of({**source, "label": "queue"})
    write(tmp_path, {"train": [("x", "a")], "test": [("x", "")]})
    with pytest.raises(ConfigError, match="test.csv: line 2 has no 'label'"):
        files_of(source)


def test_columns_and_delimiter_are_the_users(tmp_path):
    write(tmp_path, header=("body", "queue"), delimiter=";")
    source = SOURCES["csv"].read(str(tmp_path), text="body", label="queue", delimiter=";")
    assert Counter(item.split for item in source.items) == {"train": 6, "test": 3}


def test_a_share_is_drawn_by_content_with_copies_together(tmp_path):
    rows = [(f"text {i}", "ab"[i % 2]) for i in range(20)] + [("text 0", "a")] * 3
    for name, own in (("one", rows), ("two", rows[::-1])):
        write(tmp_path / name, {"tickets": own})
    found = []
    for name in ("one", "two"):
        source = SOURCES["csv"].read(str(tmp_path / name), train="*.csv", test_share=0.3)
        found.append({(i.read().tobytes(), i.label): i.split for i in source.items})
    assert found[0] == found[1] and Counter(found[0].values()) == {"train": 14, "test": 6}
    write(tmp_path / "one", {"tickets": [("x", "a"), ("y", "b"), ("z", "b")]})
    with pytest.raises(CdlError, match="test_share: class 'a' has one text"):
        SOURCES["csv"].read(str(tmp_path / "one"), train="*.csv", test_share=0.3)


def test_texts_are_held_out_like_images(tmp_path):
    write(tmp_path)
    held = hold_out(SOURCES["csv"].read(str(tmp_path)), 1, evaluated=True)
    assert Counter(item.split for item in held.items) == {"train": 3, "test": 3}
    summary = summarise({"name": "csv", "path": str(tmp_path), **defaults("csv")}, str)
    assert summary.images == {"train": 6, "test": 3} and summary.classes["refund"] == (2, 1)


def defaults(name):
    options = SOURCES[name].options
    return {k: o["default"] for k, o in options.items() if "default" in o}


def test_a_table_has_a_column_of_texts(tmp_path):
    for split, rows in ROWS.items():
        frame = pd.DataFrame(rows, columns=["body", "name"])
        frame["label"] = frame["name"].map({"other": 0, "parcel": 1, "refund": 2})
        frame.to_parquet(tmp_path / f"{split}.parquet")
    source = SOURCES["parquet"].read(str(tmp_path), text="body", class_name="name")
    assert source.modality == "text" and source.classes == ("other", "parcel", "refund")
    assert next(iter(source.items)).read().tobytes().decode() == "Wo ist mein Paket?"


def test_words_are_left_out_as_a_function_of_seed_text_and_epoch(tmp_path):
    pixels = Packed(packed(tmp_path), "train").pixels(torch.arange(6))
    views = views_of(InputView.of("text", {"tokens": 16, "drop": 0.5}))

    def drawn(positions, seed=0, epoch=0):
        parts = pixels.parts(torch.tensor(positions))
        return decoded(joined([views.train(x, s, k, seed, epoch) for x, s, k in parts]))

    whole = drawn(range(6))
    assert [drawn([i])[0] for i in range(6)] == whole  # in every batch
    assert whole != drawn(range(6), seed=1) and whole != drawn(range(6), epoch=1)
    texts = [text.split() for text, _ in ROWS["train"]]
    for kept, words in zip(whole, texts, strict=True):
        assert kept and all(word in words for word in kept.split())
    assert sum(len(kept.split()) for kept in whole) < sum(map(len, texts))
    assert {len(text.split()) for e in range(40) for text in drawn([0], epoch=e)} >= {1, 2, 3}


def test_views_of_texts_round_trip():
    texts = ["a", "", "zwölf Wörter", "☕ x"]
    assert decoded(encoded(texts)) == texts
    view = InputView.of("text", {"tokens": 16, "drop": 0.25})
    assert view.to_json() == {"modality": "text", "tokens": 16, "drop": 0.25}
    assert view.held_out().to_json() == {"modality": "text", "tokens": 16}
    assert InputView.from_json(view.to_json()) == view


@pytest.mark.skipif(not COPIES.is_dir(), reason="needs copies of the published files")
@pytest.mark.parametrize(("name", "n"), [("clinc150", 150), ("banking77", 77)])
def test_published_texts_are_as_their_facts_say(tmp_path, name, n):
    root = str(tmp_path / name)
    fetch(tmp_path / "record.json", name, root, mirror=str(COPIES), classes=None)
    source = SOURCES[name].read(root)
    items = list(source.items)
    assert len(source.classes) == n == SOURCES[name].n_classes
    facts = SOURCES[name].n_images
    counts = Counter(item.split for item in items)
    assert counts == (facts({}) if callable(facts) else facts)
    assert all(item.read().size for item in items[::100])


@pytest.mark.skipif(not COPIES.is_dir(), reason="needs copies of the published files")
def test_ten_tasks_of_clinc150_are_its_domains():
    source = SOURCES["clinc150"].read(str(COPIES), train="val")
    items = list(source.items)
    assert Counter(item.split for item in items) == {"train": 3000, "test": 4500}
    domains = {
        label: {domain_of(i.name) for i in items if i.label == label} for label in range(150)
    }
    tasks = [set().union(*(domains[15 * t + i] for i in range(15))) for t in range(10)]
    assert [len(task) for task in tasks] == [1] * 10 and len(set().union(*tasks)) == 10
