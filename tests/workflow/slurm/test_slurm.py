"""The smallest configuration on SLURM with the profile, with jobs killed while they run."""

import os
import re
import shlex
import shutil
import subprocess
import time

import cluster
import pytest
from runs import ROOT, command_of, contents

DOCS = ROOT / "docs" / "cluster.md"
PROFILE = ROOT / "workflow" / "profiles" / "slurm"
SHARED = ("data", "backbones", "queries")
RUNS = "results/tiny/digits/coda_prompt"
TEACHER = f"{RUNS}/teacher-vit_micro-q-vit_nano/seed0"
TAUGHT = f"{RUNS}/kd-vit_nano-from-vit_micro-q-vit_nano/seed0"
ALONE = f"{RUNS}/student-vit_nano-q-vit_nano/seed0"
GOALS = (f"{ALONE}/task1/learner.safetensors", f"{TAUGHT}/results.json")
ABSENT = cluster.missing()
if ABSENT and not os.environ.get("CI"):
    pytest.skip(
        f"SLURM is not installed (no {', '.join(ABSENT)}): apt-get install slurmctld slurmd munge",
        allow_module_level=True,
    )


@pytest.fixture(scope="module")
def slurm():
    assert not ABSENT, f"SLURM's programs {ABSENT} are not installed; .ci/run installs them"
    with cluster.running() as running:
        yield running


class Workflow:
    """Start a snakemake that submits to the cluster, and end it with the block."""

    def __init__(self, slurm, folder, *arguments):
        options = ["--workflow-profile", PROFILE, "--latency-wait", "10"]
        options += ["--slurm-init-seconds-before-status-checks", "1"]
        command = command_of(folder, *options, *arguments)
        self.slurm, self.log = slurm, folder / "snakemake.log"
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(
                command, env=slurm.environment, stdout=log, stderr=subprocess.STDOUT
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def until(self, condition):
        """Return the value of a condition as soon as it is true."""
        while self.process.poll() is None:
            if result := condition():
                return result
            time.sleep(0.1)
        raise AssertionError(f"snakemake ended too early:\n{self.log.read_text()[-4000:]}")

    def running(self, name, number):
        """Return the ids of `number` running jobs of a group or rule, as soon as they run."""

        def ids():
            jobs = [j["JobId"] for j in named(self.slurm, name) if j["JobState"] == "RUNNING"]
            return jobs if len(jobs) >= number else None

        return self.until(ids)

    def end(self):
        self.process.wait(900)
        return self.process.returncode


def named(slurm, name):
    """Return all jobs of a group or rule, oldest first."""
    return [job for job in slurm.jobs() if job.get("Comment", "").startswith(f"rule_{name}_")]


@pytest.fixture(scope="module")
def disturbed(slurm, finished, tmp_path_factory):
    """Return two students, one evaluated, with a cancelled, a timed-out and a preempted job.

    What all learners share is that of a local run; its jobs start on the cluster at night.
    """
    folder = tmp_path_factory.mktemp("slurm")
    for name in SHARED:
        shutil.copytree(finished / "results" / name, folder / "results" / name)
    with Workflow(slurm, folder, *GOALS) as workflow:
        cancelled, late = workflow.running("train0", 2)
        slurm.ask("scancel", cancelled)
        slurm.ask("scontrol", "update", f"JobId={late}", "EndTime=now")  # its time limit ends now
        workflow.running("distil0", 1)
        urgent = ["-p", "urgent", "-c", "2", "--mem", "100"]  # all cores of the node
        slurm.ask("sbatch", *urgent, "-o", "/dev/null", "--wrap", "true")
        assert workflow.end() == 0, workflow.log.read_text()[-4000:]
    return folder


def test_every_chain_is_one_job_and_each_step_its_own_artifact(slurm, disturbed):
    done = [job for job in slurm.jobs() if job["JobState"] == "COMPLETED" and "Comment" in job]
    assert sorted(job["Comment"].split("_wildcards")[0] for job in done) == [
        "rule_distil0_distil",
        "rule_evaluate",
        "rule_train0_teacher_targets_train",
        "rule_train0_train",
    ]
    assert len(list(disturbed.glob("results/tiny/digits/*/*/*/task[01]/learner.json"))) == 6
    for job in done:
        assert f"JobId={job['JobId']} " in slurm.completed()  # in the record of ended jobs
        assert list((disturbed / ".snakemake" / "slurm_logs").rglob(f"{job['JobId']}.log"))
        assert (job["Partition"], job["TresPerJob"]) == ("gpu", "gres/gpu:1")
        assert job["NumCPUs"] == "1"


def test_cancelled_and_late_jobs_are_retried_with_more(slurm, disturbed):
    jobs = sorted(named(slurm, "train0"), key=lambda job: (job["Comment"], int(job["JobId"])))
    states = [job["JobState"] for job in jobs]
    assert states[1::2] == ["COMPLETED", "COMPLETED"]
    # the late job counts as failed if it saved and exited before the controller ended it
    assert sorted(states[::2]) in (["CANCELLED", "TIMEOUT"], ["CANCELLED", "FAILED"])
    assert [job["MinMemoryNode"] for job in jobs] == ["4000M", "8000M"] * 2
    minutes = {"rule_train0_teacher_targets_train": "04:00:00", "rule_train0_train": "02:00:00"}
    for job in jobs[1::2]:
        assert job["TimeLimit"] == minutes[job["Comment"]]  # 30 for each step, twice


def test_a_preempted_job_takes_its_next_turn(slurm, disturbed):
    assert "1" in [job["Restarts"] for job in named(slurm, "distil0")]


def test_results_are_those_of_a_local_run(disturbed, finished):
    local, found = contents(finished), contents(disturbed)
    for name in [name for name in found if name.startswith("results/state/")]:
        del found[name]  # of learners that are not evaluated
    assert set(GOALS) <= found.keys()
    assert {name: local.get(name) for name in found} == found


@pytest.mark.nightly
def test_tables_of_a_study_from_its_data_on_are_those_of_a_local_run(slurm, finished, tmp_path):
    earlier = {job["JobId"] for job in slurm.jobs()}
    with Workflow(slurm, tmp_path) as workflow:
        assert workflow.end() == 0, workflow.log.read_text()[-4000:]
    assert contents(tmp_path) == contents(finished)
    jobs = [job for job in slurm.jobs() if job["JobId"] not in earlier]
    places = {
        job["Comment"].split("_wildcards")[0]: (job["Partition"], job.get("TresPerJob"))
        for job in jobs
    }
    assert places.pop("rule_prepare_dataset") == ("cpu", None)
    assert "rule_queries_queries_test_queries" in places
    assert {*places.values()} == {("gpu", "gres/gpu:1")}


@pytest.mark.nightly
def test_a_failed_chain_and_a_killed_snakemake_go_on(slurm, disturbed, tmp_path):
    for name in SHARED:
        shutil.copytree(disturbed / "results" / name, tmp_path / "results" / name)
    target = f"{TEACHER}/task1/learner.safetensors"
    first = tmp_path / TEACHER / "task0" / "learner.safetensors"
    with Workflow(slurm, tmp_path, "--retries", "0", target) as workflow:
        workflow.until(first.with_name("train.tsv").exists)
        slurm.ask("scancel", *workflow.running("train0", 1))
        assert workflow.end() == 1
    written = first.stat().st_mtime_ns
    assert not (tmp_path / target).exists()

    gres = ["train:slurm_partition=gpu", "train:gpu=0", "train:gres=gpu:1"]
    with Workflow(slurm, tmp_path, target, "--set-resources", *gres) as workflow:
        (orphan,) = workflow.running("train0", 1)
        workflow.process.kill()
    unlock = shlex.join(map(str, command_of(tmp_path)))
    (recovery,) = re.findall(r"```sh\n(RUN=.*?)```", DOCS.read_text(), re.DOTALL)
    script = f'set -eu; snakemake() {{ {unlock} "$@"; }}\n{recovery}'
    subprocess.run(["bash", "-c", script], cwd=tmp_path, env=slurm.environment, check=True)
    assert {job["JobId"]: job["JobState"] for job in slurm.jobs()}[orphan] == "CANCELLED"

    with Workflow(slurm, tmp_path, target, "--set-resources", *gres) as workflow:
        assert workflow.end() == 0, workflow.log.read_text()[-4000:]
    assert first.stat().st_mtime_ns == written
    assert (tmp_path / target).read_bytes() == (disturbed / target).read_bytes()
    assert named(slurm, "train0")[-1]["TresPerNode"] == "gres/gpu:1"
