"""Trials of a hyperparameter search: points of a Sobol sequence, each a variant of a distiller.

All points are known when the graph is built, so trials are cached, run in parallel and resume
after an interruption like other runs. They are evaluated on validation images, see
`_on_validation_images`.
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
from cdl.study.runs import Block, Run, as_list, entry_of, label_of

VARIANT = "tune"  # variant of a dataset that trials are evaluated on
BEST = "tuned"  # variant of a distiller with the best values
_DIGITS = 4  # significant digits of a value


@dataclass(frozen=True)
class Trial:
    """One setting of the hyperparameters of a distiller.

    Attributes:
        distiller: label of the distiller in the study.
        index: index of the point.
        values: values of the fields that apply to this distiller, by field.
        entry: the variant with these values, as an entry of `grid.distillers`.
    """

    distiller: str
    index: int
    values: dict[str, Any]
    entry: dict[str, Any]

    @property
    def label(self) -> str:
        """The label of the variant."""
        return label_of(self.entry["block"], self.entry["variant"])


class Trials:
    """The trials of the block `tune` of a study, with a grid of their own.

    Attributes:
        study: grid of the study.
        every: trials of all distillers, in the order of the distillers; empty without `tune`.
        grid: grid of the runs of all trials and their teachers; None without `tune`.
    """

    def __init__(self, study: Grid) -> None:
        """Expand the trials of a study; raise `ConfigError` if one is impossible."""
        self.study, self.grid = study, None
        self.every: list[Trial] = []
        if study.config["tune"] is None:
            return
        trials = _trials(study.config, study.methods, study.distillers)
        self.grid = Grid(_configuration(study, trials))
        self.every = [trial for trial in trials if self.runs_of(trial)]

    @property
    def runs(self) -> list[Run]:
        """The runs of all trials, and their teachers."""
        return self.grid.runs if self.grid else []

    @property
    def distillers(self) -> list[str]:
        """Labels of the distillers with trials."""
        return list(dict.fromkeys(trial.distiller for trial in self.every))

    def runs_of(self, trial: Trial) -> list[Run]:
        """Return the students of a trial."""
        return [
            run for run in self.runs if run.role == "student" and run.distiller.label == trial.label
        ]

    def listed(self) -> list[dict[str, Any]]:
        """Return all trials for reports: distiller, index, values, and paths of the results.

        Raises:
            ConfigError: the study has no `tune`.
        """
        if not self.every:
            raise ConfigError("tune: is missing; expected at least one field with low and high")
        listed, entries = [], _entries_by_label(self.study.config["grid"]["distillers"])
        for trial in self.every:
            files = [self.study.files(run) for run in self.runs_of(trial)]
            entry = {"distiller": trial.distiller, "index": trial.index, "values": trial.values}
            entry["tuned"] = _entry(entries[trial.distiller], trial.values, BEST)
            entry |= {"first": [f.first.record for f in files], "all": [f.results for f in files]}
            listed.append(entry)
        return listed

    def renamed_grid(self) -> dict[str, list[dict[str, str]]]:
        """Return `grid.exclude` and `grid.baseline` for the best values, by their new labels."""
        entries = _entries_by_label(self.study.config["grid"]["distillers"])
        best = {name: _entry(entries[name], {}, BEST) for name in self.distillers}
        labels = {name: label_of(entry["block"], entry["variant"]) for name, entry in best.items()}
        over = {name: self.study.baseline_label(name) for name in labels}
        return {
            "exclude": [
                {**combination, "distiller": labels[name]} if name else dict(combination)
                for combination in self.study.excluded
                if (name := combination.get("distiller")) is None or name in labels
            ],
            "baseline": [
                {"over": labels[over[name]], "distiller": label}
                for name, label in labels.items()
                if over[name] in labels
            ],
        }

    def budget(self) -> dict[str, Any]:
        """Return the budget of each distiller, equal for all, and the ranges of the fields."""
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
        """Yield the jobs of all trials, which are not in the tables of the study."""
        if self.grid is not None:
            learning = LearningJobs(self.grid)
            yield from learning
            first_tasks = self.study.config["tune"]["first_tasks"]
            yield from (learning.evaluation(run, first_tasks) for run in self.runs)
        tuning = self.study.layout.tuning
        kept_trials, tuned = tuning.kept, layout.JobFiles(tuning.log.removesuffix(".log"))

        def first() -> list[str]:
            return [path for trial in self.listed() for path in trial["first"]]

        def given() -> dict[str, Any]:
            return {"trials": self.listed(), "budget": self.budget()}

        def best() -> dict[str, Any]:
            return {**given(), "grid": self.renamed_grid()}

        record = Record(kept_trials.record)
        outputs: Paths = {"kept": record.path}
        yield Job("halve", {}, outputs, (record,), kept_trials, lambda: {"results": first()}, given)
        yield Job(  # also reads the results of the kept trials, which the rule gets from `halve`
            rule="tuned",
            key={},
            outputs=tuning.outputs(self.distillers),
            records=(),
            files=tuned,
            reads=lambda: {"first": first(), "kept": record.path},
            given=best,
        )


def results_of_kept(record: str, trials: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the paths of the results of the trials that continue after the first tasks.

    Args:
        record: path of the file written by `cdl.reporting.tuning.write_kept`.
        trials: result of `Trials.listed`.
    """
    kept_indices = read_json(record)["kept"]
    return [path for t in trials if t["index"] in kept_indices[t["distiller"]] for path in t["all"]]


def kept(trials: int, share: float) -> int:
    """Return the number of trials that continue after the first tasks."""
    return max(1, math.ceil(round(trials * share, 9)))


def _trials(
    config: Mapping[str, Any], methods: list[Block], distillers: list[Block]
) -> list[Trial]:
    """Return the trials of all distillers to which at least one field applies."""
    from scipy.stats import qmc  # slow to import, and every job imports this module

    tune, entries = config["tune"], _entries_by_label(config["grid"]["distillers"])
    fields = sorted(tune["fields"])
    for field in fields:
        _check_field(field, tune["fields"][field], methods, distillers)
    n = tune["trials"]
    sobol = qmc.Sobol(len(fields), scramble=True, seed=tune["seed"])
    points = sobol.random_base2(math.ceil(math.log2(n)))[:n].tolist()
    trials = []
    for block in distillers:
        own = [(k, f, name) for k, f in enumerate(fields) if (name := _field_of(f, block))]
        for i, point in enumerate(points if own else []):
            values = {name: _value(name, tune["fields"][f], point[k]) for k, f, name in own}
            entry = _entry(entries[block.label], values, f"t{i:0{len(str(n - 1))}}")
            trials.append(Trial(block.label, i, values, entry))
    return trials


def _field_of(field: str, block: Block) -> str | None:
    """Return the field for a distiller, with its name instead of `*`; None if it does not apply.

    Options of a method do not apply to a distiller that maps prompts: teacher and student need the
    same options.
    """
    if field == "training.lr":
        return field
    kind, name, option = field.split(".")
    if kind == "methods":
        return None if DISTILLERS[block.name].maps_prompts else field
    known = option in schema()["properties"][kind]["properties"][block.name]["properties"]
    return f"distillers.{block.name}.{option}" if name in (block.name, "*") and known else None


def _field_schema(field: str) -> dict[str, Any]:
    """Return the schema of a field; raise `ConfigError` if it does not exist."""
    part = schema()
    for key in field.split("."):
        if key not in part["properties"]:
            known = ", ".join(sorted(part["properties"]))
            raise ConfigError(f"tune.fields.{field}: {key!r} is unknown; expected one of {known}")
        part = part["properties"][key]
    return part


def _check_field(
    field: str, span: Mapping[str, Any], methods: list[Block], distillers: list[Block]
) -> None:
    """Reject a field that no run of the grid has, and an invalid range."""
    where, low, high = f"tune.fields.{field}", span["low"], span["high"]
    applicable = [name for block in distillers if (name := _field_of(field, block))]
    absent = field.startswith("methods.") and field.split(".")[1] not in {b.name for b in methods}
    if absent:
        raise ConfigError(f"{where}: {field.split('.')[1]!r} is not in grid.methods")
    if not applicable:
        names = ", ".join(block.label for block in distillers)
        raise ConfigError(f"{where}: none of the grid's distillers ({names}) has this option")
    if not low < high or (span["log"] and low <= 0):
        right = "0 < low < high" if span["log"] else "low < high"
        raise ConfigError(f"{where}: invalid range {low:g} to {high:g}; expected {right}")
    for name in applicable:
        if not {"integer", "number"} & {*as_list(_field_schema(name)["type"])}:
            raise ConfigError(f"{where}: is not a number; only numbers can be tuned")
        for end in (0.0, 1.0):
            validate_block(_value(name, span, end), _field_schema(name), where)


def _value(field: str, span: Mapping[str, Any], u: float) -> int | float:
    """Return the value at position `u` in [0, 1] of a range, rounded; an int for integer fields."""
    low, high = span["low"], span["high"]
    value = low * (high / low) ** u if span["log"] else low + (high - low) * u
    if "number" in as_list(_field_schema(field)["type"]):
        return float(f"{value:.{_DIGITS}g}")
    step = _field_schema(field).get("multipleOf", 1)
    return int(step * round(value / step))


def _entries_by_label(listed: Sequence[Any]) -> dict[str, dict[str, Any]]:
    """Return the entries of a list of the grid as mappings, by label."""
    return {label_of(e["block"], e["variant"]): e for e in map(entry_of, listed)}


def _entry(given: dict[str, Any], values: Mapping[str, Any], variant: str) -> dict[str, Any]:
    """Return an entry of `grid.distillers` for a variant with other values."""
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
    """Return the configuration of all trials of a study."""
    config = grid.config
    tune, trial_config = config["tune"], copy.deepcopy(config)
    both = sorted({*tune["seeds"]} & {*config["grid"]["seeds"]})
    if both:
        raise ConfigError(
            f"tune.seeds: {both[0]} is also in grid.seeds; expected other seeds, so that tuned "
            "values are evaluated on new ones"
        )
    most = min(run.n_tasks for run in grid.runs)
    if tune["first_tasks"] > most:
        raise ConfigError(
            f"tune.first_tasks: invalid value {tune['first_tasks']}; expected at most {most}, the "
            "number of tasks"
        )
    datasets = _entries_by_label(config["grid"]["datasets"] or sorted(config["datasets"]))
    trial_config["deploy"] = None
    trial_config["grid"] |= {
        "datasets": [
            _on_validation_images(entry, config["datasets"]) for entry in datasets.values()
        ],
        "bounds": [],
        "baseline": "none",
        "seeds": tune["seeds"],
        "distillers": [trial.entry for trial in trials],
        "exclude": [
            _excluded_for(trial, combination)
            for combination in grid.excluded
            for trial in trials
            if trial.distiller == combination.get("distiller", trial.distiller)
            and combination.get("method") in (None, *(block.label for block in grid.methods))
        ],
    }
    return trial_config


def _excluded_for(trial: Trial, combination: Mapping[str, str]) -> dict[str, str]:
    """Return an entry of `grid.exclude` with the labels of a trial."""
    dataset = combination.get("dataset")
    renamed = {} if dataset is None else {"dataset": _variant_label(dataset)}
    return {**combination, **renamed, "distiller": trial.label}


def _variant_label(dataset: str) -> str:
    """Return the label of a dataset's variant for trials."""
    return f"{dataset}{'.' if '+' in dataset else '+'}{VARIANT}"


def _on_validation_images(entry: dict[str, Any], blocks: Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry of `grid.datasets` for evaluation on validation images.

    Raises:
        ConfigError: the dataset has no validation images.
    """
    variant = f"{entry['variant']}.{VARIANT}" if entry["variant"] else VARIANT
    changed = {**entry, "variant": variant, "test_images_per_class": None, "published": None}
    if (entry.get("validation") or blocks[entry["block"]]["validation"]) is not None:
        return changed | {"evaluate_on": "validation"}
    source = entry.get("source") or blocks[entry["block"]]["source"]
    if "cifar20" in source:  # contains validation images of its own
        return changed | {"source": {"cifar20": {**source["cifar20"], "test": "validation"}}}
    raise ConfigError(
        f"datasets.{entry['block']}.validation: is missing; expected {{per_class: N}}, examples "
        "that are held out of training for tuning"
    )
