# What people read.


localrules:
    tabulate,
    plot,


rule tabulate:
    input:
        results=f"{TABLES}/results.csv",
    output:
        csv=f"{TABLES}/summary.csv",
        md=f"{TABLES}/summary.md",
    log:
        f"{TABLES}/tabulate.log",
    conda:
        ENV
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    script:
        "../scripts/tabulate.py"


rule plot:
    input:
        curves=f"{TABLES}/curves.csv",
    output:
        svg=f"{FIGURES}/accuracy_{{dataset}}.svg",
        png=f"{FIGURES}/accuracy_{{dataset}}.png",
    log:
        f"{FIGURES}/accuracy_{{dataset}}.log",
    conda:
        ENV
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    script:
        "../scripts/plot.py"
