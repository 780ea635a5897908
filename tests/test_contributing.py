"""Apply the examples of CONTRIBUTING.md, so that they stay true."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cdl.distillers.base import Output, TeacherOutput

ROOT = Path(__file__).parents[1]
NEEDED = ["cdl", "tests", "docs", "config", "benchmarks", "pyproject.toml", "CONTRIBUTING.md"]


def section(title):
    return (ROOT / "CONTRIBUTING.md").read_text().split(f"\n## {title}\n")[1].split("\n## ")[0]


def diffs(title):
    """Yield each file in a section's diff, with its lines and their marks."""
    (diff,) = re.findall(r"```diff\n(.*?)```", section(title), re.DOTALL)
    for part in diff.split("+++ ")[1:]:
        name, *lines = part.splitlines()
        yield name, lines


def apply(title, folder):
    """Write new files, and insert lines after the context line that the diff shows."""
    for name, lines in diffs(title):
        file = folder / name
        added = [line[1:] for line in lines if line.startswith("+")]
        if len(added) == len(lines):
            assert not file.exists(), name
            file.write_text("\n".join(added) + "\n")
            continue
        context = [line[1:] for line in lines if not line.startswith("+")]
        text = file.read_text().splitlines()
        ends = range(len(context), len(text) + 1)
        (at,) = (i for i in ends if _matches(text[i - len(context) : i], context))
        file.write_text("\n".join([*text[:at], *added, *text[at:]]) + "\n")


def _matches(lines, context):
    """Return whether lines of a file begin as those of a diff."""
    return all(line.startswith(shown) for line, shown in zip(lines, context, strict=True))


@pytest.mark.parametrize("title", ["Add a prompt method", "Add a dataset"])
def test_the_shown_method_and_source_are_those_of_the_repository(title):
    for name, lines in diffs(title):
        text = (ROOT / name).read_text()
        for line in lines:
            assert line[1:] in text or line.strip("+ ") == "...", (name, line)


FORWARD, PACKAGE = "What `forward` of a distiller gets", "A method in a package of your own"
STUDY = {
    "name": "mine",
    "datasets.digits": {
        "source": {"digits": {}},
        "tasks": 2,
        "images_per_class": 8,
        "view": {"size": 8},
        "labels": {"per_class": 4},
    },
    "backbones": {
        "large": {"embedded": "vit_micro_patch4_32"},
        "small": {"embedded": "vit_nano_patch4_32"},
    },
    "training": {"epochs": 1, "batch_size": 16, "unlabelled_ratio": 1.0},
    "methods.shift": {"length": 6},
    "distillers.agree": {"alpha": 0.25},
    "grid": {
        "methods": ["shift"],
        "pairs": [{"teacher": "large", "student": "small"}],
        "distillers": ["agree"],
        "seeds": [0],
    },
}


def package(folder):
    """Write the files that the page shows, build their wheel and unpack it as pip does."""
    shown = section(FORWARD) + section(PACKAGE)
    for code in re.findall(r"```(?:python|toml)\n(.*?)```", shown, re.DOTALL):
        file = folder / "source" / code.split()[1].rstrip(":")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(code)
    (folder / "source" / "mine" / "__init__.py").touch()
    build = "import sys, hatchling.build; hatchling.build.build_wheel(sys.argv[1])"
    command = [sys.executable, "-c", build, str(folder)]
    subprocess.run(command, cwd=folder / "source", check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    shutil.unpack_archive(wheel, folder / "site", "zip")
    return folder / "site"


@pytest.mark.slow
def test_the_package_of_the_page_is_built_planned_and_trained(tmp_path):
    site = package(tmp_path)

    def python(code):
        environment = os.environ | {"PYTHONPATH": f"{site}:{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-c", f"import cdl\nstudy = {STUDY}\n{code}"]
        options = {"capture_output": True, "text": True, "check": False, "env": environment}
        return subprocess.run(command, cwd=tmp_path, **options)

    (line,) = re.findall(r"^cdl (run .*shift.*)$", section(PACKAGE), re.MULTILINE)
    command = [*shlex.split(line), "-n"]
    command[1] = str(ROOT / command[1])
    planned = python(f"import sys; sys.argv[1:] = {command}; from cdl.cli import main; main()")
    assert planned.returncode == 0 and "distil with agree" in planned.stdout, planned.stderr
    odd = python("study['methods.shift']['length'] = 7\ncdl.status(study)")
    assert "methods.shift.length: invalid value 7; expected an even number" in odd.stderr
    result = python("print(len(cdl.run(study)), cdl.load(cdl.results(study)['run'].iloc[-1]))")
    assert result.returncode == 0, result.stderr[-3000:]
    assert "2 <Student of 10 classes" in result.stdout
    (losses,) = tmp_path.glob("results/mine/digits/shift/agree-*/seed0/task1/losses.csv")
    parts = {row.split(",")[3] for row in losses.read_text().splitlines()[1:]}
    assert {"ce", "agree"} <= parts
    record = json.loads(losses.with_name("learner.json").read_text())
    assert {"mine.agree", "mine.shift"} <= record["versions"].keys()


def test_the_shown_forward_gets_fewer_labels_than_images_and_the_columns_of_the_task():
    (code,) = re.findall(r"```python\n(.*?)```", section(FORWARD), re.S)
    exec(code, names := {})
    agree = names["Agree"](None)
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    logits[3:, :4] = 99.0  # classes of the first task must not matter
    teacher = torch.eye(3)[[0, 1, 2, 2, 0]]
    given = Output(logits, logits[:, None], (), {}), TeacherOutput(teacher, None)
    losses = agree(*given, torch.tensor([4, 6, 5]), slice(4, 7))
    rows = logits[:, 4:].log_softmax(1)
    torch.testing.assert_close(losses["ce"], -0.5 * (rows[0, 0] + rows[1, 2] + rows[2, 1]) / 3)
    torch.testing.assert_close(losses["agree"], -0.5 * (rows[3, 2] + rows[4, 0]) / 2)
    every = agree(*given, torch.tensor([4, 6, 5, 4, 4]), slice(4, 7))
    assert every["agree"] == 0


@pytest.mark.slow
def test_the_shown_distiller_is_planned_trained_drawn_and_documented(tmp_path):
    for name in NEEDED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    apply("Add a distiller", tmp_path)

    def python(*arguments):
        command = [sys.executable, *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    listed = python("-m", "cdl", "list", "distillers").stdout
    assert "logits       Regression of the teacher's logits (Ba and Caruana" in listed
    (schema,) = re.findall(r'-c "(.*editor_schema.*)"', (ROOT / "Makefile").read_text())
    assert python("-c", schema).returncode == 0
    tests = ["training/test_methods", "study/test_combinations", "study/test_editors"]
    tests += ["distillers/test_losses", "reporting/test_style", "test_house", "test_docs"]
    files = [f"tests/{name}.py" for name in tests]
    chosen = "logits or look or row or json or seen_on_white or counterpart or torch"
    result = python("-m", "pytest", "-q", "-p", "no:cacheprovider", *files, "-k", chosen)
    assert result.returncode == 0, result.stdout[-3000:]
    passed = int(re.search(r"(\d+) passed", result.stdout)[1])
    assert passed > 30
