# One task of one learner is one artifact, made from the artifact of the task before.


rule train:
    input:
        unpack(learning),
    output:
        learner=TASK.learner,
        metadata=layout.record_of(TASK.learner),
        losses=TASK.losses,
    log:
        TASK.job("train").log,
    benchmark:
        TASK.job("train").benchmark
    wildcard_constraints:
        learner=ALONE,
    priority: 1  # chains of tasks first: evaluations fill what is left of the cores
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
        spec=spec_of,
        images=images_of,
        names=lambda w: INPUTS.of(run_of(w)).backbones,
    message:
        "learn task {wildcards.task} of {wildcards.method} {wildcards.learner}, seed {wildcards.seed}"
    script:
        "../scripts/train.py"


rule distil:
    input:
        unpack(learning),
    output:
        learner=TASK.learner,
        metadata=layout.record_of(TASK.learner),
        losses=TASK.losses,
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
        spec=spec_of,
        images=images_of,
        teacher_spec=lambda w: specification(
            GRID, GRID.teacher_of(run_of(w)), int(w.task)
        ).to_json(),
        names=lambda w: INPUTS.of(run_of(w)).backbones,
    message:
        "distil task {wildcards.task} of {wildcards.method} {wildcards.learner}, seed {wildcards.seed}"
    script:
        "../scripts/distil.py"
