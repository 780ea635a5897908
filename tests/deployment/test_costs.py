"""The costs of a prediction; shared computation is counted once."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import toys

from cdl.deployment import export as room
from cdl.deployment.costs import costs
from cdl.deployment.model import Model
from cdl.deployment.trained import TrainedStudent


def model_of(toy_backbone, method, distiller="none", other_query=False, **options):
    large, small = toy_backbone(24, 7, seed=1), toy_backbone(12, 6)
    query = toy_backbone(12, 3, seed=2) if other_query else small
    student = toys.learner(small, method, distiller, teacher=large, query=query, options=options)
    return Model(student, 0, 4, query if student.needs_query else None)


@pytest.mark.parametrize(
    ("layers", "passes", "shared"), [((0,), 12, 0), ((2, 4), 10, 2), ((5,), 7, 5)]
)
def test_blocks_before_the_first_prompted_one_run_once(
    toy_backbone, monkeypatch, layers, passes, shared
):
    monkeypatch.setitem(toys.METHODS, "l2p", toys.METHODS["l2p"] | {"layers": layers})
    model = model_of(toy_backbone, "l2p")
    found = costs(model, 8)
    assert (found.block_passes, found.shared_blocks) == (passes, shared)
    images = torch.rand(2, 3, 8, 8)
    query = model.learner.backbone.query(images)
    assert torch.equal(model(images), model.predict_from(images, query, query))
    assert found.gflops_without_query < found.gflops < 2 * found.gflops_without_query
    assert f"runs {passes} blocks, {shared} of them" in found.text()


@pytest.mark.parametrize("method", ["apt", "one_prompt", "head_only"])
def test_without_a_query_every_block_runs_once(toy_backbone, method):
    found = costs(model_of(toy_backbone, method), 8)
    assert (found.block_passes, found.shared_blocks) == (6, 0)
    assert found.gflops == found.gflops_without_query
    assert "query" not in found.text()


def test_a_token_that_enters_before_the_first_block_leaves_the_patches_to_share(toy_backbone):
    found = costs(model_of(toy_backbone, "l2p", "kd_prompt"), 8)
    assert (found.block_passes, found.shared_blocks) == (12, 0)
    patches = 2 * 4 * 12 * 3 * 4 * 4 / 1e9  # multiplications and additions of 4 patches
    query = found.gflops - found.gflops_without_query
    alone = costs(model_of(toy_backbone, "head_only"), 8).gflops
    head = 2 * 12 * toys.N_CLASSES / 1e9
    assert query == pytest.approx(alone - head - patches, rel=0.05)


def test_a_query_of_another_backbone_shares_no_blocks_and_has_its_own_parameters(toy_backbone):
    found = costs(model_of(toy_backbone, "l2p", other_query=True), 8)
    assert (found.block_passes, found.shared_blocks) == (9, 0)
    assert found.parameters["query_backbone"] > 0


def test_parameters_that_only_training_reads_are_not_counted(toy_backbone):
    plain, fitted, prompted = (
        costs(model_of(toy_backbone, "l2p", d), 8).parameters
        for d in ("none", "fitnets", "kd_prompt")
    )
    assert plain == fitted and plain["distiller"] == 0 == plain["query_backbone"]
    student = model_of(toy_backbone, "l2p").learner
    assert plain["head"] == sum(p.numel() for p in student.head.parameters())
    assert plain["prompts"] == sum(p.numel() for p in student.prompts.parameters())
    assert plain["backbone"] == sum(p.numel() for p in student.backbone.parameters())
    assert prompted["distiller"] > 0


@pytest.mark.parametrize(("gflops", "several"), [(0.2, False), (9.0, True)])
def test_only_a_large_student_is_compared_by_several_threads(
    toy_backbone, tmp_path, monkeypatch, gflops, several
):
    model, file = model_of(toy_backbone, "head_only"), tmp_path / "model.onnx"
    views = SimpleNamespace(size=8, test_resize=None)
    student = TrainedStudent((), model, views, 1, {}, None, None)
    counted, seen = replace(costs(model, 8), gflops=gflops), []
    monkeypatch.setattr(room, "costs", lambda *_: seen.append(torch.get_num_threads()) or counted)
    monkeypatch.setattr(room, "compare", lambda student, *_: seen.append(student.threads))
    monkeypatch.setattr(room, "latency", lambda *_: 1.0)
    monkeypatch.setattr(room, "research_only", lambda _: False)
    file.touch()
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        room._measure(student, model, None, file, ())
        assert seen == [1, 3 if several else 1]
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
