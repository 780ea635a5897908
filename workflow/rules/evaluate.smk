# From checkpoints to numbers: one evaluation per run, one tidy table of all runs.


localrules:
    collect,


rule evaluate:
    input:
        data=data_of("test"),
        backbones=backbones_of("backbone", "query", "mapped_query"),
        checkpoints=checkpoints_of,
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
        mem_mb=4000,
        runtime=60,
    params:
        spec=spec_of,
        names=backbone_names_of("backbone", "query", "mapped_query"),
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
