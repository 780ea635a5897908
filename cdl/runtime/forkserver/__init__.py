"""Reduce the overhead between jobs of Snakemake: fork the jobs, limit the scheduler's timers."""
