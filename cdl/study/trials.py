"""Trials: points of a Sobol sequence, each a variant of a distiller in a grid of its own.

What is tried is known when the graph is built, so trials are cached, run side by side and go on
after an interruption like any other runs. They see validation images alone, see `_validated`.
"""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cdl import layout
from cdl.distillers import DISTILLERS
from cdl.runtime.artifacts import read_json
from cdl.study.configuration import ConfigError, schema, validate_block
from cdl.study.grid import Grid
from cdl.study.jobs import Job, Paths, Record
from cdl.study.learning_jobs import LearningJobs
from cdl.study.runs import Block, Run

VARIANT = "tune"  # of a dataset, of which trials see the validation images
_DIGITS = 4  # that a value keeps


@dataclass(frozen=True)
class Trial:
    """One setting of a distiller.

    Attributes:
        distiller: label of the distiller, as in the study.
        index: of the point.
        values: by field, those that concern this distiller.
        entry: the variant that learns with it, as the grid's distillers list it.
    """

    distiller: str
    index: int
    values: dict[str, Any]
    entry: dict[str, Any]

    @property
    def label(self) -> str:
        """Return the label of the variant."""
        return f"{self.entry['block']}+{self.entry['variant']}"


class Trials:
    """The trials that the `tune` of a study asks for, a grid of their own.

    Attributes:
        study: grid of the study.
        every: trials of all distillers, in their order; empty without `tune`.
        grid: of all runs of trials and their teachers, None without `tune`.
    """

    def __init__(self, study: Grid) -> None:
        """Expand the trials of a study; raise `ConfigError` if one cannot work."""
        self.study, self.grid = study, None
        self.every: list[Trial] = []
        if study.config["tune"] is None:
            return
        trials = _trials(study.config, study.methods, study.distillers)
        self.grid = Grid(_configuration(study, trials))
        self.every = [trial for trial in trials if self.runs_of(trial)]

    @property
    def runs(self) -> list[Run]:
        """Every run of a trial, and their teachers."""
        return self.grid.runs if self.grid else []

    @property
    def distillers(self) -> list[str]:
        """Labels of the distillers that have trials."""
        return list(dict.fromkeys(trial.distiller for trial in self.every))

    def runs_of(self, trial: Trial) -> list[Run]:
        """Return the students that learn with a trial's values."""
        return [
            run for run in self.runs if run.role == "student" and run.distiller.label == trial.label
        ]

    def asked(self) -> list[dict[str, Any]]:
        """Return every trial as a report needs it: names, values, and where its results lie.

        Raises:
            ConfigError: nothing is to be tuned.
        """
        if not self.every:
            raise ConfigError("tune: is missing; name at least one field with its low and high")
        found, given = [], _given(self.study.config["grid"]["distillers"])
        for trial in self.every:
            files = [self.study.files(run) for run in self.runs_of(trial)]
            entry = {"distiller": trial.distiller, "index": trial.index, "values": trial.values}
            entry["tuned"] = _entry(given[trial.distiller], trial.values, "tuned")
            entry |= {"first": [f.first.record for f in files], "all": [f.results for f in files]}
            found.append(entry)
        return found

    def budget(self) -> dict[str, Any]:
        """Return what each distiller gets, the same for all, and how the fields are tried."""
        tune = self.study.config["tune"]
        return {
            "trials": tune["trials"],
            "kept": kept(tune["trials"], tune["keep"]),
            "first_tasks": tune["first_tasks"],
            "tasks": max(run.n_tasks for run in self.runs),
            "seeds": tune["seeds"],
            "fields": tune["fields"],
        }

    def jobs(self) -> Iterator[Job]:
        """Yield the jobs of all trials: a list beside that of the study, in none of its tables."""
        if self.grid is not None:
            learning = LearningJobs(self.grid)
            yield from learning
            first_tasks = self.study.config["tune"]["first_tasks"]
            yield from (learning.evaluation(run, first_tasks) for run in self.runs)
        tuning = self.study.layout.tuning
        kept_trials, tuned = tuning.kept, layout.JobFiles(tuning.log.removesuffix(".log"))

        def first() -> list[str]:
            return [path for trial in self.asked() for path in trial["first"]]

        def given() -> dict[str, Any]:
            return {"trials": self.asked(), "budget": self.budget()}

        record = Record(kept_trials.record)
        outputs: Paths = {"kept": record.path}
        yield Job("halve", {}, outputs, (record,), kept_trials, lambda: {"results": first()}, given)
        yield Job(  # reads the results of the kept trials as well, which only `halve` knows
            rule="tuned",
            key={},
            outputs=tuning.outputs(self.distillers),
            records=(),
            files=tuned,
            reads=lambda: {"first": first(), "kept": record.path},
            given=given,
        )


def results_of_kept(record: str, asked: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the results of the trials that went on, by the record that says which.

    Args:
        record: written by `cdl.reporting.tuning.write_kept`.
        asked: of `Trials.asked`.
    """
    went_on = read_json(record)["kept"]
    return [path for t in asked if t["index"] in went_on[t["distiller"]] for path in t["all"]]


def kept(trials: int, share: float) -> int:
    """Return how many trials go on after their first tasks."""
    return max(1, math.ceil(round(trials * share, 9)))


def _trials(
    config: Mapping[str, Any], methods: list[Block], distillers: list[Block]
) -> list[Trial]:
    """Return the trials of all distillers that a field concerns."""
    from scipy.stats import qmc  # takes a second, and every job of every study reads this file

    tune, given = config["tune"], _given(config["grid"]["distillers"])
    fields = sorted(tune["fields"])
    for field in fields:
        _check(field, tune["fields"][field], methods, distillers)
    n = tune["trials"]
    sobol = qmc.Sobol(len(fields), scramble=True, seed=tune["seed"])
    points = sobol.random_base2(math.ceil(math.log2(n)))[:n].tolist()
    found = []
    for block in distillers:
        own = [(k, f, name) for k, f in enumerate(fields) if (name := _field_of(f, block))]
        for i, point in enumerate(points if own else []):
            values = {name: _value(name, tune["fields"][f], point[k]) for k, f, name in own}
            entry = _entry(given[block.label], values, f"t{i:0{len(str(n - 1))}}")
            found.append(Trial(block.label, i, values, entry))
    return found


def _field_of(field: str, block: Block) -> str | None:
    """Return a field as it concerns a distiller, None if it does not.

    A distiller that maps its teacher's prompts has its teacher's options of the method.
    """
    if field == "training.lr":
        return field
    kind, name, option = field.split(".")
    if kind == "methods":
        return None if DISTILLERS[block.name].maps_prompts else field
    known = option in schema()["properties"][kind]["properties"][block.name]["properties"]
    return f"distillers.{block.name}.{option}" if name in (block.name, "*") and known else None


def _kind(field: str) -> dict[str, Any]:
    """Return the schema of a field.

    Raises:
        ConfigError: a method has no such option.
    """
    part = schema()
    for key in field.split("."):
        if key not in part["properties"]:
            known = ", ".join(sorted(part["properties"]))
            raise ConfigError(f"tune.fields.{field}: {key!r} is unknown; known are {known}")
        part = part["properties"][key]
    return part


def _check(
    field: str, span: Mapping[str, Any], methods: list[Block], distillers: list[Block]
) -> None:
    """Refuse a field that nothing in the grid has, and values that are none of its."""
    where, low, high = f"tune.fields.{field}", span["low"], span["high"]
    concerned = [name for block in distillers if (name := _field_of(field, block))]
    absent = field.startswith("methods.") and field.split(".")[1] not in {b.name for b in methods}
    if absent:
        raise ConfigError(f"{where}: {field.split('.')[1]!r} is none of grid.methods")
    if not concerned:
        names = ", ".join(block.label for block in distillers)
        raise ConfigError(f"{where}: none of the grid's distillers ({names}) has this option")
    if not low < high or (span["log"] and low <= 0):
        right = "0 < low < high" if span["log"] else "low < high"
        raise ConfigError(f"{where}: {low:g} to {high:g} cannot work; needed is {right}")
    for name in concerned:
        if not {"integer", "number"} & {*_as_list(_kind(name)["type"])}:
            raise ConfigError(f"{where}: is no number; only numbers are tuned")
        for end in (0.0, 1.0):
            validate_block(_value(name, span, end), _kind(name), where)


def _as_list(kinds: str | list[str]) -> list[str]:
    return [kinds] if isinstance(kinds, str) else kinds


def _value(field: str, span: Mapping[str, Any], u: float) -> int | float:
    """Return the value at `u` in 0..1 of a range, of few digits; whole where the field is."""
    low, high = span["low"], span["high"]
    value = low * (high / low) ** u if span["log"] else low + (high - low) * u
    if "number" in _as_list(_kind(field)["type"]):
        return float(f"{value:.{_DIGITS}g}")
    step = _kind(field).get("multipleOf", 1)
    return int(step * round(value / step))


def _given(listed: Sequence[Any]) -> dict[str, dict[str, Any]]:
    """Return entries of a list of the grid, by label."""
    entries = [
        {"block": entry, "variant": ""} if isinstance(entry, str) else dict(entry)
        for entry in listed
    ]
    return {e["block"] + (f"+{e['variant']}" if e["variant"] else ""): e for e in entries}


def _entry(given: dict[str, Any], values: Mapping[str, Any], variant: str) -> dict[str, Any]:
    """Return a distiller of the grid with other values, as an entry of the grid."""
    variant = f"{given['variant']}.{variant}" if given["variant"] else variant
    entry = copy.deepcopy({**given, "variant": variant})
    for field, value in values.items():
        kind, *path = field.split(".")
        if kind == "training":
            entry.setdefault("training", {})[path[0]] = value
        elif kind == "methods":
            entry.setdefault("methods", {}).setdefault(path[0], {})[path[1]] = value
        else:
            entry[path[1]] = value
    return entry


def _configuration(grid: Grid, trials: Sequence[Trial]) -> dict[str, Any]:
    """Return the configuration of all trials of a study's grid."""
    config = grid.config
    tune, made = config["tune"], copy.deepcopy(config)
    both = sorted({*tune["seeds"]} & {*config["grid"]["seeds"]})
    if both:
        raise ConfigError(
            f"tune.seeds: {both[0]} is a seed of the grid too; settings are chosen on seeds of "
            "their own"
        )
    most = min(run.n_tasks for run in grid.runs)
    if tune["first_tasks"] > most:
        raise ConfigError(f"tune.first_tasks: {tune['first_tasks']}, but there are {most} tasks")
    made["deploy"] = None
    made["grid"] |= {
        "datasets": [
            _validated(entry, config["datasets"])
            for entry in _given(config["grid"]["datasets"] or sorted(config["datasets"])).values()
        ],
        "bounds": [],
        "seeds": tune["seeds"],
        "distillers": [trial.entry for trial in trials],
        "exclude": [
            _renamed(pair, trial)
            for pair in config["grid"]["exclude"]
            for trial in trials
            if trial.distiller == pair.get("distiller", trial.distiller)
            and pair.get("method") in (None, *(block.label for block in grid.methods))
        ],
    }
    return made


def _renamed(pair: Mapping[str, str], trial: Trial) -> dict[str, str]:
    """Return what is not combined, as it is called for a trial."""
    dataset = {"dataset": _variant(pair["dataset"])} if "dataset" in pair else {}
    return {**pair, **dataset, "distiller": trial.label}


def _variant(dataset: str) -> str:
    """Return the label of a dataset's variant for trials."""
    return f"{dataset}{'.' if '+' in dataset else '+'}{VARIANT}"


def _validated(entry: dict[str, Any], blocks: Mapping[str, Any]) -> dict[str, Any]:
    """Return a dataset of the grid of which validation images are evaluated, no test image read.

    Raises:
        ConfigError: it holds none out.
    """
    variant = f"{entry['variant']}.{VARIANT}" if entry["variant"] else VARIANT
    seen = {**entry, "variant": variant, "test_images_per_class": None, "published": None}
    if (entry.get("validation") or blocks[entry["block"]]["validation"]) is not None:
        return seen | {"evaluate_on": "validation"}
    if "cifar20" in (entry.get("source") or blocks[entry["block"]]["source"]):
        return seen | {"source": {"cifar20": {"test": "validation"}}}
    raise ConfigError(
        f"datasets.{entry['block']}.validation: is missing; settings are tuned on images that "
        "nobody trains on, {per_class: N}"
    )
