"""Alignment of heads: stored statistics, drift of means, and training."""

from dataclasses import replace

import pytest
import torch

from cdl.methods.heads import LinearHead
from cdl.runtime.errors import CdlError
from cdl.spec import SampledAlignment
from cdl.study.configuration import alignment
from cdl.training.alignment import align, compensated, drawing, statistics_of

PRESETS = ("slca", "hide", "vq_prompt")


def clouds(n=40, classes=4, width=5):
    """Return features and labels of well separated classes, in random order."""
    source = torch.Generator().manual_seed(0)
    labels = torch.arange(classes).repeat(n)[torch.randperm(n * classes, generator=source)]
    centres = 3 * torch.randn(classes, width, generator=source)
    return centres[labels] + torch.randn(len(labels), width, generator=source), labels


@pytest.mark.parametrize(("preset", "lr"), [("slca", 0.1), ("hide", 0.1), ("vq_prompt", 5.0)])
def test_alignment_removes_a_bias_between_tasks(preset, lr):
    features, labels = clouds()
    head = LinearHead(5, 6, torch.Generator().manual_seed(0))
    with torch.no_grad():
        head.linear.bias[2:4] += 30  # every image is classified into the last task

    def accuracy():
        return float((head(features)[:, :4].argmax(1) == labels).float().mean())

    assert accuracy() <= 0.5
    how = alignment({"preset": preset, "lr": lr, "samples": 64, "epochs": 60})
    found = statistics_of(features, labels, how.statistic)
    losses = align(head, found, (2, 2), how, drawing((0,), (4, how.samples, 5)))
    assert losses.shape == (60, 4 if how.steps == "seen" else 2)
    assert losses[-1].mean() < losses[0].mean()
    assert accuracy() > 0.9


def test_draws_are_a_function_of_keys_and_epoch():
    one, same, other = (drawing(keys, (3, 4, 5)) for keys in ((0, "a"), (0, "a"), (0, "b")))
    for a, b in zip(one(1), same(1), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(one(1)[0], one(2)[0])
    assert not torch.equal(one(1)[0], other(1)[0])


def test_a_class_of_one_image_has_no_covariance():
    features, labels = torch.randn(3, 4), torch.tensor([0, 0, 1])
    with pytest.raises(CdlError, match=r"alignment\.statistic: covariance needs at least two"):
        statistics_of(features, labels, "covariance")
    assert not statistics_of(features, labels, "centroid")["spread"][1].any()


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_set_every_field_and_given_ones_win(preset):
    usual, own = alignment({"preset": preset}), {"preset": preset, "samples": None, "lr": 0.5}
    assert isinstance(usual, SampledAlignment)
    assert alignment(own) == replace(usual, lr=0.5)


def test_values_that_newer_fields_have_without_them_are_left_out():
    given = {"preset": "slca", "labels": None, "answers": "train_views", "drift": "none"}
    assert alignment(given) == alignment({"preset": "slca"})
    others = {"labels": "self", "answers": "test", "drift": "sdc"}
    assert alignment({"preset": "slca"} | others) == replace(alignment(given), **others)


@pytest.mark.parametrize("statistic", ["covariance", "variance", "centroid"])
def test_drift_moves_means_as_a_slow_reference_does(statistic):
    source = torch.Generator().manual_seed(1)
    features, labels = clouds(n=10, classes=3)
    found = statistics_of(features, labels, statistic)
    old = features[:12] + torch.randn(12, 5, generator=source)
    new = old + torch.randn(12, 5, generator=source)
    expected = []
    for mean, spread in zip(found["mean"], found["spread"], strict=True):
        variance = (spread.diagonal() if statistic == "covariance" else spread).sum().item()
        weights = [
            2.718281828459045 ** (-sum((a - b) ** 2 for a, b in zip(x, mean.tolist(), strict=True))
            / (2 * variance)) + 1e-5
            for x in old.tolist()
        ]  # fmt: skip
        moves = [w * (b - a) for w, a, b in zip(weights, old, new, strict=True)]
        expected.append(mean + sum(moves) / sum(weights))
    torch.testing.assert_close(compensated(found, old, new, statistic), torch.stack(expected))


def test_means_stay_where_features_do_not_move_and_a_far_class_moves_as_the_mean():
    features, labels = clouds()
    found = statistics_of(features, labels, "variance")
    assert torch.equal(compensated(found, features, features, "variance"), found["mean"])
    far = {"mean": found["mean"] + 1e4, "spread": found["spread"]}
    new = features + torch.randn(features.shape, generator=torch.Generator().manual_seed(2))
    moved = compensated(far, features, new, "variance") - far["mean"]
    torch.testing.assert_close(moved, (new - features).mean(0).expand(4, 5), atol=2e-3, rtol=0)
