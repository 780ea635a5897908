# Only with `deploy` in the configuration: export finished students as graphs and measure them.


DEPLOYED = GRID.layout.deployed()


localrules:
    show_deployment,


rule deploy:
    input:
        inputs_of(
            "deploy",
            results="evaluate",
            predictions="evaluate",
            learner="train, distil or align",
            trained="train or distil",
            tasks="train, distil or align",
            backbones="fetch_backbone",
            data="prepare_dataset",
        ),
    output:
        **DEPLOYED.outputs(),
    log:
        DEPLOYED.job.log,
    conda:
        ENV
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        int8=param("deploy", "int8"),
    script:
        "../scripts/deploy.py"


# All cores, so that no other job of this run disturbs the measurement.
rule measure:
    input:
        inputs_of("measure", models="deploy", about="deploy"),
    output:
        **TABLES.measured(),
    log:
        TABLES.log("deployment"),
    conda:
        ENV
    threads: lambda w: workflow.cores or 2
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        records=param("measure", "records"),
        rows=param("measure", "rows"),
        rounds=param("measure", "rounds"),
    script:
        "../scripts/measure.py"


rule show_deployment:
    input:
        inputs_of("show_deployment", deployment="measure", deployment_record="measure"),
    output:
        **REPORT.shown_deployment(dict.fromkeys(run.dataset for run in GRID.deployed)),
    log:
        REPORT.deployment.log,
    conda:
        ENV
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        datasets=param("show_deployment", "datasets"),
    script:
        "../scripts/show_deployment.py"
