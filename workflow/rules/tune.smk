# `snakemake tuned`: what `tune` asks for, tried on validation images.

from cdl.tuning.trials import results_of_kept

TUNING = GRID.layout.tuning
asked = told(GRID.asked)


localrules:
    halve,
    tuned,


# A trial after its first tasks.
rule evaluate_trial:
    input:
        unpack(lambda w: tracked(INPUTS.evaluation(run_of(w), GRID.first_tasks))),
    output:
        results=RUN.first.record,
        predictions=RUN.first_predictions,
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
        spec=spec_of,
        names=lambda w: INPUTS.of(run_of(w)).test_backbones,
        query_names=lambda w: [c.backbone for c in INPUTS.of(run_of(w)).test_queries],
        teacher_query=lambda w: run_of(w).mapped_query,
        images_per_class=lambda w: GRID.test_images_per_class(w.dataset),
    script:
        "../scripts/evaluate_trial.py"


checkpoint halve:
    input:
        results=lambda w: [file for trial in asked() for file in trial["first"]],
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
        trials=lambda w: asked(),
        budget=lambda w: GRID.budget(),
    script:
        "../scripts/halve.py"


rule tuned:
    input:
        first=lambda w: [file for trial in asked() for file in trial["first"]],
        kept=TUNING.kept.record,
        results=lambda w: results_of_kept(checkpoints.halve.get().output.kept, asked()),
    output:
        overlay=TUNING.overlay,
        trials=TUNING.trials,
        text=report(
            TUNING.text,
            caption="../report/tuned.rst",
            category="Tables",
            labels={"table": "tuned"},
        ),
        figures=report(
            [TUNING.figure(name) for name in GRID.tuned_distillers],
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
        trials=lambda w: asked(),
        budget=lambda w: GRID.budget(),
    script:
        "../scripts/tuned.py"
