"""Every Snakemake command on a page or in a comment can be planned (`-n`) as shown.

Data come from the package, or the test writes placeholder images in the place of the user's own.
The papers' grids, which are large and similar, are planned by `study/test_paper.py`.
"""

import io
from functools import reduce

import pandas as pd
import pytest
from forked import run_module
from PIL import Image
from runs import ENVIRONMENT, ROOT, job_stats
from test_commands import MADE, commands, is_placeholder, snakemake_options

from cdl.study.configuration import merge, read

SHOWN = sorted({tuple(p.values[0][1:]) for p in commands() if p.values[0][0] == "snakemake"})
NO_PLANS = {"--lint", "--report", "--unlock", "--logger", "--until", "--workflow-profile"}


def files_of(words):
    files = snakemake_options(list(words)).configfile or ["config/default.yaml"]
    return tuple(str(file) for file in files)


def is_plan(words):
    """Return whether a command runs jobs on this machine from files in the checkout."""
    missing = {word for word in words if is_placeholder(word)} | MADE
    bare = words == ("tuned",)  # only valid for a configuration with `tune`
    return not bare and not (NO_PLANS | missing) & {*words, *files_of(words)}


PLANS = {  # one command for each list of configuration files
    files_of(words): words
    for words in SHOWN
    if is_plan(words) and not any("/paper/" in file for file in files_of(words))
}


def parquet(folder, source):
    folder.mkdir(parents=True)
    content = io.BytesIO()
    Image.new("RGB", (8, 8)).save(content, "PNG")
    image = {"bytes": content.getvalue(), "path": None}
    rows = pd.DataFrame({"image": [image] * 100, source["class_name"]: range(100)})
    for split in ("train", "test"):
        rows.to_parquet(folder / f"{split}-0.parquet")


def plans():
    """Yield the commands; those of large studies, which are alike, at night."""
    for files, words in PLANS.items():
        marks = [pytest.mark.nightly] if any("/studies/" in file for file in files) else []
        yield pytest.param(words, id=" ".join(words), marks=marks)


@pytest.mark.parametrize("words", plans())
def test_a_shown_configuration_plans(words, tmp_path):
    files = files_of(words)
    for dataset in reduce(merge, (read(ROOT / file) for file in files))["datasets"].values():
        ((kind, source),) = dataset["source"].items()
        if kind == "parquet":
            parquet(tmp_path / source["path"], source)
    shown = [str(ROOT / word) if word in files else word for word in words if word != "-n"]
    command = ["snakemake", "--snakefile", ROOT / "Snakefile", "-n", *shown]
    assert job_stats(run_module(*command, env=ENVIRONMENT, cwd=tmp_path))


def test_configurations_are_planned():
    found = {file for files in PLANS for file in files}
    assert {"config/default.yaml", "config/studies/statistics.yaml"} <= found
    assert len(found) > 6
