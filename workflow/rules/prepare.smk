# Data and backbones, brought into one form. Only the two `fetch_` rules may use the network.


localrules:
    fetch_dataset,
    fetch_backbone,


# The files themselves are no outputs, which Snakemake would delete when a job fails. The record
# is temporary, so that preparing again always begins with checking them again.
rule fetch_dataset:
    output:
        record=temp("results/data/{prepared}/fetched.json"),
    log:
        "results/data/{prepared}/fetch_dataset.log",
    conda:
        ENV
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        source=lambda w: PREPARED[w.prepared]["source"],
    script:
        "../scripts/fetch_dataset.py"


rule prepare_dataset:
    input:
        files=lambda w: source_files(w.prepared),
    output:
        manifest="results/data/{prepared}/manifest.json",
        train_pixels="results/data/{prepared}/train.pixels",
        train_index="results/data/{prepared}/train.parquet",
        test_pixels="results/data/{prepared}/test.pixels",
        test_index="results/data/{prepared}/test.parquet",
    log:
        "results/data/{prepared}/prepare_dataset.log",
    conda:
        ENV
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        source=lambda w: PREPARED[w.prepared],
        contents=lambda w: source_contents(w.prepared),
    script:
        "../scripts/prepare_dataset.py"


rule fetch_backbone:
    input:
        files=lambda w: [ancient(str(f)) for f in backbone_files(FETCHED[w.fetched])],
    output:
        weights="results/backbones/{fetched}.safetensors",
        metadata="results/backbones/{fetched}.json",
    log:
        "results/backbones/{fetched}.log",
    conda:
        ENV
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        source=lambda w: FETCHED[w.fetched],
        contents=lambda w: read_contents(
            backbone_files(FETCHED[w.fetched]), f"backbones/{w.fetched}"
        ),
    script:
        "../scripts/fetch_backbone.py"
