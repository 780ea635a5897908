"""Jobs whose files are in remote storage, by Snakemake's option `--default-storage-provider`.

Snakemake downloads the inputs of a job below a folder such as `.snakemake/storage/s3/BUCKET/PREFIX`
and uploads its outputs from there. The program has paths below `results/`, also in tables and
parameters. So a job changes to that folder, and its files have the paths of the plan again.
"""

import os
from pathlib import Path
from typing import Any

from cdl.layout import RESULTS

FOLDER = "CDL_STORAGE_FOLDER"  # environment variable with the folder of the local copies


def publish_folder(workflow: Any) -> bool:
    """Tell jobs where the local copies of stored files are; return whether there is a storage.

    Args:
        workflow: Snakemake's workflow, while it reads the Snakefile.
    """
    provider = workflow.storage_settings.default_storage_provider
    if provider in (None, "none"):
        os.environ.pop(FOLDER, None)
        return False
    prefix = (workflow.storage_settings.default_storage_prefix or "").rstrip("/")
    query = f"{prefix}/{RESULTS}" if prefix else RESULTS
    stored = workflow.storage_registry.default_storage_provider.object(query)
    os.environ[FOLDER] = str(Path(stored.local_path()).absolute().parent)
    return True


def enter_folder(snakemake: Any) -> None:
    """Change to the folder of the local copies, and make the paths of a job's files fit.

    Does nothing if the files are not in remote storage.

    Args:
        snakemake: the object that Snakemake gives to a script; its paths are replaced.
    """
    folder = os.environ.get(FOLDER)
    if folder is None:
        return

    def moved(path: str) -> str:
        whole = os.path.abspath(path)
        inside = os.path.commonpath([whole, folder]) == folder
        return os.path.relpath(whole, folder) if inside else whole

    for name in ("input", "output", "log"):
        files = getattr(snakemake, name)
        setattr(snakemake, name, type(files)(toclone=files, custom_map=moved))
    os.makedirs(folder, exist_ok=True)
    os.chdir(folder)
