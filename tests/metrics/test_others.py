"""Inception-type score, classes, two-sample test, memorization, diversity: closed forms, plain programs, directions."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist, pdist

from latentia.errors import DataError
from latentia.metrics import (
    class_coverage,
    diversity,
    inception_score,
    memorization,
    two_sample_test,
)
from tests.metrics.known_features import normal


def by_name(estimates):
    return {e.name: e for e in estimates}


def test_inception_score_is_the_number_of_certain_equal_classes_and_one_otherwise():
    sure = torch.eye(10).repeat(20, 1)
    assert inception_score(sure).value == pytest.approx(10, rel=1e-12)
    assert inception_score(torch.full((50, 10), 0.1)).value == pytest.approx(1, rel=1e-12)
    collapsed = torch.eye(10)[torch.zeros(40, dtype=torch.int64)]
    assert inception_score(collapsed).value == pytest.approx(1, rel=1e-12)


def test_inception_score_states_its_error_and_its_bias():
    generator = torch.Generator().manual_seed(0)

    def draw(n):
        return (torch.randn(n, 5, generator=generator, dtype=torch.float64) * 2).softmax(1)

    truth = inception_score(draw(400_000)).value
    found = [inception_score(draw(100)) for _ in range(300)]
    values, errors = np.array([e.value for e in found]), np.array([e.stderr for e in found])
    assert 0.90 <= np.mean(np.abs(values - truth) < 1.96 * errors) <= 0.98
    bias = np.mean([e.settings["bias"] for e in found])
    assert abs(values.mean() - truth - bias) < 5 * values.std() / math.sqrt(300)
    assert abs(values.mean() - truth) > 2 * values.std() / math.sqrt(300), "the bias shows at all"


@pytest.mark.parametrize("bad", [torch.randn(5, 3), torch.ones(5, 3), torch.full((5, 3), math.nan), torch.eye(3)[:1]])
def test_what_is_no_distribution_over_classes_is_refused(bad):
    with pytest.raises(DataError):
        inception_score(bad)


def test_class_shares_are_measured_by_kl():
    labels = torch.tensor([0] * 50 + [1] * 30 + [2] * 20)
    shares = torch.tensor([0.25, 0.25, 0.25, 0.25])
    found = by_name(class_coverage(labels, 4, shares))
    assert found["classes/found"].value == 3
    truth = sum(p * math.log(p / 0.25) for p in (0.5, 0.3, 0.2))
    assert found["classes/kl"].value == pytest.approx(truth, rel=1e-12)
    assert found["classes/kl_perfect"].value == pytest.approx(3 / 200)


@pytest.mark.parametrize("distribution", [[1, 1, 1, 1, 1], [1, 2, 3, 4, 5]])
def test_kl_of_shares_states_its_error(distribution):
    generator = torch.Generator().manual_seed(1)
    probabilities = torch.tensor(distribution, dtype=torch.float64) / sum(distribution)
    draws = torch.multinomial(probabilities, 400 * 300, replacement=True, generator=generator).view(300, 400)
    found = [by_name(class_coverage(labels, 5))["classes/kl"] for labels in draws]
    values, errors = np.array([e.value for e in found]), np.array([e.stderr for e in found])
    assert errors.mean() == pytest.approx(values.std(), rel=0.25)
    truth = (probabilities * (5 * probabilities).log()).sum().item()
    assert abs(values.mean() - truth - 4 / 800) < 5 * values.std() / math.sqrt(300)


@pytest.mark.parametrize("distribution", [[1, 1, 1, 1, 1], [1, 2, 3, 4, 5]])
def test_kl_from_counted_shares_counts_their_noise(distribution):
    generator = torch.Generator().manual_seed(2)
    probabilities = torch.tensor(distribution, dtype=torch.float64) / sum(distribution)

    def draw(n):
        return torch.multinomial(probabilities, n * 300, replacement=True, generator=generator).view(300, n)

    equal = torch.multinomial(torch.ones(5), 200 * 300, replacement=True, generator=generator).view(300, 200)
    found = [
        by_name(class_coverage(labels, 5, known.bincount(minlength=5) + 0.5, reference=200))
        for labels, known in zip(draw(400), equal, strict=True)
    ]
    values, errors = (np.array([getattr(f["classes/kl"], key) for f in found]) for key in ("value", "stderr"))
    assert errors.mean() == pytest.approx(values.std(), rel=0.25)
    perfect = found[0]["classes/kl_perfect"].value
    assert perfect == pytest.approx(2 * (1 / 400 + 1 / 200))
    third_order = 0.05 * perfect if len(set(distribution)) == 1 else math.inf
    assert abs(values.mean() - perfect) < 5 * values.std() / math.sqrt(300) + third_order


def test_labels_out_of_range_are_refused():
    with pytest.raises(DataError, match="from 0 to 3"):
        class_coverage(torch.tensor([0, 4]), 4)


def test_p_values_of_equal_distributions_are_uniform_or_larger():
    p = np.array([two_sample_test(normal(80, s), normal(80, 900 + s), steps=15, hidden=8)[1].value for s in range(80)])
    for level in (0.1, 0.3, 0.5):
        assert (p <= level).mean() <= level + 4 * math.sqrt(level * (1 - level) / 80)
    assert (p <= 0.5).mean() > 0.2, "a test that never rejects would pass the line above"


@pytest.mark.parametrize("fake", [normal(200, 2, shift=0.8), normal(200, 2, scale=0.4)], ids=["moved", "shrunk"])
def test_the_two_sample_test_detects_other_distributions(fake):
    accuracy, p = two_sample_test(normal(200, 1), fake)
    assert accuracy.value > 0.75
    assert p.value < 1e-5


def test_memorization_is_the_plain_program():
    train, fake, held_out = normal(60, 1), normal(40, 2, scale=1.2), normal(30, 3)
    between, own = cdist(fake, train), cdist(train, train) + 1e9 * np.eye(60)
    authentic = np.mean(between.min(1) > own.min(1)[between.argmin(1)])
    ratio = between.min(1).mean() / cdist(held_out, train).min(1).mean()
    for block in (1, 7, 500):
        found = by_name(memorization(train, fake, held_out, block=block))
        assert found["memorization/authenticity"].value == pytest.approx(authentic, rel=1e-12)
        assert found["memorization/nearest_ratio"].value == pytest.approx(ratio, rel=1e-12)


def test_copies_are_caught_and_fresh_samples_are_not():
    train, held_out = normal(500, 1), normal(300, 2)
    copies = by_name(memorization(train, train[:300] + 1e-6, held_out))
    assert copies["memorization/authenticity"].value == 0
    assert copies["memorization/nearest_ratio"].value < 1e-4
    fresh = by_name(memorization(train, normal(300, 3), held_out))
    assert fresh["memorization/nearest_ratio"].agrees_with(1.0, sigmas=4)
    assert fresh["memorization/authenticity"].value > 0.45
    exact = by_name(memorization(train, train[:300], held_out))
    assert exact["memorization/nearest_ratio"].value == 0


def test_diversity_is_the_plain_ratio_and_states_its_error():
    x, y = normal(50, 1), normal(70, 2, scale=1.5)
    for block in (1, 16, 500):
        assert diversity(x, y, block=block).value == pytest.approx(pdist(y).mean() / pdist(x).mean(), rel=1e-9)
    table = np.array(
        [[e.value, e.stderr] for e in (diversity(normal(100, s), normal(100, 700 + s)) for s in range(150))]
    )
    assert 0.88 <= np.mean(np.abs(table[:, 0] - 1) < 1.96 * table[:, 1]) <= 0.99
    assert diversity(x, normal(70, 3, scale=0.1)).value < 0.15
