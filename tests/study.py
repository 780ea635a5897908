"""A study that nobody ran: files of finished runs with made-up numbers, for figures and pages."""

import numpy as np
import pandas as pd

from cdl.evaluation.metrics import metrics
from cdl.report.tables import collect
from cdl.runtime.artifacts import fingerprint, write_json

PROTOCOL = {"training": {"lr": 0.005, "epochs": 3}, "dataset": {"tasks": 4, "view": {"size": 16}}}
LEARNER = {"seed": 0, "training": {"lr": 0.005}}
LEARNERS = [
    ("", "big", "none"),
    ("", "small", "none"),
    ("big", "small", "kd"),
    ("big", "small", "dkd"),
]


def make_study(folder, methods=("l2p", "apt"), seeds=(0, 1), tasks=4, images=50):
    """Write runs below `folder`; return `cdl.report.tables.collect`'s tables."""
    rng = np.random.default_rng(0)
    rows, results, costs = [], [], []
    for method in methods:
        for teacher, student, kd in LEARNERS:
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
                        "student": student,
                        "kd": kd,
                        "variant": "",
                        "seed": seed,
                        "n_tasks": tasks,
                        "role": role,
                        "query": "small",
                        "teacher_method": "",
                        "method_options": "",
                        "kd_options": "alpha=0.9" if kd == "dkd" else "",
                        "protocol": PROTOCOL,
                        "provenance": fingerprint(LEARNER),
                        "run": run,
                        "none_run": at["none"] if role == "student" else "",
                        "teacher_run": at["big"] if teacher else "",
                    }
                )
                results.append(
                    write_run(folder / method / name / f"seed{seed}", teacher, tasks, images, rng)
                )
                costs.append([f"{run}/task{t}/cost.tsv" for t in range(tasks)])
    return collect(rows, results, costs)


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
        {"image": np.arange(owner.size), "task": owner, "correct": correct.ravel()}
    )
    table.to_parquet(folder / "predictions.parquet")
    run = {
        "matrix": [[None if np.isnan(x) else x for x in line] for line in matrix.tolist()],
        "test_images": [images] * tasks,
        "metrics": metrics(matrix, [images] * tasks),
        "classes": [str(c) for c in range(2 * tasks)],
        "trainable_parameters": 1234,
        "learner": LEARNER,
        "data": {"train": "a" * 64, "test": "b" * 64},
        "backbones": {"small": "c" * 64},
        "versions": {"cdl": "0.1", "torch": "2.0"},
    }
    write_json(folder / "results.json", run, files=[folder / "predictions.parquet"])
    return f"{folder}/results.json"
