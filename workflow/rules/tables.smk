# What people read.


localrules:
    tabulate,
    compare,
    tables,


rule tabulate:
    input:
        results=TABLES.results,
        protocols=TABLES.protocols,
        runs=INPUTS.collected["results"],
        predictions=INPUTS.collected["predictions"],
    output:
        **{kind: TABLES.summary(kind) for kind in layout.SUMMARIES},
        intervals=TABLES.intervals,
        contrasts=TABLES.contrasts,
        record=TABLES.record("summary"),
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
        results=lambda w: INPUTS.compared(w.comparison)["results"],
    output:
        **{
            kind: TABLES.comparison("{comparison}", kind)
            for kind in layout.COMPARISON
            if kind != "html"
        },
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
        rows=lambda w: INPUTS.compared(w.comparison)["rows"],
        published=lambda w: INPUTS.compared(w.comparison)["published"],
    script:
        "../scripts/compare.py"


# Asked for by name: tabulates what is finished into a folder of its own. It has no inputs, so that
# it trains nothing and waits for nobody, and no outputs, so that it is done afresh each time.
rule tables:
    log:
        REPORT.partial.log("tables"),
    conda:
        ENV
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        outputs=REPORT.partial.outputs(GRID.comparisons),
        rows=INPUTS.collected["rows"],
        runs=lambda w: [INPUTS.completion(run) for run in GRID.runs],
        comparisons=lambda w: {name: INPUTS.compared(name) for name in GRID.comparisons},
    script:
        "../scripts/tables.py"
