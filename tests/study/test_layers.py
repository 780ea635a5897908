"""Layers of a configuration: files, and values such as training.epochs=5."""

from pathlib import Path

import pytest

from cdl.cli.options import grid_of
from cdl.cli.run import check_command
from cdl.runtime.errors import CdlError
from cdl.study.configuration import ConfigError
from cdl.study.layers import as_files, is_value, merged, shown

CONFIG = str(Path(__file__).parents[2] / "config" / "digits.yaml")


def test_later_layers_override_earlier_ones(tmp_path):
    file = tmp_path / "overlay.yaml"
    file.write_text("training: {epochs: 7}\n")
    words = ["training.lr=0.5", "training.epochs=5", str(file), "grid.seeds=[0, 1]", "name=two"]
    assert merged(words) == {
        "training": {"lr": 0.5, "epochs": 7},
        "grid": {"seeds": [0, 1]},
        "name": "two",
    }
    grid = grid_of([CONFIG, "training.epochs=5", "deploy=null"])
    assert grid.config["training"]["epochs"] == 5 and grid.config["deploy"] is None


def test_a_file_with_an_equals_sign_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("lr=0.1.yaml").write_text("name: x\n")
    assert merged(["lr=0.1.yaml"]) == {"name": "x"}
    assert is_value("lr=0.2") and not is_value("folder/lr=0.2.yaml")
    assert is_value(f"grid.methods=[{'l2p, ' * 99}]")  # longer than a file's name may be


def test_values_reach_snakemake_as_files_that_are_shown_as_they_were_given(tmp_path):
    values = ["training.lr=0.5", "datasets.a.source={folder: {path: a//b}}"]
    first, *files = as_files([CONFIG, *values], tmp_path)
    assert first == CONFIG and merged(files) == merged(values)
    assert [shown(file) for file in (CONFIG, *files)] == [CONFIG, *values]
    assert as_files(values, tmp_path) == files  # the same, so that a repeated run is the same


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("training.lr=[", "^training.lr: cannot be read as plain YAML"),
        ("training..lr=1", "^'training..lr': is not a field; expected one such as"),
        ("training.lr=!!python/object:os.system x", "^training.lr: cannot be read"),
        ("training.lr=fast", "^training.lr: 'fast' is not of type 'number'"),
        ("training.rate=1", "^training: unknown key 'rate'"),
        ("nothing=1", "unknown key 'nothing'"),
        ("training=1", "^training: "),
    ],
)
def test_a_value_that_cannot_be_is_one_sentence_with_its_field(word, sentence):
    with pytest.raises(ConfigError, match=sentence) as caught:
        grid_of([CONFIG, word])
    assert "\n" not in str(caught.value)


def test_a_value_behind_the_options_is_one_sentence():
    with pytest.raises(CdlError, match="^training.lr=1: is a value; expected it directly after"):
        check_command(["--cores", "2", "training.lr=1"])
