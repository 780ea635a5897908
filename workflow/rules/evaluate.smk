# Evaluate each run, and collect the results of all runs in tidy tables.


OF_TEST = dict(
    data="prepare_dataset",
    backbones="fetch_backbone",
    queries="test_queries",
    checkpoints="train, distil or align",
)


localrules:
    collect,


rule evaluate:
    input:
        inputs_of("evaluate", **OF_TEST, features="test_features"),
    output:
        **RUN.outputs(),
    log:
        RUN.evaluation.log,
    benchmark:
        RUN.evaluation.benchmark
    conda:
        ENV
    threads: 1
    resources:
        **COMPUTING,
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        states=layout.STATES,
        spec=param("evaluate", "spec"),
        names=param("evaluate", "names"),
        query_names=param("evaluate", "query_names"),
        teacher_query=param("evaluate", "teacher_query"),
        images_per_class=param("evaluate", "images_per_class"),
        revision=param("evaluate", "revision"),
        unknown=param("evaluate", "unknown"),
    script:
        "../scripts/evaluate.py"


# Once for all runs that differ in the alignment of their heads alone; kept, so that a further variant evaluates no other one again.
rule test_features:
    input:
        inputs_of("test_features", **OF_TEST),
    output:
        features=RUN.test_features,
        metadata=layout.record_of(RUN.test_features),
    log:
        RUN.featuring.log,
    benchmark:
        RUN.featuring.benchmark
    conda:
        ENV
    threads: 1
    resources:
        **COMPUTING,
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        spec=param("test_features", "spec"),
        names=param("test_features", "names"),
        query_names=param("test_features", "query_names"),
        teacher_query=param("test_features", "teacher_query"),
        images_per_class=param("test_features", "images_per_class"),
        unknown=param("test_features", "unknown"),
    script:
        "../scripts/test_features.py"


# From the last checkpoint, for one seed of each method that selects or weighs prompts by a query.
rule prompts:
    input:
        inputs_of("prompts", **OF_TEST),
    output:
        **RUN.prompt_outputs(),
    log:
        RUN.prompting.log,
    conda:
        ENV
    threads: 1
    resources:
        **COMPUTING,
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        spec=param("prompts", "spec"),
        names=param("prompts", "names"),
        query_names=param("prompts", "query_names"),
        teacher_query=param("prompts", "teacher_query"),
        images_per_class=param("prompts", "images_per_class"),
        task=param("prompts", "task"),
    script:
        "../scripts/prompts.py"


rule collect:
    input:
        inputs_of("collect"),
    output:
        **without(TABLES.collected(), "cost_text"),
        cost_text=report(
            TABLES.cost_text,
            caption="../report/cost_table.rst",
            category="Tables",
            labels={"table": "cost"},
        ),
    log:
        TABLES.log("collect"),
    conda:
        ENV
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        rows=param("collect", "rows"),
        costs=param("collect", "costs"),
        records=param("collect", "records"),
    script:
        "../scripts/collect.py"
