"""Closed forms at extreme parameters, against the formulas in fifty digits and against quadrature."""

import math

import mpmath as mp
import pytest
import torch
from torch import distributions as td

from latentia.divergences import kl
from latentia.divergences.f_divergence import _TRUSTED
from latentia.errors import UnsupportedError


def t(x):
    return torch.tensor(x, dtype=torch.float64)


def kl_gamma(a, b, c, d):
    return (a - c) * mp.digamma(a) - mp.loggamma(a) + mp.loggamma(c) + c * mp.log(b / d) + a * (d - b) / b


def kl_beta(a, b, c, d):
    log_ratio = mp.loggamma(c) + mp.loggamma(d) - mp.loggamma(c + d)
    log_ratio -= mp.loggamma(a) + mp.loggamma(b) - mp.loggamma(a + b)
    return log_ratio + (a - c) * mp.digamma(a) + (b - d) * mp.digamma(b) + (c - a + d - b) * mp.digamma(a + b)


def kl_normal(m, s, n, r):
    return mp.log(r / s) + (s**2 + (m - n) ** 2) / (2 * r**2) - mp.mpf(1) / 2


def kl_laplace(m, s, n, r):
    gap = abs(m - n)
    return mp.log(r / s) + gap / r + s / r * mp.exp(-gap / s) - 1


def kl_gumbel(m, s, n, r):
    shift = (m - n) / r
    return mp.log(r / s) + mp.euler * (s / r - 1) + shift + mp.exp(-shift + mp.loggamma(s / r + 1)) - 1


def kl_cauchy(m, s, n, r):
    return mp.log(((s + r) ** 2 + (m - n) ** 2) / (4 * s * r))


def kl_geometric(p, q):
    return mp.log(p / q) + (1 - p) / p * mp.log((1 - p) / (1 - q))


FAMILIES = {
    td.Normal: (kl_normal, [(0, 1, 0, 1e-3), (0, 1e-100, 0, 1), (1e8, 1, 1e8 + 1, 1), (0, 1, 1e-8, 1)]),
    td.Laplace: (kl_laplace, [(0, 1, 0, 1e-3), (0, 1e-6, 5, 1), (0, 1e6, 1, 1), (0, 1, 1e-4, 1)]),
    td.Gumbel: (kl_gumbel, [(0, 1, 1, 3), (0, 5, 1, 2), (-3, 1e-3, 2, 1)]),
    td.Cauchy: (kl_cauchy, [(0, 1, 0, 1e-3), (0, 1e-8, 1e8, 1), (0, 1, 1e-3, 1)]),
    td.Exponential: (lambda a, b: mp.log(a / b) + b / a - 1, [(1, 1e-8), (1e-8, 1), (1, 1 + 1e-6), (1e100, 1)]),
    td.Gamma: (kl_gamma, [(1e-3, 1, 2, 1), (1e6, 1, 1e6 + 1e3, 1), (0.5, 1e-8, 0.5, 1), (200, 3, 1e-2, 7)]),
    td.Beta: (kl_beta, [(1e-3, 1, 2, 1), (1e5, 1e5, 1e5, 1.1e5), (0.5, 0.5, 1, 1), (1e-2, 1e2, 1e2, 1e-2)]),
    td.LogNormal: (kl_normal, [(0, 1, 0, 1e-3), (0, 1e-10, 0, 1), (50, 10, -50, 10)]),
    td.HalfNormal: (lambda s, r: mp.log(r / s) + (s / r) ** 2 / 2 - mp.mpf(1) / 2, [(1, 1e-6), (1e-6, 1), (1, 1.001)]),
    td.Pareto: (
        lambda s, a, r, b: mp.log(a / b) + b * mp.log(s / r) + b / a - 1,
        [(1, 1e-3, 1, 5), (2, 30, 1e-6, 0.1), (1, 2, 1, 2.001)],
    ),
    td.Poisson: (
        lambda a, b: a * mp.log(a / b) + b - a,
        [(30, 0.5), (1e4, 10100), (1e-9, 1), (1, 1e-9), (1e6, 1e6 + 100)],
    ),
    td.Geometric: (kl_geometric, [(0.5, 1e-9), (1e-6, 0.9), (1 - 1e-9, 0.5), (0.3, 0.3001)]),
}
CASES = [(family, numbers) for family, (_, table) in FAMILIES.items() for numbers in table]


def pair(family, numbers):
    half = len(numbers) // 2
    return tuple(family(*map(t, map(float, part))) for part in (numbers[:half], numbers[half:]))


def close(estimate, truth):
    return abs(estimate.value - truth) <= estimate.error + 1e-13 * max(1.0, abs(truth))


@pytest.mark.parametrize(("family", "numbers"), CASES, ids=lambda part: getattr(part, "__name__", str(part)))
def test_extreme_parameters(family, numbers):
    mp.mp.dps = 50
    truth = float(FAMILIES[family][0](*map(mp.mpf, map(float, numbers))))
    p, q = pair(family, numbers)
    assert close(kl.exact(p, q), truth)
    try:
        found = kl.quadrature(p, q)
    except UnsupportedError:
        return
    assert close(found, truth)


def test_every_trusted_closed_form_is_in_the_table():
    same = {p for p, q in _TRUSTED if p is q}
    assert same - set(FAMILIES) == {td.Dirichlet}


@pytest.mark.parametrize(
    ("p", "q"),
    [
        (td.Exponential(t(3.0)), td.Gamma(t(0.2), t(5.0))),
        (td.Gamma(t(3.0), t(0.1)), td.Exponential(t(20.0))),
        (td.Uniform(t(0.5), t(9.0)), td.Exponential(t(20.0))),
        (td.StudentT(t(2.5), t(1.0), t(3.0)), td.Normal(t(0.0), t(0.5))),
        (td.Gumbel(t(1.0), t(3.0)), td.Normal(t(0.0), t(0.5))),
        (td.LogNormal(t(0.0), t(1.0)), td.Normal(t(0.0), t(10.0))),
        (td.Gamma(t(50.0), t(1.0)), td.Normal(t(50.0), t(7.0))),
        (td.Uniform(t(-1e-3), t(1e-3)), td.Normal(t(0.0), t(1.0))),
    ],
    ids=lambda d: str(d)[:30],
)
def test_closed_forms_between_families_are_quadratures(p, q):
    assert kl.exact(p, q).agrees_with(kl.quadrature(p, q))


def test_a_dirichlet_of_two_is_a_beta():
    p, q = (td.Dirichlet(t(numbers)) for numbers in ([0.01, 300.0], [2.0, 0.5]))
    assert kl.exact(p, q).agrees_with(kl.exact(td.Beta(t(0.01), t(300.0)), td.Beta(t(2.0), t(0.5))))


BERNOULLI, CONTINUOUS = td.Bernoulli, td.ContinuousBernoulli


@pytest.mark.parametrize(
    ("p", "q", "truth"),
    [
        (BERNOULLI(logits=torch.tensor(800.0)), BERNOULLI(logits=torch.tensor(-800.0)), 800),
        (BERNOULLI(torch.tensor(0.25)), BERNOULLI(torch.tensor(1.0)), math.inf),
        (BERNOULLI(torch.tensor(0.0)), BERNOULLI(torch.tensor(0.5)), math.log(2)),
        (td.Categorical(logits=torch.tensor([0.0, -120])), td.Categorical(logits=torch.tensor([-120.0, 0])), 120),
        (td.OneHotCategorical(logits=t([0.0, -800])), td.OneHotCategorical(logits=t([-800.0, 0])), 800),
        (td.Binomial(10, torch.tensor(0.2)), td.Binomial(10, torch.tensor(0.0)), math.inf),
        (td.Binomial(10, torch.tensor(0.0)), BERNOULLI(t(0.3)), -math.log(0.7)),
        (td.Binomial(3, torch.tensor(1.0)), td.Binomial(3, t(0.5)), 3 * math.log(2)),
        (td.Geometric(torch.tensor(1.0)), BERNOULLI(t(0.3)), -math.log(0.7)),
        (td.Poisson(torch.tensor(0.0)), td.Poisson(torch.tensor(2.0)), 2),
        (td.NegativeBinomial(t(0.0), logits=t(0.0)), td.Poisson(torch.tensor(2.0)), 2),
        (CONTINUOUS(logits=torch.tensor(12.0)), CONTINUOUS(logits=torch.tensor(16.0)), 0.04563271558),
        (CONTINUOUS(logits=torch.tensor(-500.0)), CONTINUOUS(logits=torch.tensor(20.0)), 22.17887582),
        (td.Normal(t(0.0), t(1e-300)), td.Normal(t(0.0), t(1.0)), 300 * math.log(10) - 0.5),
    ],
    ids=str,
)
def test_degenerate_and_extreme_distributions(p, q, truth):
    found = kl.exact(p, q)
    assert found.value == pytest.approx(truth, rel=1e-9)
    assert found.kind == "exact"


def test_a_value_beyond_the_largest_float_is_refused():
    with pytest.raises(UnsupportedError, match="larger than the largest float"):
        kl.exact(td.Normal(t(0.0), t(1.0)), td.Normal(t(0.0), t(1e-300)))
