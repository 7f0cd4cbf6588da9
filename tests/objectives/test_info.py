import math

import pytest
import torch

from latentia.distributions import Diagonal
from latentia.errors import ConfigurationError
from latentia.estimate import Estimate
from latentia.objectives import ELBO, Info, Progress
from latentia.objectives.info import maximum_mean_discrepancy

from .linear_gaussian import LinearGaussian

LATE = Progress(step=10_000, epoch=100.0, data_size=50)


def naive(a, b):
    """The unbiased estimate, written out pair by pair."""
    n, d = a.shape

    def kernel(u, v):
        return 2 * d / (2 * d + sum((p - q) ** 2 for p, q in zip(u.tolist(), v.tolist(), strict=True)))

    total = 0.0
    for i in range(n):
        for j in range(n):
            if i != j:
                total += (kernel(a[i], a[j]) + kernel(b[i], b[j])) / (n * (n - 1))
            total -= 2 * kernel(a[i], b[j]) / n**2
    return total


@pytest.mark.parametrize(("n", "d"), [(2, 1), (7, 2), (12, 5)])
def test_the_mean_is_that_of_a_double_loop(n, d):
    torch.manual_seed(n)
    a, b = torch.randn(n, d, dtype=torch.float64), 0.5 + torch.randn(n, d, dtype=torch.float64)
    values = maximum_mean_discrepancy(a, b)
    assert values.shape == (n,)
    assert values.mean().item() == pytest.approx(naive(a, b), abs=1e-14)


def repeated(shift, n=40, repetitions=400):
    torch.manual_seed(0)
    return torch.stack(
        [maximum_mean_discrepancy(torch.randn(n, 2), shift + torch.randn(n, 2)) for _ in range(repetitions)]
    )


def test_equal_distributions_have_none_in_the_mean():
    means = repeated(0.0).mean(1)
    assert Estimate.mean(means).agrees_with(0.0)
    assert (means < 0).any()


def test_unequal_distributions_have_the_discrepancy_of_a_large_sample():
    torch.manual_seed(1)
    a, b = torch.randn(2, 1500, 2, dtype=torch.float64)
    large = Estimate.mean(maximum_mean_discrepancy(a, b + 0.7))
    small = Estimate.mean(repeated(0.7).mean(1))
    assert small.agrees_with(large)
    assert not small.at_most(0.01)


def test_the_standard_error_of_the_values_is_that_of_their_mean():
    values = repeated(1.5)
    claimed = (values.std(1) / math.sqrt(values.shape[1])).mean()
    seen = values.mean(1).std()
    assert claimed / seen == pytest.approx(1, abs=5 / math.sqrt(2 * len(values)) + 2 / values.shape[1])


@pytest.mark.parametrize(("alpha", "weight"), [(0.0, 1.0), (0.0, 10.0), (0.5, 3.0), (1.0, 4.0), (-1.0, 2.0)])
def test_the_cost_is_its_terms_with_their_weights(alpha, weight):
    model = LinearGaussian(Diagonal(), away=0.3)
    terms = Info(alpha=alpha, weight=weight)(model.vae, model.images(8), LATE)
    expected = terms["distortion"] + (1 - alpha) * terms["rate"] + (alpha + weight - 1) * terms["mmd"]
    torch.testing.assert_close(terms["cost"].detach(), expected)


def test_it_is_the_plain_bound_for_alpha_0_and_weight_1():
    model = LinearGaussian(Diagonal(), away=0.3)
    x = model.images(8)
    costs = []
    for objective in (Info(alpha=0, weight=1), ELBO()):
        torch.manual_seed(0)
        costs.append(objective(model.vae, x, LATE)["cost"].detach())
    torch.testing.assert_close(*costs)


@pytest.mark.parametrize(
    ("alpha", "weight", "bounds"), [(0, 1, True), (-1, 2, True), (0, 10, False), (0.5, 0.5, False), (1, 0, False)]
)
def test_it_says_when_it_is_a_bound(alpha, weight, bounds):
    assert Info(alpha=alpha, weight=weight).bounds_log_likelihood == bounds


def test_a_reward_for_discrepancy_is_refused_with_the_smallest_weight():
    with pytest.raises(ConfigurationError, match=r"must be at least 0; set weight=0\.75"):
        Info(alpha=0.25, weight=0.5)
    with pytest.raises(ConfigurationError, match="less than or equal to 1"):
        Info(alpha=1.5)
