"""The memory of a finished run predicts like torch, and its sums go on as in training."""

import json

import numpy as np
import pytest
import torch
from learnable import finish

import cdl
from cdl.data.packed import Packed
from cdl.deployment.device.closed import pack
from cdl.deployment.device.memory import MEMORY, How
from cdl.deployment.export import export
from cdl.deployment.remember import remembered
from cdl.deployment.trained import TrainedStudent
from cdl.models.build import build_stream
from cdl.runtime import artifacts
from cdl.runtime.errors import CdlError

pytestmark = pytest.mark.slow  # trains small students
CASES = [("ranpac", "none"), ("coda_prompt", "kd_token")]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join(case))
def run(request, inputs, tmp_path_factory):
    return finish(tmp_path_factory.mktemp("learnable"), inputs, *request.param)


def pictures(student, split, n):
    """Return `n` packed images of each class and their positions in the class order."""
    packed = Packed(student.packed().folder, split)
    stream = build_stream(student.spec, packed)
    tasks = range(student.model.task + 1)
    indices = torch.cat([stream.indices(packed, task, n) for task in tasks])
    chosen = packed.pixels(indices)
    found = [chosen.flat[o : o + 192].view(8, 8, 3).numpy() for o in chosen.offsets.tolist()]
    return np.stack(found), stream.labels(packed)[indices].numpy()


def outputs(student, split, n):
    """Return logits, tokens and class positions of `n` packed images of each class."""
    images, labels = pictures(student, split, n)
    with torch.no_grad():
        logits, tokens = student.model.outputs(student.preprocess(images))
    return logits.numpy(), tokens.numpy(), labels


def test_the_heads_in_the_memory_predict_like_the_student(run):
    for task in (0, 1):
        student = TrainedStudent.open(run, task)
        memory, (logits, tokens, _) = remembered(student), outputs(student, "test", 4)
        np.testing.assert_allclose(memory.logits(tokens), logits, atol=1e-4)
        np.testing.assert_array_equal(memory.images(), np.full(len(student.classes), 20))


def test_a_ridge_goes_on_as_the_training_does(run):
    student = TrainedStudent.open(run, 0)
    memory = remembered(student)
    last = TrainedStudent.open(run)
    state, record = artifacts.load(last.files.checkpoints(last.results)[1])
    _, tokens, labels = outputs(last, "train", 20)
    new = labels >= len(student.classes)
    learnt = memory.learn(tokens[new], labels[new], len(last.classes), How(balance=False))
    if learnt.about["kind"] == "aligned":
        again = remembered(last)
        assert learnt.about["sizes"] == again.about["sizes"] == [6, 4]
        right = learnt.logits(tokens).argmax(1) == labels
        assert right[new].mean() > 0.5 and right[~new].mean() > 0.5
        return
    gram = pack(state["memory.gram"].numpy())
    np.testing.assert_allclose(learnt.tensors["gram"], gram, rtol=1e-3, atol=1e-3 * gram.max())
    np.testing.assert_allclose(
        learnt.tensors["sums"], state["memory.prototypes"], rtol=1e-3, atol=1
    )
    assert len(record["ridge_errors"]) == 17
    total = remembered(last).tensors["losses"] - memory.tensors["losses"]
    np.testing.assert_allclose(total, record["ridge_errors"])


def test_the_export_learns_on_and_the_card_says_so(run, tmp_path):
    if "ranpac" not in str(run):
        pytest.skip("one export is enough; the graphs are compared in test_graph.py")
    result = export(run, tmp_path / "student", task=0)
    assert "learns on by `python student.py learn FOLDER` from a ridge" in result.text()
    assert result.learning in (tmp_path / "student" / "card.md").read_text()
    assert json.dumps(result.as_dict())
    student, whole = cdl.load(tmp_path / "student"), TrainedStudent.open(run)
    found, labels = pictures(whole, "train", 10)
    images = {whole.classes[label]: found[labels == label] for label in (6, 7, 8)}
    before = student.predict_proba(images[whole.classes[6]])
    update = student.learn(images)
    assert update.classes == 9
    right = [p == name for name in images for p in student.predict(images[name])]
    assert np.mean(right) > 0.5
    student.undo()
    np.testing.assert_array_equal(student.predict_proba(images[whole.classes[6]]), before)


def test_a_run_of_an_earlier_version_is_exported_without_a_memory(run, tmp_path):
    files = TrainedStudent.open(run).files
    record = files.task(0).checkpoint("coda" in str(run)).replace(".safetensors", ".json")
    found = artifacts.read_json(record)
    missing = {k: v for k, v in found.items() if k not in ("ridge_errors", "counts")}
    artifacts.write_json(record, missing)
    try:
        with pytest.raises(
            CdlError, match="written by an earlier version of cdl.*run the experiment"
        ):
            remembered(TrainedStudent.open(run))
    finally:
        artifacts.write_json(record, found)
    assert MEMORY == "memory.safetensors"
