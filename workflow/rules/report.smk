# What `snakemake --report` shows, and the page with all runs.


localrules:
    plot,
    page,


rule plot:
    input:
        curves=f"{TABLES}/curves.csv",
        results=f"{TABLES}/results.csv",
        cost=f"{TABLES}/cost.csv",
        runs=evaluations_of,
    output:
        accuracy=report(
            f"{FIGURES}/accuracy_{{dataset}}.svg",
            caption="../report/accuracy.rst",
            category="Figures",
            labels={"figure": "accuracy over tasks", "dataset": "{dataset}"},
        ),
        forgetting=report(
            f"{FIGURES}/forgetting_{{dataset}}.svg",
            caption="../report/forgetting.rst",
            category="Figures",
            labels={"figure": "forgetting, R[t][i]", "dataset": "{dataset}"},
        ),
        gain=report(
            f"{FIGURES}/gain_{{dataset}}.svg",
            caption="../report/gain.rst",
            category="Figures",
            labels={"figure": "gain over none", "dataset": "{dataset}"},
        ),
        cost=report(
            f"{FIGURES}/cost_{{dataset}}.svg",
            caption="../report/cost.rst",
            category="Figures",
            labels={"figure": "cost against accuracy", "dataset": "{dataset}"},
        ),
        accuracy_png=f"{FIGURES}/accuracy_{{dataset}}.png",
        forgetting_png=f"{FIGURES}/forgetting_{{dataset}}.png",
        gain_png=f"{FIGURES}/gain_{{dataset}}.png",
        cost_png=f"{FIGURES}/cost_{{dataset}}.png",
    log:
        f"{FIGURES}/plot_{{dataset}}.log",
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
        results=f"{TABLES}/results.csv",
        cost=f"{TABLES}/cost.csv",
        protocols=f"{TABLES}/protocols.json",
        runs=[f"{ROOT}/{run.folder}/results.json" for run in GRID.runs],
    output:
        page=report(
            f"{GRID.tables}/index.html",
            caption="../report/page.rst",
            category="Runs, configuration and provenance",
            labels={"page": "every run in detail"},
        ),
        configuration=report(
            f"{TABLES}/configuration.yaml",
            caption="../report/configuration.rst",
            category="Runs, configuration and provenance",
            labels={"page": "resolved configuration"},
        ),
    log:
        f"{TABLES}/page.log",
    conda:
        ENV
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        configuration=GRID.in_use(),
        data={name: GRID.data(name) for name in GRID.datasets},
        backbones={name: GRID.backbone(name) for name in sorted(USED)},
    script:
        "../scripts/page.py"
