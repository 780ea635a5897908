# Summary tables, and comparisons with published numbers.


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


# Depends only on the runs of its dataset and pair, so that a single table does not train others.
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
