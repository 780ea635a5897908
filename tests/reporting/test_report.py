"""Reports of the real workflow: the page and `snakemake --report`."""

import re
from importlib.metadata import requires

import pandas as pd
import yaml
from runs import CONFIGS, snakemake

from cdl.study.specifications import in_use, specification


def test_the_page_has_the_runs_of_the_tables(finished):
    text = (finished / "results/tiny/index.html").read_text()
    results = pd.read_csv(finished / "results/tiny/tables/results.csv")
    assert re.findall(r'<details id="(results/.*?)" class="run">', text) == results["run"].tolist()
    assert {*re.findall(r'<details id="protocol-(\w+)">', text)} == set(results["protocol"])
    paths = re.findall(r'<a href="([^#"]+)"', text)
    assert len(paths) > 10 * len(results)
    assert [path for path in paths if not (finished / "results/tiny" / path).exists()] == []


def test_the_resolved_configuration_leads_to_the_same_runs(finished):
    from cdl.study.configuration import merge, resolve
    from cdl.study.grid import Grid

    text = (finished / "results/tiny/tables/configuration.yaml").read_text()
    given = {}
    for path in CONFIGS:
        given = merge(given, yaml.safe_load(path.read_text()))
    first, second = Grid(resolve(given)), Grid(resolve(yaml.safe_load(text)))
    assert first.runs == second.runs
    specs = [[specification(grid, run) for run in grid.runs] for grid in (first, second)]
    assert specs[0] == specs[1]
    assert in_use(first) == in_use(second) == yaml.safe_load(text)
    assert "dkd" not in text and "device" not in text


def test_snakemakes_report_has_figures_captions_and_provenance(finished, tmp_path):
    path = tmp_path / "report.html"
    result = snakemake(finished, "--report", str(path))
    assert result.returncode == 0, result.stderr
    text = path.read_text()
    for needed in (
        "Configuration <strong>tiny</strong>",
        "accuracy over tasks",
        "forgetting, R[t][i]",
        "gain over the baseline",
        "cost against accuracy",
        "Runs, configuration and provenance",
        "every run in detail",
        "resolved configuration",
        "how a task is forgotten",  # captions
        "paired by example",
        "computed once for all learners",
    ):
        assert needed in re.sub(r"\\n|\s+", " ", text.replace('\\"', '"')), needed
    assert not re.search(r"<(script|link)[^>]+(src|href)=[\"']?(https?:)?//", text)


def test_what_snakemakes_report_imports_is_installed_without_extras():
    """`snakemake --report` imports Pygments, which Snakemake does not require."""
    always = [line for line in requires("cdl-workbench") if "extra ==" not in line]
    assert any(line.lower().startswith("pygments") for line in always)
