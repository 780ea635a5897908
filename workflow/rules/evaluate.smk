# From checkpoints to numbers: one evaluation per run, one tidy table of all runs.


localrules:
    collect,


rule evaluate:
    input:
        unpack(evaluation_inputs),
    output:
        results=f"{RUN}/results.json",
        predictions=f"{RUN}/predictions.parquet",
    log:
        f"{RUN}/evaluate.log",
    benchmark:
        f"{RUN}/evaluate.tsv"
    conda:
        ENV
    threads: 1
    resources:
        **COMPUTING,
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        states=STATES,
        spec=spec_of,
        names=lambda w: NEEDS[run_of(w).folder].test_backbones,
        query_names=lambda w: [
            cache.backbone for cache in NEEDS[run_of(w).folder].test_queries
        ],
        teacher_query=lambda w: run_of(w).mapped_query,
        images_per_class=lambda w: GRID.config["datasets"][w.dataset][
            "test_images_per_class"
        ],
    script:
        "../scripts/evaluate.py"


rule collect:
    input:
        results=[f"{ROOT}/{run.folder}/results.json" for run in GRID.runs],
        costs=[file for run in GRID.runs for file in costs_of(run)],
    output:
        results=f"{TABLES}/results.csv",
        curves=f"{TABLES}/curves.csv",
        cost=f"{TABLES}/cost.csv",
        protocols=f"{TABLES}/protocols.json",
    log:
        f"{TABLES}/collect.log",
    conda:
        ENV
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        rows=[GRID.row(run) for run in GRID.runs],
        costs=[costs_of(run) for run in GRID.runs],
    script:
        "../scripts/collect.py"
