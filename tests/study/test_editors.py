"""What editors complete and check a configuration by is what the program checks it by."""

from pathlib import Path

import jsonschema
import pytest
import yaml

from cdl.study.configuration import editors_schemas, schema

ROOT = Path(__file__).parents[2]
SHIPPED = sorted(ROOT.glob("config/**/*.yaml"))
LINE = "# yaml-language-server: $schema="


@pytest.mark.parametrize("file", editors_schemas(), ids=lambda file: file.name)
def test_the_json_for_editors_is_the_schema(file):
    assert file.read_text() == editors_schemas()[file], "run `make schema`"


def test_the_whole_one_says_what_the_yaml_says():
    whole = next(text for file, text in editors_schemas().items() if file.stem == "config.schema")
    assert yaml.safe_load(whole) == schema()


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_shipped_configuration_names_a_schema_that_accepts_it(path):
    text = path.read_text()
    first = text.splitlines()[0]
    assert first.startswith(LINE)
    named = (path.parent / first.removeprefix(LINE)).resolve()
    assert named in editors_schemas()
    part = yaml.safe_load(named.read_text())
    jsonschema.validate(yaml.safe_load(text), part, jsonschema.Draft202012Validator)


def test_an_overlay_may_leave_out_what_is_below_it_but_not_half_a_pair():
    overlay = yaml.safe_load((ROOT / "cdl/study/schema/overlay.schema.json").read_text())
    check = jsonschema.Draft202012Validator(overlay)
    assert check.is_valid({})
    assert check.is_valid({"datasets": {"x": {"view": {}}}})
    assert not check.is_valid({"grid": {"pairs": [{"teacher": "a"}]}})
    assert not check.is_valid({"trainning": {}})
