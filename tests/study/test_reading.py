"""Reading of configuration files: strict YAML in UTF-8, errors in one sentence."""

import re
from pathlib import Path

import pytest

from cdl.study.configuration import (
    LARGEST_FILE,
    ConfigError,
    merge,
    overlay,
    read,
    resolve,
)

# 341 bytes and a billion values, below a key that no configuration has
BILLIONS = "\n".join(
    f"k{i}: &k{i} [{', '.join([f'*k{i - 1}' if i else 'x'] * 10)}]" for i in range(9)
).encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [1\nb: 2\n", "(line 2, column 2: while parsing a flow sequence: expected "),
        (b"name: x\n  y: 3\n", "(line 2, column 4: mapping values are not allowed here)"),
        (b"name: x\n\ty: 3\n", "indent with spaces, not tabs)"),
        (b"name: x\ny: caf\xe9\n", "(line 2 contains the byte 0xe9; save the file as UTF-8)"),
        ("name: x\n".encode("utf-16"), "(line 1 contains the byte 0xff; save the file as UTF-8)"),
        ("name: x\n".encode("utf-16-be"), "(line 1 contains the character #x0000)"),
        (b"[" * 5000, "(too deeply nested)"),
        (b"a: &a [x]\nb: &a [y]\n", "line 2, column 4: found duplicate anchor 'a'"),
        (b"x: " + b"9" * 5000, "cannot be read as plain YAML in UTF-8 (line 1, column 4: '9"),
        (b"x: !!python/tuple [1]", "(line 1, column 4: could not determine a constructor"),
        (b"#" * (LARGEST_FILE + 1), "is larger than 512 KiB; name a configuration"),
        (b"training: {epochs: 010}", "line 1, column 20: 010 is 8 in YAML 1.1"),
        (b"x: -0_17", "-0_17 is -15 in YAML 1.1"),
        (b"a: 1\nx: 1:30", "line 2, column 4: 1:30 is 90 in YAML 1.1"),
        (b"x: 1:30.5", "1:30.5 is 90.5 in YAML 1.1"),
        (BILLIONS, "(line 5, column 5: aliases or lists make more than 100000 values; expected "),
        (b"a: &a [b, {c: *a}]", "line 1, column 4: contains itself through a YAML alias"),
        (b'x: !!int ""', "(line 1, column 4: '' is no int)"),
        (b'x: [!!float ""]', "(line 1, column 5: '' is no float)"),
        (b"x: !!bool x", "(line 1, column 4: 'x' is no bool)"),
        (b"x: !!timestamp x", "(line 1, column 4: 'x' is no timestamp)"),
        (b"x: 2020-13-45", "is no timestamp (month must be in 1..12)"),
    ],
)
def test_an_unreadable_file_is_reported_with_line_and_column(content, message, tmp_path):
    file = tmp_path / "bad.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        read(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert str(caught.value).isprintable()


def test_unambiguous_numbers_are_accepted(tmp_path):
    file = tmp_path / "good.yaml"
    file.write_text("a: [0, 0.5, -3, 1.0e-3, 10, 0x1f, .5, '010', '1:30']\nb: &b {c: 1}\nd: *b\n")
    assert read(file) == {
        "a": [0, 0.5, -3, 1e-3, 10, 31, 0.5, "010", "1:30"],
        "b": {"c": 1},
        "d": {"c": 1},
    }


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=f"{tmp_path}: cannot be read \\(Is a directory\\)$"):
        read(tmp_path)


def test_the_error_for_a_missing_file_suggests_a_similar_name(tmp_path):
    (tmp_path / "default.yaml").touch()
    with pytest.raises(ConfigError, match="no such file; did you mean .*/default.yaml\\?$"):
        read(tmp_path / "defalt.yaml")
    with pytest.raises(ConfigError, match="no such file; name a YAML file$"):
        read(tmp_path / "other.yaml")


WHOLE = read(Path(__file__).parents[2] / "config" / "digits.yaml")


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"epochs": "3"}, "'3' is not of type 'integer' (in quotes it is text; write 3)"),
        ({"epochs": "08"}, "(YAML reads 08 as text; write 8)"),
        ({"epochs": "1e3"}, "(YAML reads 1e3 as text; write 1000)"),
        ({"lr": "3"}, "(in quotes it is text; write 3.0)"),
        ({"teacher": {"epochs": "5"}}, "(in quotes it is text; write 5)"),
    ],
)
def test_the_error_for_a_number_in_quotes_suggests_the_number(training, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        resolve(WHOLE | {"training": training})


def test_no_number_is_suggested_where_none_is_valid():
    for training in ({"epochs": "2.5"}, {"epochs": "nan"}, {"lr": "fast"}, {"betas": "1"}):
        with pytest.raises(ConfigError) as caught:
            resolve(WHOLE | {"training": training})
        assert "write" not in str(caught.value)


DIGITS = {"datasets": {"d": {"source": {"digits": {"seed": 3}}, "tasks": 5}}}
VIT = {"backbones": {"b": {"timm": "vit_base", "published": "vit_base", "batch_size": 8}}}


def test_an_overlay_replaces_one_alternative_with_another():
    above = {"datasets": {"d": {"source": {"folder": {"path": "p"}}}}}
    source = merge(DIGITS, above)["datasets"]["d"]
    assert source == {"source": {"folder": {"path": "p"}}, "tasks": 5}
    file = merge(VIT, {"backbones": {"b": {"file": "f"}}})["backbones"]["b"]
    assert file == {"file": "f", "published": "vit_base", "batch_size": 8}


def test_an_overlay_without_another_alternative_keeps_the_first_one():
    same = merge(DIGITS, {"datasets": {"d": {"source": {"digits": {"test_images": 99}}}}})
    assert same["datasets"]["d"]["source"] == {"digits": {"seed": 3, "test_images": 99}}
    size = merge(VIT, {"backbones": {"b": {"batch_size": 4, "file": None}}})["backbones"]["b"]
    assert (size["timm"], size["batch_size"]) == ("vit_base", 4)


def test_files_that_snakemake_merged_are_merged_again_with_alternatives_replaced(tmp_path):
    below, above = tmp_path / "below.yaml", tmp_path / "above.yaml"
    below.write_text("chain: 1\nbackbones: {b: {timm: t, batch_size: 8}}")
    above.write_text("backbones: {b: {file: f}}")
    both = {"chain": 5, "backbones": {"b": {"timm": "t", "batch_size": 8, "file": "f"}}}
    ours = overlay([below, above], {"chain": 5}, both)
    assert ours == {"chain": 5, "backbones": {"b": {"batch_size": 8, "file": "f"}}}
    module = {"name": "from another workflow"}
    assert overlay([below, above], {}, module) == module
