import math

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latentia.errors import UnsupportedError
from latentia.integration import integrate, integrate_many

INFINITY = math.inf
CASES = {
    "degree 31 polynomial": (lambda x: x**30, [-1, 1], 2 / 31),
    "gaussian": (lambda x: torch.exp(-x * x / 2), [-INFINITY, INFINITY], math.sqrt(2 * math.pi)),
    "half gaussian": (lambda x: torch.exp(-x * x / 2), [-INFINITY, 0], math.sqrt(math.pi / 2)),
    "cauchy": (lambda x: 1 / (math.pi * (1 + x * x)), [-INFINITY, INFINITY], 1.0),
    "arcsine, singular at both ends": (lambda x: 1 / (math.pi * torch.sqrt(x * (1 - x))), [0, 1], 1.0),
    "strong singularity": (lambda x: x**-0.9, [0, 1], 10.0),
    "heavy tail": (lambda x: (1 + x) ** -1.2, [0, INFINITY], 5.0),
    "tail beyond the largest float": (lambda x: (1 + x) ** -1.001, [0, INFINITY], 1000.0),
    "power and logarithm": (lambda x: (1 + x) ** -1.05 * torch.log1p(x), [0, INFINITY], 400.0),
    "singularity below the smallest float": (lambda x: x**-0.999, [0, 1], 1000.0),
    "logarithm": (lambda x: x.log(), [0, 1], -1.0),
    "hidden kink": (lambda x: (x - 1 / 3).abs(), [0, 1], 5 / 18),
    "hidden jump": (lambda x: (x > 0.3).double(), [0, 1], 0.7),
    "known jump": (lambda x: (x > 0.3).double(), [0, 0.3, 1], 0.7),
    "oscillation": (lambda x: torch.sin(1 / x), [0, 1], float(mpmath.sin(1) - mpmath.ci(1))),
    "far from zero": (lambda x: torch.exp(-(x - 1e6).abs()), [-INFINITY, 1e6 - 1, 1e6, 1e6 + 1, INFINITY], 2.0),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_truth_lies_within_the_stated_error(case):
    integrand, breakpoints, truth = case
    result = integrate(integrand, breakpoints)
    assert abs(result.value - truth) <= result.error
    assert result.error < 1e-6 * max(1, truth**2)
    assert result.kind == "numerical"
    assert result.method == "quadrature"


def test_smooth_integrands_reach_the_tolerance():
    for name in ("degree 31 polynomial", "gaussian", "cauchy", "strong singularity", "known jump"):
        integrand, breakpoints, _ = CASES[name]
        assert integrate(integrand, breakpoints).error < 2e-12 * max(1, CASES[name][2]), name


def test_several_integrals_share_evaluations():
    both = integrate_many(lambda x: torch.stack([x, x.square()], -1), [0, 3], names=["x", "x²"])
    assert [e.name for e in both] == ["x", "x²"]
    assert both[0].agrees_with(4.5)
    assert both[1].agrees_with(9.0)
    assert both[0].n == both[1].n


@pytest.mark.parametrize("integrand", [lambda x: 1 / x, torch.ones_like, lambda x: x], ids=["1/x", "1", "x"])
def test_an_infinite_integral_is_refused(integrand):
    with pytest.raises(UnsupportedError, match="may be infinite"):
        integrate(integrand, [1, INFINITY])


def test_a_point_that_is_not_finite_is_named():
    with pytest.raises(UnsupportedError, match=r"not finite at x = -0\.1"):
        integrate(lambda x: torch.where(x.abs() < 0.2, torch.inf, 1.0).double(), [-1, 1])


@pytest.mark.parametrize("points", [[0], [1, 0], [0, 0], [0, math.nan], [0, INFINITY, INFINITY], [INFINITY, INFINITY]])
def test_bad_breakpoints_are_refused(points):
    with pytest.raises(ValueError, match="breakpoints"):
        integrate(lambda x: x, points)


@settings(deadline=None)
@given(
    st.lists(st.floats(-3, 3), min_size=1, max_size=6),
    st.floats(-5, 0),
    st.floats(0.1, 5),
)
def test_polynomials(coefficients, low, width):
    high = low + width

    def polynomial(x):
        return sum(c * x**k for k, c in enumerate(coefficients)) + 0 * x

    truth = sum(c * (high ** (k + 1) - low ** (k + 1)) / (k + 1) for k, c in enumerate(coefficients))
    assert integrate(polynomial, [low, high]).agrees_with(truth)
