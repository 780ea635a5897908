"""What `cdl init` and `cdl list` print, in process."""

import json

import pytest

from cdl.cli.configure import Kind, init, list_
from cdl.runtime.errors import CdlError


def test_the_options_of_one_name_are_listed_with_values_defaults_and_sentences(capsys):
    list_(Kind.methods, "coda_prompt")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "coda_prompt: CODA-Prompt (Smith et al., CVPR 2023)."
    at = lines.index("  length: integer, >= 2, a multiple of 2; default 8")
    assert lines[at + 1] == "      Tokens of a component, half keys and half values."
    assert "  pool: integer, >= 1, or null; default null" in lines
    assert '  alignment.preset: slca, hide, vq_prompt, ssiat, class_means; default "slca"' in lines
    list_(Kind.datasets, "folder", as_json=True)
    assert json.loads(capsys.readouterr().out)["split.test"]["exclusiveMaximum"] == 1
    list_(Kind.datasets, "folder")
    assert "  path: string; required" in capsys.readouterr().out


def test_an_unknown_name_to_list_is_one_sentence():
    with pytest.raises(CdlError, match=r"^ranpca: is not .* \(did you mean 'ranpac'\?\); expected"):
        list_(Kind.methods, "ranpca")
    with pytest.raises(CdlError, match="^cdl list backbones: has no NAME"):
        list_(Kind.backbones, "vit")


def test_init_without_own_files_says_that_it_wrote_an_example(tmp_path, capsys):
    init(tmp_path / "x")
    first = capsys.readouterr().out.splitlines()[0]
    assert first.endswith("an example on digits; for your own: --images PHOTOS, --texts FILE")
