# Each job trains one learner on one task, from the artifact of the previous task; or it aligns the
# heads of a trained learner, which runs that differ in alignment alone share. Each input stands
# with the rules that write it: `previous` and `before` after the task before, the others after the
# same task.


rule train:
    input:
        inputs_of(
            "train",
            data="prepare_dataset",
            unlabelled="prepare_dataset",
            backbones="fetch_backbone",
            queries="queries",
            previous="train or align",
        ),
    output:
        **TASK.outputs(),
    log:
        TASK.job("train").log,
        measured=TASK.job("train").measured,
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
        "learn {wildcards.method} {wildcards.learner}, seed {wildcards.seed}, in task{wildcards.task}/"
    script:
        "../scripts/train.py"


rule distil:
    input:
        inputs_of(
            "distil",
            data="prepare_dataset",
            unlabelled="prepare_dataset",
            backbones="fetch_backbone",
            queries="queries",
            previous="distil or align",
            teacher="train or align",
            teacher_queries="queries",
            targets="teacher_targets, or answers",
        ),
    output:
        **TASK.outputs(),
    log:
        TASK.job("distil").log,
        measured=TASK.job("distil").measured,
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
        "distil {wildcards.method} {wildcards.learner}, seed {wildcards.seed}, in task{wildcards.task}/"
    script:
        "../scripts/distil.py"


rule align:
    input:
        inputs_of(
            "align",
            data="prepare_dataset",
            unlabelled="prepare_dataset",
            backbones="fetch_backbone",
            queries="queries",
            trained="train or distil",
            previous="align",
            before="train or distil",
            teacher="train or align",
            targets="teacher_targets, or answers",
        ),
    output:
        **layout.artifact("aligned", TASK.aligned),
    log:
        TASK.job("align").log,
        measured=TASK.job("align").measured,
    benchmark:
        TASK.job("align").benchmark
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
        spec=param("align", "spec"),
        images=param("align", "images"),
        names=param("align", "names"),
        query_names=param("align", "query_names"),
        trained_spec=param("align", "trained_spec"),
        teacher_query=param("align", "teacher_query"),
        teacher_spec=param("align", "teacher_spec"),
    message:
        "align the heads of {wildcards.method} {wildcards.learner}, seed {wildcards.seed}, in task{wildcards.task}/"
    script:
        "../scripts/align.py"
