"""The list of jobs agrees with the rules, and jobs read declared files only."""

import json
import os
import re
import shutil
import sys

import pytest
import statistics_study
from lab import make_grid
from runs import ROOT
from scripts import perform
from snakemake.api import SnakemakeApi
from snakemake.settings.enums import Quietness
from snakemake.settings.types import ConfigSettings, OutputSettings, ResourceSettings

from cdl import layout
from cdl.study.jobs import flat
from cdl.study.report_jobs import study_jobs
from cdl.study.trials import Trials, results_of_kept

FEW = {
    "block": "digits",
    "variant": "few",
    "labels": {"per_class": 3},
    "unlabelled": {"source": {"digits": {}}},
}
STUDY = {
    "datasets": {"digits": {"published": "cifar100"}},
    "backbones": {"vit_micro": {"published": "vit_base"}, "vit_nano": {"published": "vit_small"}},
    "grid": {"datasets": ["digits", FEW], "distillers": ["none", "cdl_prompt"]},
    "deploy": {"runs": ["digits/*/student-*"], "rounds": 1},
}
TAUGHT = {"runs": ["digits/*/cdl_prompt-*"], "rounds": 1}  # and their teacher: two exports
TUNED = {
    "datasets": {"digits": {"validation": {"per_class": 5}}},
    "grid": {"distillers": ["fitnets"]},
    "compute": {"targets": "online"},
    "tune": {
        "trials": 2,
        "first_tasks": 1,
        "fields": {"training.lr": {"low": 0.001, "high": 0.01}},
    },
}
opened: set[str] = set()


def note(event, arguments):
    """Record the files that Python opens, or tries to open, below `results/`."""
    if event == "open" and isinstance(arguments[0], str | os.PathLike):
        path = os.path.relpath(os.fspath(arguments[0]))
        if path.startswith(f"{layout.RESULTS}/"):
            opened.add(path)


@pytest.fixture(scope="module", autouse=True)
def hook():
    sys.addaudithook(note)


def perform_alone(job, store, folder, inputs):
    """Run a job's script in a folder with only its inputs, and move its files to the store."""
    for path in flat(inputs):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(store / path, folder / path)
    own = job.paths
    opened.clear()
    perform(job, inputs)
    others = {path for path in opened - {*flat(inputs), *own} if (store / path).is_file()}
    assert not others, f"{job.rule} opens what other jobs wrote"
    for path in own:
        (store / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(folder / path, store / path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "n_rules"),
    [
        pytest.param(STUDY, 19, id="study"),
        pytest.param(TUNED, 14, id="tuned"),
        pytest.param(STUDY | {"deploy": TAUGHT}, 19, id="taught", marks=pytest.mark.nightly),
    ],
)
def test_a_job_reads_what_it_declares(changes, n_rules, tmp_path, monkeypatch):
    grid = make_grid(changes)
    trials, store, rules = Trials(grid), tmp_path / "store", set()
    listed = trials.listed() if trials.every else []
    for i, job in enumerate([*study_jobs(grid), *trials.jobs()]):
        if all((store / path).exists() for path in job.paths):
            continue  # a cache shared by study and trials
        if not listed and job.rule in ("halve", "tuned"):
            continue
        inputs = dict(job.inputs)
        if job.rule == "tuned":
            inputs["results"] = results_of_kept(str(store / inputs["kept"]), listed)
        folder = tmp_path / str(i)
        folder.mkdir()
        monkeypatch.chdir(folder)
        perform_alone(job, store, folder, inputs)
        monkeypatch.chdir(tmp_path)
        shutil.rmtree(folder)
        rules.add(job.rule)
    assert len(rules) == n_rules, rules


@pytest.mark.slow
def test_alignments_and_what_is_made_of_them_read_what_they_declare(
    statistics, tmp_path, monkeypatch
):
    store, n = shutil.copytree(statistics, tmp_path / "store"), 0
    monkeypatch.chdir(store)
    rules = ("align", "teacher_targets", "distil", "test_features", "evaluate")
    jobs = statistics_study.jobs_of().of(*rules)
    for job in jobs:
        inputs = dict(job.inputs)
        written = {path: (store / path).read_bytes() for path in flat(job.outputs)}
        (folder := tmp_path / str(n)).mkdir()
        monkeypatch.chdir(folder)
        perform_alone(job, store, folder, inputs)
        monkeypatch.chdir(store)
        assert all((store / path).read_bytes() == old for path, old in written.items()), job.key
        n += 1
    assert n == 12 + 2 + 2 + 2 + 7


def workflow_of(changes, folder):
    """Snakemake's workflow of a configuration, whose rules are read and whose jobs do not run."""
    file = folder / "config.json"
    file.write_text(json.dumps(make_grid(changes).config))
    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        workflow = api.workflow(
            resource_settings=ResourceSettings(cores=1),
            config_settings=ConfigSettings(configfiles=[file]),
            snakefile=ROOT / "Snakefile",
            workdir=folder,
        )._workflow
    return workflow


TRIALS_TOO = STUDY | {"tune": TUNED["tune"], "datasets": TUNED["datasets"]}


def test_the_rules_have_the_files_of_the_list(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    workflow = workflow_of(TRIALS_TOO, tmp_path)
    for job in workflow.globals["JOBS"]:
        rule = workflow.get_rule(job.rule)
        outputs, _ = rule.expand_output(job.key)
        assert sorted(map(str, outputs)) == sorted(flat(job.outputs)), job.rule
        logs = [job.log, *([job.measurements] if job.measurements else [])]
        assert list(map(str, rule.expand_log(job.key))) == logs
        assert str(rule.expand_benchmark(job.key)) == str(job.benchmark)


@pytest.mark.parametrize("changes", [TRIALS_TOO, statistics_study.STUDY])
def test_a_rule_names_its_inputs_and_the_rules_that_write_them(changes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = workflow_of(changes, tmp_path).globals
    by_output, writers = found["JOBS"].by_output, found["WRITERS"]
    for job in found["JOBS"]:
        if job.rule in ("halve", "tuned") and not found["TRIALS"].every:
            continue
        for name, paths in job.inputs.items() if writers.get(job.rule) else ():
            for path in flat({name: paths}) if name != "records" else ():
                rules = re.split(", or | or |, ", writers[job.rule][name])
                writer = by_output[path].rule if path in by_output else "the user"
                assert writer.startswith(tuple(rules)), (job.rule, name)
