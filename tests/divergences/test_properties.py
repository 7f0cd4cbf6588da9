"""Distributions that hold for every pair in the table, whatever the families."""

import math
from functools import cache

import pytest

from latentia.divergences import jensen_shannon, kl, total_variation, wasserstein
from latentia.errors import UnsupportedError

from .pairs import ALL, DENSITIES, LINE, both, label

ENTROPIC = {"kl": kl, "jensen-shannon": jensen_shannon, "total variation": total_variation}
pairs = pytest.mark.parametrize("pair", ALL, ids=label)
on_the_line = pytest.mark.parametrize("pair", LINE, ids=label)
entropic = pytest.mark.parametrize("divergence", ENTROPIC.values(), ids=ENTROPIC.keys())
orders = pytest.mark.parametrize("order", [1, 2])


@cache
def quadrature(divergence, pair):
    """The quadrature of a pair, which several properties need."""
    return divergence.quadrature(*both(pair))


def served(method, *arguments, **settings):
    """What a method gives, or None where it says that it cannot serve."""
    try:
        return method(*arguments, **settings)
    except UnsupportedError:
        return None


@pairs
@entropic
def test_exact_is_quadrature_is_monte_carlo(divergence, pair):
    p, q = both(pair)
    found = quadrature(divergence, pair)
    exact = served(divergence.exact, p, q)
    assert found.error < 1e-3
    if exact is not None:
        assert exact.kind == "exact"
        assert found.agrees_with(exact)
    assert divergence.monte_carlo(p, q, n=20_000, seed=1).agrees_with(found)


@pairs
def test_the_nonnegative_estimator_is_right_or_refuses(pair):
    p, q = both(pair)
    estimate = served(kl.monte_carlo_nonnegative, p, q, n=20_000, seed=1)
    if estimate is not None:
        assert estimate.agrees_with(quadrature(kl, pair))


@pairs
@entropic
def test_no_less_than_zero_and_zero_between_equal_distributions(divergence, pair):
    p, q = both(pair)
    assert quadrature(divergence, pair).value > 0
    for distribution in (p, q):
        assert divergence.exact(distribution, distribution).value == 0
        assert divergence.monte_carlo(distribution, distribution).value == 0


@pairs
def test_the_symmetric_ones_are_symmetric(pair):
    for divergence in (jensen_shannon, total_variation):
        assert quadrature(divergence, pair).agrees_with(quadrature(divergence, pair[::-1]))


def test_kl_is_not_symmetric():
    p, q = both(("Normal(0,1)", "Normal(1,2)"))
    assert not kl.exact(p, q).agrees_with(kl.exact(q, p))


@pairs
def test_pinsker_and_the_ranges(pair):
    variation, jsd, relative = (quadrature(d, pair) for d in (total_variation, jensen_shannon, kl))
    if math.isfinite(relative.value):
        assert variation.value <= math.sqrt((relative.value + relative.error) / 2) + variation.error
    assert variation.at_most(1.0)
    assert jsd.at_most(math.log(2))
    # Lin 1991: JSD <= log 2 · TV; and Pinsker through the mixture: TV² <= 2 JSD.
    assert jsd.value <= math.log(2) * variation.value + jsd.error + variation.error
    assert variation.value**2 <= 2 * jsd.value + 2 * jsd.error + 2 * variation.error


@on_the_line
@orders
def test_wasserstein_exact_is_quadrature_is_monte_carlo(order, pair):
    p, q = both(pair)
    exact = served(wasserstein.exact, p, q, order)
    if exact is not None and math.isinf(exact.value):
        assert exact.settings["reason"]
        return
    quadrature = wasserstein.quadrature(p, q, order)
    assert quadrature.error < 1e-8
    assert quadrature.unit == "1"
    if exact is not None:
        assert quadrature.agrees_with(exact)
    assert wasserstein.quadrature(q, p, order).agrees_with(quadrature)
    heavy = any("StudentT" in text for text in pair) and order == 2  # the squares have no variance
    if not heavy:
        assert wasserstein.monte_carlo(p, q, order, n=5000, seed=1).agrees_with(quadrature)


@on_the_line
def test_wasserstein_orders_and_equal_distributions(pair):
    p, q = both(pair)
    first, second = (served(wasserstein.quadrature, p, q, order) for order in (1, 2))
    if first is not None and second is not None:
        assert first.at_most(second)
    for order in (1, 2):
        assert wasserstein.exact(p, p, order).value == 0


@pytest.mark.parametrize("middle", ["Normal(0,1)", "Uniform(0,1)", "Finite([0,3])", "Poisson(2)"])
@pytest.mark.parametrize("pair", DENSITIES[::3], ids=label)
def test_triangle_inequalities(middle, pair):
    p, q = pair
    triangle = (p, q), (p, middle), (middle, q)
    if all(heavy not in text for text in pair for heavy in ("Cauchy",)):
        sides = [quadrature(wasserstein, side) for side in triangle]
        assert sides[0].value <= sides[1].value + sides[2].value + sum(side.error for side in sides)
    roots = [math.sqrt(quadrature(jensen_shannon, side).value) for side in triangle]
    assert roots[0] <= roots[1] + roots[2] + 1e-9
