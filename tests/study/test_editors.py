"""The JSON schema for editors agrees with the schema that the program checks against."""

from pathlib import Path

import jsonschema
import pytest
import yaml
from lab import make_grid

from cdl.data.modalities import MODALITIES
from cdl.study.configuration import (
    EDITOR_SCHEMA,
    ConfigError,
    editor_schema,
    optional,
    schema,
)

ROOT = Path(__file__).parents[2]
SHIPPED = sorted(ROOT.glob("config/**/*.yaml"))
LINE = "# yaml-language-server: $schema="


def test_the_json_file_is_up_to_date():
    assert EDITOR_SCHEMA.read_text() == editor_schema(), "run `make schema`"


def test_the_json_file_is_the_schema_without_required_fields():
    expected = optional(schema())
    dataset = expected["properties"]["datasets"]["additionalProperties"]["properties"]
    for facts in MODALITIES.values():  # an editor does not know the modality of a source
        dataset["view"]["properties"] |= facts.options
    found = yaml.safe_load(editor_schema())
    for kind in ("methods", "distillers"):  # nor the packages that are installed
        assert found["properties"][kind].pop("additionalProperties")["type"] == "object"
        assert expected["properties"][kind].pop("additionalProperties") is False
    assert found == expected


def test_a_method_of_an_installed_package_is_accepted_by_editors_and_checked_by_cdl():
    config = {"methods": {"my_method": {"width": 3}}, "distillers": {"my_kd": {}}}
    check = jsonschema.Draft202012Validator(yaml.safe_load(EDITOR_SCHEMA.read_text()))
    assert check.is_valid(config)
    assert not check.is_valid({"methods": {"l2p": {"width": 3}}})
    with pytest.raises(ConfigError, match="unknown key 'my_method'; expected one of"):
        make_grid(config)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_schema_that_a_shipped_configuration_names_accepts_it(path):
    text = path.read_text()
    first = text.splitlines()[0]
    assert first.startswith(LINE)
    named = (path.parent / first.removeprefix(LINE)).resolve()
    assert named == EDITOR_SCHEMA
    part = yaml.safe_load(named.read_text())
    jsonschema.validate(yaml.safe_load(text), part, jsonschema.Draft202012Validator)


def test_an_overlay_may_omit_fields_except_inside_lists():
    check = jsonschema.Draft202012Validator(yaml.safe_load(EDITOR_SCHEMA.read_text()))
    assert check.is_valid({})
    assert check.is_valid({"datasets": {"x": {"view": {}}}})
    assert not check.is_valid({"grid": {"pairs": [{"teacher": "a"}]}})
    assert not check.is_valid({"trainning": {}})
