"""Compare the documentation with the code: counts, links, examples and named tests."""

import ast
import re
from pathlib import Path

import pandas as pd
import pytest
import torch
from forked import run_module
from PIL import Image
from torch import nn

from cdl.backbones.shape import BackboneShape
from cdl.data.packed import Packed
from cdl.distillers import DISTILLERS
from cdl.methods import PROMPTS
from cdl.models.build import build
from cdl.spec import Distiller, Method
from cdl.study.configuration import read, resolve
from cdl.study.grid import Grid

ROOT = Path(__file__).parent.parent
METHODS = (ROOT / "docs" / "methods.md").read_text()
COUNTED = {  # largest number of words of a page; the folder docs/studies counts as one
    "README.md": 800,
    "docs/start.md": 900,
    "config/README.md": 1700,
    "docs/data.md": 1200,
    "docs/methods.md": 2500,
    "docs/metrics.md": 1000,
    "docs/results.md": 2000,
    "docs/studies": 6780,
    "docs/use_a_student.md": 1600,
    "docs/text.md": 800,
    "docs/backbones.md": 700,
    "docs/paper.md": 960,
    "docs/cluster.md": 1450,
    "docs/performance.md": 1300,
    "docs/reliability.md": 800,
    "benchmarks/README.md": 1000,
    "tests/README.md": 1260,
    "results/README.md": 950,
    "CONTRIBUTING.md": 1800,
    "CHANGELOG.md": 1500,
    "SECURITY.md": 500,
    "cdl/assets/README.md": 600,
}
PAGES = [
    *ROOT.glob("*.md"),
    *ROOT.glob("docs/**/*.md"),
    *(ROOT / name for name in COUNTED if name.endswith("/README.md")),
]
ALL = 30_000  # largest number of words of all these pages together
INTERVAL = re.compile(r"\(-?\d+\.\d to -?\d+\.\d")


def backbone_of(shape):
    """Return the attributes of a backbone that `build` reads, without weights."""
    backbone = nn.Identity()
    backbone.width, backbone.depth = shape.width, shape.depth
    return backbone


POOLS = {"coda_prompt": {"pool": 100}, "dual_prompt": {"pool": 10}, "cdl_prompt": {"pool": 100}}


def parameters(method, distiller, student, teacher):
    learner = build(
        backbone=backbone_of(student),
        query_width=384,
        method=Method(method, POOLS.get(method, {})),
        distiller=Distiller(distiller, POOLS.get(distiller, {})),
        n_classes=100,
        n_tasks=10,
        keys=(0,),
        teacher=teacher,
        teacher_query_width=384,
    )
    for task in range(10):
        learner.start_task(task, 0)
    return sum(p.numel() for p in learner.learnables())


COUNTS = pd.read_csv(ROOT / "docs/parameters.csv", comment="#").values.tolist()


@pytest.mark.parametrize(("method", "learner", "count"), COUNTS)
def test_documented_parameter_counts(method, learner, count):
    base, small = BackboneShape(768, 12), BackboneShape(384, 12)
    of = ("none", base, None) if learner == "teacher" else (learner, small, base)
    assert parameters(method, *of) == count


def test_every_method_has_a_row_a_schema_entry_and_a_file():
    from cdl.study.configuration import schema

    properties = schema()["properties"]
    assert set(properties["methods"]["properties"]) == set(PROMPTS)
    assert set(properties["distillers"]["properties"]) == set(DISTILLERS)
    for name in [*PROMPTS, *DISTILLERS]:
        assert f"| `{name}` |" in METHODS, f"add a row `{name}` to docs/methods.md"
    assert {method for method, *_ in COUNTS} == set(PROMPTS)


def headings(page):
    """Return the fragments of the links to the headings of a page, as on GitHub and the site."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\s-]", "", title.lower()).replace(" ", "-") for title in titles}


def test_links_have_targets():
    for page in PAGES:
        for target, fragment in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", page.read_text()):
            if "://" in target or target.startswith("../../actions/"):  # pages of GitHub
                continue
            linked = page.parent / target if target else page
            assert linked.exists(), (page.name, target)
            if fragment and linked.suffix == ".md":
                assert fragment in headings(linked), (page.name, target, fragment)


def test_the_examples_on_using_a_student_predict_as_in_the_evaluation(
    finished, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").symlink_to(finished / "results")
    page = (ROOT / "docs/use_a_student.md").read_text()
    page = page.replace("results/default/cifar20/ranpac", "results/tiny/digits/coda_prompt")
    run = re.search(r"results/tiny/\S+seed0", page)[0]
    predictions = pd.read_parquet(f"{run}/predictions.parquet")
    (data,) = Path("results/data").iterdir()
    test = Packed(data, "test").pixels(torch.tensor(predictions["image"].to_numpy()[[0, -1]]))
    ((images, _, _),) = test.parts(torch.arange(2))
    for name, image in zip(("photo.png", "other.png"), images, strict=True):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(name)
    first, last = predictions["predicted"].to_numpy()[[0, -1]]
    *of_the_run, of_the_folder = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    commands = re.search(r"```sh\n(.*?)```", page, re.DOTALL)[1].splitlines()
    for code in of_the_run:
        assert len(ast.parse(code).body) == 3
        exec(code, {})
    names, probabilities, early, logits = capsys.readouterr().out.splitlines()[:4]
    assert names == str([str(first), str(last)])
    assert str(first) in probabilities and early.count("'") == 12 and logits.startswith("[[")
    for command in commands:
        run_module(*command.split(), torch=True, capture_output=False, check=True)
    exec(of_the_folder, {})
    assert capsys.readouterr().out == f"{[str(first)]}\n"


def test_make_demo_exports_a_student_of_the_default_run():
    grid = Grid(resolve(read(ROOT / "config" / "default.yaml")))
    exported = re.search(r"^STUDENT := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    assert exported in {grid.files(run).folder for run in grid.runs if run.role == "student"}


def test_the_table_of_promises_names_tests_that_exist():
    page = (ROOT / "tests" / "README.md").read_text()
    file = None
    named = 0
    for file_name, test in re.findall(r"`([\w/]*\.py)?(?:::(\w+))?`", page):
        file = file_name or file
        if not (file_name or test):
            continue
        source = next((ROOT / "tests").rglob(file)).read_text()  # a file in any room
        assert not test or f"def {test}(" in source, (file, test)
        named += 1
    assert named > 20


def words(name):
    """Return the number of words of a page, or of all pages of a folder."""
    path = ROOT / name
    pages = path.glob("*.md") if path.is_dir() else [path]
    return sum(len(page.read_text().split()) for page in pages)


def test_pages_keep_to_their_number_of_words():
    counted = {name: words(name) for name in COUNTED}
    assert not {name: n for name, n in counted.items() if n > COUNTED[name]}
    assert sum(counted.values()) <= ALL
    pages = {page for page in PAGES if page.parent.name != "studies"}
    assert pages == {ROOT / name for name in COUNTED if name.endswith(".md")}


def test_the_first_page_has_commands_early_no_p_value_and_few_intervals():
    page = (ROOT / "README.md").read_text()
    assert len(page.split("```sh")[0].split()) <= 120
    assert not re.findall(r"\bp [=<>]", page)
    assert len(INTERVAL.findall(page)) <= 10
    assert page.index("## Install") < page.index("| student |")
