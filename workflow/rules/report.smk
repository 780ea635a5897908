# What `snakemake --report` shows, and the page with all runs.


localrules:
    plot,
    label_efficiency,
    page,


rule plot:
    input:
        curves=TABLES.curves,
        results=TABLES.results,
        protocols=TABLES.protocols,
        cost=TABLES.cost,
        cost_record=TABLES.record("cost"),
        intervals=TABLES.intervals,
        summary_record=TABLES.record("summary"),
        runs=lambda w: INPUTS.evaluations(w.dataset),
    output:
        **{
            f"{figure}_{image}": REPORT.figure(figure, "{dataset}", image)
            for figure in layout.FIGURES
            for image in layout.IMAGES
            if image != "svg"
        },
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


# Of a dataset that the grid has with few labels and with more, over all of its variants.
rule label_efficiency:
    input:
        results=TABLES.results,
        protocols=TABLES.protocols,
        intervals=TABLES.intervals,
        summary_record=TABLES.record("summary"),
        runs=INPUTS.collected["results"],
    output:
        **{k: v for k, v in REPORT.label_efficiency("{dataset}").items() if k != "svg"},
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
        levels=lambda w: INPUTS.levels[w.dataset],
    script:
        "../scripts/label_efficiency.py"


rule page:
    input:
        **INPUTS.deployment(figures=True),
        **INPUTS.label_efficiency(),
        results=TABLES.results,
        cost=TABLES.cost,
        classes=TABLES.classes,
        cost_record=TABLES.record("cost"),
        intervals=TABLES.intervals,
        contrasts=TABLES.contrasts,
        summary_record=TABLES.record("summary"),
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
