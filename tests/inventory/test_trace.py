"""Every cell of finished studies is traced, also of a dataset's variants and of aligned heads."""

import contextlib
import re
import shutil
import tarfile
from pathlib import Path

import pytest
from lab import make_grid
from scripts import perform

from cdl.cli.summary import show_runs
from cdl.inventory.finished import write_configuration
from cdl.inventory.origin import LINES, _absolute_paths, summary
from cdl.inventory.trace import trace
from cdl.layout import ResultsFolder
from cdl.reporting.tables import read
from cdl.runtime.artifacts import read_json
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
        grid = make_grid(VARIANTS)
        write_configuration(grid, grid.layout.report.tables.configuration)
        for job in study_jobs(grid):
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
        links = trace(run, results)[run].links
        assert [link for link in links if not link.holds] == []
        targets = {link.what: link.text for link in links if link.what.startswith("targets")}
        assert targets.keys() == ({"targets 1", "targets 2"} if row["teacher_run"] else set())
        assert all(text.startswith(row["teacher_run"]) for text in targets.values())
        trained = [link.text for link in links if link.what.startswith("teacher task")]
        assert len(trained) == (2 if row["teacher_run"] else 0)
        assert all(text.startswith(row["teacher_run"]) for text in trained)


def test_a_variant_is_traced_to_the_data_that_it_was_trained_on(variants, monkeypatch):
    monkeypatch.chdir(variants)
    results, data = ResultsFolder(Path("results")), {}
    for run, row in rows(results).items():
        (link,) = (link for link in trace(run, results)[run].links if link.what == "data")
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
    for _, _, links in chains.values():
        assert [link for link in links if not link.holds] == []
        absent = {link.what.split()[0] for link in links if link.mark == "absent"} - {"teacher"}
        assert absent - {"aligned"} == {"predictions", "task", "backbone", "data"}
        assert all("; not included: " in link.text for link in links if link.mark == "absent")
    shown = summary(trace("kd+own", results), results)
    assert re.search(r"\d+ ok, \d+ with their record alone, as in an archive, caches not co", shown)
    assert f"% (seed0), {tmp_path}/results/statistics/tables/results.csv" in shown
    run = next(iter(chains))
    record = next((tmp_path / run / "task1").glob("*.json"))
    record.write_text(record.read_text().replace('"task": 1', '"task": 0'))
    broken = [link.what for link in trace(run, results)[run].links if link.mark == "BROKEN"]
    assert broken == ["task 2"]


@pytest.mark.skipif(not DEFAULT_RUN.exists(), reason="`make archive` writes it from a default run")
def test_the_archive_of_the_default_run_is_traced(tmp_path):
    with tarfile.open(DEFAULT_RUN) as opened:
        opened.extractall(tmp_path, filter="data")
    chains = trace("default", ResultsFolder(tmp_path / "results"))
    assert len(chains) == 50  # ten cells, five seeds
    assert all(link.holds for own in chains.values() for link in own.links)


@pytest.mark.parametrize(
    ("name", "runs"),
    [
        ("digits/coda_prompt/kd (own)", ["kd+own"]),
        ("coda_prompt/kd+own/seed0", ["kd+own"]),
        ("digits | vit_nano | vit_micro | none (self)", []),
        ("coda_prompt/none (self)/0", ["student+self"]),
        ("statistics/(teacher)", ["teacher"]),
        ("coda_prompt/kd, heads as learnt", ["kd+heads"]),  # as on the page
    ],
)
def test_a_name_that_the_tables_show_is_traced(statistics, name, runs):
    results = ResultsFolder(statistics / "results")
    if not runs:
        with pytest.raises(CdlError, match="is not a cell of a table"):
            trace(name, results)
        return
    assert [Path(run).parent.name.split("-")[0] for run in trace(name, results)] == runs


def test_the_origin_of_a_cell_has_thirty_lines_at_most_and_its_command(statistics, monkeypatch):
    monkeypatch.chdir(statistics)
    results = ResultsFolder(Path("results"))
    (run,) = traces = trace("kd+own", results)
    lines = summary(traces, results).splitlines()
    assert len(lines) <= LINES
    text = dict(line.split(maxsplit=1) for line in lines[1:])
    made = read_json(f"{run}/results.json")
    assert text["learner"].startswith("coda_prompt") and "kd (own)" in text["learner"]
    assert text["examples"] == "digits: 30 labelled and 130 unlabelled in 2 tasks, 80 in the test"
    assert text["checkpoints"].split()[-2:] == [sha256[:12] for sha256 in made["checkpoints"]]
    assert f"torch {made['versions']['torch']}" in text["versions"]
    assert text["alone"] == (
        f"mkdir again; cdl run results/statistics/tables/configuration.yaml {run}/results.json "
        "--directory again --cores 2"
    )
    several = summary(trace("digits", results), results).splitlines()
    assert len(several) == 7 + 1 and all(line.startswith("ok") for line in several[:-1])
    many = {f"results/s/d/m/l{n}/seed0": traces[run] for n in range(40)}
    assert len(summary(many, results).splitlines()) == LINES


def test_paths_of_a_cell_computed_again_start_in_the_folder_of_its_results(tmp_path):
    (tmp_path / "photos").mkdir()
    block = {"source": {"folder": {"path": "photos", "train": "photos"}}, "unlabelled": None}
    config = {"datasets": {"mine": block}, "backbones": {"vit": {"file": None, "folder": None}}}
    assert list(_absolute_paths(config, tmp_path)) == [
        f"datasets.mine.source.folder.path={tmp_path}/photos"
    ]


def test_without_its_configuration_a_cell_is_not_followed(statistics, tmp_path):
    archived = tmp_path / "results/statistics"
    for file in ("tables/results.csv", "tables/protocols.json"):
        (archived / file).parent.mkdir(parents=True, exist_ok=True)
        (archived / file).write_bytes((statistics / "results/statistics" / file).read_bytes())
    for file in (statistics / "results/statistics").rglob("results.json"):
        copy = tmp_path / file.relative_to(statistics)
        copy.parent.mkdir(parents=True)
        copy.write_bytes(file.read_bytes())
    (traced,) = trace("kd+own", ResultsFolder(tmp_path / "results")).values()
    (broken,) = [link for link in traced.links if not link.holds]
    assert broken.what == "configuration" and "`cdl tables CONFIG`" in broken.text


def test_a_cell_that_was_run_alone_ends_with_its_accuracy_and_is_traced(
    variants, tmp_path, monkeypatch, capsys
):
    (tmp_path / "again").mkdir()
    shutil.copytree(variants / "results", tmp_path / "again/results")
    shutil.rmtree(tmp_path / "again/results/variants/tables")
    monkeypatch.chdir(tmp_path)
    results, grid = ResultsFolder(Path("again/results")), make_grid(VARIANTS)
    run = next(files.folder for files in map(grid.files, grid.runs) if "/kd+seen-" in files.folder)
    with pytest.raises(CdlError, match="contains no table, but 8 finished runs, .* --directory ag"):
        trace(run, results)
    show_runs(grid, ["all"], Path("again"), "cdl", computed=True)
    assert not capsys.readouterr().out
    show_runs(grid, [f"{run}/results.json"], Path("again"), "cdl", computed=False)
    accuracy, origin = capsys.readouterr().out.splitlines()
    made, name = read_json(f"again/{run}/results.json"), run.removeprefix("results/")
    number = f"{made['metrics']['final_average_accuracy']:.2f} %"
    assert accuracy == f"{number}  {name}  (not computed, already there)"
    assert origin == f"Origin: cdl trace {name} --results again/results"
    traces = trace(name, results)
    assert all(link.holds for link in traces[run].links)
    assert "alone        mkdir again2; " in summary(traces, results)


def test_a_study_without_a_table_is_not_archived(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CdlError, match="results/mine/tables/results.csv: no such table"):
        archive.write("mine", tmp_path / "mine.tar.xz")
