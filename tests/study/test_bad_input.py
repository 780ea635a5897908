"""Any configuration gives a plan inside results/, or one readable error message."""

import copy
import datetime
import json
import os
import re
from pathlib import Path

import pytest
from forked import run_module
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from snakemake.api import SnakemakeApi
from snakemake.settings.enums import Quietness
from snakemake.settings.types import ConfigSettings, OutputSettings, ResourceSettings

from cdl import layout
from cdl.study.configuration import ConfigError, merge, read, resolve, schema
from cdl.study.grid import Grid
from cdl.study.jobs import flat
from cdl.study.specifications import row, specification

ROOT = Path(__file__).parents[2]
FIELDS = sorted(schema()["properties"])


def shipped():
    default = read(ROOT / "config" / "digits.yaml")
    yield merge(default, read(ROOT / "config" / "test" / "tiny.yaml"))
    yield read(ROOT / "config" / "methods_digits.yaml")
    parquet = read(ROOT / "config" / "cifar100_methods.yaml")
    yield parquet
    folder = {"folder": {"path": "data/pictures", "train": "train.txt", "test": "test.txt"}}
    yield parquet | {
        "datasets": {"pictures": {"source": folder, "tasks": 5, "view": {"size": 32}}},
        "backbones": {
            "big": {"timm": "vit_tiny_patch16_224.augreg_in21k"},
            "vit_micro": {"embedded": "vit_micro_patch4_32"},
            "vit_nano": {"file": str(ROOT / "cdl" / "assets" / "vit_nano_patch4_32.safetensors")},
        },
        "protocol": {"preset": "released", "query": "self"},
    }


VALID = list(shipped())
HOSTILE = st.sampled_from(
    [
        *(
            "",
            ".",
            "..",
            "../escape",
            "/etc",
            "/",
            "a/b",
            "a\\b",
            "~",
            "$HOME",
            "$(touch x)",
            "a b",
        ),
        *("a\n", "a\nb", "\0", "\x1b[31m", "\ud800", "{task}", "{x}", "*", "**", "a**", "[", "?"),
        *(
            "none",
            "None",
            "null",
            "default",
            "data",
            "queries",
            "README.md",
            "é",
            "名前",
            "a-b",
            "a+b",
            "-n",
        ),
        *("x" * 51, "x" * 300, "x" * 5000, "1e-3", "nan", "%s", "{0.__class__}", "/dev/zero", "a."),
        *("vit_tiny_patch0_224.a", "../assets/vit_nano_patch4_32", "results", "train*.parquet"),
    ]
)
NAMES = [
    *("l2p", "dual_prompt", "coda_prompt", "apt", "head_only", "none", "kd", "dkd", "fitnets"),
    *("reviewkd", "kd_prompt", "cdl_prompt", "vit_micro", "vit_nano", "big", "digits", "pictures"),
    *("natural", "seeded", "vit_micro_patch4_32", "vit_base_patch16_224.a", "x", "default"),
]
VALUES = st.one_of(
    st.integers(-1, 100),
    st.floats(),
    st.text(max_size=8),
    HOSTILE,
    st.sampled_from([None, True, False, 10**16, -(10**400), 1e308, 0.5, 1.0, 16, 32, 4, 3, 2, 1]),
    st.sampled_from([{}, [], [[]], {"": {}}, {1: 2}, {None: 1}, b"x", datetime.date(2026, 1, 1)]),
    st.lists(st.integers(0, 12), max_size=4),
    st.sampled_from(NAMES),
    st.builds(
        lambda block, variant, more: {"block": block, "variant": variant} | more,
        st.sampled_from(["l2p", "kd", "none", "coda_prompt", "kd_prompt", "apt", "x"]),
        st.sampled_from(["a", "", "a/b", "v" * 50, 1, None]),
        st.sampled_from([{}, {"joint": True}, {"temperature": 4}, {"layers": [5, 6]}, {"x": 1}]),
    ),
)


def fitting(part):
    """Draw values of the right type, in or near the valid range; combinations may be impossible."""
    kinds = part.get("type", "object")
    kinds = [kinds] if isinstance(kinds, str) else kinds
    low, most = part.get("minimum", part.get("exclusiveMinimum", 0)), part.get("maximum", 60)
    items = part.get("items", {})
    integers = st.one_of(st.integers(low, low + 4), st.integers(low - 1, min(most, 60)))
    options = {
        "null": st.none(),
        "boolean": st.booleans(),
        "integer": integers,
        "number": st.floats(low - 0.1, most + 0.1).map(lambda x: round(x, 2)),
        "string": st.sampled_from(part.get("enum", NAMES)),
        "array": st.lists(
            st.integers(0, 10) if "integer" in items.get("type", ()) else st.sampled_from(NAMES),
            min_size=part.get("minItems", 0),
            max_size=4,
        ),
        "object": VALUES,
    }
    return st.one_of([options[kind] for kind in kinds])


def places(value, part, path=()):
    """Yield every field, present or only in the schema: its path of keys, and its schema."""
    yield path, part
    properties = part.get("properties", {})
    named = part.get("additionalProperties")
    if isinstance(value, list):
        for i, inner in enumerate(value):
            yield from places(inner, part.get("items", {}), (*path, i))
    elif isinstance(value, dict) or properties:
        value = value if isinstance(value, dict) else {}
        for key in [*properties, *(key for key in value if key not in properties)]:
            inner = properties.get(key, named if isinstance(named, dict) else {})
            yield from places(value.get(key), inner, (*path, key))


PLACES = [list(places(config, schema()))[1:] for config in VALID]


def parent_of(config, path):
    """Return the container of a field, created if missing; None if it cannot exist."""
    for key in path[:-1]:
        if isinstance(config, dict):
            config = config.setdefault(key, {})
        elif isinstance(config, list) and isinstance(key, int) and key < len(config):
            config = config[key]
        else:
            return None
    return config


@st.composite
def mutated(draw):
    """Draw a valid configuration with one to three mutations."""
    which = draw(st.integers(0, len(VALID) - 1))
    config = copy.deepcopy(VALID[which])
    for _ in range(draw(st.integers(1, 3))):
        path, part = draw(st.sampled_from(PLACES[which]))
        parent, key = parent_of(config, path), path[-1]
        kind = draw(st.sampled_from(["fitting"] * 9 + ["any"] * 3 + ["delete", "unknown", "again"]))
        values = fitting(part) if kind == "fitting" else VALUES
        if isinstance(parent, list):
            if not isinstance(key, int) or key >= len(parent):
                continue
            if kind == "delete":
                del parent[key]
            elif kind == "again":
                parent.append(copy.deepcopy(parent[key]))
            else:
                parent[key] = draw(values)
        elif isinstance(parent, dict):
            if kind == "delete":
                parent.pop(key, None)
            elif kind == "unknown":
                parent[draw(st.one_of(HOSTILE, st.sampled_from([1, None, True])))] = draw(VALUES)
            elif kind == "again":
                parent[draw(HOSTILE)] = copy.deepcopy(parent.get(key))
            else:
                parent[key] = draw(values)
    return config


def assert_readable(message, config):
    """Assert that a message is one line that starts with a field and explains the error."""
    assert message.isprintable()
    assert len(message) < 800
    fields = ["the configuration", *FIELDS, *(key for key in config if isinstance(key, str))]
    starts = [start for field in fields for start in (f"{field}: ", f"{field}.")]
    assert message.startswith(tuple(str(ConfigError(start))[:200] for start in starts)), message
    assert len(message.split(": ", 1)[1]) > 10


def assert_inside(paths):
    for path in paths:
        assert path.startswith("results/"), path
        assert path.isprintable(), path
        assert os.path.normpath(path) == path
        assert all(len(part.encode()) <= 240 for part in Path(path).parts), path


def parse(config, folder):
    """Parse the real Snakefile in this process and return its global names."""
    file = folder / "config.json"
    file.write_text(json.dumps(config))
    here = os.getcwd()
    try:
        with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
            workflow = api.workflow(
                resource_settings=ResourceSettings(cores=1),
                config_settings=ConfigSettings(configfiles=[file]),
                snakefile=ROOT / "Snakefile",
                workdir=folder,
            )
            return workflow._workflow.globals
    finally:
        os.chdir(here)


@pytest.mark.slow
@settings(
    max_examples=80,  # fresh ones every time; a failure prints how to repeat it
    print_blob=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(config=mutated())
def test_a_mutated_configuration_is_a_plan_or_one_sentence(config, tmp_path):
    try:
        grid = Grid(resolve(config))
    except ConfigError as error:
        assert_readable(str(error), config)
        return
    assert len({run.folder for run in grid.runs}) == len(grid.runs) > 0
    for run in grid.runs:
        json.dumps([specification(grid, run).to_json(), row(grid, run)], allow_nan=False)
    names = parse(config, tmp_path)
    jobs = names["STUDY"]
    assert_inside(jobs.targets)
    shared = [grid.packed(name).folder for name in grid.datasets]
    rules = ("fetch_backbone", "queries", "test_queries")
    shared += [layout.STATES, *(path for job in jobs.of(*rules) for path in flat(job.outputs))]
    assert_inside(shared)
    root = grid.layout.root
    assert not any(path.startswith(f"{root}/") or path == root for path in shared)
    for run in grid.runs:
        alone = re.fullmatch(names["ALONE"], run.learner)
        distilled = re.fullmatch(names["DISTILLED"], run.learner)
        assert (alone is None, distilled is None) == (run.teacher is not None, run.teacher is None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "cdl: bad.yaml: is not a mapping"),
        ("", "cdl: bad.yaml: is not a mapping"),
        (
            'name: !!python/object/apply:os.mkdir ["harm"]\n',
            "line 1, column 7: could not determine a constructor for the tag",
        ),
        (
            "training: {epochs: 1}\ntraining: {lr: 0.1}\n",
            "training: duplicate key, again in line 2",
        ),
        ("name: ../../escape\n", "name: '../../escape' does not match"),
        (
            "backbones: {vit_nano: {embedded: null, file: 'a{task}'}}",
            "printable characters without",
        ),
    ],
)
def test_a_hostile_file_is_one_sentence_of_snakemake(text, message, tmp_path):
    (tmp_path / "bad.yaml").write_text(text)
    configs = [ROOT / "config" / "digits.yaml", "bad.yaml"]
    command = ["-n", "--snakefile", ROOT / "Snakefile", "--configfile", *configs]
    result = run_module("snakemake", *command, cwd=tmp_path)
    assert result.returncode == 1
    output = result.stdout + result.stderr  # a dry run writes to stdout
    assert message in output
    assert "Traceback" not in output
    assert {path.name for path in tmp_path.iterdir()} <= {"bad.yaml", ".snakemake"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00", "cannot be read as plain YAML in UTF-8"),
        (b"[" * 20000, "cannot be read as plain YAML in UTF-8"),
        (b"a: !!python/tuple [1]", "cannot be read as plain YAML in UTF-8"),
        (b"? [1, 2]\n: 3", "cannot be read as plain YAML in UTF-8"),
        (b"__use_yte__: false", "YTE templates (__use_yte__) are not supported"),
        (b"just text", "is not a mapping"),
        (b"a: {b: 1, b: 2}", "b: duplicate key, again in line 1"),
    ],
)
def test_a_file_is_read_strictly(content, message, tmp_path):
    file = tmp_path / "bad.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        read(file)
    assert str(caught.value).startswith(f"{file}: ")


def test_a_configuration_without_end_is_refused():
    config = {"name": "x"}
    config["grid"] = config
    with pytest.raises(ConfigError, match="contains itself through a YAML alias"):
        resolve(config)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"", "is not a .safetensors file"),
        (b"[" * 9000, "is not a .safetensors file"),
        (json.dumps({"__metadata__": {"embed_dim": "0"}}).encode(), "has neither timm_model nor"),
        (
            json.dumps({"__metadata__": {"timm_model": "mobilenetv5_300m_enc"}}).encode(),
            "its output is .* expected one feature vector, .* for example vit_base_patch16_224",
        ),
        (
            json.dumps(
                {
                    "__metadata__": dict(
                        embed_dim="96", depth="6", patch_size="4", num_heads="5", mean="0", std="1"
                    )
                }
            ).encode(),
            "num_heads, a divisor of embed_dim",
        ),
        (
            json.dumps(
                {"__metadata__": {"embed_dim": "96", "depth": "6", "patch_size": "0"}}
            ).encode(),
            "name the timm model of these weights in backbones.vit_nano.model",
        ),
    ],
)
def test_a_hostile_backbone_file_is_refused(header, message, tmp_path):
    file = tmp_path / "x.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header)
    config = merge(VALID[0], {"backbones": {"vit_nano": {"embedded": None, "file": str(file)}}})
    with pytest.raises(ConfigError, match=f"backbones.vit_nano.file: .* {message}"):
        Grid(resolve(config))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            {"folder": {"path": "."}},
            "path: invalid value '.'; expected a folder that does not contain",
        ),
        ({"folder": {"path": "x", "train": "../y"}}, "train: invalid value '../y'"),
        ({"parquet": {"path": "x", "test": "**/*"}}, "test: invalid value '\\*\\*/\\*'"),
        ({"parquet": {"path": "x" * 300}}, "path: .* expected a path that can be read"),
        ({"parquet": {"path": "a\nb"}}, "path: .* expected a path of printable characters"),
        ({"cifar100": {"root": "\ud800"}}, "root: .* expected a path of printable characters"),
    ],
)
def test_a_source_that_cannot_be_read_is_refused(source, message):
    config = copy.deepcopy(VALID[0])
    config["datasets"]["digits"]["source"] = source
    with pytest.raises(ConfigError, match=f"datasets.digits.source.*{message}"):
        Grid(resolve(config))
