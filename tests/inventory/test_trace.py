"""Every cell of finished studies is traced, also of a dataset's variants and of aligned heads."""

import contextlib
import tarfile
from pathlib import Path

import pytest
from lab import make_grid
from scripts import perform

from cdl.inventory.trace import trace
from cdl.layout import ResultsFolder
from cdl.reporting.tables import read
from cdl.runtime.errors import CdlError
from cdl.study.report_jobs import study_jobs
from tools import archive

DEFAULT_RUN = Path(__file__).parents[2] / "docs/studies/data/default_run.tar.xz"
VALIDATION = {"validation": {"per_class": 8}, "evaluate_on": "validation"}
FEW = {"labels": {"per_class": 3}, "teacher_labels": "all"}
VARIANTS = {  # two share packed data and teacher; the other has data of its own
    "name": "variants",
    "grid": {
        "datasets": [
            "digits",
            {"block": "digits", "variant": "few", **FEW},
            {"block": "digits", "variant": "held", **VALIDATION},
        ],
        "distillers": ["none", {"block": "kd", "variant": "seen", "soft_columns": "seen"}],
    },
}


@pytest.fixture(scope="module")
def variants(tmp_path_factory):
    """The folder of a finished study of a dataset's variants, up to its tables."""
    folder = tmp_path_factory.mktemp("variants")
    with contextlib.chdir(folder):
        for job in study_jobs(make_grid(VARIANTS)):
            if job.rule not in ("plot", "page", "label_efficiency"):
                perform(job)
    return folder


def rows(results):
    """The row of each run in all tables of a folder of results."""
    tables = [read(*paths).to_dict("records") for paths in results.tables()]
    return {row["run"]: row for table in tables for row in table}


@pytest.mark.parametrize(
    ("study", "cells"),
    [("variants", 8), ("statistics", 7), pytest.param("finished", 4, marks=pytest.mark.slow)],
)
def test_every_cell_of_every_table_is_traced(request, monkeypatch, study, cells):
    monkeypatch.chdir(request.getfixturevalue(study))
    results = ResultsFolder(Path("results"))
    found = rows(results)
    assert len(found) == cells
    for run, row in found.items():
        links = trace(run, results)[run]
        assert [link for link in links if not link.holds] == []
        targets = [link.text for link in links if link.what.startswith("targets")]
        taught = row["distiller"] not in ("none", "cdl_prompt")  # the latter compares prompts
        assert len(targets) == (2 if row["teacher_run"] else 0)
        assert not taught or all(text.startswith(row["teacher_run"]) for text in targets)


def test_a_variant_is_traced_to_the_data_that_it_was_trained_on(variants, monkeypatch):
    monkeypatch.chdir(variants)
    results, data = ResultsFolder(Path("results")), {}
    for run, row in rows(results).items():
        (link,) = (link for link in trace(run, results)[run] if link.what == "data")
        data.setdefault(row["dataset"], set()).add(link.text)
    assert data.keys() == {"digits", "digits+few", "digits+held"}
    assert len(data["digits"]) == 1 and data["digits"] == data["digits+few"]
    assert len(data["digits+held"]) == 1 and data["digits"] != data["digits+held"]


def test_an_archive_of_records_is_traced_and_says_what_it_does_not_include(
    statistics, tmp_path, monkeypatch
):
    monkeypatch.chdir(statistics)
    for output in ("one.tar.xz", "again.tar.xz"):
        archive.write("statistics", tmp_path / output)
    packed = tmp_path / "one.tar.xz"
    assert packed.read_bytes() == (tmp_path / "again.tar.xz").read_bytes()
    with tarfile.open(packed) as opened:
        opened.extractall(tmp_path, filter="data")
    assert not list(tmp_path.rglob("*.safetensors")) and not list(tmp_path.rglob("*.pixels"))
    results = ResultsFolder(tmp_path / "results")
    chains = trace("digits", results)
    assert len(chains) == 7
    for links in chains.values():
        assert [link for link in links if not link.holds] == []
        absent = {link.what.split()[0] for link in links if link.mark == "absent"}
        assert absent == {"predictions", "task", "backbone", "data"}
        assert all("; not included: " in link.text for link in links if link.mark == "absent")
    run = next(iter(chains))
    record = next((tmp_path / run / "task1").glob("*.json"))
    record.write_text(record.read_text().replace('"task": 1', '"task": 0'))
    broken = [link.what for link in trace(run, results)[run] if link.mark == "BROKEN"]
    assert broken == ["task 1"]


@pytest.mark.skipif(not DEFAULT_RUN.exists(), reason="`make archive` writes it from a default run")
def test_the_archive_of_the_default_run_is_traced(tmp_path):
    with tarfile.open(DEFAULT_RUN) as opened:
        opened.extractall(tmp_path, filter="data")
    chains = trace("default", ResultsFolder(tmp_path / "results"))
    assert len(chains) == 50  # ten cells, five seeds
    assert all(link.holds for links in chains.values() for link in links)


def test_a_study_without_a_table_is_not_archived(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CdlError, match="results/mine/tables/results.csv: no such table"):
        archive.write("mine", tmp_path / "mine.tar.xz")
