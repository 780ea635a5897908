# One task of one learner is one artifact, made from the artifact of the task before.


rule train:
    input:
        unpack(learning_inputs),
    output:
        learner=f"{TASK}/learner.safetensors",
        metadata=f"{TASK}/learner.json",
        losses=f"{TASK}/losses.csv",
    log:
        f"{TASK}/train.log",
    benchmark:
        f"{TASK}/train.tsv"
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
        spec=spec_of,
        names=lambda w: NEEDS[run_of(w).folder].backbones,
    message:
        "learn task {wildcards.task} of {wildcards.method} {wildcards.learner}, seed {wildcards.seed}"
    script:
        "../scripts/train.py"


rule distil:
    input:
        unpack(learning_inputs),
    output:
        learner=f"{TASK}/learner.safetensors",
        metadata=f"{TASK}/learner.json",
        losses=f"{TASK}/losses.csv",
    log:
        f"{TASK}/distil.log",
    benchmark:
        f"{TASK}/distil.tsv"
    wildcard_constraints:
        learner=DISTILLED,
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
        spec=spec_of,
        teacher_spec=teacher_spec_of,
        names=lambda w: NEEDS[run_of(w).folder].backbones,
    message:
        "distil task {wildcards.task} of {wildcards.method} {wildcards.learner}, seed {wildcards.seed}"
    script:
        "../scripts/distil.py"
