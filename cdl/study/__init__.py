"""What a configuration asks for: runs, specifications, paths, inputs. No torch, no Snakemake."""
