"""Tasks added to a stream: finished tasks do not run again."""

from functools import reduce
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from runs import CONFIGS, planned, snakemake

from cdl.study.configuration import merge, read, resolve
from cdl.study.grid import Grid
from cdl.study.report_jobs import study_jobs

STREAM = """
datasets:
  digits: {{tasks: {digits}}}
  mine:
    source: {{folder: {{path: mine}}}}
    tasks: {mine}
    view: {{size: 16}}
protocol: {{class_order: natural}}
methods: {{coda_prompt: {{pool_per_task: 4}}}}
distillers: {{cdl_prompt: {{pool_per_task: 4}}}}
grid: {{methods: [l2p, coda_prompt, dual_prompt]}}
"""


def add_class(folder, name, seed):
    for split in ("train", "test"):
        file = folder / "mine" / split / name / "one.png"
        file.parent.mkdir(parents=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file)


def pretend(folder, overlay):
    """Fill a folder as after a whole run, with empty files and Snakemake's metadata."""
    file = folder / "stream.yaml"
    file.write_text(overlay)
    grid = Grid(resolve(reduce(merge, map(read, [*CONFIGS, file]))))
    for path in (path for job in study_jobs(grid) for path in job.paths):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch()
    result = snakemake(folder, "--cores", "2", "--touch", "--forceall", overlay=overlay)
    assert result.returncode == 0, result.stderr[-2000:]


@pytest.mark.slow
def test_a_size_and_a_class_folder_more_plan_the_new_task_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("ant", "bee", "cow", "dog")):
        add_class(tmp_path, name, seed)
    pretend(tmp_path, STREAM.format(digits=[4, 3], mine=[2, 2]))
    assert planned(tmp_path, overlay=STREAM.format(digits=[4, 3], mine=[2, 2])) == {}
    for seed, name in enumerate(("eel", "fox"), start=4):
        add_class(tmp_path, name, seed)
    # both datasets, three methods: a teacher, an undistilled and two distilled students
    assert planned(tmp_path, overlay=STREAM.format(digits=[4, 3, 2], mine=[2, 2, 2])) == {
        **{"prepare_dataset": 1, "test_queries": 1},  # for the folder
        **{"queries": 2, "teacher_targets": 6, "train": 12, "distil": 12, "evaluate": 24},
        **{"collect": 1, "tabulate": 1, "plot": 2, "page": 1},
    }
