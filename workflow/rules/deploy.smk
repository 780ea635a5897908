# Only with `deploy` in the configuration: finished students leave as graphs, timed side by side.


DEPLOYED = GRID.layout.deployed()


localrules:
    show_deployment,


rule deploy:
    input:
        unpack(lambda w: tracked(INPUTS.deploying(run_of(w)))),
    output:
        **{weights: DEPLOYED.model(weights) for weights in layout.WEIGHTS},
        record=DEPLOYED.job.record,
    log:
        DEPLOYED.job.log,
    conda:
        ENV
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        int8=lambda w: GRID.config["deploy"]["int8"],
    script:
        "../scripts/deploy.py"


# All cores, so that nothing else of this run computes beside what is timed.
rule measure:
    input:
        **INPUTS.measuring(),
    output:
        csv=TABLES.deployment("csv"),
        record=TABLES.record("deployment"),
    log:
        TABLES.log("deployment"),
    conda:
        ENV
    threads: lambda w: workflow.cores or 2
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        records=INPUTS.measuring()["records"],
        rows=INPUTS.measured_rows,
        rounds=GRID.config["deploy"]["rounds"],
    script:
        "../scripts/measure.py"


rule show_deployment:
    input:
        **INPUTS.deployment(),
    output:
        md=TABLES.deployment("md"),
        figures=REPORT.deployment_figures(INPUTS.deployed_datasets),
        record=REPORT.deployment.record,
    log:
        REPORT.deployment.log,
    conda:
        ENV
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        datasets=INPUTS.deployed_datasets,
    script:
        "../scripts/show_deployment.py"
