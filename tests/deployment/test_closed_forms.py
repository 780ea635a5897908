"""The closed forms of a device are those of the training, and of plain sums over all images."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from learners import draw_images, first_memory, tokens_of

from cdl.device import aligning, closed, draws
from cdl.device.memory import How
from cdl.methods.fecam import FecamHead
from cdl.methods.heads import LinearHead, NormalisedHead
from cdl.spec import SampledAlignment
from cdl.study.configuration import preset as read_preset
from cdl.training import alignment, ranpac

STATISTICS = ("covariance", "variance", "centroid")
SIZES, N, WIDTH = (3, 2, 2), 30, 12


def rows(seed=0):
    """Return features `[n, WIDTH]` of seven classes and their labels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(sum(SIZES)).repeat(N)
    centres = 1.5 * rng.standard_normal((sum(SIZES), WIDTH))
    return centres[labels] + rng.standard_normal((len(labels), WIDTH)), labels


def nothing(kind):
    shape = (0, WIDTH, WIDTH) if kind == "covariance" else (0, WIDTH)
    return closed.Statistics(np.zeros((0, WIDTH)), np.zeros(shape), np.zeros(0), kind)


@pytest.mark.parametrize("kind", STATISTICS)
def test_statistics_image_by_image_are_those_of_the_training(kind):
    features, labels = rows()
    expected = alignment.statistics_of(torch.tensor(features), torch.tensor(labels), kind)
    found, order = nothing(kind), np.random.default_rng(1).permutation(len(labels))
    for part in np.split(order, [1, 5, 80]):
        found = found.added(features[part], labels[part], sum(SIZES))
    np.testing.assert_allclose(found.mean, expected["mean"], atol=1e-5)
    np.testing.assert_allclose(found.spread, expected["spread"], atol=1e-5)
    np.testing.assert_array_equal(found.counts, np.full(7, N))


@pytest.mark.parametrize("kind", STATISTICS)
def test_the_gram_matrix_from_statistics_is_that_of_the_images(kind):
    features, labels = rows()
    gram, sums = nothing(kind).added(features, labels, 7).gram()
    expected = features.T @ features
    if kind != "covariance":  # variances have no products of different features within a class
        centred = features - np.stack([features[labels == c].mean(0) for c in labels])
        within = centred.T @ centred
        expected = expected - within + np.diag(np.diag(within))
    np.testing.assert_allclose(gram, expected, atol=1e-8)
    np.testing.assert_allclose(sums, features.T @ closed.one_hot(labels, 7), atol=1e-8)


@pytest.mark.parametrize("head", [LinearHead, NormalisedHead])
@pytest.mark.parametrize("preset", ["slca", "hide", "vq_prompt"])
def test_the_alignment_is_that_of_the_training_with_the_same_draws(preset, head):
    how = {**read_preset("alignment")[preset], "epochs": 3, "samples": 16}
    spec, (features, labels) = SampledAlignment(**how), rows()
    own = alignment.statistics_of(
        torch.tensor(features).float(), torch.tensor(labels), spec.statistic
    )
    module, seen = head(WIDTH, 7, torch.Generator().manual_seed(1)), sum(SIZES)
    start = [part.detach().double().numpy().copy() for part in module.linear.parameters()]
    arrays = own["mean"].numpy(), own["spread"].numpy(), np.full(7, float(N))
    statistics = closed.Statistics(*arrays, spec.statistic)

    def draw(epoch):
        n = seen * spec.samples
        noise = draws.normal((aligning._NOISE, 5, epoch), np.arange(n * WIDTH))
        order = draws.permutation((aligning._SHUFFLE, 5, epoch), n)
        return torch.tensor(noise.reshape(seen, -1, WIDTH)).float(), torch.tensor(order)

    alignment.align(module, own, SIZES, spec, draw)
    weight, bias = aligning.align(
        (start[0], start[1]), statistics, SIZES, how, 5, head is NormalisedHead
    )
    assert np.abs(weight - start[0]).max() > 1e-4
    np.testing.assert_allclose(weight, module.linear.weight.detach(), atol=2e-6)
    np.testing.assert_allclose(bias, module.linear.bias.detach(), atol=2e-6)


@pytest.mark.parametrize("width", [5, 50])
def test_the_ridge_is_that_of_the_training(width):
    rng = np.random.default_rng(0)
    features, labels = rng.standard_normal((40, width)), rng.integers(0, 3, 40)
    targets = closed.one_hot(labels, 3)
    order = draws.permutation((closed._ORDER, 7), 40)
    losses = ranpac.validation_losses(
        torch.tensor(features[order]), torch.tensor(targets[order]).double()
    )
    errors = closed.squared_errors(features, targets, 7)
    np.testing.assert_allclose(errors, losses.numpy() * 8 * 3, rtol=1e-3)
    gram, sums = features.T @ features, features.T @ targets
    best = closed.best_ridge(errors, gram)
    assert best == ranpac.RIDGES[ranpac.best_ridge(losses, torch.tensor(gram).float())]
    expected = ranpac.ridge_weights(torch.tensor(gram), torch.tensor(sums), best)
    np.testing.assert_allclose(
        closed.ridge_weights(gram, sums, best), expected, rtol=1e-4, atol=1e-6
    )


def test_a_ridge_in_several_updates_is_one_regression_on_all_images():
    memory, names = first_memory("ridge"), ("yellow", "white")
    added = [tokens_of(draw_images(name, 10, 2)) for name in names]
    for label, tokens in enumerate(added, start=3):
        memory = memory.learn(tokens, np.full(10, label), label + 1, How(balance=False))
    old = [tokens_of(draw_images(name, 20, 1)) for name in ("red", "green", "blue")]
    tokens, counts = np.concatenate([*old, *added]), [20, 20, 20, 10, 10]
    features = np.maximum(tokens[:, 0] @ memory.tensors["projection"], 0).astype(np.float64)
    targets = closed.one_hot(np.arange(5).repeat(counts), 5)
    ridge = closed.best_ridge(memory.tensors["losses"], features.T @ features)
    gram = features.T @ features + ridge * np.eye(features.shape[1])
    expected = np.linalg.solve(gram, features.T @ targets)
    logits = memory.logits(tokens)
    np.testing.assert_allclose(logits, features @ expected, atol=2e-3)
    np.testing.assert_array_equal(memory.images(), counts)


def test_class_means_of_two_heads_add_the_cosines_of_both():
    memory = first_memory("class_means")
    drawn = [tokens_of(draw_images(name, 20, 1)) for name in ("red", "green", "blue")]
    yellow = tokens_of(draw_images("yellow", 1, 2))
    memory = memory.learn(yellow, np.zeros(1, int) + 3, 4, How())
    means = np.stack([tokens[:, 0].mean(0) for tokens in (*drawn, yellow)])
    tokens = np.concatenate([*drawn, yellow])
    cosines = tokens[:, 0] @ means.T
    cosines /= np.linalg.norm(tokens[:, 0], axis=1)[:, None] * np.linalg.norm(means, axis=1)
    np.testing.assert_allclose(memory.logits(tokens), 20 * cosines, atol=1e-4)
    np.testing.assert_array_equal(memory.images(), [20, 20, 20, 1])
    np.testing.assert_allclose(memory.forget(0).logits(tokens), 20 * cosines[:, 1:], atol=1e-4)


@pytest.mark.parametrize(("tukey", "alpha1", "alpha2"), [(None, 9.0, 4.0), (0.5, 1.0, 1.0)])
def test_fecam_in_several_updates_is_that_of_the_training_on_all_images(tukey, alpha1, alpha2):
    options = {"tukey": tukey, "alpha1": alpha1, "alpha2": alpha2}
    memory, tests = first_memory("fecam", options=options), tokens_of(draw_images("black", 9, 5))
    drawn = {name: [tokens_of(draw_images(name, 20, 1))] for name in ("red", "green", "blue")}
    for name, label, n in (("yellow", 3, 1), ("red", 0, 7), ("yellow", 3, 5)):
        tokens = tokens_of(draw_images(name, n, n))
        drawn.setdefault(name, []).append(tokens)
        classes = max(label + 1, len(memory.images()))
        memory = memory.learn(tokens, np.full(n, label), classes, How(balance=False))
    every = [np.concatenate(some)[:, 0] for some in drawn.values()]
    counts = [len(some) for some in every]
    head = FecamHead(tests.shape[2], 4, torch.Generator(), **options, scale=1.0)
    targets = torch.eye(4)[np.arange(4).repeat(counts)]
    head.learn(head.features(torch.tensor(np.concatenate(every))), targets)
    expected = head(torch.tensor(tests[:, 0])).numpy()
    np.testing.assert_allclose(memory.logits(tests), expected, atol=1e-4)
    np.testing.assert_array_equal(memory.images(), counts)
    np.testing.assert_allclose(memory.forget(1).logits(tests), expected[:, [0, 2, 3]], atol=1e-4)


def test_balanced_classes_count_as_much_as_the_earlier_ones():
    tokens = tokens_of(draw_images("yellow", 2, 2))
    one = first_memory("ridge").learn(tokens, np.full(2, 3), 4, How())
    np.testing.assert_allclose(one.tensors["counts"], 20)
    np.testing.assert_array_equal(one.images(), [20, 20, 20, 2])
    copies = tokens.repeat(10, axis=0)
    ten = first_memory("ridge").learn(copies, np.full(20, 3), 4, How(balance=False))
    for name in ("gram", "sums"):
        np.testing.assert_allclose(one.tensors[name], ten.tensors[name], rtol=1e-4, atol=1e-3)


def test_the_ridge_is_chosen_over_all_tasks_or_as_published():
    memory = first_memory("ridge")
    tokens = tokens_of(draw_images("yellow", 10, 2))
    both = memory.learn(tokens, np.full(10, 3), 4, How("ridge", "all"))
    own = both.tensors["losses"] - memory.tensors["losses"]
    features = np.maximum(tokens[:, 0] @ memory.tensors["projection"], 0)
    np.testing.assert_allclose(
        own, closed.squared_errors(features, closed.one_hot(np.full(10, 3), 4), 2)
    )
    last = memory.learn(tokens, np.full(10, 3), 4, How("ridge", "last"))
    gram = closed.unpack(last.tensors["gram"])
    for found, losses in ((both, both.tensors["losses"]), (last, own)):
        ridge = closed.best_ridge(losses, gram)
        expected = closed.ridge_weights(gram, found.tensors["sums"], ridge)
        np.testing.assert_allclose(found.tensors["weight"], expected, rtol=1e-3, atol=1e-4)


def test_forgetting_a_class_is_never_having_learnt_it_for_statistics():
    memory = first_memory("aligned", "covariance")
    tokens = tokens_of(draw_images("white", 10, 2))
    learnt = memory.learn(tokens, np.full(10, 3), 4, How("ridge"))
    assert learnt.about["sizes"] == [3, 1]
    again = learnt.forget(3)
    assert again.about["sizes"] == [3]
    same = memory.learn(tokens[:0], np.zeros(0, int), 3, How("ridge"))
    np.testing.assert_allclose(again.tensors["head.weight"], same.tensors["head.weight"], atol=1e-6)


@given(st.integers(1, 9), st.integers(0, 3))
def test_packed_triangles_are_unpacked(width, classes):
    square = np.random.default_rng(width).standard_normal((classes, width, width))
    square = square + square.swapaxes(1, 2)
    packed = closed.pack(square)
    assert packed.shape == (classes, width * (width + 1) // 2)
    np.testing.assert_array_equal(closed.unpack(packed), square)


def test_the_generator_is_documented_by_its_values():
    """JavaScript has the same numbers."""
    assert draws.bits((411, 7), np.arange(3)).tolist() == [83113690, 1237736625, 2432335928]
    np.testing.assert_allclose(
        draws.normal((1,), np.arange(3)), [0.535693, 1.300832, 1.366814], atol=1e-6
    )
    assert draws.permutation((3, 1), 6).tolist() == [4, 5, 1, 0, 3, 2]
    many = draws.normal((1,), np.arange(200_000))
    assert abs(many.mean()) < 0.01 and abs(many.std() - 1) < 0.01
    assert abs((many**4).mean() - 3) < 0.1


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**31))
def test_the_generator_mixes_as_integers_do(key, counter):
    def mix(x):
        for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
            x = (x ^ x >> shift) * factor % 2**32
        return x ^ x >> 16

    golden = 0x9E3779B9
    expected = mix((mix((key + golden) % 2**32) + mix((counter + golden) % 2**32)) % 2**32)
    assert draws.bits((key,), np.array([counter])).tolist() == [expected]
