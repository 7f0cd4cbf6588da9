"""Heavy tails, rare events and proven bounds."""

import itertools
import math

import mpmath as mp
import pytest
import torch
from torch import distributions as td

from latentia.divergences import jensen_shannon, kl, total_variation, wasserstein
from latentia.errors import UnsupportedError

from .pairs import DENSITIES, both, distribution, label


def t(x):
    return torch.tensor(x, dtype=torch.float64)


@pytest.mark.parametrize("df", [2.5, 2.05, 2.01, 2.001])
def test_kl_of_a_heavy_tail_against_a_gaussian(df):
    p, q = td.StudentT(t(df)), distribution("Normal(0,1)")
    truth = 0.5 * df / (df - 2) + 0.5 * math.log(2 * math.pi) - p.entropy().item()
    assert kl.exact(p, q).agrees_with(truth)
    found = kl.quadrature(p, q)
    assert abs(found.value - truth) <= found.error <= 1e-4 * truth
    drawn = kl.monte_carlo(p, q, n=10_000)
    assert drawn.stderr == math.inf
    assert "infinite" in drawn.settings["warning"]
    with pytest.raises(UnsupportedError, match="infinite variance"):
        kl.monte_carlo_nonnegative(p, q)


def test_w1_of_a_heavy_tail_is_mpmaths():
    mp.mp.dps = 30
    v = mp.mpf("1.01")

    def upper_tail(x):  # of StudentT(1.01), by its incomplete beta function
        return mp.betainc(v / 2, mp.mpf(1) / 2, 0, v / (v + x * x), regularized=True) / 2

    # The tail beyond 10^40 is a power: S(x) ~ S(X) (X/x)^v.
    far = mp.mpf(10) ** 40
    body = mp.quad(
        lambda y: abs(upper_tail(mp.e**y) - mp.ncdf(-(mp.e**y))) * mp.e**y, mp.linspace(-20, mp.log(far), 60)
    )
    truth = 2 * (body + upper_tail(far) * far / (v - 1))
    found = wasserstein.quadrature(td.StudentT(t(1.01)), distribution("Normal(0,1)"))
    assert abs(found.value - float(truth)) <= found.error + 1e-7


@pytest.mark.parametrize(
    ("p", "q", "order"),
    [
        ("StudentT(0.5)", "Cauchy(0,1)", 1),
        ("Cauchy(0,1)", "StudentT(0.9)", 1),
        ("StudentT(1.5)", "StudentT(1.9)", 2),
        ("Mixture(.9*Normal(0,1)+.1*Cauchy(0,1))", "StudentT(2)", 2),
    ],
)
def test_tails_of_different_powers_are_infinitely_far_apart(p, q, order):
    for method in (wasserstein.exact, wasserstein.quadrature, wasserstein.monte_carlo):
        found = method(distribution(p), distribution(q), order)
        assert (found.value, found.kind) == (math.inf, "exact")


def test_w2_by_monte_carlo_states_an_infinite_variance():
    p, q = distribution("StudentT(3)"), distribution("Laplace(0,1)")
    assert wasserstein.quadrature(p, q, 2).value == pytest.approx(0.5656891, abs=1e-7)
    drawn = wasserstein.monte_carlo(p, q, 2)
    assert drawn.stderr == math.inf
    assert "infinite" in drawn.settings["warning"]


@pytest.mark.parametrize(
    ("p", "q"),
    [
        ("Bernoulli(1e-9)", "Bernoulli(.5)"),
        ("Mixture(0.999999*Normal(0,1)+0.000001*Normal(5000,1))", "Normal(0,1)"),
        ("Normal(-3,.4)", "Laplace(1,.08)"),
        ("Normal(0,1)", "Mixture(0.999999*Normal(0,1)+0.000001*Normal(50,.1))"),
    ],
)
def test_rare_events_stay_within_the_standard_error(p, q):
    p, q = distribution(p), distribution(q)
    for divergence in (kl, jensen_shannon, total_variation):
        drawn = divergence.monte_carlo(p, q, n=20_000)
        assert drawn.stderr > 1e-9
        assert drawn.agrees_with(divergence.quadrature(p, q))


def test_numbers_too_small_for_quadrature_are_refused():
    with pytest.raises(UnsupportedError):
        kl.quadrature(td.Normal(t(0.0), t(1e-300)), td.Normal(t(0.0), t(1.0)))


@pytest.mark.parametrize("divergence", [kl, jensen_shannon, total_variation], ids=lambda d: d.name)
@pytest.mark.parametrize("pair", DENSITIES, ids=label)
def test_enclosures_hold(pair, divergence):
    p, q = both(pair)
    try:
        proven = divergence.enclosure(p, q)
    except UnsupportedError:
        return
    numerical = divergence.quadrature(p, q)
    assert proven.kind == "proven"
    assert proven.agrees_with(numerical)
    if math.isfinite(proven.value):
        assert abs(proven.value - numerical.value) <= proven.error + numerical.error


def test_enclosures_serve_the_common_families():
    p, q = distribution("Normal(0,1)"), distribution("Mixture(.5*Laplace(1,2)+.5*StudentT(3))")
    for divergence in (kl, jensen_shannon, total_variation):
        assert divergence.enclosure(p, q).error < 1e-4
    with pytest.raises(UnsupportedError, match=r"use kl\.quadrature"):
        kl.enclosure(q, p)
    with pytest.raises(UnsupportedError, match="one known mode"):
        jensen_shannon.enclosure(distribution("Beta(.5,.5)"), distribution("Uniform(0,1)"))


def test_enclosures_converge_with_the_square_of_the_cells():
    p, q = distribution("Normal(0,1)"), distribution("Normal(1,2)")
    gaps = [kl.enclosure(p, q, cells).error for cells in (1024, 2048, 4096, 8192)]
    slopes = [math.log2(a / b) for a, b in itertools.pairwise(gaps)]
    assert all(1.7 < slope < 2.3 for slope in slopes)


def test_a_density_that_underflows_at_its_own_draws_gives_no_value():
    """Half of the draws of t(10⁻³) are so far out that its log-density is −∞ in float64; the term would be −∞."""
    with pytest.raises(UnsupportedError, match="quadrature"):
        jensen_shannon.monte_carlo(td.Laplace(t(0.0), t(31.0)), td.StudentT(t(1e-3)), n=200)
