"""Where Snakemake looks for a logger called `cdl`; `cdl run` asks for it by `--logger cdl`."""

from cdl.cli.progress import LogHandler

__all__ = ["LogHandler"]
