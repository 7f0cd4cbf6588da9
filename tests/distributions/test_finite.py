import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from latentia.distributions.finite import Finite
from latentia.errors import ConfigurationError


def t(*values):
    return torch.tensor(values, dtype=torch.float64)


LINE = Finite(t(2.0, -1.0, 0.5), t(0.2, 0.3, 0.5))
PLANE = Finite(torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0]], dtype=torch.float64), t(0.25, 0.25, 0.5))


@pytest.mark.parametrize("distribution", [LINE, PLANE], ids=["line", "plane"])
def test_it_is_a_distribution(distribution):
    points = distribution.enumerate_support()
    assert distribution.log_prob(points).exp().sum().item() == pytest.approx(1, abs=1e-15)
    assert distribution.entropy().item() == pytest.approx(stats.entropy(distribution.weights.numpy()), abs=1e-14)
    torch.manual_seed(0)
    draws = distribution.sample((100, 200))
    assert draws.shape == (100, 200, *distribution.event_shape)
    assert distribution.support.check(draws).all()
    flat = draws.reshape(-1, *distribution.event_shape)
    stderr = (distribution.variance / len(flat)).sqrt()
    assert ((flat.mean(0) - distribution.mean).abs() < 5 * stderr).all()


def test_cdf_is_right_continuous():
    assert LINE.cdf(t(-2.0, -1.0, 0.0, 0.5, 2.0, 3.0)).tolist() == pytest.approx([0, 0.3, 0.3, 0.8, 1, 1], abs=1e-15)
    with pytest.raises(NotImplementedError):
        PLANE.cdf(t(0.0))


def test_equal_points_are_merged_and_order_is_kept():
    distribution = Finite(t(3.0, 1.0, 3.0, 2.0), t(0.1, 0.2, 0.3, 0.4))
    assert distribution.points.tolist() == [3, 1, 2]
    assert distribution.weights.tolist() == pytest.approx([0.4, 0.2, 0.4], abs=1e-15)


def test_points_off_the_support():
    assert Finite(t(0.0, 1.0), validate_args=False).log_prob(t(0.5)).item() == -math.inf
    with pytest.raises(ValueError, match="support"):
        LINE.log_prob(t(0.25))


def test_log_prob_is_differentiable_in_the_weights():
    logits = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    distribution = Finite(t(2.0, -1.0, 0.5), logits.softmax(0))
    distribution.log_prob(t(-1.0)).sum().backward()
    assert torch.allclose(logits.grad, t(-1 / 3, 2 / 3, -1 / 3))


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=12))
def test_the_empirical_distribution_counts(values):
    distribution = Finite(torch.tensor(values))
    for value in set(values):
        mass = distribution.log_prob(torch.tensor(float(value))).exp().item()
        assert mass == pytest.approx(values.count(value) / len(values), abs=1e-14)


@pytest.mark.parametrize(
    ("points", "weights"),
    [(t(), None), (t(0.0, math.nan), None), (t(0.0, 1.0), t(0.5, 0.6)), (t(0.0, 1.0), t(1.0)), (t(0, 1), t(-1, 2))],
)
def test_impossible_distributions_are_refused(points, weights):
    with pytest.raises(ConfigurationError, match="finite distribution needs"):
        Finite(points, weights)
