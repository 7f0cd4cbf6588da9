import math

import pytest
import torch
from torch import distributions as td

from latentia.distributions.finite import Finite
from latentia.distributions.mixtures import Mixture, log_density
from latentia.distributions.parsing import parse_distribution
from latentia.errors import ConfigurationError
from latentia.integration import RunningMean, integrate


def t(*values):
    return torch.tensor(values, dtype=torch.float64)


NORMAL, UNIFORM, EXPONENTIAL = td.Normal(*t(-1.0, 0.5)), td.Uniform(*t(0.0, 1.0)), td.Exponential(t(2.0)[0])
MIXTURES = {
    "one": Mixture(t(1.0), [NORMAL]),
    "normal and uniform": Mixture(t(0.25, 0.75), [NORMAL, UNIFORM]),
    "three": Mixture(t(0.2, 0.3, 0.5), [EXPONENTIAL, NORMAL, UNIFORM]),
    "a weight of zero": Mixture(t(0.0, 1.0), [NORMAL, UNIFORM]),
}
ENDS = [-math.inf, -1.0, 0.0, 1.0, 3.0, math.inf]


@pytest.mark.parametrize("distribution", MIXTURES.values(), ids=MIXTURES.keys())
def test_moments_and_mass_by_quadrature(distribution):
    def density(x):
        return log_density(distribution, x).exp()

    assert integrate(density, ENDS).agrees_with(1.0)
    assert integrate(lambda x: x * density(x), ENDS).agrees_with(distribution.mean.item())
    second = integrate(lambda x: x.square() * density(x), ENDS)
    assert second.agrees_with((distribution.variance + distribution.mean.square()).item())


@pytest.mark.parametrize("distribution", MIXTURES.values(), ids=MIXTURES.keys())
def test_samples_have_the_moments(distribution):
    torch.manual_seed(0)
    draws = distribution.sample((200, 100))
    assert draws.shape == (200, 100)
    assert RunningMean().add(draws.flatten()).estimate().agrees_with(distribution.mean.item())
    assert (
        RunningMean()
        .add((draws.flatten() - distribution.mean).square())
        .estimate()
        .agrees_with(distribution.variance.item())
    )
    assert distribution.sample().shape == ()


@pytest.mark.parametrize("distribution", MIXTURES.values(), ids=MIXTURES.keys())
@pytest.mark.parametrize("x", [-3.0, 0.25, 2.0])
def test_the_cdf_is_the_integral_of_the_density(distribution, x):
    ends = [point for point in ENDS if point < x]
    part = integrate(lambda x: log_density(distribution, x).exp(), [*ends, x])
    assert part.agrees_with(distribution.cdf(t(x)).item())


def test_it_is_torchs_mixture_where_the_family_is_one():
    means, scales, weights = t(-2.0, 0.0, 3.0), t(0.5, 1.0, 2.0), t(0.2, 0.3, 0.5)
    ours = Mixture(weights, [td.Normal(m, s) for m, s in zip(means, scales, strict=True)])
    theirs = td.MixtureSameFamily(td.Categorical(weights), td.Normal(means, scales))
    x = torch.linspace(-6, 8, 57, dtype=torch.float64)
    assert torch.allclose(ours.log_prob(x), theirs.log_prob(x), rtol=1e-14)
    assert torch.allclose(ours.cdf(x), theirs.cdf(x), rtol=1e-14)
    assert torch.allclose(ours.mean, theirs.mean)
    assert torch.allclose(ours.variance, theirs.variance)


def test_density_is_minus_infinity_outside_every_support():
    distribution = Mixture(t(0.5, 0.5), [UNIFORM, td.Uniform(*t(2.0, 3.0))], validate_args=False)
    x = t(-1.0, 0.5, 1.5, 2.5)
    assert log_density(distribution, x).exp().tolist() == [0, 0.5, 0, 0.5]
    assert not distribution.support.check(x)[2]
    with pytest.raises(ValueError, match="support"):
        Mixture(t(0.5, 0.5), [UNIFORM, UNIFORM], validate_args=True).log_prob(t(2.0))


def test_gradients_pass_by_points_outside_the_support():
    rate = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    distribution = Mixture(t(0.5, 0.5), [td.Exponential(rate), NORMAL])
    distribution.log_prob(t(-1.0, 1.0)).sum().backward()
    assert torch.isfinite(rate.grad)
    assert rate.grad != 0


@pytest.mark.parametrize(
    ("weights", "components", "message"),
    [
        (t(1.0), [NORMAL, NORMAL], "one weight for each"),
        (t(0.5, 0.6), [NORMAL, NORMAL], "sum to 1.1"),
        (t(-0.5, 1.5), [NORMAL, NORMAL], "at least 0"),
        (t(0.5, 0.5), [NORMAL, Finite(t(0.0, 1.0))], "all discrete or all continuous"),
        (t(0.5, 0.5), [NORMAL, td.Independent(td.Normal(t(0, 0), t(1, 1)), 1)], "different spaces"),
        (t(0.5, 0.5), [td.Normal(t(0, 0), t(1, 1))] * 2, "MixtureSameFamily takes a batch"),
    ],
)
def test_impossible_mixtures_are_refused(weights, components, message):
    with pytest.raises(ConfigurationError, match=message):
        Mixture(weights, components)


def test_the_density_of_a_mixture_of_boxes_is_that_of_the_box_that_holds_x():
    ends = td.Uniform(torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [4.0]]), validate_args=False)
    mixture = td.MixtureSameFamily(
        td.Categorical(torch.tensor([0.5, 0.5])), td.Independent(ends, 1, validate_args=False), validate_args=False
    )
    found = log_density(mixture, torch.tensor([[0.5], [3.0], [1.5], [-1.0]]))
    assert torch.allclose(found.exp(), torch.tensor([0.5, 0.25, 0.0, 0.0]))


def test_samples_of_any_number_have_one_type():
    mixture = parse_distribution("Mixture(0.5*Bernoulli(0.25) + 0.5*Categorical([0.25,0.25,0.5]))")
    for shape in ((), (0,), (1,), (7,), (2, 0), (50, 2)):
        drawn = mixture.sample(torch.Size(shape))
        assert drawn.shape == shape
        assert drawn.is_floating_point()
        assert torch.isfinite(mixture.log_prob(drawn)).all()
