"""Where Snakemake looks for a logger called `cdl`; `cdl run` asks for it by `--logger cdl`."""

from cdl.commands.progress import LogHandler

__all__ = ["LogHandler"]
