import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch.distributions import kl_divergence

from latentia.distributions import Diagonal, Fixed, Full, StandardNormal
from latentia.estimate import Estimate

FAMILIES = [Fixed(scale=0.3), Diagonal(), Full()]
N = 200_000


def numbers(family, d, batch=(), seed=0):
    torch.manual_seed(seed)
    return 0.5 * torch.randn(*batch, *family.parameter_shape((d,)), dtype=torch.float64)


def moments(distribution):
    """Mean and covariance of one distribution, from its documented parameters."""
    covariance = (
        distribution.covariance_matrix
        if hasattr(distribution, "covariance_matrix")
        else torch.diag_embed(distribution.variance)
    )
    return distribution.mean.numpy(), covariance.numpy()


@pytest.mark.parametrize(("family", "plane"), [*zip(FAMILIES, [2, 4, 5], strict=True)], ids=str)
def test_numbers_for_the_plane(family, plane):
    assert family.parameter_shape((2,)) == (plane,)


@given(st.integers(1, 40))
def test_numbers_for_any_dimension(d):
    assert Fixed().parameter_shape((d,)) == (d,)
    assert Diagonal().parameter_shape((d,)) == (2 * d,)
    (full,) = Full().parameter_shape((d,))
    assert full == d + d * (d + 1) // 2
    assert Full().distribution(torch.zeros(full)).event_shape == (d,)


def test_full_reads_its_numbers_in_the_documented_order():
    distribution = Full().distribution(
        torch.tensor([1.0, 2.0, 3.0, math.log(4), math.log(5), math.log(6), 0.1, 0.2, 0.3])
    )
    assert distribution.mean.tolist() == [1, 2, 3]
    expected = torch.tensor([[4.0, 0, 0], [0.1, 5, 0], [0.2, 0.3, 6]])
    torch.testing.assert_close(distribution.scale_tril, expected)  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("batch", [(), (3,), (4, 3)], ids=str)
@pytest.mark.parametrize("d", [1, 2, 7])
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.type_name)
def test_log_density_is_scipys(family, d, batch):
    parameters = numbers(family, d, batch)
    distribution = family.distribution(parameters)
    z = torch.randn(*batch, d, dtype=torch.float64)
    assert distribution.batch_shape == batch
    assert distribution.has_rsample
    for one, point, value in zip(
        parameters.reshape(-1, parameters.shape[-1]), z.reshape(-1, d), distribution.log_prob(z).flatten(), strict=True
    ):
        oracle = stats.multivariate_normal(*moments(family.distribution(one))).logpdf(point.numpy())
        assert value.item() == pytest.approx(float(oracle), abs=1e-10)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.type_name)
def test_draws_have_the_distributions_mean_and_covariance(family):
    distribution = family.distribution(numbers(family, 3))
    mean, covariance = moments(distribution)
    z = distribution.sample((N,))
    for i in range(3):
        assert Estimate.mean(z[:, i]).agrees_with(mean[i])
        for j in range(3):
            products = (z[:, i] - mean[i]) * (z[:, j] - mean[j])
            assert Estimate.mean(products).agrees_with(covariance[i, j])


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.type_name)
def test_draws_carry_gradients_to_every_number(family):
    parameters = numbers(family, 3).requires_grad_()
    family.distribution(parameters).rsample((8,)).square().sum().backward()
    assert parameters.grad is not None
    assert bool((parameters.grad != 0).all())


@pytest.mark.parametrize("d", [1, 2, 5])
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.type_name)
def test_the_closed_rate_is_the_mean_log_ratio(family, d):
    q = family.distribution(numbers(family, d))
    prior = StandardNormal().build(d, (1, 8, 8)).double()()
    z = q.sample((N,))
    assert Estimate.mean(q.log_prob(z) - prior.log_prob(z)).agrees_with(kl_divergence(q, prior).item())


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.type_name)
def test_no_divergence_and_no_gradient_between_equal_distributions(family):
    parameters = numbers(family, 3, (4,)).requires_grad_()
    kl = kl_divergence(family.distribution(parameters), family.distribution(parameters.detach()))
    assert kl.shape == (4,)
    assert kl.abs().max().item() < 1e-12
    (gradient,) = torch.autograd.grad(kl.sum(), parameters)
    assert gradient.abs().max().item() < 1e-12


def test_a_full_distribution_without_correlation_is_a_diagonal_one():
    parameters = numbers(Diagonal(), 4, (3,))
    full = Full().distribution(torch.cat([parameters, torch.zeros(3, 6, dtype=torch.float64)], -1))
    z = torch.randn(3, 4, dtype=torch.float64)
    torch.testing.assert_close(full.log_prob(z), Diagonal().distribution(parameters).log_prob(z), rtol=0, atol=1e-12)
    prior = StandardNormal().build(4, (1, 8, 8)).double()()
    torch.testing.assert_close(kl_divergence(full, prior), kl_divergence(Diagonal().distribution(parameters), prior))


def test_the_rate_of_a_narrow_full_distribution_is_right_in_float32():
    """A posterior as narrow as trained ones are: scales of 0.005 with a correlation of 0.99."""
    narrow = torch.tensor([0.5, -1.0, math.log(0.005), math.log(0.001), 0.0067])
    prior = StandardNormal().build(2, (1, 8, 8))
    single = kl_divergence(Full().distribution(narrow), prior()).item()
    double = kl_divergence(Full().distribution(narrow.double()), prior.double()()).item()
    assert single == pytest.approx(double, abs=1e-4)
