"""Messages about results that a run will overwrite, and deletion of unused results."""

import json
import subprocess
from pathlib import Path

import pytest
from lab import make_grid
from runs import planned, snakemake

from cdl import cli
from cdl.inventory import cleaning
from cdl.inventory.cleaning import drop, leftovers
from cdl.inventory.overwriting import overwritten
from cdl.runtime.errors import CdlError
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


def named(found):
    return {str(item.path) for item in found}


def test_what_a_run_overwrites_is_said_before_it(here):
    assert overwritten(jobs({})) == []
    first, line, last = overwritten(jobs(ALPHA))
    assert first == "1 finished run with other values will be overwritten:"
    assert line.strip() == (
        "digits/coda_prompt/kd-vit_nano-from-vit_micro-q-vit_nano/seed0: distiller.alpha 0.5, now "
        "0.9"
    )
    assert "rename this configuration" in last
    many = overwritten(jobs({"training": {"lr": 0.5}}))
    assert many[0] == "4 finished runs with other values will be overwritten:"


def test_snakemake_says_it_even_in_a_dry_run_and_how_to_verify_with_nothing_to_do(here):
    edited = snakemake(here, "-n", "--quiet", "rules", overlay="distillers: {kd: {alpha: 0.9}}")
    assert "seed0: distiller.alpha 0.5, now 0.9" in edited.stdout + edited.stderr
    nothing = snakemake(here, "--cores", "1")
    said = nothing.stdout + nothing.stderr
    assert "Nothing to be done" in said
    assert "`cdl verify " in said and "overwritten" not in said


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
