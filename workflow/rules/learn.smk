# Each job trains one learner on one task, from the artifact of the previous task.


rule train:
    input:
        inputs_of("train"),
    output:
        **TASK.outputs(),
    log:
        TASK.job("train").log,
    benchmark:
        TASK.job("train").benchmark
    wildcard_constraints:
        learner=ALONE,
    priority: 1  # tasks first: they depend on each other, evaluations use the cores that are left
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
        spec=param("train", "spec"),
        images=param("train", "images"),
        names=param("train", "names"),
    message:
        "learn task {wildcards.task} of {wildcards.method} {wildcards.learner}, seed {wildcards.seed}"
    script:
        "../scripts/train.py"


rule distil:
    input:
        inputs_of("distil"),
    output:
        **TASK.outputs(),
    log:
        TASK.job("distil").log,
    benchmark:
        TASK.job("distil").benchmark
    wildcard_constraints:
        learner=DISTILLED,
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
        spec=param("distil", "spec"),
        images=param("distil", "images"),
        teacher_spec=param("distil", "teacher_spec"),
        names=param("distil", "names"),
    message:
        "distil task {wildcards.task} of {wildcards.method} {wildcards.learner}, seed {wildcards.seed}"
    script:
        "../scripts/distil.py"
