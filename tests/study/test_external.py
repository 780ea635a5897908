"""Methods of other packages: found by their entry points, planned without torch, trained."""

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from safetensors.numpy import load_file

from cdl.methods import PROMPTS, PromptFacts
from cdl.runtime.registry import Registry, source_hash
from cdl.study.configuration import read, resolve, schema
from cdl.study.grid import Grid
from cdl.study.specifications import specification

ROOT = Path(__file__).parents[2]
BLOCKER = "import sys\nsys.modules['torch'] = None  # importing it is an ImportError\n"
FACTS = """
from cdl.distillers import DistillerFacts
from cdl.methods import PromptFacts
from cdl.runtime.facts import Look, refuse

def check(run):
    refuse(run.options["length"] > 8, "length", run.options["length"], "at most 8")

def check_classes(run):
    refuse(run.smallest_task < 5, "", f"tasks {run.tasks}", "five classes in every task")

SHIFT = PromptFacts(
    "toy.shift:Shift",
    needs_query=False,
    description="Toy (Nobody, 2026).",
    numerics=3,
    check=check,
    options={"length": {"type": "integer", "minimum": 2, "default": 4, "description": "Tokens."}},
)
GONE = PromptFacts("toy.gone:Gone")
MATCH = DistillerFacts(
    "toy.match:Match",
    description="Toy distiller.",
    check=check_classes,
    look=Look("#123456", "s"),
    options={"alpha": {"type": "number", "default": 0.5, "description": "Share."}},
)
"""
SHIFT = """
import torch
from torch import nn
from cdl.methods.base import PromptMethod, Prompts, halves

class Shift(PromptMethod):
    layers = (0,)

    def __init__(self, context, *, length=4):
        super().__init__()
        start = torch.randn(1, 1, length, context.width, generator=context.generator)
        self.prompts = nn.Parameter(start)

    def forward(self, query, task):
        return Prompts(halves(self.layers, self.prompts))
"""
MATCH = """
from torch.nn import functional as F
from cdl.distillers.base import Distiller

class Match(Distiller):
    def __init__(self, context, *, alpha=0.5):
        super().__init__()
        self.alpha = alpha

    def forward(self, output, teacher_output, labels, classes):
        losses = super().forward(output, teacher_output, labels, classes)
        soft = F.mse_loss(output.logits[:, classes], teacher_output.logits)
        return losses | {"match": self.alpha * soft}
"""
POINTS = "[cdl.methods]\nshift = toy.facts:SHIFT\n[cdl.distillers]\nmatch = toy.facts:MATCH\n"
CONFIG = """
name: toy
datasets:
  digits: {source: {digits: {}}, tasks: 2, images_per_class: 8, view: {size: 8}}
backbones: {nano: {embedded: vit_nano_patch4_32}, micro: {embedded: vit_micro_patch4_32}}
training: {epochs: 1, batch_size: 16}
methods: {shift: {length: 6}}
grid:
  methods: [shift]
  pairs: [{teacher: micro, student: nano}]
  distillers: [none, match]
"""
STUDENT = "results/toy/digits/shift/match-nano-from-micro-q-nano/seed0/task0/learner"


@pytest.fixture
def site(tmp_path):
    """Return a folder with a package that has a method and a distiller."""
    package, info = tmp_path / "site" / "toy", tmp_path / "site" / "toy_cdl-0.1.dist-info"
    package.mkdir(parents=True)
    info.mkdir()
    for name, text in (("facts", FACTS), ("shift", SHIFT), ("match", MATCH), ("__init__", "")):
        (package / f"{name}.py").write_text(text)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-cdl\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(POINTS)
    (tmp_path / "config.yaml").write_text(CONFIG)
    return tmp_path / "site"


def python(site, *arguments):
    environment = os.environ | {"PYTHONPATH": f"{site}:{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=site.parent,
        env=environment,
        check=False,
    )


def snakemake(site, *arguments):
    command = ("-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--cores", "1", *arguments)
    return python(site, *command, "--configfile", "config.yaml")


def points(site, text):
    (site / "toy_cdl-0.1.dist-info" / "entry_points.txt").write_text(text)


def test_methods_of_another_package_are_listed_and_specified_without_torch(site):
    (site / "sitecustomize.py").write_text(BLOCKER)
    assert (
        "shift        Toy (Nobody, 2026).\n" in python(site, "-m", "cdl", "list", "methods").stdout
    )
    code = """
import json
from cdl.study.configuration import read, resolve
from cdl.study.grid import Grid
from cdl.study.specifications import specification
grid = Grid(resolve(read("config.yaml")))
from cdl.spec import LearnerSpec
specs = [specification(grid, run) for run in grid.runs]
assert [LearnerSpec.from_json(spec.to_json()) for spec in specs] == specs
print(json.dumps([spec.to_json() for spec in specs]))
"""
    answer = python(site, "-c", code)
    assert answer.returncode == 0, answer.stderr
    specs = json.loads(answer.stdout)
    assert {spec["method"]["length"] for spec in specs} == {6}
    assert [spec["external"] for spec in specs] == [
        *({"shift": 3}, {"shift": 3}, {"shift": 3, "match": 1})
    ]


def test_an_option_of_another_package_is_checked_as_ours_are(site):
    (site.parent / "config.yaml").write_text(CONFIG.replace("length: 6", "length: 1"))
    answer = python(site, "-m", "cdl", "data", "config.yaml")
    assert answer.returncode == 2
    assert answer.stderr.startswith("cdl: methods.shift.length: 1 is less than the minimum of 2")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "[cdl.distillers]\nMatch-er = toy.facts:MATCH\n",
            "cdl.distillers: the entry point 'Match-er' of the package toy-cdl has an invalid "
            "name: expected lower-case letters, digits and _, with a letter first",
        ),
        (
            "[cdl.distillers]\nshift = toy.facts:SHIFT\n",
            "cdl.distillers: the entry point 'shift' of the package toy-cdl is not of class "
            "DistillerFacts: see CONTRIBUTING.md",
        ),
        (
            "[cdl.methods]\nshift = toy.nothing:SHIFT\n",
            "cdl.methods: the entry point 'shift' of the package toy-cdl cannot be loaded "
            "(ModuleNotFoundError(\"No module named 'toy.nothing'\")): repair it, or remove it "
            "with `pip uninstall toy-cdl`",
        ),
        (
            "[cdl.methods]\nshift = toy.facts:GONE\n",
            "cdl.methods: the entry point 'shift' of the package toy-cdl names the module "
            "'toy.gone', which does not exist: add it or change `path`",
        ),
    ],
)
def test_what_cannot_be_taken_is_refused_in_one_sentence(site, text, sentence):
    points(site, text)
    place = "[none, match]" if "distillers" in text else "[shift]"
    used = CONFIG.replace(place, f"[{text.split()[1]}]")
    (site.parent / "config.yaml").write_text(used)
    answer = python(site, "-m", "cdl", "data", "config.yaml")
    assert (answer.returncode, answer.stderr) == (2, f"cdl: {sentence}\n")


def test_a_broken_entry_point_that_no_configuration_names_is_left_out_with_a_warning(site):
    points(site, POINTS + "broken = toy.nothing:SHIFT\n")
    answer = python(site, "-m", "cdl", "status", "config.yaml")
    assert answer.returncode == 0
    assert "the entry point 'broken' of the package toy-cdl cannot be loaded" in answer.stderr
    assert answer.stderr.endswith("`pip uninstall toy-cdl`; it is left out\n")


def test_broken_entry_points_leave_what_else_has_their_names(site):
    names = ("nano", "digits", "length", "match", "l2p")
    broken = "".join(f"{name} = no.{part}:X\n" for name in names for part in ("one", "two"))
    points(site, POINTS + "[cdl.methods]\n" + broken)
    used = CONFIG.replace("methods: [shift]", "methods: [shift, l2p]")
    (site.parent / "config.yaml").write_text(used)
    answer = python(site, "-m", "cdl", "status", "config.yaml")
    assert answer.returncode == 0, answer.stderr
    assert answer.stderr.count("; it is left out") == 10


@pytest.mark.slow
def test_the_workflow_refuses_it_in_the_same_sentence(site):
    points(site, POINTS.replace("match = toy.facts", "match = toy.nothing"))
    result = snakemake(site, "-n")
    assert result.returncode != 0
    said = result.stdout + result.stderr
    assert "cdl.distillers: the entry point 'match' of the package toy-cdl cannot be" in said
    assert "Traceback" not in said


def test_options_that_are_no_schema_are_refused(site):
    file = site / "toy" / "facts.py"
    file.write_text(FACTS.replace('"integer"', '"whole"'))
    answer = python(site, "-m", "cdl", "data", "config.yaml")
    assert answer.returncode == 2
    assert answer.stderr.startswith("cdl: methods.shift: the options of its package are not")


def test_our_own_facts_stand_first_and_two_packages_cannot_share_a_name(monkeypatch):
    facts = PromptFacts("toy_facts:B", options={})
    monkeypatch.setitem(sys.modules, "toy_facts", type(sys)("toy_facts"))
    sys.modules["toy_facts"].FACTS = facts
    group = [
        importlib.metadata.EntryPoint(name, "toy_facts:FACTS", "g") for name in ("x", "x", "apt")
    ]
    monkeypatch.setattr("cdl.runtime.registry.entry_points", lambda group_=None, **_: group)
    registry = Registry(PromptFacts, {"apt": "cdl.methods.facts:APT"}, "g")
    assert registry["x"] is facts
    assert list(registry) == ["apt", "x"]
    assert registry["apt"] is PROMPTS["apt"]
    assert [name for name, _ in registry.refused] == ["apt", "x"]


@pytest.mark.parametrize(
    ("right", "wrong", "sentence"),
    [
        ("length: 6", "length: 10", "methods.shift.length: invalid value 10; expected at most 8"),
        (
            "tasks: 2",
            "tasks: 5",
            "distillers.match: invalid value 'tasks 5'; expected five classes in every task",
        ),
    ],
)
def test_what_its_own_check_refuses_is_refused(site, right, wrong, sentence):
    (site.parent / "config.yaml").write_text(CONFIG.replace(right, wrong))
    answer = python(site, "-m", "cdl", "status", "config.yaml")
    assert answer.returncode != 0
    assert f"cdl: {sentence}\n" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_its_distiller_has_its_own_look_in_figures(site):
    code = "from cdl.reporting.style import look; print(look('match').colour, look('match').marker)"
    assert python(site, "-c", code).stdout == "#123456 s\n"


@pytest.mark.parametrize("kind", ["methods", "distillers"])
def test_the_options_of_our_own_are_json_schema(kind):
    for block in schema()["properties"][kind]["properties"].values():
        jsonschema.Draft202012Validator.check_schema(block)
        for option in block["properties"].values():
            assert option["description"].endswith((".", ":"))


def test_the_hash_of_a_source_is_that_of_what_it_imports_of_its_package(site, monkeypatch):
    package = site / "toy"
    (package / "losses").mkdir()
    (package / "losses" / "__init__.py").write_text("from .soft import loss\n")
    (package / "losses" / "soft.py").write_text("import torch\nloss = 1\n")
    (package / "match.py").write_text("from toy import losses\n" + MATCH)
    monkeypatch.syspath_prepend(site)
    found = set()
    for edited in (None, "losses/soft.py", "__init__.py", "match.py"):
        if edited:
            (package / edited).write_text((package / edited).read_text() + "x = 10\n")
        source_hash.cache_clear()
        found.add(source_hash("toy.match"))
    (package / "shift.py").write_text("broken(")
    source_hash.cache_clear()
    assert len(found) == 4 and source_hash("toy.match") in found
    assert source_hash("toy.shift") not in found


@pytest.mark.slow
def test_a_method_and_a_distiller_of_another_package_learn_a_task(site):
    result = snakemake(site, f"{STUDENT}.safetensors")
    assert result.returncode == 0, result.stderr[-3000:]
    folder = (site.parent / STUDENT).parent
    assert (folder / "learner.safetensors").is_file()
    parts = {row.split(",")[3] for row in (folder / "losses.csv").read_text().splitlines()[1:]}
    assert {"ce", "match"} <= parts
    assert load_file(folder / "learner.safetensors")["prompts.prompts"].shape == (1, 1, 6, 96)
    kept = f"made '{STUDENT}.json', which are kept, since `numerics` of its facts has not changed"
    for edit, numerics, said in ((" ", 1, False), (" 10 * ", 1, True), (" 10 * ", 2, False)):
        (site / "toy" / "match.py").write_text(
            MATCH.replace(" self.alpha *", edit + "self.alpha *")
        )
        facts = FACTS.replace('"Toy distiller.",', f'"Toy distiller.", numerics={numerics},')
        (site / "toy" / "facts.py").write_text(facts)
        again = snakemake(site, f"{STUDENT}.safetensors", "-n")
        answer = again.stdout + again.stderr
        assert (f"match: its source has changed since it {kept}" in answer) == said
        assert ("Nothing to be done" in answer) == (numerics == 1)


def test_a_method_of_ours_is_revised_alone():
    grid = Grid(resolve(read(ROOT / "config" / "default.yaml")))
    revised = {run.method.name: specification(grid, run).revised for run in grid.runs}
    ridge = {"ranpac": PROMPTS["ranpac"].numerics}
    assert revised == {"coda_prompt": None, "simple_cil": None, "ranpac": ridge}
