"""YAML from outside is plain data of bounded size, or one sentence."""

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cdl.runtime.errors import CdlError
from cdl.runtime.plain_yaml import MOST_NODES, yaml_value

TAGS = "int float bool null timestamp binary str seq map set omap pairs merge value x".split()
SCALARS = ["", "x", "1", "010", "1:30", ".nan", "-.inf", "2020-13-45", "=", "<<", "\u2028", "1_"]
SCALAR = st.sampled_from(SCALARS) | st.integers().map(str) | st.text(max_size=4)
TAGGED = st.tuples(st.sampled_from(TAGS), SCALAR.map(json.dumps)).map(lambda t: f"!!{t[0]} {t[1]}")
ALIASES = st.sampled_from(["*a", "*b", "&a [*b, *b]", "&b [*a, *a]", "&a [x, *a]", "&b {x: 1}"])
NODES = st.recursive(
    SCALAR | TAGGED | ALIASES,
    lambda inner: (
        st.lists(inner).map(lambda found: f"[{', '.join(found)}]")
        | st.lists(st.tuples(SCALAR | ALIASES | st.just("<<"), inner)).map(
            lambda pairs: "{" + ", ".join(f"{key}: {value}" for key, value in pairs) + "}"
        )
    ),
)


def levels(n, leaf="x"):
    """A document of `n` levels of ten aliases each."""
    begin = f"k0: &k0 [{', '.join([leaf] * 10)}]"
    more = (f"k{i}: &k{i} [{', '.join([f'*k{i - 1}'] * 10)}]" for i in range(1, n))
    return "\n".join([begin, *more])


@pytest.mark.parametrize("fast", [False, True])
@given(text=NODES | st.text())
def test_any_text_is_data_or_one_sentence(fast, text):
    try:
        found = yaml_value(text, fast=fast)
    except CdlError as error:
        assert "\n" not in str(error).strip() or fast
        return
    assert len(repr(found)) < 100 * MOST_NODES


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize(
    "text",
    [
        levels(9),
        levels(6) + "\nx: {<<: [*k5, *k5]}",
        "a: &a {x: 1}\n"
        + "".join(f"b{i}: &b{i} {{<<: [{', '.join(['*a'] * 50)}]}}\n" for i in range(999)),
        "[" + "x, " * MOST_NODES + "]",
    ],
)
def test_more_nodes_than_allowed_are_refused_before_they_are_repeated(text, fast):
    with pytest.raises(CdlError, match="aliases or lists make more than 100000 values"):
        yaml_value(text, fast=fast)


def test_aliases_within_the_bound_are_those_of_yaml():
    text = levels(3) + "\nm: &m {a: 1}\nn: {<<: *m, b: 2.5}\nd: 2020-01-01\n"
    assert yaml_value(text) == yaml_value(text, fast=True) == yaml.safe_load(text)
