import math

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import distributions as td

from latentia.distributions import Finite, gaussian_kl
from latentia.distributions.parsing import parse_distribution
from latentia.divergences import jensen_shannon, kl
from latentia.errors import ConfigurationError, UnsupportedError

DOUBLE = {"dtype": torch.float64}
MEANS = st.floats(-3, 3).filter(lambda x: x == 0 or abs(x) > 1e-100)


def covariance(d, seed):
    factor = torch.randn(d, d, generator=torch.Generator().manual_seed(seed), **DOUBLE)
    return factor @ factor.T + 0.1 * torch.eye(d, **DOUBLE)


@settings(deadline=None, max_examples=25)
@given(MEANS, st.floats(0.1, 5), MEANS, st.floats(0.1, 5))
def test_normals_in_closed_form(mean_p, scale_p, mean_q, scale_q):
    p, q = parse_distribution(f"Normal({mean_p},{scale_p})"), parse_distribution(f"Normal({mean_q},{scale_q})")
    truth = math.log(scale_q / scale_p) + (scale_p**2 + (mean_p - mean_q) ** 2) / (2 * scale_q**2) - 0.5
    assert kl.exact(p, q).agrees_with(truth)
    assert kl.quadrature(p, q).agrees_with(truth)


@pytest.mark.parametrize("d", [1, 2, 5])
def test_gaussians_of_every_make_agree(d):
    mean, scale = torch.linspace(-1, 1, d, **DOUBLE), torch.linspace(0.5, 2, d, **DOUBLE)
    full = td.MultivariateNormal(torch.zeros(d, **DOUBLE), covariance(d, 0))
    diagonal = td.Independent(td.Normal(mean, scale), 1)
    as_full = td.MultivariateNormal(mean, torch.diag(scale.square()))
    low_rank = td.LowRankMultivariateNormal(mean, torch.zeros(d, 1, **DOUBLE), scale.square())
    for p, q, reference in (
        (diagonal, full, td.kl_divergence(as_full, full)),
        (full, diagonal, td.kl_divergence(full, as_full)),
        (low_rank, full, td.kl_divergence(as_full, full)),
        (full, low_rank, td.kl_divergence(full, as_full)),
    ):
        assert kl.exact(p, q).agrees_with(reference.item())
    assert kl.exact(diagonal, as_full).value == pytest.approx(0, abs=1e-14)
    assert kl.monte_carlo(diagonal, full, n=20_000).agrees_with(kl.exact(diagonal, full))


def test_registered_pairs_serve_batches_with_gradients():
    mean = torch.randn(7, 3, **DOUBLE, generator=torch.Generator().manual_seed(0), requires_grad=True)
    diagonal = td.Independent(td.Normal(mean, torch.ones_like(mean)), 1)
    full = td.MultivariateNormal(torch.zeros(3, **DOUBLE), covariance(3, 1))
    for p, q in ((diagonal, full), (full, diagonal)):
        values = td.kl_divergence(p, q)
        assert values.shape == (7,)
        (gradient,) = torch.autograd.grad(values.sum(), mean)
        assert torch.isfinite(gradient).all()
    with pytest.raises(NotImplementedError, match=r"Independent\(Normal, 1\)"):
        td.kl_divergence(td.Independent(td.Laplace(mean, torch.ones_like(mean)), 1), full)


def test_zero_with_zero_gradient_between_equal_distributions():
    mean = torch.tensor([0.3, -1.0], **DOUBLE, requires_grad=True)
    factor = torch.tensor([[1.0, 0.0], [0.4, 2.0]], **DOUBLE, requires_grad=True)
    value = gaussian_kl(mean - mean.detach(), factor, factor.detach())
    gradients = torch.autograd.grad(value, (mean, factor))
    assert value.item() == 0
    assert all(gradient.abs().max() < 1e-14 for gradient in gradients)


@pytest.mark.parametrize(
    ("p", "q", "reason"),
    [
        ("Uniform(0,1)", "Uniform(.5,1.5)", "[0, 0.5]"),
        ("Uniform(0,1)", "Uniform(1,2)", "[0, 1]"),
        ("Normal(0,1)", "Exponential(1)", "[-inf, 0]"),
        ("Uniform(0,4)", "Mixture(.5*Uniform(0,1)+.5*Uniform(2,4))", "[1, 2]"),
        ("Uniform([0,0],1)", "Mixture(.5*Uniform([0,0],[.5,1])+.5*Uniform([.5,.5],1))", "[0.5, 1] × [0, 0.5]"),
        ("Uniform([0,0,0,0],2)", "Uniform([0,0,1,0],2)", "[0, 1]"),
        ("Bernoulli(.5)", "Bernoulli(1)", "mass 0.5"),
        ("Poisson(1)", "Bernoulli(.5)", "where Q has none"),
        ("Bernoulli(.5)", "Normal(0,1)", "mutually singular"),
        ("Normal(0,1)", "Finite([0,1])", "mutually singular"),
        ("Cauchy(0,1)", "Normal(0,1)", "E_p|x|^1 is infinite"),
        ("Laplace(0,1)", "Gumbel(0,1)", "exp(−x / scale)"),
        ("StudentT(2)", "Normal(0,1)", "E_p|x|^2 is infinite"),
        ("StudentT(1)", "Mixture(.5*Laplace(0,1)+.5*Normal(0,1))", "E_p|x|^1 is infinite"),
    ],
)
def test_infinity_is_an_exact_answer_with_its_reason(p, q, reason):
    p, q = parse_distribution(p), parse_distribution(q)
    for method in (kl.exact, kl.quadrature, kl.monte_carlo, kl.monte_carlo_nonnegative):
        answer = method(p, q)
        assert answer.value == math.inf
        assert answer.kind == "exact"
        assert reason in answer.settings["reason"]


def test_supports_that_only_cover_together_are_enough():
    halves = parse_distribution("Mixture(.25*Uniform(0,1)+.75*Uniform(1,2))")
    assert kl.exact(parse_distribution("Uniform(0,2)"), halves).agrees_with(-0.5 * math.log(0.75))
    assert kl.exact(parse_distribution("Uniform(0.5,1.5)"), halves).agrees_with(
        0.5 * math.log(4) + 0.5 * math.log(4 / 3)
    )


@pytest.mark.parametrize(
    ("p", "q", "density_p", "density_q", "ends"),
    [
        (
            "StudentT(3)",
            "Cauchy(0,1)",
            lambda x: 2 / (mpmath.pi * mpmath.sqrt(3) * (1 + x * x / 3) ** 2),
            lambda x: 1 / (mpmath.pi * (1 + x * x)),
            [-mpmath.inf, -10, 0, 10, mpmath.inf],
        ),
        (
            "Mixture(0.25*Normal(-2,1)+0.75*Normal(2,.5))",
            "Laplace(0,1)",
            lambda x: 0.25 * mpmath.npdf(x, -2, 1) + 0.75 * mpmath.npdf(x, 2, 0.5),
            lambda x: mpmath.exp(-abs(x)) / 2,
            [-40, -10, -2, 0, 1, 2, 3, 6, 20],
        ),
    ],
)
def test_quadrature_is_mpmath(p, q, density_p, density_q, ends):
    with mpmath.workdps(25):
        truth = mpmath.quad(lambda x: density_p(x) * mpmath.log(density_p(x) / density_q(x)), ends)
    result = kl.quadrature(parse_distribution(p), parse_distribution(q))
    assert result.agrees_with(float(truth))
    assert result.error < 1e-11


def test_a_singular_density_keeps_an_honest_error():
    truth = math.log(4 / math.pi)  # KL(arcsine, uniform)
    result = kl.quadrature(parse_distribution("Beta(.5,.5)"), parse_distribution("Uniform(0,1)"))
    assert result.agrees_with(truth)
    assert abs(result.value - truth) < result.error < 1e-5


def test_cauchys_in_closed_form():
    truth = math.log(((1 + 2) ** 2 + 1) / (4 * 1 * 2))
    assert kl.exact(parse_distribution("Cauchy(0,1)"), parse_distribution("Cauchy(1,2)")).agrees_with(truth)


def test_mixtures_of_one_family_in_float32_are_read_exactly():
    mixture = td.MixtureSameFamily(td.Categorical(torch.tensor([0.25, 0.75])), td.Normal(torch.tensor([-1.0, 1]), 1.0))
    written = parse_distribution("Mixture(.25*Normal(-1,1)+.75*Normal(1,1))")
    assert kl.exact(mixture, written).value == 0
    target = parse_distribution("Normal(0,2)")
    assert kl.quadrature(mixture, target).agrees_with(kl.quadrature(written, target))


def test_independent_bernoullis_are_enumerated():
    p = td.Independent(td.Bernoulli(torch.tensor([0.2, 0.5, 0.9], **DOUBLE)), 1)
    q = td.Independent(td.Bernoulli(torch.tensor([0.3, 0.4, 0.8], **DOUBLE)), 1)
    parts = sum(
        a * math.log(a / b) + (1 - a) * math.log((1 - a) / (1 - b)) for a, b in ((0.2, 0.3), (0.5, 0.4), (0.9, 0.8))
    )
    assert kl.exact(p, q).agrees_with(parts)
    assert jensen_shannon.exact(p, q).kind == "exact"


def test_refusals_name_a_method_that_serves():
    with pytest.raises(UnsupportedError, match=r"kl\.quadrature"):
        kl.exact(parse_distribution("Normal(0,1)"), parse_distribution("Cauchy(0,1)"))
    mixture = parse_distribution("Mixture(.5*Normal([0,0,0],1)+.5*Normal([1,1,1],1))")
    with pytest.raises(UnsupportedError, match=r"kl\.monte_carlo"):
        kl.exact(mixture, parse_distribution("Normal([0,0,0],1)"))
    with pytest.raises(UnsupportedError, match="monte_carlo"):
        kl.quadrature(mixture, parse_distribution("Normal([0,0,0],1)"))
    with pytest.raises(UnsupportedError, match="mass wherever Q has"):
        kl.monte_carlo_nonnegative(parse_distribution("Uniform(0,1)"), parse_distribution("Normal(0,1)"))
    with pytest.raises(UnsupportedError, match="where it must be 1"):
        kl.monte_carlo_nonnegative(parse_distribution("Normal(0,1)"), parse_distribution("Normal(30,.1)"))
    with pytest.raises(UnsupportedError, match="infinite variance"):
        kl.monte_carlo_nonnegative(parse_distribution("Normal(0,1)"), parse_distribution("StudentT(3)"))
    with pytest.raises(UnsupportedError, match="heavy tail"):  # the ratios overflow
        kl.monte_carlo_nonnegative(parse_distribution("Normal(2,1.5)"), parse_distribution("Gumbel(13,1e-3)"))
    with pytest.raises(UnsupportedError, match="overflow"):
        kl.monte_carlo(parse_distribution("LogNormal(0,1000)"), parse_distribution("LogNormal(1,1000)"))


@pytest.mark.parametrize(
    ("p", "q", "message"),
    [
        (td.Normal(0.0, 1.0), td.Normal(torch.zeros(3), torch.ones(3)), "batch of distributions"),
        (td.Normal(0.0, 1.0), parse_distribution("Normal([0,0],1)"), "different spaces"),
        (parse_distribution("Normal([0,0,0],1)"), parse_distribution("Normal([0,0],1)"), "different spaces"),
    ],
)
def test_what_cannot_be_compared(p, q, message):
    with pytest.raises(ConfigurationError, match=message):
        kl.exact(p, q)


def test_vectors_of_length_one_are_numbers():
    vector = parse_distribution("MultivariateNormal([1],[[4]])")
    assert kl.exact(vector, parse_distribution("Normal(0,1)")).agrees_with(-math.log(2) + 2.5 - 0.5)
    assert kl.exact(Finite(torch.tensor([[0.0], [1.0]])), parse_distribution("Bernoulli(.5)")).value == 0


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6), st.lists(st.floats(0.01, 1), min_size=6, max_size=6))
def test_finite_distributions_sum(weights, others):
    if sum(weights) < 0.1:
        return
    a, b = torch.tensor(weights, **DOUBLE), torch.tensor(others[: len(weights)], **DOUBLE)
    a, b = a / a.sum(), b / b.sum()
    points = torch.arange(len(a), **DOUBLE)
    truth = (torch.special.xlogy(a, a) - torch.special.xlogy(a, b)).sum().item()
    assert kl.exact(Finite(points, a), Finite(points, b)).agrees_with(truth)
