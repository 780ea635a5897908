"""Answers from files: what is read, what is refused, and the list of items to answer."""

import csv

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdl.data.answers import FLOOR, read_answers, write_items
from cdl.runtime.errors import CdlError

GOOD = "name,path,cat,dog,owl\na.png,x,0.7,0.2,0.1\nb.png,y,0,1,0\n"


def test_probabilities_become_logarithms_and_empty_cells_share_the_rest(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text(GOOD + '"c,\nd.png",z,0.8,,\nunanswered.png,,,,\n')
    table = read_answers(file)
    found = np.exp(table.of(["c,\nd.png", "b.png"], ["owl", "cat"]))
    assert found == pytest.approx(np.array([[0.1, 0.8], [FLOOR, FLOOR]]))
    assert table.missing(["a.png", "unanswered.png"]) == ["unanswered.png"]
    assert np.isnan(table.of(["unanswered.png"], ["cat"])).all()
    with pytest.raises(CdlError, match="no answer for 'unanswered.png'"):
        table.check_items(["a.png", "unanswered.png"])
    with pytest.raises(CdlError, match="has no column 'emu'"):
        table.of(["a.png"], ["emu"])
    with pytest.raises(CdlError, match="column 'cat' is not a class"):
        table.check_classes(["dog", "owl"])


def test_logits_from_parquet_stay_as_they_are(tmp_path):
    file = tmp_path / "a.parquet"
    pd.DataFrame({"name": ["a"], "cat": [-3.0], "dog": [8.5]}).to_parquet(file)
    assert read_answers(file, "logits").of(["a"], ["dog", "cat"]).tolist() == [[8.5, -3.0]]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "neither CSV"),
        ("file,cat,dog\na,1,0\n", "no column 'name'"),
        ("name,cat\na,1\n", "fewer than two classes"),
        ("name,cat,cat\na,1,0\n", "two columns 'cat'"),
        ("name,cat,dog\na,1,0\na,0,1\n", "'a' is there twice"),
        ("name,cat,dog\n,1,0\n", "row 1 has no name"),
        ("name,cat,dog\na,,\n", "has no answer"),
        ("name,cat,dog\na,=1+1,0\n", "'=1\\+1' for 'cat'; expected a number"),
        ("name,cat,dog\na,nan,0\n", "has nan for 'cat'"),
        ("name,cat,dog\na,inf,0\n", "has inf for 'cat'"),
        ("name,cat,dog\na,1.5,-0.5\n", "values outside 0 to 1"),
        ("name,cat,dog\na,0.3,0.3\n", "a sum of 0.6"),
        ("name,cat,dog\na,0.9,0.9\n", "a sum of 1.8"),
        ("name,cat,dog\na,1\n", "neither CSV"),
        (b"name,cat,dog\n\xff,1,0\n", "neither CSV"),
        (b"\x00PAR1" * 9, "neither CSV|no column"),
    ],
)
def test_bad_answers_are_refused_in_a_sentence(tmp_path, text, sentence):
    file = tmp_path / "a.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(CdlError, match=sentence) as error:
        read_answers(file)
    assert "\n" not in str(error.value)


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(CdlError, match="cannot be read"):
        read_answers(tmp_path / "none.csv")
    with pytest.raises(CdlError, match="not a regular file"):
        read_answers(tmp_path)
    (tmp_path / "a.parquet").write_text(GOOD)
    with pytest.raises(CdlError, match="neither CSV in UTF-8 nor .parquet"):
        read_answers(tmp_path / "a.parquet")


@given(st.binary(max_size=200), st.sampled_from([".csv", ".parquet"]))
def test_any_bytes_are_read_or_refused(tmp_path_factory, content, suffix):
    file = tmp_path_factory.mktemp("any") / f"a{suffix}"
    file.write_bytes(content)
    try:
        table = read_answers(file)
    except CdlError:
        return
    assert np.isfinite(table.logits).all()


def test_the_list_of_items_is_read_back_once_it_is_filled_in(tmp_path):
    file, names = tmp_path / "items.csv", ["a,b.png", 'c "d".png', "e\nf.png", "=g.png"]
    assert write_items(file, [(name, f"/x/{name}") for name in names], ["cat", "dog"]) == 4
    with pytest.raises(CdlError, match="has no answer"):
        read_answers(file)
    with open(file, newline="") as opened:
        rows = list(csv.reader(opened))
    with open(file, "w", newline="") as opened:
        csv.writer(opened).writerows([rows[0], *([*row[:2], "1", "0"] for row in rows[1:])])
    assert read_answers(file).of(names, ["dog", "cat"]).argmax(1).tolist() == [1] * 4
    with pytest.raises(CdlError, match="cannot be written"):
        write_items(file, [], ["cat", "dog"])
    with pytest.raises(CdlError, match="a class is named 'path'"):
        write_items(tmp_path / "b.csv", [], ["cat", "path"])
