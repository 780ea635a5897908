# Makes `snakemake` find the workflow from the top folder.
include: "workflow/Snakefile"


workflow.default_target = "all"  # an included file cannot set it
