# Outputs of frozen models (queries, teacher logits), computed once and read by all learners.

OF_TEACHER = dict(
    data="prepare_dataset",
    unlabelled="prepare_dataset",
    backbone="fetch_backbone",
    teacher="train or align",
    queries="queries",
)


rule queries:
    input:
        inputs_of(
            "queries",
            data="prepare_dataset",
            unlabelled="prepare_dataset",
            backbone="fetch_backbone",
        ),
    output:
        **layout.artifact("queries", layout.cached(QUERIES, "{task}")),
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
        spec=param("queries", "spec"),
        images=param("queries", "images"),
    script:
        "../scripts/queries.py"


rule test_queries:
    input:
        inputs_of("test_queries", data="prepare_dataset", backbone="fetch_backbone"),
    output:
        **layout.artifact("queries", layout.cached(QUERIES, "test")),
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
        spec=param("test_queries", "spec"),
    script:
        "../scripts/test_queries.py"


rule classify:
    input:
        inputs_of("classify", data="prepare_dataset", files="the user"),
    output:
        **layout.classified(CLASSIFIED),
    log:
        layout.classifying(CLASSIFIED).log,
    benchmark:
        layout.classifying(CLASSIFIED).benchmark
    conda:
        ENV
    threads: 1
    resources:
        **COMPUTING,
        mem_mb=growing(8000),
        runtime=growing(60),
    params:
        classifier=param("classify", "classifier"),
        sha256=param("classify", "sha256"),
        images_per_class=param("classify", "images_per_class"),
    script:
        "../scripts/classify.py"


rule answers:
    input:
        inputs_of("answers", data="prepare_dataset", files="the user", table="classify"),
    output:
        **layout.artifact("targets", layout.cached(ANSWERS, "{task}")),
    log:
        layout.caching(ANSWERS, "{task}").log,
    benchmark:
        layout.caching(ANSWERS, "{task}").benchmark
    priority: 1
    conda:
        ENV
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        spec=param("answers", "spec"),
        images=param("answers", "images"),
        test_images_per_class=param("answers", "test_images_per_class"),
    script:
        "../scripts/answers.py"


rule teacher_targets:
    input:
        inputs_of("teacher_targets", **OF_TEACHER),
    output:
        **layout.artifact("targets", TASK.targets),
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
        spec=param("teacher_targets", "spec"),
        images=param("teacher_targets", "images"),
    script:
        "../scripts/teacher_targets.py"


use rule teacher_targets as teacher_targets_seen with:
    input:
        inputs_of("teacher_targets_seen", **OF_TEACHER),
    output:
        **layout.artifact("targets", TASK.targets_seen),
    log:
        TASK.job("teacher_targets_seen").log,
    benchmark:
        TASK.job("teacher_targets_seen").benchmark
    params:
        states=layout.STATES,
        spec=param("teacher_targets_seen", "spec"),
        images=param("teacher_targets_seen", "images"),


use rule teacher_targets as teacher_targets_test with:
    input:
        inputs_of("teacher_targets_test", **OF_TEACHER),
    output:
        **layout.artifact("targets", TASK.targets_test),
    log:
        TASK.job("teacher_targets_test").log,
    benchmark:
        TASK.job("teacher_targets_test").benchmark
    params:
        states=layout.STATES,
        spec=param("teacher_targets_test", "spec"),
        images=param("teacher_targets_test", "images"),


use rule teacher_targets as teacher_targets_test_seen with:
    input:
        inputs_of("teacher_targets_test_seen", **OF_TEACHER),
    output:
        **layout.artifact("targets", TASK.targets_test_seen),
    log:
        TASK.job("teacher_targets_test_seen").log,
    benchmark:
        TASK.job("teacher_targets_test_seen").benchmark
    params:
        states=layout.STATES,
        spec=param("teacher_targets_test_seen", "spec"),
        images=param("teacher_targets_test_seen", "images"),
