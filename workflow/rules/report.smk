# What `snakemake --report` shows, and the page with all runs.


localrules:
    plot,
    page,


rule plot:
    input:
        curves=TABLES.curves,
        results=TABLES.results,
        protocols=TABLES.protocols,
        cost=TABLES.cost,
        cost_record=TABLES.record("cost"),
        runs=lambda w: INPUTS.evaluations(w.dataset),
    output:
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
            labels={"figure": "gain over none", "dataset": "{dataset}"},
        ),
        cost=report(
            REPORT.figure("cost", "{dataset}", "svg"),
            caption="../report/cost.rst",
            category="Figures",
            labels={"figure": "cost against accuracy", "dataset": "{dataset}"},
        ),
        accuracy_png=REPORT.figure("accuracy", "{dataset}", "png"),
        forgetting_png=REPORT.figure("forgetting", "{dataset}", "png"),
        gain_png=REPORT.figure("gain", "{dataset}", "png"),
        cost_png=REPORT.figure("cost", "{dataset}", "png"),
        record=REPORT.plotting("{dataset}").record,
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


rule page:
    input:
        results=TABLES.results,
        cost=TABLES.cost,
        cost_record=TABLES.record("cost"),
        protocols=TABLES.protocols,
        runs=INPUTS.collected["results"],
    output:
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
        record=TABLES.record("page"),
    log:
        TABLES.log("page"),
    conda:
        ENV
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        configuration=in_use(GRID),
        shown=INPUTS.shown(),
    script:
        "../scripts/page.py"
