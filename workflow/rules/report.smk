# Figures for `snakemake --report`, and the page with all runs.


localrules:
    plot,
    plot_prompts,
    chosen_prompts,
    label_efficiency,
    page,


rule plot:
    input:
        inputs_of("plot"),
    output:
        **without(REPORT.plotted("{dataset}"), *layout.FIGURES),
        accuracy=report(
            REPORT.figure("accuracy", "{dataset}", "svg"),
            caption="../report/accuracy.rst",
            category="Figures",
            labels={"figure": "accuracy over tasks", "dataset": "{dataset}"},
        ),
        forgetting=report(
            REPORT.figure("forgetting", "{dataset}", "svg"),
            caption="../report/forgetting.rst",
            category="Figures",
            labels={"figure": "forgetting, R[t][i]", "dataset": "{dataset}"},
        ),
        gain=report(
            REPORT.figure("gain", "{dataset}", "svg"),
            caption="../report/gain.rst",
            category="Figures",
            labels={"figure": "gain over the baseline", "dataset": "{dataset}"},
        ),
        cost=report(
            REPORT.figure("cost", "{dataset}", "svg"),
            caption="../report/cost.rst",
            category="Figures",
            labels={"figure": "cost against accuracy", "dataset": "{dataset}"},
        ),
        losses=report(
            REPORT.figure("losses", "{dataset}", "svg"),
            caption="../report/losses.rst",
            category="Figures",
            labels={"figure": "training losses", "dataset": "{dataset}"},
        ),
    log:
        REPORT.plotting("{dataset}").log,
    conda:
        ENV
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    script:
        "../scripts/plot.py"


rule plot_prompts:
    input:
        inputs_of("plot_prompts"),
    output:
        **without(REPORT.prompts("{dataset}"), "svg"),
        svg=report(
            REPORT.figure("prompts", "{dataset}", "svg"),
            caption="../report/prompts.rst",
            category="Figures",
            labels={"figure": "prompts chosen by task", "dataset": "{dataset}"},
        ),
    log:
        REPORT.figure("prompts", "{dataset}", "log"),
    conda:
        ENV
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    script:
        "../scripts/plot_prompts.py"


# On demand only: no table depends on these figures.
rule chosen_prompts:
    input:
        [job.outputs["svg"] for job in STUDY.of("plot_prompts")],


# For datasets that the grid has at several label levels, over all of their variants.
rule label_efficiency:
    input:
        inputs_of("label_efficiency"),
    output:
        **without(REPORT.label_efficiency("{dataset}"), "svg"),
        svg=report(
            REPORT.label_efficiency("{dataset}")["svg"],
            caption="../report/label_efficiency.rst",
            category="Figures",
            labels={"figure": "label efficiency", "dataset": "{dataset}"},
        ),
    log:
        REPORT.figure("label_efficiency", "{dataset}", "log"),
    conda:
        ENV
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        levels=param("label_efficiency", "levels"),
    script:
        "../scripts/label_efficiency.py"


rule page:
    input:
        inputs_of("page"),
    output:
        **without(REPORT.paged(), "page", "configuration"),
        page=report(
            REPORT.page,
            caption="../report/page.rst",
            category="Runs, configuration and provenance",
            labels={"page": "every run in detail"},
        ),
        configuration=report(
            TABLES.configuration,
            caption="../report/configuration.rst",
            category="Runs, configuration and provenance",
            labels={"page": "resolved configuration"},
        ),
    log:
        TABLES.log("page"),
    conda:
        ENV
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        configuration=param("page", "configuration"),
        shown=param("page", "shown"),
    script:
        "../scripts/page.py"
