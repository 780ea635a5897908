"""Two configurations that run in one folder share common files without conflicts."""

import shutil

from runs import contents, popen, run, snakemake
from test_faults import end, forget, job_of

OTHER = "name: other\ngrid: {distillers: [none]}\n"
TEACHER = "results/other/digits/coda_prompt/teacher-vit_micro-q-vit_nano/seed0/task0"


def test_a_second_configuration_that_needs_what_the_first_is_making_is_refused(copied):
    shutil.rmtree(copied / "results" / "data")
    started = popen(copied)
    try:
        job_of(started, "prepare_dataset")
        second = snakemake(copied, "--cores", "1", overlay=OTHER)
        assert second.returncode != 0
        assert "cannot be locked" in second.stderr
        assert not (copied / "results" / "other").exists()
    finally:
        end(started)


def test_configurations_that_share_finished_data_and_queries_run_at_once(finished, copied):
    forget(copied)
    started = popen(copied)
    try:
        job_of(started, "distil")
        run(copied, f"{TEACHER}/learner.safetensors", overlay=OTHER)
        assert started.wait() == 0, started.communicate()[0][-2000:]
    finally:
        if started.poll() is None:
            end(started)
    after = contents(copied)
    for name, sha256 in contents(finished).items():
        assert after[name] == sha256, name
