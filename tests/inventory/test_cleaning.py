"""Messages about results that a run will overwrite, and deletion of unused results."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from lab import make_grid
from PIL import Image
from runs import contents, planned, run, snakemake

from cdl import cli, load
from cdl.deployment.learn import learn
from cdl.inventory import cleaning
from cdl.inventory.cleaning import drop, leftovers
from cdl.inventory.overwriting import deleted, overwritten
from cdl.inventory.starting import refuse_future, refuse_learnt
from cdl.inventory.state import States
from cdl.runtime.errors import Busy, CdlError
from cdl.runtime.folders import new_folder
from cdl.runtime.jobs import Execution
from cdl.study.jobs import Jobs
from cdl.study.learning_jobs import LearningJobs
from cdl.study.specifications import chosen

ALPHA = {"distillers": {"kd": {"alpha": 0.9}}}
RUNS = "results/tiny/digits/coda_prompt"


@pytest.fixture
def here(copied, monkeypatch):
    monkeypatch.chdir(copied)
    return copied


def jobs(changes):
    return Jobs(LearningJobs(make_grid(changes)))


def states(changes):
    return States(jobs(changes))


def named(found):
    return {str(item.path) for item in found}


def test_what_a_run_overwrites_is_said_before_it(here):
    assert overwritten(states({})) == []
    first, line, last = overwritten(states(ALPHA))
    assert first == "1 finished run with other values will be overwritten:"
    assert line.strip() == (
        "digits/coda_prompt/kd-vit_nano-from-vit_micro-q-vit_nano/seed0: distiller.alpha was 0.5, "
        "is 0.9"
    )
    assert "rename this configuration" in last
    many = overwritten(states({"training": {"lr": 0.5, "epochs": 2}, **ALPHA}))
    assert many[0] == "4 finished runs with other values will be overwritten:"
    (line,) = (line for line in many if "/kd-" in line)  # every field that has changed
    fields = ("distiller.alpha", "training.epochs", "training.lr")
    assert [f"{field} was " in line for field in fields] == [True] * 3


def test_snakemake_says_it_even_in_a_dry_run_and_how_to_verify_with_nothing_to_do(here):
    edited = snakemake(here, "-n", "--quiet", "rules", overlay="distillers: {kd: {alpha: 0.9}}")
    assert "seed0: distiller.alpha was 0.5, is 0.9" in edited.stdout + edited.stderr
    for verbose in ((), ("--verbose",)):
        nothing = snakemake(here, "--cores", "1", *verbose)
        said = nothing.stdout + nothing.stderr
        assert "Nothing to be done" in said and "overwritten" not in said
        assert ("`cdl verify " in said) == bool(verbose)


def test_deleted_caches_and_benchmark_files_are_named_when_no_job_is_planned_for_them(here):
    all_jobs = jobs({})
    assert deleted(states({})) == []
    cache = all_jobs.of("queries")[0].records[0].path
    benchmark = all_jobs.of("train")[0].benchmark
    for path in (cache, benchmark):
        Path(path).unlink()
    (line,) = deleted(States(all_jobs))
    assert line.startswith(f"'{cache}' and 1 more: deleted; caches are made again when a job needs")
    assert planned(here) == {}
    assert deleted(states(ALPHA)) == []  # what other values need was never made
    Path(all_jobs.of("evaluate")[0].records[0].path).unlink()
    assert deleted(States(all_jobs)) == []  # the plan lists what the evaluation needs


def test_rows_say_what_differs_from_the_defaults():
    grid = make_grid({"distillers": {"kd": {"alpha": 0.9, "temperature": 2}}})
    kd = next(block for block in grid.distillers if block.name == "kd")
    assert chosen(grid, "distillers", kd) == "alpha=0.9"
    assert chosen(grid, "methods", grid.methods[0]) == "pool_per_task=4"
    plain = make_grid({})
    assert chosen(plain, "distillers", next(b for b in plain.distillers if b.name == "kd")) == ""


def test_nothing_that_a_configuration_names_is_left_over(here):
    assert leftovers([make_grid({})]) == []
    assert planned(here) == {}


def test_runs_caches_and_data_that_no_configuration_names_are_dropped_and_no_other(here):
    subprocess.run(["cp", "-r", "results/tiny", "results/old"], check=True)
    Path("results/mine").mkdir()  # not written by this program
    Path("results/mine/notes.txt").write_text("x")
    Path("results/link").symlink_to("tiny")
    Path("results/state/x.safetensors").parent.mkdir(exist_ok=True)
    Path("results/state/x.safetensors").write_text("x")
    Path("results/data/other-12345678").mkdir()
    smaller = make_grid({"grid": {"distillers": ["none", "kd"]}})
    found = leftovers([smaller])
    assert named(found) == {
        "results/old",
        "results/data/other-12345678",
        f"{RUNS}/cdl_prompt-vit_nano-from-vit_micro-q-vit_nano",
    }
    size = sum(f.stat().st_size for f in Path("results/old").rglob("*") if f.is_file())
    assert next(item.size for item in found if str(item.path) == "results/old") == size
    drop(found)
    assert leftovers([smaller]) == []
    assert Path("results/mine/notes.txt").exists() and Path("results/link").is_symlink()
    assert Path("results/state/x.safetensors").exists()
    assert Path(RUNS, "kd-vit_nano-from-vit_micro-q-vit_nano/seed0/results.json").exists()


def test_a_folder_that_a_link_leads_out_of_results_is_not_touched(here, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    (outside / "seed0/task0").mkdir(parents=True)
    Path("results/old/digits/l2p").mkdir(parents=True)
    Path("results/old/digits/l2p/kd-a-from-b-q-a").symlink_to(outside)
    Path("results/data/linked-12345678").symlink_to(outside)
    drop(leftovers([make_grid({})]))
    assert (outside / "seed0/task0").is_dir()
    assert Path("results/data/linked-12345678").is_symlink()


def test_nothing_is_dropped_while_snakemake_works(here, monkeypatch):
    monkeypatch.setattr(cleaning, "at_work", lambda: True)
    with pytest.raises(CdlError, match="snakemake is running in this folder"):
        drop(leftovers([make_grid({"name": "other"})]))
    assert Path(RUNS).is_dir()


def test_nothing_is_dropped_while_a_run_learns_and_the_rest_of_a_killed_one_is(here):
    target = Path("results/mine/a/b/c/seed0")
    with new_folder(target) as learning:
        assert leftovers([make_grid({})]) == []
        with pytest.raises(Busy, match=f"{learning}: is being made by process {os.getpid()} on"):
            drop(leftovers([make_grid({"name": "other"})]))
        shutil.copytree(learning, learning.with_name(".seed1.partial"))  # its process was killed
    found = leftovers([make_grid({})])
    assert named(found) == {"results/mine/a/b/c/.seed1.partial"}
    drop(found)
    assert os.listdir(target.parent) == ["seed0"] and Path(RUNS).is_dir()


@pytest.fixture
def learnt(here, tmp_path_factory):
    """The finished configuration and, under `mine`, its student with one more task."""
    images = tmp_path_factory.mktemp("images")
    for name, colour in (("red", 250), ("dark", 0)):
        (images / name).mkdir()
        for i in range(3):
            Image.new("RGB", (8, 8), (colour, i, i)).save(images / name / f"{i}.png")
    student = Path(RUNS, "student-vit_nano-q-vit_nano/seed0")
    return Path(learn(student, images, "mine", execution=Execution(device="cpu")).run)


def test_learnt_runs_are_kept_with_all_they_need_unless_they_are_named(learnt, capsys):
    (data,) = Path("results/data").glob("mine-*")
    other = make_grid({"name": "other", "grid": {"distillers": ["none"]}})
    found = named(leftovers([other]))
    assert "results/tiny" in found and "results/mine" not in found and str(data) not in found
    drop(leftovers([other]))
    assert load(learnt).predict(np.zeros((8, 8, 3), np.uint8))
    again = make_grid({"name": "last", "datasets": {"digits": {"view": {"size": 8}}}})
    drop(leftovers([again]))
    assert load(learnt).predict(np.zeros((8, 8, 3), np.uint8)) and data.is_dir()
    with pytest.raises(
        CdlError, match="--learnt: 'nine' has no run of cdl learn; expected .* mine"
    ):
        leftovers([other], ["nine"])
    assert {"results/mine", str(data)} <= named(leftovers([other], ["mine"]))


def test_a_configuration_of_the_name_of_a_learnt_run_is_refused(learnt):
    before = contents(Path("."))
    refuse_learnt(jobs({}))
    with pytest.raises(
        CdlError, match="mine/.*/seed0: was made by `cdl learn`.* would overwrite it"
    ):
        refuse_learnt(jobs({"name": "mine"}))
    started = snakemake(Path.cwd(), "--cores", "1", overlay="name: mine")
    assert started.returncode == 1
    assert "seed0: was made by `cdl learn`, and this configuration would" in started.stderr
    assert contents(Path(".")) == before


def test_inputs_dated_in_the_future_are_refused_before_any_job(here):
    Path("results/tiny/tables/summary.md").unlink()
    for path in Path("results").rglob("*"):
        os.utime(path, (4e9, 4e9))
    before = contents(Path("."))
    started = snakemake(Path.cwd(), "--cores", "1")
    assert started.returncode == 1
    sentence = r"results/\S+ and \d+ more: dated in the future, .*: (find results .* \+)\n"
    found = re.search(sentence, started.stderr)
    assert found and contents(Path(".")) == before
    subprocess.run(found[1], shell=True, check=True)
    assert planned(here).keys() == {"tabulate", "plot", "page"}
    run(here)


def test_only_inputs_that_no_job_makes_and_that_exist_are_checked(tmp_path):
    (tmp_path / "mine.parquet").touch()
    os.utime(tmp_path / "mine.parquet", (4e9, 4e9))
    mine, data = str(tmp_path / "mine.parquet"), "results/data"
    job = SimpleNamespace(input=[mine, "none"], output=[data])
    refuse_future([SimpleNamespace(input=[data], output=[])])
    refuse_future([job, SimpleNamespace(input=[], output=[mine])])
    with pytest.raises(CdlError, match=rf"{mine}: dated in the .* find {tmp_path} -newermt now"):
        refuse_future([job])


def test_clean_only_says_so_unless_told_yes(here, capsys):
    Path("results/data/other-12345678").mkdir()
    Path("results/data/other-12345678/x").write_bytes(bytes(10**6))
    from runs import CONFIGS

    asked = ["clean", "+".join(map(str, CONFIGS)), "--json"]
    for yes in (False, True):
        cli.app([*asked, *(["--yes"] if yes else [])], standalone_mode=False)
        answer = json.loads(capsys.readouterr().out)
        assert answer == {
            "deleted": yes,
            "bytes": 10**6,
            "paths": {"results/data/other-12345678": 10**6},
        }
        assert Path("results/data/other-12345678").exists() != yes
