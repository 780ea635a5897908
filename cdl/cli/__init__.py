"""The command line of cdl: `cdl run`, `cdl status` and the others."""

from cdl.cli.app import app, check_command, main, preflight

__all__ = ["app", "check_command", "main", "preflight"]
