"""What the rules share: the resolved configuration, its grid, and lookups per wildcard."""

import re
import sys

from snakemake.exceptions import WorkflowError

sys.path.insert(0, str(Path(workflow.basedir, "workflow")))
from caches import needs, target_queries
from configuration import ConfigError, read, resolve
from grid import Grid
from sources import contents, files_of

try:
    for file in workflow.configfiles:
        read(file)
    GRID = Grid(resolve(config))
except ConfigError as error:
    raise WorkflowError(str(error)) from None

ROOT = GRID.root
TABLES = f"{GRID.tables}/tables"
FIGURES = f"{GRID.tables}/figures"
COMPARISON_FILES = {
    **{kind: kind for kind in ("csv", "md", "tex", "html", "json")},
    "runs": "runs.csv",
}
STATES = "results/state"  # of unfinished jobs, under fingerprints
ENV = Path(workflow.basedir, "workflow", "envs", "cdl.yaml")
PREPARED = {Path(GRID.data(name)).name: GRID.source(name) for name in GRID.datasets}
USED = {
    name for run in GRID.runs for name in (run.backbone, run.query, run.teacher) if name
}
FETCHED = {Path(GRID.backbone(name)).stem: GRID.backbone_source(name) for name in USED}
NEEDS = {run.folder: needs(GRID, run) for run in GRID.runs}
TARGETS = {
    n.targets.folder: (run, n) for run in GRID.runs if (n := NEEDS[run.folder]).targets
}
QUERIES = {
    Path(cache.folder).name: cache
    for run in GRID.runs
    for n in [NEEDS[run.folder]]
    for cache in (n.queries, n.teacher_queries, *n.test_queries)
    + ((target_queries(GRID, run),) if n.targets else ())
    if cache
}
COMPUTE = GRID.config["compute"]
# How a job computes changes no number: resources, which are no reason to run again. A GPU named by
# its index is nobody's to lease.
COMPUTING = {
    "gpu": int(COMPUTE["device"] in ("auto", "cuda")),
    "device": COMPUTE["device"],
    "capture": int(COMPUTE["capture"]),
    "save_minutes": str(COMPUTE["save_minutes"]),
    "limit_gb": str(COMPUTE["targets_max_gb"]),
}

RUN = f"{ROOT}/{{dataset}}/{{method}}/{{learner}}/seed{{seed}}"
TASK = f"{RUN}/task{{task}}"
# a learner without a teacher of its own, and one distilled from a teacher
ALONE = r"(teacher|student)-[^/-]+-q-[^/-]+"
DISTILLED = r"[^/-]+-[^/-]+-from-[^/-]+-q-[^/-]+"


wildcard_constraints:
    dataset=r"[^/]+",
    method=r"[^/]+",
    learner=f"{ALONE}|{DISTILLED}",
    seed=r"\d+",
    task=r"\d+",
    prepared=r"[^/]+",
    fetched=r"[^/]+",
    queried=r"[^/]+",


def run_of(wildcards):
    """The run that the wildcards name."""
    w = wildcards
    return GRID.by_folder[f"{w.dataset}/{w.method}/{w.learner}/seed{w.seed}"]


def spec_of(wildcards):
    return GRID.spec(run_of(wildcards))


def teacher_spec_of(wildcards):
    return GRID.spec(GRID.teacher_of(run_of(wildcards)))


def chain_of(wildcards):
    """The submission that a job is part of on a cluster: `chain` tasks of one learner."""
    run = run_of(wildcards)
    length = GRID.config["chain"] or run.n_tasks
    return f"{run.rule}{int(wildcards.task) // length}" if length > 1 else None


def growing(amount):
    """A resource that grows with every retry."""
    return lambda wildcards, attempt: amount * attempt


def source_files(prepared):
    """The record of a source's fetch, or its Parquet files; a folder may hold too many images."""
    source = PREPARED[prepared]["source"]
    if "root" in source:
        return [f"results/data/{prepared}/fetched.json"]
    if source["name"] == "folder":
        return []
    return [ancient(str(file)) for file in files_of(source)]


def source_contents(prepared):
    """A digest that changes with the contents of a source's files, not with their times."""
    source = PREPARED[prepared]["source"]
    return read_contents(files_of(source), f"data/{prepared}")


def backbone_files(source):
    return [Path(source["model"])] if source["source"] == "file" else []


def read_contents(files, name):
    try:
        return contents(files, Path(f"results/{name}.contents.json")) if files else ""
    except ConfigError as error:
        raise WorkflowError(str(error)) from None


def told_by_records(inputs):
    """Inputs in which a small file beside each large one tells whether that has changed.

    The record of a tensor file is the JSON beside it, that of packed data the manifest. Both name
    a sha256, so touching or damaging a large file is no reason to run anything again: the job that
    opens it compares.
    """
    lists = [[v] if isinstance(v, str) else v for v in inputs.values()]
    files = [path for paths in lists for path in paths]
    large = (".safetensors", ".pixels", ".parquet")
    records = [
        f"{p.removesuffix(large[0])}.json" for p in files if p.endswith(large[0])
    ]

    def flagged(value):
        if isinstance(value, list):
            return [flagged(path) for path in value]
        return ancient(value) if value.endswith(large) else value

    return {name: flagged(value) for name, value in inputs.items()} | {
        "records": records
    }


def data_of(dataset, split):
    """The files of a split."""
    names = ("manifest.json", f"{split}.pixels", f"{split}.parquet")
    return [f"{GRID.data(dataset)}/{name}" for name in names]


def query_inputs(split):
    """Input function: what the queries of a split are computed from."""

    def inputs(wildcards):
        cache = QUERIES[wildcards.queried]
        return told_by_records(
            {
                "data": data_of(cache.dataset, split),
                "backbone": GRID.backbone(cache.backbone),
            }
        )

    return inputs


def target_inputs(wildcards):
    """Input function: what a teacher's targets are computed from."""
    folder = f"{ROOT}/{run_of(wildcards).folder}"
    run, _ = TARGETS[folder]
    queries = target_queries(GRID, run)
    task = f"task{wildcards.task}"
    inputs = {
        "data": data_of(run.dataset, "train"),
        "backbone": GRID.backbone(run.teacher),
        "teacher": f"{folder}/{task}/learner.safetensors",
    }
    if queries:
        inputs["queries"] = f"{queries.folder}/{task}.safetensors"
    return told_by_records(inputs)


def learning_inputs(wildcards):
    """Input function: what one task of a run is learnt from; only what is needed is named."""
    run = run_of(wildcards)
    need, task = NEEDS[run.folder], int(wildcards.task)
    inputs = {
        "data": data_of(run.dataset, "train"),
        "backbones": [GRID.backbone(name) for name in need.backbones],
    }
    if task:
        inputs["previous"] = f"{ROOT}/{run.folder}/task{task - 1}/learner.safetensors"
    if need.teacher:
        folder = GRID.teacher_of(run).folder
        inputs["teacher"] = f"{ROOT}/{folder}/task{task}/learner.safetensors"
    for name in ("queries", "teacher_queries"):
        if getattr(need, name):
            inputs[name] = f"{getattr(need, name).folder}/task{task}.safetensors"
    if need.targets:
        inputs["targets"] = f"{need.targets.folder}/task{task}/targets.safetensors"
    return told_by_records(inputs)


def evaluation_inputs(wildcards):
    """Input function: what a run is evaluated from."""
    run = run_of(wildcards)
    need = NEEDS[run.folder]
    inputs = {
        "data": data_of(run.dataset, "test"),
        "backbones": [GRID.backbone(name) for name in need.test_backbones],
        "queries": [f"{cache.folder}/test.safetensors" for cache in need.test_queries],
        "checkpoints": checkpoints_of(wildcards),
    }
    return told_by_records(inputs)


def checkpoints_of(wildcards):
    run = run_of(wildcards)
    return [
        f"{ROOT}/{run.folder}/task{t}/learner.safetensors" for t in range(run.n_tasks)
    ]


def costs_of(run):
    """The benchmark files of a run's tasks."""
    return [f"{ROOT}/{run.folder}/task{t}/{run.rule}.tsv" for t in range(run.n_tasks)]


def compared(comparison):
    """The runs of a comparison with published numbers."""
    return GRID.runs_of(*GRID.comparisons[comparison])


def learner_of(run):
    """What a learner's artifacts must be made of to be those of this configuration."""
    fields = ("backbone", "query", "teacher", "teacher_query")
    names = {getattr(run, field) for field in fields} - {None}
    return {
        "folder": f"{ROOT}/{run.folder}",
        "spec": GRID.spec(run),
        "backbones": {name: GRID.backbone(name) for name in sorted(names)},
    }


def finished_of(run):
    """The arguments of `cdl.finished.finished` for a run."""
    teacher = GRID.teacher_of(run)
    return {
        "learner": learner_of(run),
        "teacher": learner_of(teacher) if teacher else None,
        "tasks": run.n_tasks,
        "data": GRID.data(run.dataset),
        "images_per_class": GRID.config["datasets"][run.dataset][
            "test_images_per_class"
        ],
    }


def evaluations_of(wildcards):
    """Input function: what the runs of a dataset came to."""
    return [
        f"{ROOT}/{run.folder}/{name}"
        for run in GRID.runs
        if run.dataset == wildcards.dataset
        for name in ("results.json", "predictions.parquet")
    ]


def learner_files(run):
    names = ("learner.safetensors", "learner.json", "losses.csv")
    return [
        f"{ROOT}/{run.folder}/task{t}/{name}"
        for t in range(run.n_tasks)
        for name in names
    ]


def everything():
    """All files that must exist: a deleted one is made again even if the tables are newer."""
    files = [
        f"{TABLES}/{name}"
        for name in (
            "results.csv",
            "curves.csv",
            "protocols.json",
            "cost.csv",
            "summary.csv",
            "summary.md",
            "configuration.yaml",
        )
    ]
    files += [
        f"{TABLES}/{name}.{kind}"
        for name in GRID.comparisons
        for kind in COMPARISON_FILES.values()
    ]

    files += [f"{GRID.tables}/index.html"]
    for dataset in GRID.datasets:
        files += [
            f"{FIGURES}/{figure}_{dataset}.{kind}"
            for figure in ("accuracy", "forgetting", "gain", "cost")
            for kind in ("svg", "png")
        ]
        folder = GRID.data(dataset)
        files += [f"{folder}/manifest.json"]
        files += [
            f"{folder}/{s}.{kind}"
            for s in ("train", "test")
            for kind in ("pixels", "parquet")
        ]
    for name in sorted(USED):
        files += [
            GRID.backbone(name),
            GRID.backbone(name).replace(".safetensors", ".json"),
        ]
    for run in GRID.runs:
        files += learner_files(run)
        files += [
            f"{ROOT}/{run.folder}/{name}"
            for name in ("results.json", "predictions.parquet")
        ]
    return files
