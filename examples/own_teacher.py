"""Make the data and the answers of `config/studies/own_teacher.yaml`.

    python examples/own_teacher.py data/cifar100

reads the Parquet files of CIFAR-100 and writes in this folder `data/`: 250 training images of each
class for the teacher, 25 others that choose the scale of its answers, and 100 others for the
students. The teacher is a ridge on `vit_small_patch4_32.safetensors`, or on the backbone named by
`--backbone`; it is trained and exported by cdl, and answers for the students' images. So it has
seen none of their labels.
"""

import argparse
import io
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from PIL import Image

import cdl
from cdl.cli.app import app
from cdl.deployment.facade import Student

SCALES = (1, 2, 5, 10, 15, 20, 25, 30, 40, 60)  # of the ridge's outputs, which are no logits
TEACHER = """
name: teacher
datasets:
  cifar100:
    source:
      parquet:
        {path: data, train: teacher.parquet, test: calibration.parquet, class_name: fine_label}
    tasks: 1
    view: {size: 32}
methods:
  ranpac: {projection: 2000, ridge_images: all}
grid:
  methods: [ranpac]
  pairs: [{teacher: null, student: vit_small}]
  distillers: [none]
  seeds: [0]
"""


def split(cifar100: Path) -> None:
    """Write the images of teacher, calibration, students and test."""
    Path("data").mkdir(exist_ok=True)
    files = sorted(cifar100.glob("train*.parquet"))
    images = pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)
    images = images.sample(frac=1, random_state=0)
    rank = images.groupby("fine_label").cumcount()
    parts = {"teacher": (0, 250), "calibration": (250, 275), "student": (400, 500)}
    for name, (first, stop) in parts.items():
        chosen = images[(rank >= first) & (rank < stop)]
        chosen.to_parquet(f"data/{name}.parquet", index=False)
    tests = [pd.read_parquet(file) for file in sorted(cifar100.glob("test*.parquet"))]
    pd.concat(tests).to_parquet("data/test.parquet", index=False)


def answered(teacher: Student, images: list[np.ndarray]) -> np.ndarray:
    """Return the outputs `[n, C]` of a teacher, up to a constant for each image."""
    parts = [teacher.predict_proba(images[i : i + 500]) for i in range(0, len(images), 500)]
    return np.log(np.maximum(np.concatenate(parts), 1e-30))


def pixels(given: bytes | str) -> np.ndarray:
    """Return the pixels of an image file, or of its bytes."""
    file = io.BytesIO(given) if isinstance(given, bytes) else given
    return np.asarray(Image.open(file).convert("RGB"))


def loss(outputs: np.ndarray, labels: np.ndarray) -> float:
    """Return the negative log-likelihood of labels in nats."""
    shifted = outputs - outputs.max(1, keepdims=True)
    own = shifted[np.arange(len(labels)), labels]
    return float((np.log(np.exp(shifted).sum(1)) - own).mean())


def main() -> None:
    """Make data, teacher and answers."""
    parser = argparse.ArgumentParser(description="A teacher that saw none of the labels.")
    parser.add_argument("cifar100", type=Path)
    parser.add_argument("--backbone", type=Path, default="vit_small_patch4_32.safetensors")
    given = parser.parse_args()
    split(given.cifar100)
    study = yaml.safe_load(TEACHER) | {"backbones": {"vit_small": {"file": str(given.backbone)}}}
    Path("teacher.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    cdl.run("teacher.yaml")
    cdl.export("teacher.yaml", "teacher")
    teacher = cdl.load("teacher")
    tuned = pd.read_parquet("data/calibration.parquet")
    outputs = answered(teacher, [pixels(image) for image in tuned["image"]])
    labels = np.array([teacher.classes.index(name) for name in tuned["fine_label"]])
    scale = min(SCALES, key=lambda scale: loss(scale * outputs, labels))
    print(f"{100 * (outputs.argmax(1) == labels).mean():.1f} % right; scale {scale}")
    app(["answers", "config/studies/own_teacher.yaml", "-o", "items.csv"], standalone_mode=False)
    items = pd.read_csv("items.csv", usecols=["name", "path"])
    found = scale * answered(teacher, [pixels(path) for path in items["path"]])
    answers = pd.DataFrame(found.astype(np.float32), columns=list(teacher.classes))
    answers.insert(0, "name", items["name"])
    answers.to_parquet("answers.parquet", index=False)


if __name__ == "__main__":
    main()
