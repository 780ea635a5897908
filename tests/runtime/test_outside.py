"""JSON from outside is an object that can be written again, or one sentence."""

import json
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdl.runtime.errors import CdlError
from cdl.runtime.outside import json_object

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
SCHEMA = {
    "type": "object",
    "required": ["input"],
    "properties": {"input": {"type": "object", "properties": {"most": {"type": "integer"}}}},
}


@given(st.binary() | st.text() | VALUES.map(json.dumps) | st.dictionaries(st.text(), VALUES))
def test_any_content_is_an_object_or_one_sentence(content):
    content = json.dumps(content) if isinstance(content, dict) else content
    try:
        found = json_object(content, "x.json", remedy="write it again")
    except CdlError as error:
        assert re.fullmatch(r"x.json cannot be read \(.*\); write it again", str(error))
    else:
        again = json.dumps(found, allow_nan=False)
        assert json_object(again) == found == json.loads(content)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("[]", r"cannot be read \(expected a JSON object, found '\[\]'\)"),
        ("null", "expected a JSON object, found 'null'"),
        ("", "cannot be read"),
        ('{"a": NaN}', "NaN is not JSON"),
        ('{"a": -Infinity}', "-Infinity is not JSON"),
        ('{"a": [1e999]}', "1e999 is too large"),
        ('{"a": 1, "a": 2}', "the key 'a' is there twice"),
        (b'{"a": "\xff"}', "codec can't decode"),
        ("[" * 100_000, "cannot be read"),
        ('{"a": ' + "9" * 5000 + "}", "cannot be read"),
        ('{"input": 1}', "invalid input: 1 is not of type 'object'"),
        ('{"input": {"most": []}}', r"invalid input.most: \[\] is not of type 'integer'"),
        ("{}", "'input' is a required property"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(tmp_path, content, reason):
    path = tmp_path / "x.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    for source in (content, path):
        with pytest.raises(CdlError, match=reason) as caught:
            json_object(source, schema=SCHEMA)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_numbers_and_characters_are_kept():
    text = r'{"a": [1e308, -0.0, 1], "b": "\ud83d\ude00 \u00e9 \udcff"}'
    found = json_object(text)
    assert found == {"a": [1e308, -0.0, 1], "b": "😀 é \udcff"}
    assert math.copysign(1, found["a"][1]) < 0


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CdlError, match=r"none.json cannot be read \(No such file or directory\)"):
        json_object(tmp_path / "none.json")
