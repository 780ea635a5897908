"""Snakemake logger plugin `cdl`, which `cdl run` selects by `--logger cdl`."""

from cdl.cli.progress import LogHandler

__all__ = ["LogHandler"]
