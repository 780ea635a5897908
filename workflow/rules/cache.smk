# What frozen models say of every view, computed once and read by every learner.


@told
def queried_images(wildcards):
    return INPUTS.queried_contents(wildcards.queried, int(wildcards.task))


def querying(wildcards):
    paths = INPUTS.computing_queries(wildcards.queried, "train")
    output = layout.cached(layout.queries(wildcards.queried), wildcards.task)
    return of_images(paths, output, queried_images(wildcards))


def targeting(wildcards):
    run, task = run_of(wildcards), int(wildcards.task)
    output = GRID.files(run).task(task).targets
    return of_images(INPUTS.computing_targets(run, task), output, images_of(wildcards))


rule queries:
    input:
        unpack(querying),
    output:
        queries=layout.cached(QUERIES, "{task}"),
        metadata=layout.record_of(layout.cached(QUERIES, "{task}")),
    log:
        layout.caching(QUERIES, "{task}").log,
    benchmark:
        layout.caching(QUERIES, "{task}").benchmark
    conda:
        ENV
    threads: 1
    resources:
        **COMPUTING,
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        states=layout.STATES,
        spec=lambda w: INPUTS.queries[w.queried].spec,
        images=queried_images,
    script:
        "../scripts/queries.py"


rule test_queries:
    input:
        unpack(lambda w: tracked(INPUTS.computing_queries(w.queried, "test"))),
    output:
        queries=layout.cached(QUERIES, "test"),
        metadata=layout.record_of(layout.cached(QUERIES, "test")),
    log:
        layout.caching(QUERIES, "test").log,
    benchmark:
        layout.caching(QUERIES, "test").benchmark
    conda:
        ENV
    threads: 1
    resources:
        **COMPUTING,
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        spec=lambda w: INPUTS.queries[w.queried].spec,
    script:
        "../scripts/test_queries.py"


rule teacher_targets:
    input:
        unpack(targeting),
    output:
        targets=TASK.targets,
        metadata=layout.record_of(TASK.targets),
    log:
        TASK.job("teacher_targets").log,
    benchmark:
        TASK.job("teacher_targets").benchmark
    wildcard_constraints:
        learner=ALONE,
    group:
        chain_of
    conda:
        ENV
    threads: 1
    resources:
        **COMPUTING,
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        states=layout.STATES,
        spec=lambda w: INPUTS.targets[GRID.files(run_of(w)).folder][0][int(w.task)].spec,
        images=images_of,
    script:
        "../scripts/teacher_targets.py"
