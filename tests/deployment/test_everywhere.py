"""Methods inside the blocks as teacher and student, with what else a run may have."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from test_learn import CPU, photos

import cdl
from cdl.deployment.learn import learn
from cdl.runtime import artifacts
from cdl.runtime.compute import Compute
from cdl.runtime.errors import CdlError

METHODS = {
    "lora": {"rank": 2},
    "inf_lora": {"rank": 2},
    "sd_lora": {"ranks": [2]},
    "adapter": {"bottleneck": 4},
    "ssiat": {"bottleneck": 4},
    "ease": {"bottleneck": 4},
    "simple_cil": {},
    "fecam": {},
    "aper": {"bottleneck": 4},
    "ranpac": {"projection": 32, "first_session": "ssf", "logit_scale": 10.0},
}
TRAINED = ("lora", "inf_lora", "sd_lora", "adapter", "ssiat")
AT_NIGHT = ("inf_lora", "adapter", "simple_cil", "fecam", "aper")  # what they keep, others keep too
ALIGNED = {"alignment": {"preset": "slca", "drift": "sdc", "epochs": 1}}

pytestmark = pytest.mark.slow


def study(method, distiller, **compute):
    block = METHODS[method] | (ALIGNED if method in TRAINED else {})
    return {
        "methods": {method: block},
        "grid": {"methods": [method], "distillers": [distiller], "bounds": []},
        "datasets": {"digits": {"labels": {"per_class": 4}}},
        **({"compute": {"device": "cpu", **compute}} if compute else {}),
    }


def finished(here, distiller):
    """The student of a lab after all tasks, evaluated."""
    run = here.student(distiller)
    here.learn_all(run)
    here.evaluate(run)
    return run


@pytest.mark.parametrize(
    "method",
    [pytest.param(m, marks=[pytest.mark.nightly] if m in AT_NIGHT else []) for m in METHODS],
)
def test_a_teacher_and_its_student_of_few_labels_learn_more_classes(lab, method, tmp_path, inputs):
    here = lab(study(method, "kd"))
    run = finished(here, "kd")
    teacher = here.grid.teacher_of(run)
    here.evaluate(teacher)
    assert artifacts.load(here.trained(run, 1))[1]["seen"]["unlabelled"] > 0
    results = here.folder.parent
    (results / "backbones").mkdir()
    (results / "data").mkdir()
    (results / "data" / "digits-0").symlink_to(inputs / "data")
    for file in inputs.glob("vit_*"):
        shutil.copy(file, results / "backbones" / file.name.replace(".", "-0."))
    folder = photos(tmp_path / "new", "red", "green")
    tutor = Path(learn(here.folder / teacher.folder, folder, "more", execution=CPU).run)
    more = learn(here.folder / run.folder, folder, "more", teacher=tutor, execution=CPU)
    assert len(more.after) == 3
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    before = cdl.load(here.folder / run.folder).predict_proba(images)
    np.testing.assert_array_equal(cdl.load(more.run, task=1).predict_proba(images), before)


@pytest.mark.nightly
@pytest.mark.parametrize("method", TRAINED)
@pytest.mark.parametrize("distiller", ["lwf", "se2d", "kd_token", "kd_prompt", "reviewkd"])
def test_every_distiller_with_few_labels_and_aligned_heads(lab, method, distiller):
    here = lab(study(method, distiller))
    finished(here, distiller)


@pytest.mark.nightly
@pytest.mark.parametrize("method", METHODS)
def test_bf16(lab, method):
    try:
        Compute.select("cpu", "bf16")
    except CdlError as error:
        pytest.skip(str(error))
    finished(lab(study(method, "kd", precision="bf16")), "kd")


@pytest.mark.nightly
@pytest.mark.parametrize("method", METHODS)
def test_with_caches_as_without(lab, method):
    states = []
    for targets in ("online", "cached"):
        here = lab(
            study(method, "kd", targets=targets, targets_dtype="float32") | {"name": targets}
        )
        run = here.student("kd")
        here.learn_all(run)
        states.append(artifacts.load(here.checkpoint(run, 1))[0])
    for name, tensor in states[0].items():
        torch.testing.assert_close(tensor, states[1][name], rtol=1e-3, atol=1e-4)
