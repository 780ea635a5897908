"""What Snakemake takes between its jobs, kept short: their start, and its looks at them."""
