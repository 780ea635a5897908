"""The rules of the house: who may import whom, where paths stand, and how long things may be."""

import ast
import inspect
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from cdl.data.sources import SOURCES
from cdl.data.views import Views
from cdl.distillers import DISTILLERS
from cdl.methods import PROMPTS
from cdl.study.configuration import schema

ROOT = Path(__file__).parents[1]
CDL = ROOT / "cdl"
FILES = sorted(CDL.rglob("*.py"))

# what a room may import besides itself: whole rooms, or single files of them
FACTS = [
    "data.__init__",
    "data.modalities.__init__",
    "data.sources.__init__",
    "methods.__init__",
    "distillers.__init__",
]
FACTS += ["runtime.facts"]
SHARED = ["spec", "layout"]  # what every room may import, which imports only what has no torch
BELOW = {
    "device": [],
    "runtime": ["device.errors", "device.process"],
    "data": ["runtime", "device"],
    "backbones": ["runtime", "data.text", "device.tokens", "device.versions", "device.student"],
    "methods": ["runtime", "data", "backbones"],
    "distillers": ["runtime", "data", "backbones", "methods"],
    "models": ["runtime", "data", "backbones", "methods", "distillers", "device.tokens"],
    "training": ["runtime", "data", "backbones", "methods", "distillers", "models"]
    + ["device.closed", "device.aligning", "device.schedules"],
    "evaluation": ["runtime", "data", "backbones", "methods.base", "models", "training"],
    "study": ["runtime.artifacts", "runtime.benchmarks", "runtime.errors", "runtime.plain_yaml"]
    + [*FACTS]  # no torch
    + ["data.sources.folder", "data.order", "data.answers", "data.packing"]
    + ["backbones.shape", "backbones.architectures", "backbones.pretrained"]
    + ["backbones.classifiers", "backbones.onnx_file"],
    "reporting": ["runtime", "data.order", "data.packing"]
    + ["methods.__init__", "distillers.__init__", "evaluation.metrics", "evaluation.predictions"],
    "deployment": ["runtime", "data", "backbones", *FACTS, "methods.heads"]
    + ["methods.fecam", "models", "training", "evaluation", "device"],
    "inventory": [
        "runtime",
        "backbones.weights_facts",
        "data.__init__",
        "data.modalities.__init__",
        "data.order",
        "data.answers",
        "data.packing",
        "data.sources",
    ]
    + ["methods.__init__", "distillers.__init__"]
    + ["evaluation.metrics", "evaluation.predictions", "study", "reporting"],
    "cli": ["runtime", "data.sources", "backbones", "deployment", "study", "reporting"]
    + ["inventory", "device.predict", "device.process"],
}
ABOVE = {"__main__.py", "api.py"}  # they may import everything; only __init__.py imports one


def name_of(path):
    """`methods.base` of `cdl/methods/base.py`, `methods.__init__` of the room's own file."""
    return ".".join(path.relative_to(CDL).with_suffix("").parts)


MODULES = {name_of(path) for path in FILES}


@cache
def nodes_of(path):
    """All nodes of the syntax tree of a file, the module first."""
    return [*ast.walk(ast.parse(path.read_text()))]


def imported(path, types=True):
    """The names that a file imports, anywhere in it; without `types`, not for these alone."""
    checks = [node for node in nodes_of(path) if isinstance(node, ast.If)]
    checks = [node for node in checks if ast.unparse(node.test) == "TYPE_CHECKING"]
    unseen = set() if types else {own for node in checks for own in ast.walk(node)}
    for node in (node for node in nodes_of(path) if node not in unseen):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: line {node.lineno} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imports(path, types=True):
    """The files of cdl that a file imports, as `imported`."""
    for name in imported(path, types):
        top, *parts = name.split(".")
        while top == "cdl" and parts:
            found = {".".join(parts), ".".join([*parts, "__init__"])} & MODULES
            if found:
                yield found.pop()
                break
            parts.pop()


def test_the_rooms_are_those_of_the_table():
    rooms = {path.relative_to(CDL).parts[0] for path in FILES if path.parent != CDL}
    assert rooms == set(BELOW), (
        "add a new room to BELOW with what it may import, and to CONTRIBUTING"
    )
    top = {"__init__.py", *(f"{name}.py" for name in SHARED)} | ABOVE
    found = {path.name for path in FILES if path.parent == CDL}
    assert found == top, "move the file to a room; a file for all rooms also goes into SHARED"


@pytest.mark.parametrize("room", BELOW)
def test_a_room_imports_only_what_lies_below_it(room):
    allowed = (*BELOW[room], *SHARED, room)
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in (CDL / room).rglob("*.py")
        for name in imports(path)
        if not any(name == place or name.startswith(f"{place}.") for place in allowed)
    ]
    assert wrong == [], f"move the code to a room above, or add the room to BELOW[{room!r}]"


def test_what_is_copied_to_a_device_imports_nothing_else_of_cdl():
    found = {name for path in (CDL / "device").rglob("*.py") for name in imports(path)}
    assert found and {name.split(".")[0] for name in found} == {"device"}


def test_no_file_imports_itself_by_way_of_others():
    graph = {name_of(path): set(imports(path, types=False)) for path in FILES}
    done, circles = set(), []

    def visit(name, way):
        if name in way:
            circles.append(" -> ".join([*way[way.index(name) :], name]))
        elif name not in done:
            for other in sorted(graph[name]):
                visit(other, [*way, name])
            done.add(name)

    for name in sorted(graph):
        visit(name, [])
    assert circles == [], "move what both files need to a file of its own"


def test_what_every_room_may_import_imports_facts_alone():
    allowed = {"runtime.errors", *FACTS}
    assert {name for shared in SHARED for name in imports(CDL / f"{shared}.py")} <= allowed


def test_imports_inside_functions_and_for_types_are_seen(tmp_path):
    path = tmp_path / "x.py"
    path.write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import cdl.methods.base\n"
        "def f():\n    from cdl.study import grid, runs\n    from cdl import methods, nothing\n"
    )
    assert set(imports(path)) == {"methods.base", "study.grid", "study.runs", "methods.__init__"}


@pytest.mark.parametrize("rooms", [("methods",), ("study", "reporting", "inventory", "cli")])
def test_planning_and_reporting_need_no_torch(rooms):
    names = ["cdl.distillers", *(f"cdl.{room}" for room in rooms)]
    for room in {"study", "reporting", "inventory"} & {*rooms}:
        names += [f"cdl.{room}.{path.stem}" for path in (CDL / room).glob("*.py")]
    code = f"import sys, {', '.join(names)}\n"
    code += "from cdl.distillers import DISTILLERS\nfrom cdl.methods import PROMPTS\n"
    code += "from cdl.data.sources import SOURCES\nbefore = set(sys.modules)\n"
    code += "assert len([*DISTILLERS.values(), *PROMPTS.values(), *SOURCES.values()]) >= 26\n"
    code += "assert not {'numpy', 'PIL', 'pyarrow', 'requests'} & (set(sys.modules) - before)\n"
    code += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_only_fetching_knows_the_network_and_only_fetch_rules_call_it():
    network = ("requests", "urllib", "http.", "socket", "pooch")
    listens = ("http.server.BaseHTTPRequestHandler", "http.server.ThreadingHTTPServer")
    users = {
        path.name
        for path in FILES
        if path.parent.name != "forkserver"  # its sockets are files
        if any(name.startswith(network) for name in imported(path) if name not in listens)
    }
    assert users == {"fetching.py"}, "call cdl.runtime.fetching, the only file with the network"
    server = "".join(path.read_text() for path in (CDL / "runtime" / "forkserver").glob("*.py"))
    assert set(re.findall(r"AF_\w+", server)) == {"AF_UNIX"}
    callers = {
        path.stem
        for path in (ROOT / "workflow" / "scripts").glob("*.py")
        if {"cdl.backbones.fetch.fetch", "cdl.data.sources.archives.fetch"} & set(imported(path))
    }
    assert callers == {"fetch_backbone", "fetch_dataset"}, "fetch in one of these two rules"
    rules = (ROOT / "workflow" / "rules" / "prepare.smk").read_text()
    local = re.search(r"localrules:\n((?:    \w+,\n)+)", rules)[1]
    assert callers == set(re.findall(r"\w+", local))


def test_nothing_that_is_read_runs_code():
    pickles = ("pickle", "dill", "cloudpickle", "joblib", "torch.load")
    for path in FILES:
        found = [name for name in imported(path) if name.startswith(pickles)]
        loads = re.findall(r"torch\.load\(.*", path.read_text())
        if path == CDL / "backbones" / "weights.py":  # a .pth that a user imports
            assert found == ["pickle.UnpicklingError"]
            assert len(loads) == 1 and "weights_only=True" in loads[0]
        else:
            assert not found and not loads, path


# what only layout.py may write: how a path below results/ begins, and names of files there
BELOW_RESULTS = re.compile(
    r"results/|results\.json|predictions\.parquet|learner\.(safetensors|json)|losses\.csv"
    r"|targets\.safetensors|(results|curves|cost)\.csv|protocols\.json|index\.html|summary\.(csv|md|tex)|(intervals|contrasts)\.csv"
)


TOLD = "protocols.json spells it out"  # in words, to the reader of a table


def literals(path):
    """All strings of a Python file but its docstrings, with their lines."""
    owners = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docs = {
        id(node.body[0].value)
        for node in nodes_of(path)
        if isinstance(node, owners) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in nodes_of(path):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.lineno, node.value


def test_one_function_reads_json_from_outside():
    readers = {
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in FILES
        for node in nodes_of(path)
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("json.load", "json.loads")
    }
    files = {place.split(":")[0] for place in readers}
    alone = {path for path in files if path.startswith("cdl/device/")}  # without cdl
    own = {"cdl/cli/events.py", "cdl/runtime/artifacts.py"}  # read what this program wrote
    read = own | {"cdl/runtime/outside.py"}
    assert files - alone == read, "call json_object of cdl/runtime/outside.py instead of json.loads"


def test_one_function_reads_yaml_from_outside():
    readers = {
        str(path.relative_to(ROOT))
        for path in FILES
        if re.search(r"yaml\.\w*load", path.read_text())
    }
    own = {"cdl/study/configuration.py"}  # reads schema and presets, and a number
    read = own | {"cdl/runtime/plain_yaml.py"}
    assert readers == read, "call yaml_value of cdl/runtime/plain_yaml.py instead"


def test_only_the_layout_spells_a_path_below_results():
    python = [path for path in FILES if path != CDL / "layout.py"]
    python += (ROOT / "workflow" / "scripts").glob("*.py")
    found = {
        f"{path.relative_to(ROOT)}:{line}: {text}"
        for path in python
        for line, text in literals(path)
        if BELOW_RESULTS.search(text.replace(TOLD, ""))
    }
    for path in [ROOT / "Snakefile", *(ROOT / "workflow" / "rules").glob("*.smk")]:
        for i, line in enumerate(path.read_text().splitlines(), start=1):
            if BELOW_RESULTS.search(line) and not line.lstrip().startswith("#"):
                found.add(f"{path.relative_to(ROOT)}:{i}: {line.strip()}")
    assert found == set(), "add the path to cdl/layout.py and use it from there"


def code_lines(path):
    """How many lines hold code: no blank line, comment or docstring counts."""
    text = path.read_text()
    body = ast.parse(text).body
    doc = body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant)
    lines = text.splitlines()[body[0].end_lineno if doc else 0 :]
    return sum(bool(line.strip()) and not line.lstrip().startswith("#") for line in lines)


def test_scripts_call_a_function_and_hold_no_logic():
    long = {path.name: code_lines(path) for path in (ROOT / "workflow/scripts").glob("*.py")}
    assert long and max(long.values()) <= 10, long
    assert len((ROOT / "workflow/rules/common.smk").read_text().splitlines()) <= 125


def test_functions_fit_a_screen():
    long = {
        f"{path.relative_to(ROOT)}:{node.name}": node.end_lineno - node.lineno + 1
        for path in FILES
        for node in nodes_of(path)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    long = {name: n for name, n in long.items() if n > 60}
    assert long == {}, "split the function: at most 60 lines"


# fields of blocks that the planning reads and no signature
PLANNED = {"joint", "training", "alignment"}


def blocks():
    """What a block's values are passed to, and the block in the schema, by the block's name."""
    fields = schema()["properties"]
    dataset = fields["datasets"]["additionalProperties"]["properties"]
    kinds = {name: facts.load() for name, facts in PROMPTS.items()}
    yield from ((f"methods.{k}", f, fields["methods"]["properties"][k]) for k, f in kinds.items())
    kinds = {name: facts.load() for name, facts in DISTILLERS.items()}
    known = fields["distillers"]["properties"]
    yield from ((f"distillers.{k}", f, known[k]) for k, f in kinds.items())
    known = dataset["source"]["properties"]
    yield from ((f"source.{k}", f.read, known[k]) for k, f in SOURCES.items())
    yield "view", Views, dataset["view"]


def arguments(function):
    """Names and defaults; what a class passes on by `**` is read from its base."""
    found = {}
    for kind in inspect.getmro(function) if inspect.isclass(function) else [function]:
        own = inspect.signature(kind).parameters.values()
        passes_on = [p for p in own if p.kind is p.VAR_KEYWORD]
        found = {p.name: p.default for p in own if p not in passes_on} | found
        if not passes_on:
            break
    found.pop("context", None)
    return found


def protocol_fields(name):
    """The fields of the protocol that a method or distiller gets beside its own."""
    room, _, block = name.partition(".")
    fields = schema()["properties"]["protocol"]["properties"]
    units = {"methods": PROMPTS, "distillers": DISTILLERS}.get(room)
    return {key: fields[key] for key in units[block].protocol} if units else {}


@pytest.mark.parametrize(
    ("name", "function", "block"), [pytest.param(*b, id=b[0]) for b in blocks()]
)
def test_a_default_is_the_same_in_the_schema_and_in_the_signature(name, function, block):
    fields = {**block["properties"], **protocol_fields(name)}
    fields = {key: field for key, field in fields.items() if key not in PLANNED}
    given = arguments(function)
    assert given.keys() == fields.keys(), f"add to the facts of {name} what its signature has"
    for key, field in fields.items():
        default = given[key]
        if default is inspect.Parameter.empty:
            assert "default" not in field, key
        else:
            assert "default" in field, key
            same = (list(default) if isinstance(default, tuple) else default) == field["default"]
            assert same, f"{name}.{key}: write the default of the signature into the facts"


def test_every_block_of_the_schema_has_a_counterpart():
    fields = schema()["properties"]
    sources = fields["datasets"]["additionalProperties"]["properties"]["source"]["properties"]
    again = "add the missing name to the registry in __init__.py of its room"
    assert fields["methods"]["properties"].keys() == PROMPTS.keys(), again
    assert fields["distillers"]["properties"].keys() == DISTILLERS.keys(), again
    assert sources.keys() == SOURCES.keys(), again


def test_planning_imports_no_library_of_arrays_or_tables():
    code = "import sys, cdl.cli.run, cdl.study.report_jobs\n"
    code += "print({'numpy', 'pandas', 'pyarrow', 'torch'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "set()\n"
