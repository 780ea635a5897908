"""A made-up study: files of finished runs with random numbers, for figures and pages."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
from safetensors.numpy import save_file

from cdl.evaluation.metrics import metrics
from cdl.layout import RunFiles
from cdl.reporting.columns import CELL
from cdl.reporting.intervals import contrasts
from cdl.reporting.page import write_page
from cdl.reporting.runs import read_results, tables_of
from cdl.reporting.summary import interval_table, summarise
from cdl.reporting.tables import write
from cdl.runtime.artifacts import fingerprint, write_json, write_text

PROTOCOL = {"training": {"lr": 0.005, "epochs": 3}, "dataset": {"tasks": 4, "view": {"size": 16}}}
LEARNER = {"seed": 0, "method": {"name": "l2p"}, "distiller": {"name": "none"}}
LEARNER |= {"training": {"lr": 0.005}}
SPEEDS = ("latency_p50_ms", "latency_p95_ms", "images_per_second_1", "images_per_second_2")
SPEEDS += ("peak_memory_mb",)
MACHINE = {"cpu": "Abacus 1", "cores": 3, "system": "Wood", "onnxruntime": "1", "load_before": 0.5}
LEARNERS = [
    ("", "big", "none"),
    ("", "small", "none"),
    ("big", "small", "kd"),
    ("big", "small", "dkd"),
]


def make_study(
    folder, methods=("l2p", "apt"), seeds=(0, 1), tasks=4, images=50, alone=(), variant=""
):
    """Write runs below `folder`; return the tables of `cdl.reporting.runs.tables_of`.

    Nothing is distilled with the methods in `alone`. `variant` is that of `kd`.
    """
    rng = np.random.default_rng(0)
    rows, results, costs = [], [], []
    for method in methods:
        for teacher, student, kd in LEARNERS[: 2 if method in alone else None]:
            for seed in seeds:
                role = "teacher" if student == "big" else "student"
                at = {name: f"{folder}/{method}/{name}/seed{seed}" for name in ("big", "none")}
                name = "big" if role == "teacher" else kd
                run = f"{folder}/{method}/{name}/seed{seed}"
                rows.append(
                    {
                        "dataset": "digits",
                        "method": method,
                        "teacher": teacher,
                        "backbone": student,
                        "distiller": kd,
                        "variant": variant if kd == "kd" else "",
                        "seed": seed,
                        "n_tasks": tasks,
                        "role": role,
                        "query": "small",
                        "teacher_method": "",
                        "labels": "all",
                        "teacher_labels": "all" if teacher else "",
                        "method_options": "",
                        "distiller_options": "alpha=0.9" if kd == "dkd" else "",
                        "protocol": PROTOCOL,
                        "provenance": fingerprint(LEARNER),
                        "run": run,
                        "trained_run": run,
                        "baseline_run": at["none"] if role == "student" else "",
                        "teacher_run": at["big"] if teacher else "",
                    }
                )
                results.append(
                    write_run(folder / method / name / f"seed{seed}", teacher, tasks, images, rng)
                )
                costs.append([f"{run}/task{t}/cost.tsv" for t in range(tasks)])
    return tables_of(rows, read_results(rows, results), costs)


def predictions(run):
    """The predictions of a run of `make_study`."""
    return pd.read_parquet(f"{run}/predictions.parquet")


def intervals_of(results, read=predictions):
    """The rows of `intervals.csv` of some runs."""
    return interval_table(summarise(results, read))


def make_deployment(folder, results):
    """Write the table of deployment of some runs; return the paths that the report reads."""
    rng = np.random.default_rng(1)
    parts = {f"parameters_{part}": 1000 for part in ("backbone", "prompts", "head")}
    parts |= {"parameters_query_backbone": 0, "parameters_distiller": 0}
    costs = {"gflops": 2.5, "gflops_without_query": 1.25, "block_passes": 24, "shared_blocks": 0}
    rows = [
        {**row, "weights": weights, "accuracy": row["final_average_accuracy"], "megabytes": 3.9}
        | {"forgetting_max": 1.5 if weights == "fp32" else None, **parts, **costs}
        | {name: rng.uniform(1, 9) for name in SPEEDS}
        for row in results.to_dict("records")
        for weights in ("fp32", "int8")
    ]
    csv, record = folder / "deployment.csv", folder / "deployment.json"
    pd.DataFrame(rows).to_csv(csv, index=False)
    write_json(record, {"machine": MACHINE}, files=[csv])
    return SimpleNamespace(
        deployment=str(csv),
        deployment_record=str(record),
        deployment_figures=[f"{folder}/deployment.{kind}" for kind in ("svg", "pdf", "png")],
    )


def write_run(folder, teacher, tasks, images, rng):
    """Write the files of a run that tables and the page read or link to."""
    job = "distil" if teacher else "train"
    for t in range(tasks):
        task = folder / f"task{t}"
        task.mkdir(parents=True)
        for name in ("learner.safetensors", "learner.json", "losses.csv", f"{job}.log"):
            (task / name).touch()
        seconds, memory = rng.uniform(5, 9), rng.uniform(200, 300)
        row = [seconds, f"0:00:0{int(seconds)}", memory, 80.5, 0.8 * seconds]
        header = ["s", "h:m:s", "max_rss", "mean_load", "cpu_time"]
        lines = ["\t".join(map(str, line)) for line in (header, row)]
        (task / "cost.tsv").write_text("\n".join(lines) + "\n")
    (folder / "evaluate.log").touch()
    correct = rng.random((tasks, images)) < rng.uniform(0.5, 0.9)
    matrix = np.full((tasks, tasks), np.nan)
    for t in range(tasks):
        matrix[t, : t + 1] = 100 * rng.uniform(0.3, 0.95, t + 1)
    matrix[-1] = 100 * correct.mean(axis=1)
    owner = np.repeat(np.arange(tasks), images)
    table = pd.DataFrame(
        {
            "image": np.arange(owner.size),
            "task": owner,
            "class": owner.astype(str),
            "correct": correct.ravel(),
        }
    )
    table.to_parquet(folder / "predictions.parquet")
    run = {
        "matrix": [[None if np.isnan(x) else x for x in line] for line in matrix.tolist()],
        "test_images": [images] * tasks,
        "metrics": metrics(matrix, [images] * tasks),
        "classes": [str(c) for c in range(2 * tasks)],
        "trainable_parameters": 1234,
        "seen": {"views": 2 * images * tasks, "labelled": images * tasks, "unlabelled": 0},
        "learner": LEARNER,
        "data": {"train": "a" * 64, "test": "b" * 64},
        "backbones": {"small": "c" * 64},
        "versions": {"cdl": "0.1", "torch": "2.0"},
    }
    write_json(folder / "results.json", run, files=[folder / "predictions.parquet"])
    return f"{folder}/results.json"


SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="300pt" height="60pt"/>'
CONFIGURATION = {"name": "study", "training": {"lr": 0.005}}
EFFICIENCY = {  # a row of each level of labels
    "method": "l2p",
    "teacher": "big",
    "student": "small",
    "teacher_saw": "all",
    "dataset_block": "{}",
    "learner": "kd",
    "labels": ["1", "all"],
    "position": [1, 50],
    "n": 2,
    "over": "seeds and test examples",
    "accuracy": [1.0, 2.0],
    "accuracy_low": [0.5, 1.5],
    "accuracy_high": [2.0, 3.0],
}


def recorded(folder, record, content=(), **files):
    """Write tables and figures, and their record; return all paths by name."""
    paths = {}
    for name, own in files.items():
        paths[name] = f"{folder}/{name}.{'svg' if own is SVG else 'csv'}"
        write_text(paths[name], SVG) if own is SVG else write(own, paths[name], "%.9g")
    write_json(f"{folder}/{record}.json", dict(content), paths.values())
    return paths | {record: f"{folder}/{record}.json"}


def write_study_page(
    folder, configuration=CONFIGURATION, manifests=None, figures=("accuracy", "losses"), **size
):
    """Write runs below `folder` and their page `index.html`; return the table of results."""
    results, _, cost, protocols = make_study(folder, **size)
    whose = results[[*CELL, "seed"]]
    classes = [
        row.assign(**{"class": str(task)}, accuracy=100 * own["correct"].mean())
        for (_, row), run in zip(whose.groupby(whose.index), results["run"], strict=True)
        for task, own in predictions(run).groupby("task")
    ]
    manifests = manifests or {"digits": {}}
    for name, manifest in manifests.items():
        write_json(folder / name / "manifest.json", manifest)
    for name, width in (("big", 30), ("small", 10)):
        write_json(folder / f"{name}.json", {})
        save_file({"blocks": np.zeros((width, 100), np.float32)}, folder / f"{name}.safetensors")

    def described(run, n_tasks, teacher):
        rule = "distil" if teacher else "train"
        tasks = [RunFiles(run).task(t).described(t, rule) for t in range(n_tasks)]
        return sum(tasks, RunFiles(run).described())

    tested = dict.fromkeys(results["run"], "b" * 64)
    tables = {"results": results, "classes": pd.concat(classes)}
    summaries = {
        "intervals": intervals_of(results),
        "contrasts": contrasts(results, predictions, tested),
    }
    efficiency = {"label_efficiency_digits": pd.DataFrame(EFFICIENCY), "efficiency": SVG}
    few = recorded(folder, "efficiency_record", **efficiency)
    paths = {
        **recorded(folder, "protocols", protocols, **tables),
        **recorded(folder, "summary_record", **summaries),
        **recorded(folder, "cost_record", cost=cost),
        **vars(make_deployment(folder, results)),
        "efficiency_tables": [few["label_efficiency_digits"]],
        "efficiency_figures": [few["efficiency"]],
        "efficiency_records": [few["efficiency_record"]],
    }
    Path(paths["deployment_figures"][0]).write_text(SVG)
    drawn = {name: recorded(folder, f"{name}_record", **{name: SVG}) for name in figures}
    outputs = SimpleNamespace(
        page=f"{folder}/index.html",
        configuration=f"{folder}/configuration.yaml",
        record=f"{folder}/page.json",
    )
    write_page(
        outputs,
        SimpleNamespace(**paths),
        configuration,
        {
            "figures": {
                name: {"digits": (own[name], own[f"{name}_record"])} for name, own in drawn.items()
            },
            "runs": {
                row["run"]: {
                    "results": RunFiles(row["run"]).results,
                    "files": described(row["run"], row["n_tasks"], row["teacher"]),
                }
                for row in results.to_dict("records")
            },
            "data": {name: f"{folder}/{name}/manifest.json" for name in manifests},
            "backbones": {name: f"{folder}/{name}.json" for name in ("big", "small")},
            "weights": {name: f"{folder}/{name}.safetensors" for name in ("big", "small")},
        },
    )
    return results
