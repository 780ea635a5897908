"""The command line of cdl: `cdl run`, `cdl status` and the other commands."""

from cdl.cli.app import app, main
from cdl.cli.run import check_command, preflight

__all__ = ["app", "check_command", "main", "preflight"]
