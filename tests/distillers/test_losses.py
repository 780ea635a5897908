"""Identities of the losses."""

import pytest
import torch
from torch.nn import functional as F

from cdl.distillers.base import local_cross_entropy
from cdl.distillers.dkd import dkd_terms
from cdl.distillers.kd import kd_loss
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
    with pytest.raises(CdlError, match="dkd: a task of one class"):
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
