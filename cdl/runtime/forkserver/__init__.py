"""Reduce Snakemake's overhead per job: fork server, fewer scheduler timers."""
