# Fetch and convert data and backbones. Only the two `fetch_` rules use the network.


localrules:
    fetch_dataset,
    fetch_backbone,


if STORED:  # the files of a dataset are where Snakemake was started

    localrules:
        prepare_dataset,


# The files are not outputs, because Snakemake deletes the outputs of failed jobs. The record is
# temporary, so that the files are checked again before they are prepared again.
rule fetch_dataset:
    output:
        record=temp(PACKED.fetched),
    log:
        PACKED.job("fetch_dataset").log,
    conda:
        ENV
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        source=param("fetch_dataset", "source"),
    script:
        "../scripts/fetch_dataset.py"


rule prepare_dataset:
    input:
        inputs_of("prepare_dataset", record="fetch_dataset", files="the user"),
    output:
        **PACKED.outputs(),
    log:
        PACKED.job("prepare_dataset").log,
    conda:
        ENV
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        format=param("prepare_dataset", "format"),
        source=param("prepare_dataset", "source"),
        contents=param("prepare_dataset", "contents"),
    script:
        "../scripts/prepare_dataset.py"


rule fetch_backbone:
    input:
        inputs_of("fetch_backbone", files="the user"),
    output:
        **layout.artifact("weights", layout.backbone("{fetched}")),
    log:
        layout.fetching("{fetched}").log,
    conda:
        ENV
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        source=param("fetch_backbone", "source"),
        contents=param("fetch_backbone", "contents"),
    script:
        "../scripts/fetch_backbone.py"
