"""Parts of the study `new_classes.py` that train with torch: `cdl learn`, and joint training."""

import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from new_classes_inputs import EACH, Data, Outcome, Study, conditions, save_image

from cdl.data.packing import prepare
from cdl.data.sources import SOURCES
from cdl.deployment.learn import learn
from cdl.deployment.one_more_task import trained_specification
from cdl.deployment.trained import TrainedStudent, find_backbone
from cdl.evaluation.evaluate import evaluate_run
from cdl.layout import ResultsFolder, RunFiles
from cdl.spec import LearnerSpec
from cdl.spec import Stream as StreamSpec
from cdl.training.task import learn_task


def with_torch(study: Study) -> None:
    """Learn one more task with `cdl learn`; the new run is removed after its evaluation."""
    for n, k in conditions():
        for seed in study.seeds:
            file = study.file("test", "torch", "cdl learn", n, k, seed)
            if file.exists():
                continue
            classes, run = study.data.classes("test", n), study.run("aligned", seed)
            begin = time.process_time()
            with tempfile.TemporaryDirectory() as folder:
                for part, count in ((f"seed{seed}", k), ("test", EACH)):
                    _write_images(Path(folder, part), study.data, classes, part, count)
                name = f"study{n}x{k}s{seed}"
                learnt = learn(run, Path(folder, f"seed{seed}"), name, test=Path(folder, "test"))
            seconds = time.process_time() - begin
            right = _right(RunFiles(learnt.run).predictions, classes)
            Outcome(np.zeros(0, bool), *right).write(file, seconds=seconds)
            shutil.rmtree(study.results / name)
            for packed in (study.results / "data").glob(f"{name}-*"):
                shutil.rmtree(packed)


def joint(study: Study) -> None:
    """Train on all images of old and new classes as one task, as `joint: true` does."""
    for n, k in conditions():
        for seed in study.seeds:
            file = study.file("test", "joint", "joint", n, k, seed)
            if not file.exists():
                begin = time.process_time()
                right = _train_jointly(study, n, k, seed)
                seconds = time.process_time() - begin
                Outcome(np.zeros(0, bool), *right).write(file, seconds=seconds)


def _train_jointly(study: Study, n: int, k: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    student = TrainedStudent.open(study.run("aligned", seed))
    classes = study.data.classes("test", n)
    everything = (*student.classes, *classes)
    spec = replace(
        trained_specification(student),
        stream=StreamSpec((len(everything),), everything),
        images_per_class=None,
    )
    with tempfile.TemporaryDirectory() as folder:
        photos, packed, files = Path(folder, "photos"), Path(folder, "packed"), Path(folder, "run")
        for i, item in enumerate(SOURCES["cifar20"].read().items):
            save_image(
                photos / item.split / study.data.names[item.label] / f"{i:05}.png", item.read()
            )
        _write_images(photos / "train", study.data, classes, f"seed{seed}", k)
        _write_images(photos / "test", study.data, classes, "test", EACH)
        prepare(packed, {"name": "folder", "path": str(photos)})
        backbones = _backbones(study, student, spec)
        run = RunFiles(str(files))
        task = run.task(0)
        Path(task.folder).mkdir(parents=True)
        read = {"data": str(packed), "backbones": backbones}
        learn_task(spec, 0, task.learner, task.losses, **read)
        read |= {"checkpoints": [task.learner], "queries": {}}
        evaluate_run(spec, run.results, run.predictions, **read, images_per_class=None)
        return _right(run.predictions, classes)


def _backbones(study: Study, student: TrainedStudent, spec: LearnerSpec) -> dict[str, str]:
    hashes = student.results["backbones"]
    folder = ResultsFolder.of_run(Path(student.files.folder))
    return {name: find_backbone(folder, name, hashes[name]) for name in {spec.backbone, spec.query}}


def _right(predictions: str, new: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return what a run predicts right of old and of new classes, in the order of the images."""
    found = pd.read_parquet(predictions).sort_values("image", kind="stable")
    is_new, correct = found["class"].isin(list(new)).to_numpy(), found["correct"].to_numpy()
    return correct[~is_new], correct[is_new]


def _write_images(folder: Path, data: Data, classes: Sequence[str], part: str, n: int) -> None:
    for name in classes:
        for i, pixels in enumerate(data.images(name, part, n)):
            save_image(folder / name / f"{i:03}.png", pixels)
