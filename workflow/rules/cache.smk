# What frozen models say of every view, computed once and read by every learner.


rule queries:
    input:
        unpack(
            lambda w: tracked(
                INPUTS.computing_queries(w.queried, "train"),
                made_of_images(
                    layout.cached(layout.queries(w.queried), w.task),
                    told(INPUTS.queried_contents)(w.queried, int(w.task)),
                ),
            )
        ),
    output:
        queries=layout.cached(QUERIES, "{task}"),
        metadata=layout.record_of(layout.cached(QUERIES, "{task}")),
    log:
        layout.caching(QUERIES, "{task}").log,
    benchmark:
        layout.caching(QUERIES, "{task}").benchmark
    priority: 1
    conda:
        ENV
    threads: 1
    resources:
        **COMPUTING,
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        states=layout.STATES,
        spec=lambda w: INPUTS.queries[w.queried].spec.to_json(),
        images=lambda w: told(INPUTS.queried_contents)(w.queried, int(w.task)),
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
        spec=lambda w: INPUTS.queries[w.queried].spec.to_json(),
    script:
        "../scripts/test_queries.py"


rule teacher_targets:
    input:
        unpack(
            lambda w: tracked(
                INPUTS.computing_targets(run_of(w), int(w.task)),
                made_of_images(
                    GRID.files(run_of(w)).task(w.task).targets, images_of(w)
                ),
            )
        ),
    output:
        targets=TASK.targets,
        metadata=layout.record_of(TASK.targets),
    log:
        TASK.job("teacher_targets").log,
    benchmark:
        TASK.job("teacher_targets").benchmark
    wildcard_constraints:
        learner=ALONE,
    priority: 1
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
        spec=lambda w: INPUTS.targets[GRID.files(run_of(w)).folder][0][
            int(w.task)
        ].spec.to_json(),
        images=images_of,
    script:
        "../scripts/teacher_targets.py"
