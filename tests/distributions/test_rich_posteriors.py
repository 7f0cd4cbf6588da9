"""Posteriors by flows and mixtures, against quadrature, closed forms and other libraries."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from latentia.distributions import Conditional, FlowPosterior, MixturePosterior, Posterior, VampPrior, weighted_draws
from latentia.errors import ConfigurationError
from latentia.estimate import Estimate

FLOWS = [FlowPosterior(kind="nsf", transforms=2, bins=5, context=5), FlowPosterior(kind="iaf", transforms=3, context=5)]
FAMILIES = [*FLOWS, MixturePosterior(components=3)]
each = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: str(family)[:10])
N = 100_000


def conditional(family: Posterior, d: int) -> Conditional:
    """A conditional that passes its numbers through, with weights far from their start."""
    torch.manual_seed(0)
    shape = family.parameter_shape((d,))
    made = Conditional(torch.nn.Identity(), family, event_shape=(d,), condition_shape=shape).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.12 * torch.randn_like(parameter))
    return made


def numbers(family: Posterior, d: int, batch: int = 1, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    return 0.6 * torch.randn(batch, *family.parameter_shape((d,)), dtype=torch.float64)


def plane(low: float = -9, high: float = 9, nodes: int = 181) -> tuple[Tensor, float]:
    axis = torch.linspace(low, high, nodes, dtype=torch.float64)
    return torch.cartesian_prod(axis, axis), float(axis[1] - axis[0]) ** 2


@each
def test_the_density_over_the_plane_integrates_to_one_with_the_moments_of_the_draws(family):
    q = conditional(family, 2).distribution(numbers(family, 2))
    z, area = plane()
    mass = q.log_prob(z[:, None]).exp().squeeze(1) * area
    assert mass.sum().item() == pytest.approx(1, abs=2e-3)
    mean = mass @ z
    drawn = q.sample(torch.Size([N])).squeeze(1)
    for axis in range(2):
        assert Estimate.mean(drawn[:, axis]).agrees_with(mean[axis].item())
        second = (mass @ (z[:, axis] - mean[axis]).square()).item()
        assert Estimate.mean((drawn[:, axis] - mean[axis]).square()).agrees_with(second)
        tolerance = 0.05 * second**0.5
        assert q.mean[0, axis].item() == pytest.approx(mean[axis].item(), abs=tolerance)
        assert q.variance[0, axis].item() == pytest.approx(second, rel=0.1)


@pytest.mark.parametrize("d", [1, 2, 5])
@pytest.mark.parametrize("family", FLOWS, ids=str)
def test_the_density_kept_with_a_draw_is_that_of_the_inverse(family, d):
    q = conditional(family, d).distribution(numbers(family, d, 4))
    z = q.rsample(torch.Size([3]))
    kept = q.log_prob(z)
    assert kept.shape == (3, 4)
    torch.testing.assert_close(kept, q.log_prob(z.clone()), rtol=0, atol=1e-6)


@pytest.mark.parametrize("bins", [2, 8, 11])
def test_a_spline_has_as_many_pieces_as_bins(bins):
    q = conditional(FlowPosterior(kind="nsf", transforms=1, bins=bins, context=1), 3)
    *_, last = q.shared.parameters()
    assert last.shape == (3 * (3 * bins - 1),)  # widths, heights and inner slopes (Durkan et al. 2019, section 3.1)


def test_affine_transforms_have_no_bins():
    with pytest.raises(ConfigurationError, match="Leave bins out, or set kind=nsf"):
        FlowPosterior(kind="iaf", bins=16)


@pytest.mark.parametrize("family", FLOWS, ids=str)
def test_a_flow_starts_as_about_a_diagonal_gaussian(family):
    torch.manual_seed(0)
    made = Conditional(torch.nn.Identity(), family, event_shape=(2,), condition_shape=family.parameter_shape((2,)))
    given = torch.tensor([[1.0, -2.0, math.log(0.1), math.log(0.3), *[0.0] * 5]])
    z = made.distribution(given).sample(torch.Size([N])).squeeze(1).numpy()
    oracle = stats.norm([1.0, -2.0], [0.1, 0.3])
    distance = [stats.kstest(z[:, axis], stats.norm(oracle.mean()[axis], oracle.std()[axis]).cdf) for axis in range(2)]
    assert max(found.statistic for found in distance) < 0.05


@pytest.mark.parametrize("family", FLOWS, ids=str)
def test_a_stopped_flow_has_a_gradient_to_z_alone(family):
    made = conditional(family, 2)
    given = numbers(family, 2, 3).requires_grad_()
    z = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    stopped = made.stopped(given).log_prob(z)
    torch.testing.assert_close(stopped.detach(), made.distribution(given).log_prob(z).detach())
    stopped.sum().backward()
    assert z.grad is not None
    assert given.grad is None
    assert all(parameter.grad is None for parameter in made.parameters())


@pytest.mark.parametrize("family", FLOWS, ids=str)
def test_the_draws_carry_the_gradient_of_an_expectation(family):
    """d/dm E z² = 2 E z, and every number has an effect."""
    made = conditional(family, 2)
    given = numbers(family, 2).requires_grad_()
    q = made.distribution(given)
    z = q.rsample(torch.Size([20_000]))
    (gradient,) = torch.autograd.grad(z.square().sum(-1).mean(), given)
    expected = 2 * z.detach().mean(0)[0]
    torch.testing.assert_close(gradient[0, :2], expected, rtol=1e-6, atol=1e-6)
    assert bool((gradient != 0).all())


def test_a_mixture_has_scipys_density():
    family = MixturePosterior(components=3)
    given = numbers(family, 2, 4)
    z = torch.randn(4, 2, dtype=torch.float64)
    value = family.distribution(given).log_prob(z)
    for row in range(4):
        logits, means, scales = np.split(given[row].numpy(), [3, 9])
        density = sum(
            weight * stats.multivariate_normal(mean, np.diag(np.exp(2 * scale))).pdf(z[row].numpy())
            for weight, mean, scale in zip(
                np.exp(logits) / np.exp(logits).sum(), means.reshape(3, 2), scales.reshape(3, 2), strict=True
            )
        )
        assert value[row].item() == pytest.approx(math.log(density), abs=1e-10)


def test_the_strata_of_a_mixture_carry_the_gradient_of_an_expectation():
    """E z² = Σ π (m² + s²): every derivative is known, that to the weights too."""
    family = MixturePosterior(components=2)
    given = numbers(family, 1).requires_grad_()
    gradients = []
    for seed in range(400):
        torch.manual_seed(seed)
        z, log_weights = weighted_draws(family.distribution(given), 4)
        assert log_weights is not None
        torch.testing.assert_close(log_weights.exp().sum(0), torch.ones(1, dtype=torch.float64))
        expectation = (log_weights.exp() * z.squeeze(-1).square()).sum()
        gradients.append(torch.autograd.grad(expectation, given)[0][0])
    logits, means, scales = given[0].split(2)
    closed = (logits.softmax(0) * (means.square() + (2 * scales).exp())).sum()
    (truth,) = torch.autograd.grad(closed, given)
    for estimates, exact in zip(torch.stack(gradients).T, truth[0], strict=True):
        assert Estimate.mean(estimates).agrees_with(exact.item())


@each
def test_a_vampprior_is_the_mean_of_its_posteriors(family):
    shape = (1, *family.parameter_shape((2,)), 1)
    made = conditional(family, 2)
    made.network, made.condition_shape = torch.nn.Flatten(), shape
    prior = VampPrior(components=4).build(2, shape).double()
    z = torch.randn(6, 2, dtype=torch.float64)
    images = prior.pseudo_inputs.sigmoid().detach()
    each_one = torch.stack([made(image[None]).log_prob(z[:, None]).squeeze(1) for image in images])
    torch.testing.assert_close(prior(made).log_prob(z), each_one.logsumexp(0) - math.log(4))
