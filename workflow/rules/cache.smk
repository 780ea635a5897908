# What frozen models say of every view, computed once and read by every learner.


rule queries:
    input:
        unpack(query_inputs("train")),
    output:
        queries="results/queries/{queried}/task{task}.safetensors",
        metadata="results/queries/{queried}/task{task}.json",
    log:
        "results/queries/{queried}/task{task}.log",
    benchmark:
        "results/queries/{queried}/task{task}.tsv"
    conda:
        ENV
    threads: 1
    resources:
        **COMPUTING,
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        states=STATES,
        spec=lambda w: QUERIES[w.queried].spec,
    script:
        "../scripts/queries.py"


rule test_queries:
    input:
        unpack(query_inputs("test")),
    output:
        queries="results/queries/{queried}/test.safetensors",
        metadata="results/queries/{queried}/test.json",
    log:
        "results/queries/{queried}/test.log",
    benchmark:
        "results/queries/{queried}/test.tsv"
    conda:
        ENV
    threads: 1
    resources:
        **COMPUTING,
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        spec=lambda w: QUERIES[w.queried].spec,
    script:
        "../scripts/test_queries.py"


rule teacher_targets:
    input:
        unpack(target_inputs),
    output:
        targets=f"{TASK}/targets.safetensors",
        metadata=f"{TASK}/targets.json",
    log:
        f"{TASK}/targets.log",
    benchmark:
        f"{TASK}/targets.tsv"
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
        states=STATES,
        spec=lambda w: TARGETS[f"{ROOT}/{run_of(w).folder}"][1].targets.spec,
    script:
        "../scripts/teacher_targets.py"
