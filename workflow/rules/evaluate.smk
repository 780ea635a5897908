# From checkpoints to numbers: one evaluation per run, one tidy table of all runs.


localrules:
    collect,


rule evaluate:
    input:
        unpack(lambda w: tracked(INPUTS.evaluation(run_of(w)))),
    output:
        results=RUN.results,
        predictions=RUN.predictions,
    log:
        RUN.evaluation.log,
    benchmark:
        RUN.evaluation.benchmark
    conda:
        ENV
    threads: 1
    resources:
        **COMPUTING,
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        states=layout.STATES,
        spec=spec_of,
        names=lambda w: INPUTS.of(run_of(w)).test_backbones,
        query_names=lambda w: [c.backbone for c in INPUTS.of(run_of(w)).test_queries],
        teacher_query=lambda w: run_of(w).mapped_query,
        images_per_class=lambda w: GRID.test_images_per_class(w.dataset),
        revision=EVALUATION,
    script:
        "../scripts/evaluate.py"


rule collect:
    input:
        results=INPUTS.collected["results"],
        predictions=INPUTS.collected["predictions"],
        costs=[file for files in INPUTS.collected["costs"] for file in files],
    output:
        results=TABLES.results,
        curves=TABLES.curves,
        cost=TABLES.cost,
        cost_text=report(
            TABLES.cost_text,
            caption="../report/cost_table.rst",
            category="Tables",
            labels={"table": "cost"},
        ),
        cost_record=TABLES.record("cost"),
        classes=TABLES.classes,
        confusion=TABLES.confusion,
        protocols=TABLES.protocols,
    log:
        TABLES.log("collect"),
    conda:
        ENV
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        rows=INPUTS.collected["rows"],
        costs=INPUTS.collected["costs"],
    script:
        "../scripts/collect.py"
