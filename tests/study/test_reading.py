"""A configuration file is read by us: small, regular, UTF-8, as it looks; or one sentence."""

import os
import re
from pathlib import Path

import pytest

from cdl.study.configuration import (
    LARGEST_FILE,
    MOST_NODES,
    ConfigError,
    merge,
    overlay,
    read,
    resolve,
)

BOMB = "a0: &a0 [x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 20)
)
MERGED = "a0: &a0 {k0: 1}\n" + "".join(
    f"a{i}: &a{i} {{k{i}: 1, <<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 20)
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [1\nb: 2\n", "(line 2, column 2: while parsing a flow sequence: expected "),
        (b"name: x\n  y: 3\n", "(line 2, column 4: mapping values are not allowed here)"),
        (b"name: x\n\ty: 3\n", "indent by spaces, not by a tab)"),
        (b"name: x\ny: caf\xe9\n", "(line 2 holds the byte 0xe9; save the file as UTF-8)"),
        ("name: x\n".encode("utf-16"), "(line 1 holds the byte 0xff; save the file as UTF-8)"),
        ("name: x\n".encode("utf-16-be"), "(line 1 holds the character #x0000)"),
        (b"[" * 5000, "(it is nested too deeply)"),
        (b"a: &a [x]\nb: &a [y]\n", "line 2, column 4: found duplicate anchor 'a'"),
        (b"x: " + b"9" * 5000, "cannot be read as plain YAML in UTF-8 (Exceeds the limit"),
        (b"x: !!python/tuple [1]", "(line 1, column 4: could not determine a constructor"),
        (BOMB.encode(), f"its aliases (*name) multiply to more than {MOST_NODES} keys and values"),
        (MERGED.encode(), "its aliases (*name) multiply to more than"),
        (b"name: x\ngrid: &g\n  pairs: [*g]\n", "line 2, column 7: what is named here (&name)"),
        (b"&a [*a]", "line 1, column 1: what is named here (&name) holds itself"),
        (b"a: &a\n  <<: *a\n", "line 1, column 4: what is named here (&name) holds itself"),
        (b"- x\n" * (MOST_NODES + 1), f"holds more than {MOST_NODES} keys and values"),
        (b"#" * (LARGEST_FILE + 1), "is larger than 512 KiB; name a configuration"),
        (b"training: {epochs: 010}", "line 1, column 20: 010 is 8 in YAML 1.1"),
        (b"x: -0_17", "-0_17 is -15 in YAML 1.1"),
        (b"a: 1\nx: 1:30", "line 2, column 4: 1:30 is 90 in YAML 1.1"),
        (b"x: 1:30.5", "1:30.5 is 90.5 in YAML 1.1"),
    ],
)
def test_what_cannot_be_read_is_one_sentence_with_its_place(content, message, tmp_path):
    file = tmp_path / "bad.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        read(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert str(caught.value).isprintable()


def test_numbers_that_look_as_they_are_read_are_read(tmp_path):
    file = tmp_path / "good.yaml"
    file.write_text("a: [0, 0.5, -3, 1.0e-3, 10, 0x1f, .5, '010', '1:30']\nb: &b {c: 1}\nd: *b\n")
    assert read(file) == {
        "a": [0, 0.5, -3, 1e-3, 10, 31, 0.5, "010", "1:30"],
        "b": {"c": 1},
        "d": {"c": 1},
    }


def test_only_a_regular_file_is_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    for path in (tmp_path / "pipe.yaml", tmp_path, "/dev/zero"):
        with pytest.raises(ConfigError, match=f"{path}: is no regular file; name a YAML file"):
            read(path)


def test_a_missing_file_is_told_with_its_neighbour(tmp_path):
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
def test_a_number_in_quotes_is_told_what_to_write(training, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        resolve(WHOLE | {"training": training})


def test_no_number_is_proposed_where_none_fits():
    for training in ({"epochs": "2.5"}, {"epochs": "nan"}, {"lr": "fast"}, {"betas": "1"}):
        with pytest.raises(ConfigError) as caught:
            resolve(WHOLE | {"training": training})
        assert "write" not in str(caught.value)


DIGITS = {"datasets": {"d": {"source": {"digits": {"seed": 3}}, "tasks": 5}}}
VIT = {"backbones": {"b": {"timm": "vit_base", "published": "vit_base", "batch_size": 8}}}


def test_an_overlay_replaces_one_alternative_by_another():
    above = {"datasets": {"d": {"source": {"folder": {"path": "p"}}}}}
    source = merge(DIGITS, above)["datasets"]["d"]
    assert source == {"source": {"folder": {"path": "p"}}, "tasks": 5}
    file = merge(VIT, {"backbones": {"b": {"file": "f"}}})["backbones"]["b"]
    assert file == {"file": "f", "published": "vit_base", "batch_size": 8}


def test_an_overlay_that_names_no_other_alternative_keeps_the_one_below():
    same = merge(DIGITS, {"datasets": {"d": {"source": {"digits": {"test_images": 99}}}}})
    assert same["datasets"]["d"]["source"] == {"digits": {"seed": 3, "test_images": 99}}
    size = merge(VIT, {"backbones": {"b": {"batch_size": 4, "file": None}}})["backbones"]["b"]
    assert (size["timm"], size["batch_size"]) == ("vit_base", 4)


def test_what_snakemake_merged_is_merged_again_by_our_rule(tmp_path):
    below, above = tmp_path / "below.yaml", tmp_path / "above.yaml"
    below.write_text("chain: 1\nbackbones: {b: {timm: t, batch_size: 8}}")
    above.write_text("backbones: {b: {file: f}}")
    both = {"chain": 5, "backbones": {"b": {"timm": "t", "batch_size": 8, "file": "f"}}}
    ours = overlay([below, above], {"chain": 5}, both)
    assert ours == {"chain": 5, "backbones": {"b": {"batch_size": 8, "file": "f"}}}
    module = {"name": "from another workflow"}
    assert overlay([below, above], {}, module) == module
