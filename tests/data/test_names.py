"""One function decides which names classes may have; every source of classes calls it."""

import csv
import io
import json
import re
import unicodedata

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_folders import make_classes, table
from test_hub import table as hub_table

from cdl.data.sources import hub
from cdl.data.sources.folder import images_of
from cdl.data.sources.items import Source, class_names
from cdl.data.sources.tables import Columns, read_classes
from cdl.device.names import check_class_name
from cdl.runtime.errors import CdlError

LINES = ["\n", "\r", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]
# turn the direction of text, or are not seen
UNSEEN = ["\u202e", "\u2066", "\u200f", "\u061c", "\u200b", "\u200d", "\u2060", "\ufeff", "\xad"]
BAD = [f"a{c}b" for c in [*LINES, *UNSEEN, "\0", "\t", "\x1b", "\x7f", "\ud800"]]
BAD += ["", " ", "\u3000", "\ufeffcat", "cat\u200b", "\u200d", "猫\u200d\u200d猫"]
HOSTILE = st.sampled_from([*LINES, "\0", "\ud800", "\udfff", " ", ",", '"', "a", "é", "\u200d"])
TEXT = st.text(st.characters() | HOSTILE)  # surrogates too
SPLIT = {"test": 0.5, "seed": 0, "stratified": True}


def written_and_read(names):
    """Return names as they are read from each output: list, JSON, CSV, array."""
    lines = "".join(f"{name}\n" for name in names).encode().decode().splitlines()
    file = io.StringIO(newline="")
    csv.writer(file).writerow(names)
    (row,) = csv.reader(io.StringIO(file.getvalue(), newline=""))
    frame = pd.read_csv(
        io.StringIO(pd.DataFrame({"n": names}).to_csv(index=False)),
        keep_default_na=False,
        dtype=str,
    )
    return [
        lines,
        json.loads(json.dumps(names, ensure_ascii=False).encode()),
        row,
        np.array(names).tolist(),
        frame["n"].tolist(),
    ]


@given(st.lists(TEXT, min_size=1))
def test_a_name_is_the_same_in_all_outputs_or_refused_in_one_sentence(names):
    kept = []
    for name in names:
        try:
            kept.append(check_class_name(name, "x"))
        except CdlError as error:
            assert str(error).isprintable() and len(str(error)) < 400
            assert re.match("'x': invalid class name", str(error))
            assert not name.isprintable() or not name.strip()
        else:
            assert kept[-1] == check_class_name(f" {kept[-1]}\u3000", "x") and kept[-1].strip()
    for found in written_and_read(kept) if kept else ():
        assert found == kept


@given(st.text(st.characters(categories=("L", "M", "N", "P", "S")), min_size=1))
def test_letters_and_signs_of_any_script_are_valid(name):
    assert check_class_name(name, "x") == unicodedata.normalize("NFC", name)


@pytest.mark.parametrize("given", ["e\u0301te\u0301", " été ", "été\xa0", "été"], ids=ascii)
def test_names_that_look_the_same_are_the_same(given):
    assert check_class_name(given, "x") == "été"
    assert Source(("cat", given), []).classes == ("cat", "été")
    assert class_names({0: "cat", 1: given}, "x") == ("cat", "été")
    with pytest.raises(CdlError, match="'été' is the name of two classes"):
        Source(("été", given), [])


@pytest.mark.parametrize(
    "name", ["tabby cat", "naïve", "猫", "می‌خواهم", "👩‍🔬", "a/b", '"x", y', "#1"]
)
def test_names_that_people_use_are_valid(name):
    assert written_and_read([check_class_name(name, "x")]) == [[name]] * 5


@pytest.mark.parametrize("name", [*BAD, None, 3, b"cat", ["cat"]], ids=ascii)
def test_every_source_refuses_a_class_with_an_invalid_name(name):
    with pytest.raises(CdlError, match="invalid class name"):
        Source(("cat", name), [])
    with pytest.raises(CdlError, match="invalid class name|has no name"):
        class_names({0: "cat", 1: name}, "x")


@pytest.mark.parametrize("name", ["a\nb", "a\u2028b", "\x85", " "], ids=ascii)
def test_a_folder_with_an_invalid_name_is_refused_before_images_are_opened(tmp_path, name):
    make_classes(tmp_path / "x", 1, ("cat", name))
    with pytest.raises(CdlError, match=r"x'?: invalid class name") as caught:
        images_of(str(tmp_path / "x"), split=SPLIT)
    assert str(caught.value).isprintable()


def test_a_split_file_with_an_invalid_name_is_refused(tmp_path):
    (tmp_path / "train").write_text("cat/1.png\na\0b/2.png\n")
    with pytest.raises(CdlError, match=r"train'?: invalid class name 'a\\x00b'"):
        images_of(str(tmp_path))


@pytest.mark.parametrize("name", ["a\nb", b"cat", 3, ["cat"], {"a": 1}], ids=ascii)
def test_a_table_with_an_invalid_name_is_refused(tmp_path, name):
    other = {str: "dog", bytes: b"dog", int: 4, list: ["dog"], dict: {"a": 2}}[type(name)]
    table(tmp_path, [name, other], files=("a", "b"))
    files = {"train": [tmp_path / "train.parquet"]}
    with pytest.raises(CdlError, match="invalid class name"):
        read_classes(str(tmp_path), files, Columns("image", "label", "name", None))


def test_a_table_with_lists_as_labels_is_refused(tmp_path):
    table(tmp_path, ["cat", "dog"], labels=([0], [1]))
    files = {"train": [tmp_path / "train.parquet"]}
    with pytest.raises(CdlError, match=r"invalid label \[0\] in column 'label'"):
        read_classes(str(tmp_path), files, Columns("image", "label", "name", None))


@pytest.mark.parametrize("name", ["a\nb", "\ud800", "a\0"], ids=ascii)
def test_a_dataset_of_the_hub_with_an_invalid_name_is_refused(tmp_path, name):
    import pyarrow.parquet as pq

    pq.write_table(hub_table(0, {"names": ["wren", name]}), tmp_path / "x.parquet")
    with pytest.raises(CdlError, match="x.parquet'?: invalid class name"):
        hub.class_names(tmp_path / "x.parquet", "label", ("0", "1"))
