"""Test features that runs share: results are those without them, bit by bit."""

import pandas as pd
import pytest

from cdl.evaluation.features import write_test_features
from cdl.runtime import artifacts
from cdl.runtime.errors import CdlError

ALIGNING = {"preset": "slca", "samples": 8, "epochs": 2}
STUDY = {
    "methods": {"coda_prompt": {"alignment": ALIGNING}},
    "grid": {
        "distillers": ["none", {"block": "none", "variant": "heads", "alignment": None}],
        "pairs": [{"teacher": None, "student": "vit_nano"}],
    },
}


@pytest.fixture
def sharing(lab):
    """Return a lab, its aligned run and the one with heads as learnt, and their test features."""
    here = lab(STUDY)
    aligned, heads = here.run(role="student"), here.grid.runs[1]
    here.learn_all(aligned)
    path, spec = here.folder / "test_features.safetensors", here.spec(heads)
    n = here.grid.test_images_per_class("digits")
    how = {"images_per_class": n, "execution": here.execution}
    write_test_features(spec, str(path), **here.evaluation_inputs(heads), **how)
    return here, (aligned, heads), path


def numbers(results):
    return {k: v for k, v in results.items() if k != "files"}


def test_results_with_shared_features_are_those_without(sharing):
    here, runs, path = sharing
    frames = []
    for run in runs:
        (alone, predictions), (read, again) = (
            here.evaluate(run, features=features) for features in (None, str(path))
        )
        pd.testing.assert_frame_equal(predictions, again, check_exact=True)
        assert numbers(alone) == numbers(read)
        frames.append(predictions)
    assert not frames[0]["probability"].equals(frames[1]["probability"])


def test_features_of_later_tasks_are_shared_too(sharing):
    here, runs, path = sharing
    n, spec = here.grid.test_images_per_class("digits"), here.spec(runs[1])
    how = {"images_per_class": n, "unknown": True, "execution": here.execution}
    write_test_features(spec, str(path), **here.evaluation_inputs(runs[1]), **how)
    for run in runs:
        alone, read = (
            here.evaluate(run, unknown=True, features=features)[0] for features in (None, str(path))
        )
        assert numbers(alone) == numbers(read) and alone["unknown"]


def test_features_replace_the_computation(sharing):
    here, (aligned, _), path = sharing
    _, before = here.evaluate(aligned, features=str(path))
    tensors, metadata = artifacts.load(path)
    artifacts.save(path, {k: t.flip(0) for k, t in tensors.items()}, metadata)
    _, after = here.evaluate(aligned, features=str(path))
    assert not before["probability"].equals(after["probability"])


def test_features_of_other_checkpoints_are_refused(sharing):
    here, (aligned, _), path = sharing
    here.learn(aligned, 0)
    tensors, metadata = artifacts.load(here.trained(aligned, 1))
    changed = {k: t + 1 if t.is_floating_point() else t for k, t in tensors.items()}
    artifacts.save(here.trained(aligned, 1), changed, metadata)
    here.align(aligned, 1)
    with pytest.raises(CdlError, match=r"was made with checkpoints"):
        here.evaluate(aligned, features=str(path))
