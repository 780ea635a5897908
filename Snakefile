# Entry point for `snakemake` in the top folder.
include: "workflow/Snakefile"


workflow.default_target = "all"  # included files cannot set the default target
