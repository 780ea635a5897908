"""Any record is read as it was written; a damaged one is refused, whatever the damage."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdl.runtime.artifacts import check_files, read_json, write_json
from cdl.runtime.errors import CdlError

NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(exclude_categories=()))  # with lone surrogates, as in file names
KEYS = TEXT.filter(lambda key: key != "_record")
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=10,
)
CONTENTS = st.dictionaries(KEYS, VALUES, max_size=4)


def damage(data, raw):
    """Draw bytes that differ from `raw`: flipped, cut, inserted or exchanged pieces."""
    start = data.draw(st.integers(0, len(raw) - 1))
    stop = data.draw(st.integers(start + 1, len(raw)))
    kind = data.draw(st.sampled_from(["flip", "cut", "insert", "repeat", "any"]))
    flipped = bytes([raw[start] ^ 1 << data.draw(st.integers(0, 7))])
    return {
        "flip": raw[:start] + flipped + raw[start + 1 :],
        "cut": raw[:start] + raw[stop:],
        "insert": raw[:start] + data.draw(st.binary(max_size=9)) + raw[start:],
        "repeat": raw[:stop] + raw[start:],
        "any": data.draw(st.binary()),
    }[kind]


@given(content=CONTENTS)
def test_a_record_is_read_as_it_was_written(tmp_path, content):
    write_json(tmp_path / "x.json", content)
    assert read_json(tmp_path / "x.json") == content


@given(data=st.data(), content=CONTENTS)
def test_a_damaged_record_is_refused_or_has_the_same_content(tmp_path, data, content):
    file, covered = tmp_path / "x.json", tmp_path / "x.csv"
    covered.write_text("a,b\n1,2\n")
    write_json(file, content, [covered])
    file.write_bytes(damage(data, file.read_bytes()))
    try:
        found = read_json(file)
        check_files(file, covered)
    except CdlError as error:
        assert str(file) in str(error) and "\n" not in str(error)
    else:
        assert found == content


@given(data=st.data())
def test_a_damaged_file_of_a_record_is_refused(tmp_path, data):
    file, covered = tmp_path / "x.json", tmp_path / "x.csv"
    raw = data.draw(st.binary(min_size=1))
    covered.write_bytes(raw)
    write_json(file, {}, [covered])
    changed = damage(data, raw)
    covered.write_bytes(changed)
    if changed == raw:
        check_files(file, covered)
    else:
        with pytest.raises(CdlError, match="x.csv has sha256"):
            check_files(file, covered)


@given(value=VALUES)
def test_a_seal_of_another_kind_is_refused_in_one_sentence(tmp_path, value):
    for content in ({"_record": value}, {"_record": {"files": value, "sha256": value}}):
        (tmp_path / "x.json").write_text(json.dumps(content))
        with pytest.raises(CdlError, match="x.json"):
            read_json(tmp_path / "x.json")
