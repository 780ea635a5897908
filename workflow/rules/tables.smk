# What people read.


localrules:
    tabulate,
    compare,
    tables,


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


# One dataset and pair, of its own runs only: a table asked for by name trains no other pair.
rule compare:
    input:
        results=lambda w: [
            f"{ROOT}/{run.folder}/results.json" for run in compared(w.comparison)
        ],
    output:
        **{
            kind: f"{TABLES}/{{comparison}}.{suffix}"
            for kind, suffix in COMPARISON_FILES.items()
            if kind != "html"
        },
        html=report(
            f"{TABLES}/{{comparison}}.html",
            caption="../report/comparison.rst",
            category="Tables",
            labels={"table": "{comparison}"},
        ),
    log:
        f"{TABLES}/{{comparison}}.log",
    wildcard_constraints:
        comparison="|".join(map(re.escape, GRID.comparisons)) or "(?!)",
    conda:
        ENV
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        rows=lambda w: [GRID.row(run) for run in compared(w.comparison)],
        published=lambda w: GRID.published(*GRID.comparisons[w.comparison]),
    script:
        "../scripts/compare.py"


# Asked for by name: tabulates what is finished into a folder of its own. It has no inputs, so that
# it trains nothing and waits for nobody, and no outputs, so that it is done afresh each time.
rule tables:
    log:
        f"{TABLES}/partial/tables.log",
    conda:
        ENV
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        folder=f"{TABLES}/partial",
        rows=lambda w: [GRID.row(run) for run in GRID.runs],
        runs=lambda w: [finished_of(run) for run in GRID.runs],
        comparisons=lambda w: {
            name: {
                "runs": [f"{ROOT}/{run.folder}" for run in compared(name)],
                "published": GRID.published(*GRID.comparisons[name]),
            }
            for name in GRID.comparisons
        },
    script:
        "../scripts/tables.py"
