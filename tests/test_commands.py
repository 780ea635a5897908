"""Options, targets and files of every command on a page or in a comment exist.

No command is started here. `cli/test_documented_plans.py` plans the configurations as shown,
`test_tutorial.py` runs the commands of the tutorial, `test_docs.py` those of the page on using a
student, and the tests of each package its `cdl` commands.
"""

import re
import shlex
import tomllib
from functools import cache, reduce
from pathlib import Path

import pytest
import typer
from snakemake.cli import get_argument_parser

from cdl.cli import app
from cdl.cli.run import TARGETS
from cdl.study.configuration import merge, read, resolve
from cdl.study.grid import Grid

ROOT = Path(__file__).parents[1]
COMMENTED = [
    ROOT / "Snakefile",
    *(
        path
        for folder in ("config", "workflow", "cdl")
        for path in ROOT.glob(f"{folder}/**/*.yaml")
    ),
]
PAGES = [
    path for found in ("*.md", "[bcrt]*/README.md", "docs/**/*.md") for path in ROOT.glob(found)
]
FENCED = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:cdl|snakemake) [^`]+)`")
COMMENT = re.compile(r"^#   ((?:cdl|snakemake|make|python) .*?)(?:  .*)?$", re.MULTILINE)
SHELL = {
    ".",
    "cd",
    "docker",
    "done",
    "do",
    "echo",
    "export",
    "git",
    "mkdir",
    "python3",
    "tar",
    "while",
}
CLUSTER = {"scancel", "squeue", "RUN=$(sed"}  # SLURM commands in docs/cluster.md
MADE = {  # files that the reader or an earlier command creates
    "study/config.yaml",
    "config.yaml",
    "mine.yaml",
    "config/mine.yaml",
    "one.yaml",
    "overlay.yaml",
    "results/seen_classes_tuned/tuned.yaml",
    "archive/results/tables/configuration.yaml",  # in docs/studies/data/default_run.tar.xz
    "results/tables/configuration.yaml",
}
STUDENT = "student/student.py"  # the program in an exported folder
SEPARATORS = {"&&", ";", "|", "||"}


def commands():
    """Yield the words of every command on the pages, without comments."""
    for page in [*PAGES, *COMMENTED]:
        for block in command_blocks(page):
            for line in block.replace("\\\n", " ").splitlines():
                words = []
                for word in [*split_words(line), ";"]:
                    if word not in SEPARATORS:
                        words.append(word)
                    elif words:
                        yield pytest.param(words, id=f"{page.stem}: {' '.join(words)}")
                        words = []


def command_blocks(page):
    """Return the code blocks of a page and its inline commands, or the commands in comments."""
    text = page.read_text()
    if page in COMMENTED:
        return COMMENT.findall(text)
    return FENCED.findall(text) + [
        one.replace(" N", " 2") for one in INLINE.findall(text) if "..." not in one
    ]


def split_words(line):
    """Return the words of a line; a semicolon is a word of its own."""
    return shlex.split(re.sub(r";(?=\s)", " ;", line), comments=True)


def is_placeholder(word):
    return any(part.isupper() for part in word.split("/"))


def file_exists(word):
    assert word in MADE or is_placeholder(word) or (ROOT / word).is_file(), word


def check_cdl(words):
    command = typer.main.get_command(app)
    args = words
    context = None
    while hasattr(command, "commands"):
        name, *args = args
        assert name in command.commands, name
        context = command.make_context(name, [], context, resilient_parsing=True)
        command = command.commands[name]
    known = {option for p in command.params for option in getattr(p, "opts", ())}
    known |= {option for p in command.params for option in getattr(p, "secondary_opts", ())}
    given = {word.partition("=")[0] for word in args if word.startswith("-") and word != "-"}
    if words[0] == "run":  # further options are passed to Snakemake
        snakemake_options([word for word in args if word not in known])
    else:
        assert given <= known, given - known
    for word in args:
        if word.endswith(".yaml"):
            file_exists(word)
        if word.startswith("results/default/"):
            assert word.removesuffix("/results.json") in folders(["config/default.yaml"]), word


@cache
def parser():
    return get_argument_parser()


def snakemake_options(words):
    try:
        return parser().parse_args(words)
    except SystemExit:
        pytest.fail(f"snakemake does not take {words}")


def folders(files):
    """Return the folders of all runs of a configuration."""
    grid = Grid(resolve(reduce(merge, (read(ROOT / name) for name in files))))
    return {grid.files(run).folder for run in grid.runs}


def check_snakemake(words):
    args = snakemake_options(words)
    files = [str(path) for path in args.configfile or ()]
    for name in files:
        file_exists(name)
    rules = "\n".join(path.read_text() for path in (ROOT / "workflow" / "rules").glob("*.smk"))
    for rule in args.until or ():
        assert re.search(rf"^ *(rule|checkpoint) {rule}:", rules, re.MULTILINE), rule
    profile = args.workflow_profile
    assert profile is None or (ROOT / profile / "config.yaml").is_file(), profile
    for target in args.targets:
        assert target in TARGETS or target.startswith("results/"), target
        if target.endswith("/results.json"):
            assert str(Path(target).parent) in folders(files), target


def check_make(words):
    makefile = (ROOT / "Makefile").read_text()
    assert set(words) <= set(re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split())


def check_pip(words):
    assert words[0] == "install"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extras in re.findall(r"\[(.*)\]", " ".join(words)):
        assert set(extras.split(",")) <= set(project["optional-dependencies"]), extras
    if "-c" in words:
        file_exists(words[words.index("-c") + 1])


def check_python(words):
    if words[0] == "-m":
        words = [words[1].replace(".", "/") + ".py", *words[2:]]
    of_a_student = words[0].endswith(STUDENT)
    program = "cdl/device/main.py" if of_a_student else words[0]
    file_exists(program)
    source = "".join(path.read_text() for path in (ROOT / program).parent.glob("*.py"))
    for word in words[1:]:
        if word.startswith("-"):
            field = word.removeprefix("--").replace(
                "-", "_"
            )  # of a dataclass from which options are generated
            assert re.search(rf'"{word}"|^    {field}: ', source, re.MULTILINE), word
        elif word.endswith(".yaml"):
            file_exists(word)


PROGRAMS = {
    "cdl": check_cdl,
    "snakemake": check_snakemake,
    "make": check_make,
    "pip": check_pip,
    "python": check_python,
}


@pytest.mark.parametrize("words", list(commands()))
def test_a_command_on_a_page_is_valid(words):
    program = re.sub(r"^\.venv/bin/", "", words[0])
    assert program in {*PROGRAMS, *SHELL, *CLUSTER}, program
    if program in PROGRAMS:
        PROGRAMS[program](words[1:])


def test_commands_of_every_program_are_found():
    programs = {param.values[0][0] for param in commands()}
    assert set(PROGRAMS) <= programs


@pytest.mark.parametrize(
    "line",
    [
        "cdl exprot run",
        "cdl export run --fast",
        "cdl status config/none.yaml",
        "cdl run config/default.yaml --fast",
        "snakemake --fast",
        "snakemake everything",
        "snakemake --configfile config/default.yaml tuned",
        "snakemake --until nothing",
        "snakemake --configfile config/none.yaml",
        "make coffee",
        "pip install '.[coffee]'",
        "python benchmarks/steps.py --coffee",
        "coffee",
    ],
)
def test_an_invalid_command_is_detected(line):
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        test_a_command_on_a_page_is_valid(shlex.split(line))
