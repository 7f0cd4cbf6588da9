import math

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch.distributions import Poisson

from latentia.distributions.parsing import parse_distribution
from latentia.divergences import wasserstein
from latentia.errors import DataError, UnsupportedError

RNG = np.random.default_rng(0)
SIZES = [(1, 1), (7, 7), (2000, 1000), (1000, 2000), (12, 8), (1000, 1001), (1, 5)]


def batch(n, m, rows=4):
    return torch.from_numpy(RNG.normal(size=(rows, n))), torch.from_numpy(RNG.normal(1, 2, size=(rows, m)))


@pytest.mark.parametrize(("n", "m"), SIZES)
def test_samples_are_scipys_and_pots(n, m):
    x, y = batch(n, m)
    ours = wasserstein.samples(x, y)
    theirs = [stats.wasserstein_distance(a, b) for a, b in zip(x.numpy(), y.numpy(), strict=True)]
    assert np.abs(ours.numpy() - theirs).max() < 1e-12
    for order in (1, 2):
        pot = ot.wasserstein_1d(x.T.contiguous(), y.T.contiguous(), p=order) ** (1 / order)
        assert (wasserstein.samples(x, y, order) - pot).abs().max() < 1e-12


@pytest.mark.parametrize(("n", "m"), SIZES)
@pytest.mark.parametrize("order", [1, 2])
def test_weighted_samples_are_scipys_and_pots(n, m, order):
    x, y = batch(n, m)
    a, b = (torch.from_numpy(RNG.uniform(size=(4, size))) for size in (n, m))
    a[:, 1:2] = 0
    ours = wasserstein.samples(x, y, order, a, b)
    pot = ot.wasserstein_1d(x.T, y.T, (a / a.sum(-1, keepdim=True)).T, (b / b.sum(-1, keepdim=True)).T, p=order)
    assert (ours - pot ** (1 / order)).abs().max() < 1e-12
    if order == 1:
        theirs = [stats.wasserstein_distance(*map(np.asarray, row)) for row in zip(x, y, a, b, strict=True)]
        assert np.abs(ours.numpy() - theirs).max() < 1e-12


def test_equal_weights_change_nothing():
    x, y = batch(12, 9)
    plain = wasserstein.samples(x, y, 2)
    assert torch.allclose(plain, wasserstein.samples(x, y, 2, torch.ones(12), torch.ones(9)), atol=1e-13, rtol=0)


def test_leading_dimensions_broadcast():
    x, y = torch.randn(3, 1, 10), torch.randn(5, 20)
    distances = wasserstein.samples(x, y)
    assert distances.shape == (3, 5)
    assert torch.allclose(distances[2, 4], wasserstein.samples(x[2, 0], y[4]))
    weighted = wasserstein.samples(x, y, 1, torch.ones(10), None)
    assert torch.allclose(weighted, distances, atol=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize(("n", "m"), [(6, 3), (5, 4)])
def test_gradients(n, m, order, weighted):
    x, y = batch(n, m, rows=2)
    a, b = (torch.from_numpy(RNG.uniform(0.5, 1.5, size=(2, size))) for size in (n, m))
    inputs = [t.requires_grad_() for t in ((x, y, a, b) if weighted else (x, y))]
    assert torch.autograd.gradcheck(
        lambda x, y, *weights: wasserstein.samples(x, y, order, *weights), inputs, eps=1e-7, atol=1e-5
    )


@pytest.mark.parametrize("order", [1, 2])
def test_zero_distance_has_zero_gradient(order):
    x = torch.randn(2, 8, requires_grad=True)
    distance = wasserstein.samples(x, x.detach(), order)
    assert distance.tolist() == [0, 0]
    (gradient,) = torch.autograd.grad(distance.sum(), x)
    assert gradient.abs().max() == 0


@settings(deadline=None)
@given(st.lists(st.integers(-5, 5), min_size=1, max_size=8), st.lists(st.integers(-5, 5), min_size=1, max_size=8))
def test_repeated_values(x, y):
    ours = wasserstein.samples(torch.tensor(x).double(), torch.tensor(y).double()).item()
    assert ours == pytest.approx(stats.wasserstein_distance(x, y), abs=1e-12)


@given(st.floats(-100, 100))
def test_translations_move_it_by_as_much(shift):
    x = torch.linspace(0, 1, 11).double()
    for order in (1, 2):
        assert wasserstein.samples(x, x + shift, order).item() == pytest.approx(abs(shift), abs=1e-12)


@pytest.mark.parametrize(
    ("x", "y", "weights", "message"),
    [
        (torch.zeros(3, 0), torch.zeros(3, 2), None, "empty"),
        (torch.tensor([0.0, math.nan]), torch.zeros(2), None, "sample x .* not finite"),
        (torch.zeros(2), torch.tensor([0.0, -math.inf]), None, "sample y .* not finite"),
        (torch.tensor([0.0, math.nan]), torch.zeros(2), torch.ones(2), "sample x .* not finite"),
        (torch.zeros(2), torch.zeros(2), torch.tensor([1.0, -1.0]), "weights of the sample x"),
        (torch.zeros(2), torch.zeros(2), torch.zeros(2), "not all 0"),
        (torch.zeros(2), torch.zeros(2), torch.ones(3), "one weight for each value"),
        (torch.zeros(2, 3), torch.zeros(4, 3), None, "broadcast"),
    ],
)
def test_bad_samples_are_refused(x, y, weights, message):
    with pytest.raises(DataError, match=message):
        wasserstein.samples(x, y, 1, weights)


@pytest.mark.parametrize(
    ("x", "y", "truth"),
    [
        (torch.tensor([0, 1, 3]), torch.tensor([5, 6]), 25 / 6),
        (torch.tensor([0, 10, 20], dtype=torch.uint8), torch.tensor([100, 110, 130], dtype=torch.uint8), 310 / 3),
        (torch.tensor([0.5, 1.5]), torch.tensor([2, 3]), 1.5),
        (np.array([0, 1]), np.array([0.25, 0.75], dtype=np.float32), 0.25),
        (torch.tensor([True, False]), torch.tensor([True, True]), 0.5),
        (torch.tensor([0.0, 1.0]).bfloat16(), torch.tensor([2.0, 3.0]).bfloat16(), 2.0),
    ],
    ids=["int", "uint8", "float and int", "numpy", "bool", "bfloat16"],
)
def test_numbers_of_any_type_are_promoted(x, y, truth):
    assert wasserstein.samples(x, y).item() == pytest.approx(truth, rel=1e-6)


def test_other_orders_are_refused():
    with pytest.raises(ValueError, match="1 or 2"):
        wasserstein.samples(torch.zeros(2), torch.zeros(2), 3)
    with pytest.raises(ValueError, match="1 or 2"):
        wasserstein.exact(parse_distribution("Normal(0,1)"), parse_distribution("Normal(0,1)"), 3)


@pytest.mark.parametrize(("q", "truth"), [("Uniform(.5,1.5)", 0.5), ("Uniform(1,2)", 1), ("Uniform(100,101)", 100)])
def test_the_uniforms_of_item_3e(q, truth):
    for order in (1, 2):
        answer = wasserstein.exact(parse_distribution("Uniform(0,1)"), parse_distribution(q), order)
        assert answer.kind == "exact"
        assert answer.agrees_with(truth)


CLOSED = [
    ("Normal(0,1)", "Normal(3,2)", 2, math.sqrt(10)),
    ("Normal(0,1)", "Normal(0,3)", 1, 2 * math.sqrt(2 / math.pi)),
    ("Laplace(0,1)", "Laplace(0,3)", 1, 2.0),
    ("Exponential(1)", "Exponential(4)", 1, 0.75),
    ("Exponential(1)", "Exponential(4)", 2, 0.75 * math.sqrt(2)),
    ("Uniform(0,1)", "Uniform(-1,2)", 1, 0.5),
    ("Uniform(0,1)", "Uniform(-1,2)", 2, math.sqrt(1 / 3)),
    ("Mixture(.5*Uniform(0,1)+.5*Uniform(2,3))", "Uniform(0,1)", 1, 1.0),
    ("Uniform(0,1)", "Finite([0.5])", 1, 0.25),
    ("Uniform(0,1)", "Finite([0,1])", 2, math.sqrt(1 / 12)),
    ("Finite([0,1])", "Finite([0,1],[.25,.75])", 1, 0.25),
    ("Cauchy(0,2)", "Cauchy(5,2)", 1, 5.0),
    ("Cauchy(0,1)", "Cauchy(0,2)", 1, math.inf),
    ("Cauchy(0,1)", "Normal(0,1)", 1, math.inf),
    ("StudentT(2)", "Normal(0,1)", 2, math.inf),
    ("Normal([0,0],1)", "Normal([3,4],1)", 1, 5.0),
]


@pytest.mark.parametrize(("p", "q", "order", "truth"), CLOSED)
def test_closed_forms(p, q, order, truth):
    answer = wasserstein.exact(parse_distribution(p), parse_distribution(q), order)
    assert answer.kind == "exact"
    assert answer.agrees_with(truth)
    assert answer.unit == "1"


def test_bures_is_pots_and_the_line():
    p = parse_distribution("MultivariateNormal([0,1,2],[[2,1,0],[1,2,.5],[0,.5,1]])")
    q = parse_distribution("MultivariateNormal([1,1,0],[[1,-.3,0],[-.3,2,0],[0,0,3]])")
    pot = ot.gaussian.bures_wasserstein_distance(p.loc, q.loc, p.covariance_matrix, q.covariance_matrix)
    assert wasserstein.exact(p, q, 2).agrees_with(float(pot))
    one, other = parse_distribution("MultivariateNormal([0],[[4]])"), parse_distribution("Normal([1],[3])")
    assert wasserstein.exact(one, other, 2).agrees_with(math.sqrt(2))


def test_matching_in_the_plane_bounds_from_above():
    p, q = parse_distribution("Normal([0,0],1)"), parse_distribution("Normal([3,0],1)")
    bound = wasserstein.monte_carlo(p, q, 2, n=2000)
    assert bound.kind == "upper bound"
    assert wasserstein.exact(p, q, 2).at_most(bound)
    assert bound.value < 3.3


def test_refusals_name_a_method_that_serves():
    mixture = parse_distribution("Mixture(.5*Normal(0,1)+.5*Normal(1,1))")
    with pytest.raises(UnsupportedError, match=r"wasserstein\.quadrature"):
        wasserstein.exact(mixture, parse_distribution("Normal(0,1)"))
    with pytest.raises(UnsupportedError, match="monte_carlo"):
        wasserstein.quadrature(parse_distribution("Normal([0,0],1)"), parse_distribution("Normal([0,0],2)"))
    with pytest.raises(UnsupportedError, match="sliced"):
        wasserstein.monte_carlo(parse_distribution("Normal([0,0],1)"), parse_distribution("Normal([0,0],2)"), n=10**6)


def test_a_kink_where_both_rules_of_the_quadrature_agree_by_accident():
    p = parse_distribution("Normal(-0.08276586614007991,0.6141164765164704)")
    q = parse_distribution("Laplace(-0.5319287488710831,2.619257863803657)")
    found = wasserstein.quadrature(p, q)
    assert abs(found.value - 2.17837920864476888824) <= found.error  # mpmath, cut at the crossing of F and G


def test_matching_of_points_and_of_draws_that_overflow():
    """All costs are 0 between equal point masses, whose error is 0 and not 0/0; squares beyond 10³⁰⁸ are refused."""
    zeros = torch.zeros(2, dtype=torch.float64)
    narrow = torch.distributions.Independent(torch.distributions.Normal(zeros, 1e-200), 1)
    moved = torch.distributions.Independent(torch.distributions.Normal(zeros, 2e-200), 1)
    same = wasserstein.monte_carlo(narrow, moved, order=2, n=200)
    assert same.value == pytest.approx(0.0, abs=1e-150)
    assert math.isfinite(same.stderr or 0.0)
    wide = torch.distributions.Independent(torch.distributions.Normal(zeros, 1e200), 1)
    with pytest.raises(UnsupportedError, match="overflow"):
        wasserstein.monte_carlo(narrow, wide, order=2, n=200)


def _poisson_masses(rate: float):
    """Points and masses in long doubles, from their ratios: no log Γ."""
    points = np.arange(max(0, int(rate - 45 * rate**0.5)), int(rate + 45 * rate**0.5)).astype(np.longdouble)
    top = int(rate) - int(points[0])
    up = np.cumprod(np.longdouble(rate) / points[top + 1 :])
    down = np.cumprod(points[top:0:-1] / np.longdouble(rate))[::-1]
    masses = np.concatenate([down, [np.longdouble(1)], up])
    return points, masses / masses.sum()


@pytest.mark.parametrize("rates", [(1e6, 1000100), (3e5, 300007), (1e4, 10100)])
@pytest.mark.parametrize("order", [1, 2])
def test_counts_with_large_means_allow_for_the_rounding_of_their_masses(rates, order):
    (x, p), (y, q) = map(_poisson_masses, rates)
    levels = np.sort(np.concatenate([p.cumsum(), q.cumsum()]))
    widths, middles = np.diff(levels, prepend=np.longdouble(0)), levels - np.diff(levels, prepend=np.longdouble(0)) / 2
    apart = [
        points[np.searchsorted(masses.cumsum(), middles).clip(max=len(points) - 1)]
        for points, masses in ((x, p), (y, q))
    ]
    known = float((widths * np.abs(apart[0] - apart[1]) ** order).sum() ** (np.longdouble(1) / order))
    found = wasserstein.quadrature(*(Poisson(torch.tensor(float(rate), dtype=torch.float64)) for rate in rates), order)
    assert abs(found.value - known) <= found.error < 1e-4
