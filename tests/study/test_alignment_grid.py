"""Runs that differ in alignment: whose training they share, their folders, and baselines."""

import json
from collections import Counter
from types import SimpleNamespace

import pytest
from lab import make_grid
from scripts import SCRIPTS
from snakemake.api import SnakemakeApi
from snakemake.settings.enums import Quietness
from snakemake.settings.types import ConfigSettings, OutputSettings, ResourceSettings
from statistics_study import ENTRIES, STUDY

from cdl.spec import ClassMeans
from cdl.study.configuration import ConfigError
from cdl.study.jobs import Jobs, flat
from cdl.study.learning_jobs import LearningJobs
from cdl.study.specifications import row, specification

SLCA = {"alignment": {"preset": "slca"}}
MEANS = {"preset": "class_means"}
HIDE = {"alignment": {"preset": "hide"}}


def grid(*distillers, method=SLCA, methods=("coda_prompt",), more=None, **changes):
    grid = {"distillers": list(distillers), "methods": list(methods), **(more or {})}
    return make_grid({"methods": {"coda_prompt": method}, "grid": grid} | changes)


def entry(block, variant, **alignment):
    return {"block": block, "variant": variant, "alignment": alignment or None}


def trained(made):
    """The folder's learner that each learner is trained as, by its own."""
    return {run.learner.split("-")[0]: made.trained(run).learner.split("-")[0] for run in made.runs}


def test_entries_of_alignment_share_the_training_of_the_block_without_a_variant():
    entries = [ENTRIES[name] for name in ("self", "taught", "own", "heads")]
    expected = {"teacher": "teacher", "student+self": "student", "none+taught": "student"}
    expected |= {"kd+own": "kd", "kd+heads": "kd"}
    assert trained(grid(*entries)) == expected  # which need not be in the grid
    whole = trained(grid("none", "kd", *entries))
    assert whole == expected | {"student": "student", "kd": "kd"}


def test_an_entry_with_another_training_shares_with_entries_of_that_training_only():
    faster = {"training": {"lr": 0.5}}
    made = grid(
        *("none", entry("none", "self", labels="self")),
        entry("none", "fast", labels="self") | faster,
        {"block": "none", "variant": "bare"} | faster,
    )
    shared = {"student+self": "student", "student+fast": "student+bare"}
    assert trained(made).items() >= shared.items()


def test_an_entry_equal_to_its_block_keeps_its_own_folder():
    same = {"block": "kd", "variant": "alpha", "alpha": 0.5}
    for method in ({}, SLCA):
        assert trained(grid("kd", same, method=method))["kd+alpha"] == "kd+alpha"


def test_methods_that_differ_in_alignment_share_teachers_and_undistilled_students():
    aligned = {"block": "coda_prompt", "variant": "aligned", **SLCA}
    made = grid("none", "kd", method={}, methods=["coda_prompt", aligned])
    folders = {run.folder: made.trained(run).folder for run in made.runs}
    for learner in ("teacher-vit_micro-q-vit_nano", "student-vit_nano-q-vit_nano"):
        plain = f"digits/coda_prompt/{learner}/seed0"
        assert folders[f"digits/coda_prompt+aligned/{learner}/seed0"] == plain == folders[plain]
    own = "digits/coda_prompt+aligned/kd-vit_nano-from-vit_micro-q-vit_nano/seed0"
    assert folders[own] == own  # its teacher's heads are aligned
    assert Counter(job.rule for job in Jobs(LearningJobs(made)))["train"] == 4


def test_what_starts_from_aligned_heads_shares_no_training():
    made = grid("none", entry("none", "heads"), entry("none", "slca", preset="slca"), method=HIDE)
    same = ("teacher", "student", "student+heads", "student+slca")
    assert trained(made) == dict(zip(same, same, strict=True))
    specs = [specification(made, made.trained(run)).alignment for run in made.runs]
    assert [spec is None for spec in specs] == [False, False, True, True]
    (job,) = [j for j in LearningJobs(made) if j.rule == "train" and _is(j, "student-", 1)]
    assert job.inputs["previous"].endswith(
        "student-vit_nano-q-vit_nano/seed0/task0/aligned.safetensors"
    )
    (job,) = [j for j in LearningJobs(made) if j.rule == "train" and _is(j, "student+heads-", 1)]
    assert job.inputs["previous"].endswith("task0/learner.safetensors")


def _is(job, learner, task):
    return job.key["learner"].startswith(learner) and job.key["task"] == str(task)


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        (
            lambda: grid("kd", method={"alignment": {"preset": "slca", "labels": "teacher"}}),
            r"^methods.coda_prompt.alignment.labels: invalid value 'teacher', since teachers have",
        ),
        (
            lambda: grid(entry("none", "x", labels="teacher"), method=HIDE),
            r"^grid.distillers.x.alignment.labels: invalid value 'teacher' with the method 'coda_",
        ),
        (
            lambda: grid(entry("kd", "x", next_task="aligned")),
            r"^grid.distillers.x.alignment.next_task: invalid value 'aligned' for one distiller",
        ),
        (
            lambda: grid("kd", method={"alignment": MEANS | {"lr": 0.1}}),
            r"^methods.coda_prompt.alignment.lr: invalid value 0.1 with preset: class_means, which "
            r"samples and trains nothing; expected null$",
        ),
        (
            lambda: grid(entry("kd", "x", samples=8), method={"alignment": MEANS}),
            r"^grid.distillers.x.alignment.samples: invalid value 8 with preset: class_means",
        ),
        (
            lambda: grid("kd", method={"alignment": MEANS | {"next_task": "aligned"}}),
            r"^methods.coda_prompt.alignment.next_task: .* expected trained: the next task trains",
        ),
        (
            lambda: grid(entry("kd", "x", labels="own"), method={}),
            r"^grid.distillers.x.alignment.preset: is missing, and the method 'coda_prompt' has no",
        ),
        (
            lambda: grid({"block": "none", "variant": "x", "alignment": {}}),
            r"the variant 'x' of none overrides nothing; write none",
        ),
        (
            lambda: grid(entry("kd", "x", labels="its")),
            r"^grid.distillers.x.alignment.labels: 'its' is not one of \['own', 'self', 'nearest',",
        ),
    ],
)
def test_an_alignment_that_cannot_be_is_one_sentence(made, sentence):
    with pytest.raises(ConfigError, match=sentence) as caught:
        made()
    assert "\n" not in str(caught.value)


def test_class_means_are_a_variant_of_the_training_of_linear_heads():
    means = entry("none", "means", **MEANS, labels="nearest", drift="sdc", next_task="trained")
    made = grid("none", means, method={})
    (run,) = [run for run in made.runs if run.distiller.variant == "means"]
    assert made.trained(run).learner == "student-vit_nano-q-vit_nano"
    spec, again = specification(made, run), specification(made, made.trained(run))
    assert isinstance(spec.alignment, ClassMeans) and again.alignment is None
    assert type(spec).from_json(spec.to_json()) == spec
    joint = {"block": "coda_prompt", "variant": "joint", "joint": True, "alignment": MEANS}
    assert any(run.aligned for run in grid("none", methods=[joint], method={}).runs)


def test_a_gain_is_over_the_baseline_that_the_grid_names():
    taught, own = entry("none", "taught", labels="teacher"), entry("kd", "own", labels="own")
    some = [{"over": "none+taught", "distiller": ["kd", "none"]}]
    for baseline, expected in (
        ("none", {"kd": "student", "kd+own": "student", "none+taught": "student"}),
        ("none+taught", {"kd": "none+taught", "student": "none+taught"}),
        (some, {"kd": "none+taught", "kd+own": "student", "student": "none+taught"}),
    ):
        made = grid("none", taught, "kd", own, more={"baseline": baseline})
        for learner, over in expected.items():
            (run,) = [run for run in made.runs if run.learner.split("-")[0] == learner]
            assert made.baseline(run).learner.split("-")[0] == over, baseline
            assert row(made, run)["baseline_run"].split("/")[-2].startswith(f"{over}-")
    excluded = [{"distiller": "none+taught"}]  # plain none takes its place
    made = grid("none", taught, "kd", more={"baseline": "none+taught", "exclude": excluded})
    assert {made.baseline(run).distiller.label for run in made.runs if run.role == "student"} == {
        "none"
    }
    made = grid(taught, "kd")
    assert [made.baseline(run) for run in made.runs] == [None] * 3


@pytest.mark.parametrize(
    ("baseline", "sentence"),
    [
        ("dkd", "grid.baseline: 'dkd' is not defined .*; expected one of kd, none"),
        ([{"over": "none", "distiller": "kd+own"}], "grid.baseline: 'kd\\+own' is not defined"),
        ([{"over": "none", "distiller": ["kd", "kd"]}], "grid.baseline: 'kd' has two baselines"),
        ([{"over": "none"}], "grid.baseline.0.distiller|'distiller' is a required property"),
        (3, "grid.baseline"),
    ],
)
def test_a_baseline_that_the_grid_does_not_have_is_refused(baseline, sentence):
    with pytest.raises(ConfigError, match=sentence):
        grid("none", "kd", more={"baseline": baseline})


def test_a_teacher_that_labels_is_read_by_the_alignment_alone():
    made = make_grid(STUDY)
    jobs = Jobs(LearningJobs(made))
    (labelled,) = [r for r in made.runs if r.distiller.variant == "taught"]
    assert labelled.folder.endswith("none+taught-vit_nano-from-vit_micro-q-vit_nano/seed0")
    assert specification(made, made.trained(labelled)).teacher is None
    for job in jobs.of("align"):
        has = any("targets.safetensors" in path for path in flat(job.inputs))
        assert has == job.key["learner"].startswith(("none+taught", "kd-")), job.key
        drifts = job.key["learner"].startswith("none+taught") and job.key["task"] == "1"
        assert ("before" in job.inputs) == drifts
    (first,) = [j for j in jobs.of("train") if _is(j, "student-", 0)]
    assert "teacher_spec" not in first.params and not {"teacher", "targets"} & first.inputs.keys()


@pytest.mark.parametrize("chain", [None, 2])
def test_groups_of_a_cluster_wait_for_each_other_in_one_order(chain, tmp_path, monkeypatch):
    labels = STUDY["datasets"]["digits"]
    made = make_grid(STUDY | {"datasets": {"digits": labels | {"tasks": 5}}, "chain": chain})
    file = tmp_path / "config.json"
    file.write_text(json.dumps(made.config))
    monkeypatch.chdir(tmp_path)
    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        workflow = api.workflow(
            resource_settings=ResourceSettings(cores=1),
            config_settings=ConfigSettings(configfiles=[file]),
            snakefile=SCRIPTS.parents[1] / "Snakefile",
            workdir=tmp_path,
        )._workflow
    group_of, jobs = workflow.globals["chain_of"], Jobs(LearningJobs(made))

    def group(job):
        """Return the submission of a job; Snakemake splits those whose jobs are not connected."""
        grouped = job.rule in ("train", "distil", "align")
        return group_of(SimpleNamespace(**job.key)) if grouped else job

    left = {}
    for job in jobs:
        makers = {jobs.by_output[p] for p in flat(job.inputs) if p in jobs.by_output}
        waits = {group(other) for other in makers}
        left.setdefault(group(job), set()).update(waits - {group(job)})
    assert len([name for name in left if isinstance(name, str)]) == (6 if chain else 2)
    while left:
        ready = [name for name, waits in left.items() if not waits & left.keys()]
        assert ready, f"these groups wait for each other: {left.keys()}"
        for name in ready:
            del left[name]
