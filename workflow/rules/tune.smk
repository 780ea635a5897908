# `snakemake tuned`: the hyperparameter search of `tune`, on validation images.

TUNING = GRID.layout.tuning


localrules:
    halve,
    tuned,


# Evaluates a trial after its first tasks.
rule evaluate_trial:
    input:
        inputs_of("evaluate_trial", **OF_TEST),
    output:
        **RUN.first_outputs(),
    log:
        RUN.first.log,
    benchmark:
        RUN.first.benchmark
    conda:
        ENV
    threads: 1
    resources:
        **COMPUTING,
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        states=layout.STATES,
        spec=param("evaluate_trial", "spec"),
        names=param("evaluate_trial", "names"),
        query_names=param("evaluate_trial", "query_names"),
        teacher_query=param("evaluate_trial", "teacher_query"),
        images_per_class=param("evaluate_trial", "images_per_class"),
    script:
        "../scripts/evaluate.py"


checkpoint halve:
    input:
        inputs_of("halve", results="evaluate_trial"),
    output:
        kept=TUNING.kept.record,
    log:
        TUNING.kept.log,
    conda:
        ENV
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        trials=param("halve", "trials"),
        budget=param("halve", "budget"),
    script:
        "../scripts/halve.py"


rule tuned:
    input:
        inputs_of("tuned", first="evaluate_trial", kept="halve"),
        results=lambda w: results_of_kept(
            checkpoints.halve.get().output.kept, as_workflow_error(TRIALS.listed)()
        ),
    output:
        **without(TUNING.outputs(TRIALS.distillers), "text", "figures"),
        text=report(
            TUNING.text,
            caption="../report/tuned.rst",
            category="Tables",
            labels={"table": "tuned"},
        ),
        figures=report(
            TUNING.outputs(TRIALS.distillers)["figures"],
            caption="../report/tuned.rst",
            category="Figures",
            labels={"figure": "trials"},
        ),
    log:
        TUNING.log,
    conda:
        ENV
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        trials=param("tuned", "trials"),
        budget=param("tuned", "budget"),
        grid=param("tuned", "grid"),
    script:
        "../scripts/tuned.py"
