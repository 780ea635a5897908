"""The page with all runs, and the resolved configuration that it shows."""

import yaml

from cdl.jobs import job

with job(snakemake.log[0]):
    from cdl.artifacts import read_json, replacing
    from cdl.page import write_page
    from cdl.tables import read

    configuration = yaml.safe_dump(snakemake.params.configuration, sort_keys=False)
    with replacing(snakemake.output.configuration) as temporary:
        temporary.write_text(configuration)
    write_page(
        snakemake.output.page,
        name=snakemake.params.configuration["name"],
        configuration=configuration,
        results=read(snakemake.input.results),
        cost=read(snakemake.input.cost),
        protocols=read_json(snakemake.input.protocols),
        data=snakemake.params.data,
        backbones=snakemake.params.backbones,
    )
