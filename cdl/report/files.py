"""What the report asks of whoever knows where files lie."""

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol


class TaskFiles(Protocol):
    """Files of one task of a learner."""

    @property
    def learner(self) -> str:
        """Return the path of its artifact."""

    @property
    def losses(self) -> str:
        """Return the path of its loss curve."""

    @property
    def targets(self) -> str:
        """Return the path of the cache of its logits, which only a teacher has."""


class RunFiles(Protocol):
    """Files of a run."""

    @property
    def results(self) -> str:
        """Return the path of its matrix, metrics and specification."""

    @property
    def predictions(self) -> str:
        """Return the path of the prediction for every test image."""

    def task(self, task: int) -> TaskFiles:
        """Return the files of a task."""


class PackedFiles(Protocol):
    """Files of a packed dataset."""

    @property
    def folder(self) -> str:
        """Return their folder."""

    @property
    def manifest(self) -> str:
        """Return the path of their record."""


class ResultsFolder(Protocol):
    """What lies in a folder of results, whatever configurations made it."""

    @property
    def path(self) -> Path:
        """Return the folder."""

    def tables(self) -> Iterable[tuple[Path, Path]]:
        """Return every table of runs with the file of its protocols, whole ones last."""

    def run(self, folder: str) -> RunFiles:
        """Return the files of a run, by the folder that a table names."""

    def backbones(self, name: str) -> Iterable[str]:
        """Return artifacts of a backbone, from any source."""

    def queries(self, backbone: str) -> Iterable[str]:
        """Return caches of a backbone's queries."""

    def packed(self, dataset: str) -> Iterable[PackedFiles]:
        """Return packed data of a dataset, from any source."""

    def page(self, run: str) -> tuple[str, str]:
        """Return the page that shows a run, by the folder that a table names, and its record."""
