# One task of one learner is one artifact, made from the artifact of the task before.


rule train:
    input:
        data=data_of("train"),
        backbones=backbones_of("backbone", "query"),
        previous=previous_of,
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
    conda:
        ENV
    threads: 1
    resources:
        mem_mb=4000,
        runtime=120,
    params:
        spec=spec_of,
        names=backbone_names_of("backbone", "query"),
    message:
        "learn task {wildcards.task} of {wildcards.method} {wildcards.learner}, seed {wildcards.seed}"
    script:
        "../scripts/train.py"


# Cached teacher logits (rule teacher_targets) will stand between `train` and `distil`.
rule distil:
    input:
        data=data_of("train"),
        backbones=backbones_of("backbone", "query", "teacher", "teacher_query"),
        previous=previous_of,
        teacher=teacher_of,
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
    conda:
        ENV
    threads: 1
    resources:
        mem_mb=4000,
        runtime=120,
    params:
        spec=spec_of,
        teacher_spec=teacher_spec_of,
        names=backbone_names_of("backbone", "query", "teacher", "teacher_query"),
    message:
        "distil task {wildcards.task} of {wildcards.method} {wildcards.learner}, seed {wildcards.seed}"
    script:
        "../scripts/distil.py"
