# Data and backbones, brought into one form. Only the two `fetch_` rules may use the network.


localrules:
    fetch_dataset,
    fetch_backbone,


# The files themselves are no outputs, which Snakemake would delete when a job fails. The record
# is temporary, so that preparing again always begins with checking them again.
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
        source=lambda w: INPUTS.sources[w.prepared]["source"],
    script:
        "../scripts/fetch_dataset.py"


rule prepare_dataset:
    input:
        unpack(lambda w: tracked(told(INPUTS.source)(w.prepared))),
    output:
        manifest=PACKED.manifest,
        train_pixels=PACKED.pixels("train"),
        train_index=PACKED.index("train"),
        test_pixels=PACKED.pixels("test"),
        test_index=PACKED.index("test"),
    log:
        PACKED.job("prepare_dataset").log,
    conda:
        ENV
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        format=FORMAT,
        source=lambda w: INPUTS.sources[w.prepared],
        contents=lambda w: told(INPUTS.source_contents)(w.prepared),
    script:
        "../scripts/prepare_dataset.py"


rule fetch_backbone:
    input:
        files=lambda w: [ancient(f) for f in INPUTS.backbone_files(w.fetched)],
    output:
        weights=BACKBONE,
        metadata=layout.record_of(BACKBONE),
    log:
        layout.fetching("{fetched}").log,
    conda:
        ENV
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        source=lambda w: INPUTS.backbones[w.fetched],
        contents=lambda w: told(INPUTS.backbone_contents)(w.fetched),
    script:
        "../scripts/fetch_backbone.py"
