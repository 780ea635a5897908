"""Send the curves and the configuration of a run to an experiment tracker, every point once.

A folder has all files of one target: those of its library, and in `sent/` a record of each run
with the points that were sent. Nothing is uploaded unless the library's own environment variables
say so (`WANDB_MODE=online`, `TRACKIO_SPACE_ID`).
"""

import contextlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

from filelock import FileLock

from cdl.runtime.artifacts import fingerprint, read_json, write_json
from cdl.runtime.errors import CdlError

Curves = Mapping[str, Mapping[int, float]]  # value by tag and step
Log = Callable[[str, int, Mapping[str, float]], None]  # of axis, step and values by tag
_TOLERANCE = 1e-3  # logs of running jobs have losses with four decimals


@dataclass(frozen=True)
class TrackedRun:
    """A run with its points.

    Attributes:
        study: name of the configuration.
        name: name of the run, unique in the study.
        configuration: everything that determines the run, as JSON.
        curves: values by tag and step. The step of a tag `accuracy/...` is the number of tasks
            learnt, that of other tags the epoch, counted over all tasks.
    """

    study: str
    name: str
    configuration: Mapping[str, Any]
    curves: Curves

    def rows(self) -> Iterator[tuple[str, int, dict[str, float]]]:
        """Yield axis (`epoch` or `tasks`), step and values by tag, in the order of the steps."""
        rows: defaultdict[tuple[str, int], dict[str, float]] = defaultdict(dict)
        for tag, curve in self.curves.items():
            for step, value in curve.items():
                rows[_axis(tag), step][tag] = value
        for axis, step in sorted(rows):
            yield axis, step, rows[axis, step]


def _axis(tag: str) -> str:
    return "tasks" if tag.startswith("accuracy/") else "epoch"


def _about(run: TrackedRun) -> dict[str, Any]:
    """Return the arguments of `init` that wandb and trackio share."""
    return {
        "project": run.study,
        "name": run.name,
        "group": run.name.rsplit("/", 1)[0],
        "config": dict(run.configuration),
        "resume": "allow",
    }


@contextlib.contextmanager
def _tensorboard(run: TrackedRun, before: int, folder: Path) -> Iterator[Log]:
    """Open an event file in the run's folder."""
    library, summary = map(import_module, ("tensorboardX", "tensorboardX.summary"))
    suffix = f".{before:09d}"  # times in the names of event files are whole seconds
    place = str(folder / run.study / run.name)
    with library.SummaryWriter(place, filename_suffix=suffix) as writer:
        if not before:
            columns = {"accuracy/average": 0.0}  # of the table of configurations
            for part in summary.hparams(dict(_flat(run.configuration)), columns):
                writer.file_writer.add_summary(part)

        def log(_: str, step: int, values: Mapping[str, float]) -> None:
            for tag, value in values.items():
                writer.add_scalar(tag, value, step)

        yield log


@contextlib.contextmanager
def _wandb(run: TrackedRun, before: int, folder: Path) -> Iterator[Log]:
    """Open an offline run; all of one run have the same id."""
    library = import_module("wandb")
    place = folder / f"{before:09d}"  # else folders of one second collide
    place.mkdir(exist_ok=True)
    session = library.init(
        **_about(run),
        id=fingerprint([run.study, run.name])[:16],
        mode=os.environ.get("WANDB_MODE", "offline"),
        dir=str(place),
        settings=library.Settings(
            silent=True, console="off", disable_git=True, x_disable_stats=True, x_disable_meta=True
        ),
    )
    for tag in run.curves:
        session.define_metric(tag, step_metric=_axis(tag))
    yield lambda axis, step, values: session.log({axis: step, **values})
    session.finish()


@contextlib.contextmanager
def _trackio(run: TrackedRun, before: int, folder: Path) -> Iterator[Log]:
    """Open the run in the database of the study."""
    os.environ["TRACKIO_DIR"] = str(folder.resolve())  # is read when the library is imported
    library = import_module("trackio")
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        library.init(**_about(run), embed=False, auto_log_gpu=False, auto_log_cpu=False)
        yield lambda _, step, values: library.log(values, step=step)
        library.finish()


@dataclass(frozen=True)
class Target:
    """An experiment tracker.

    Attributes:
        module: module of its library that writes.
        opened: opens a run with its new points, given the number of points sent before, in a
            folder; yields the function that logs the values of one step.
        show: command that shows the folder.
    """

    module: str
    opened: Callable[[TrackedRun, int, Path], contextlib.AbstractContextManager[Log]]
    show: str


TARGETS = {  # by the name of the extra, too
    "tensorboard": Target("tensorboardX", _tensorboard, "tensorboard --logdir {folder}"),
    "wandb": Target("wandb", _wandb, "wandb sync {folder}/*/wandb/offline-run-*"),
    "trackio": Target("trackio", _trackio, "TRACKIO_DIR={folder} trackio show --project {study}"),
}


def check_installed(target: str) -> None:
    """Raise `CdlError` if the library of a target is not installed."""
    module = TARGETS[target].module
    if find_spec(module) is None:  # trackio is imported when its folder is known
        raise CdlError(
            f"--to {target} needs the package {module}, which is not installed: "
            f"pip install 'cdl-workbench[{target}]'"
        )


def send(run: TrackedRun, target: str, folder: Path) -> int:
    """Send the points of a run that were not sent before; return their number.

    If the run was computed again since, with another configuration or other values, all points are
    sent, as a run of a new name, such as `.../seed0 (2)`.

    Args:
        run: the run.
        target: a name in `TARGETS`.
        folder: folder of the target, which is made.

    Raises:
        CdlError: the library reports an error, or a record in `sent/` is damaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):  # two processes would send the same points
        name, record, sent = _sent(run, folder)
        new = {
            tag: {step: value for step, value in curve.items() if step not in sent.get(tag, {})}
            for tag, curve in run.curves.items()
        }
        points = sum(map(len, new.values()))
        if points:
            delta = TrackedRun(run.study, name, run.configuration, new)
            before = sum(map(len, sent.values()))
            with _reported(target, name), TARGETS[target].opened(delta, before, folder) as log:
                for axis, step, values in delta.rows():
                    log(axis, step, values)
            merged = {tag: {**curve, **sent.get(tag, {})} for tag, curve in run.curves.items()}
            content = {tag: sorted(curve.items()) for tag, curve in merged.items()}
            about = {"name": name, "configuration": fingerprint(run.configuration)}
            write_json(record, {**about, "curves": content})
    return points


@contextlib.contextmanager
def _reported(target: str, name: str) -> Iterator[None]:
    """Turn exceptions of a target's library into a `CdlError` of one line."""
    try:
        yield
    except Exception as error:  # each library has its own
        reason = next(iter(str(error).strip().splitlines()), repr(error))
        raise CdlError(
            f"{target}: {name} could not be sent ({reason}); the same command sends it again"
        ) from error


def _sent(run: TrackedRun, folder: Path) -> tuple[str, Path, Curves]:
    """Return the name under which a run is sent, its record and the points sent before."""
    for i in count(1):
        name = run.name if i == 1 else f"{run.name} ({i})"
        record = folder / "sent" / f"{fingerprint([run.study, name])[:16]}.json"
        if not record.is_file():
            return name, record, {}
        content = read_json(record)
        curves = {
            tag: {int(k): float(v) for k, v in points} for tag, points in content["curves"].items()
        }
        same = all(
            abs(value - curves.get(tag, {}).get(step, value)) < _TOLERANCE
            for tag, curve in run.curves.items()
            for step, value in curve.items()
        )
        if same and content["configuration"] == fingerprint(run.configuration):
            return name, record, curves
    raise AssertionError("unreachable")


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield nested values by dotted names; lists and None as text."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            known = isinstance(value, bool | int | float | str)
            yield f"{prefix}{key}", value if known else str(value)
