"""The plan of a study: runs, specifications, jobs and paths. Does not import torch or Snakemake."""
