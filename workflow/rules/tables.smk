# What people read.


localrules:
    tabulate,
    compare,


rule tabulate:
    input:
        inputs_of("tabulate"),
    output:
        **TABLES.summarised(),
    log:
        TABLES.log("tabulate"),
    conda:
        ENV
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    script:
        "../scripts/tabulate.py"


# One dataset and pair, of its own runs only: a table asked for by name trains no other pair.
rule compare:
    input:
        inputs_of("compare"),
    output:
        **without(TABLES.compared("{comparison}"), "html"),
        html=report(
            TABLES.comparison("{comparison}", "html"),
            caption="../report/comparison.rst",
            category="Tables",
            labels={"table": "{comparison}"},
        ),
    log:
        TABLES.log("{comparison}"),
    wildcard_constraints:
        comparison="|".join(map(re.escape, GRID.comparisons)) or "(?!)",
    conda:
        ENV
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        rows=param("compare", "rows"),
        published=param("compare", "published"),
    script:
        "../scripts/compare.py"
