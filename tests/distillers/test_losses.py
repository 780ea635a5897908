"""Identities of the losses."""

import pytest
import torch
from torch.nn import functional as F

from cdl.distillers import DISTILLERS
from cdl.distillers.base import local_cross_entropy
from cdl.distillers.dist import dist_terms
from cdl.distillers.dkd import dkd_terms
from cdl.distillers.kd import kd_loss, standardised
from cdl.runtime.errors import CdlError


def logits(n=6, classes=5, seed=0):
    return torch.randn(n, classes, generator=torch.Generator().manual_seed(seed)).double() * 3


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
def test_kd_is_tckd_plus_one_minus_p_target_times_nckd(temperature):
    student, teacher, labels = logits(seed=1), logits(seed=2), torch.tensor([0, 1, 2, 3, 4, 0])
    total = 0
    for i in range(len(labels)):
        row = slice(i, i + 1)
        tckd, nckd = dkd_terms(student[row], teacher[row], labels[row], temperature)
        p_target = (teacher[row] / temperature).softmax(1)[0, labels[i]]
        total = total + tckd + (1 - p_target) * nckd
    expected = kd_loss(student, teacher, temperature) * len(labels)
    torch.testing.assert_close(total, expected)


def test_nckd_is_zero_with_two_classes():
    tckd, nckd = dkd_terms(logits(classes=2), logits(classes=2, seed=5), torch.zeros(6).long(), 4.0)
    assert tckd > 0
    assert abs(nckd) < 1e-12


def test_dkd_refuses_a_task_of_one_class(toy_backbone):
    from toys import learner

    student = learner(toy_backbone(), "l2p", "dkd", teacher=toy_backbone(24, 7))
    signal = type("TeacherOutput", (), {"logits": logits(classes=1)})
    with pytest.raises(CdlError, match="dkd: a task has one class; expected at least two"):
        student.distiller.soft_loss(logits(classes=1), signal, torch.zeros(6).long())


def test_kd_is_zero_for_equal_logits_and_ignores_a_shift():
    student = logits()
    assert abs(kd_loss(student, student, 2.0)) < 1e-12
    torch.testing.assert_close(
        kd_loss(student, logits(seed=3) + 7, 2.0), kd_loss(student, logits(seed=3), 2.0)
    )


def test_local_cross_entropy_masks_earlier_classes_and_cuts_later_ones():
    scores, labels, classes = logits(classes=9), torch.tensor([3, 4, 5, 3, 4, 5]), slice(3, 6)
    masked = scores[:, :6].clone()
    masked[:, :3] = -torch.inf
    torch.testing.assert_close(
        local_cross_entropy(scores, labels, classes), F.cross_entropy(masked, labels)
    )


def test_standardised_logits_do_not_depend_on_scale_and_shift():
    scores = logits()
    torch.testing.assert_close(standardised(5 * scores - 3), standardised(scores))
    torch.testing.assert_close(standardised(scores).std(1), torch.ones(len(scores)).double())
    with pytest.raises(CdlError, match="standardize: a task has 2 classes"):
        standardised(logits(classes=2))


@pytest.mark.parametrize("name", sorted(set(DISTILLERS) - {"none", "tf_kd"}))
def test_every_soft_loss_can_be_standardised_and_weighed(toy_backbone, name):
    from toys import TASKS, batch, pair

    found = {}
    images, labels = batch()
    cases = {
        "plain": {"soft_weight": 0.5},
        "nine": {"soft_weight": 4.5},
        "z": {"soft_weight": 0.5, "standardize": True},
    }
    for case, options in cases.items():
        student, teacher = pair(toy_backbone, "l2p", name, options)
        query = student.backbone.query(images)
        target = teacher(images, query, 0, TASKS[0], student.compared_blocks)
        output = student.train()(images, query, 0, target.query, student.compared_blocks)
        found[case] = student.losses(output, target, labels, TASKS[0])
    torch.testing.assert_close(found["nine"]["soft"], 9 * found["plain"]["soft"])
    torch.testing.assert_close(found["nine"]["ce"], found["plain"]["ce"])
    torch.testing.assert_close(found["z"]["ce"], found["plain"]["ce"])
    assert not torch.isclose(found["z"]["soft"], found["plain"]["soft"])


def test_dist_is_zero_for_equal_logits():
    scores = logits()
    inter, intra = dist_terms(scores, scores, 2.0)
    assert abs(inter) < 1e-6
    assert abs(intra) < 1e-6
    worse, _ = dist_terms(scores, -scores, 2.0)
    assert worse > 1


def test_the_class_feature_ignores_all_other_tokens(toy_backbone):
    from toys import pair

    student, _ = pair(toy_backbone, "l2p", "cls_feature")
    own, target = torch.randn(3, 5, 12), torch.randn(3, 9, 24)  # different numbers of patches
    loss = student.distiller.feature_loss((own,), (target,))
    own[:, 1:], target[:, 1:] = 0, 0
    assert torch.equal(student.distiller.feature_loss((own,), (target,)), loss)
