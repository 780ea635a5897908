"""Start Snakemake without the line that names its profile, which `cdl run` always sets."""

import sys
from pathlib import Path
from typing import Any

import snakemake
from snakemake import cli

_PROFILE = "Using workflow specific profile"


def _print(*values: Any, **options: Any) -> None:
    if not (values and str(values[0]).startswith(_PROFILE)):
        print(*values, **options)


if __name__ == "__main__":
    sys.argv[0] = str(Path(snakemake.__file__).with_name("__main__.py"))  # see `run.preflight`
    cli.print = _print  # hides the built-in function in this module
    cli.main()
