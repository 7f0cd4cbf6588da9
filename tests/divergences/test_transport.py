import math

import numpy as np
import ot
import pytest
import torch

from latentia.divergences import empirical, wasserstein
from latentia.errors import DataError, UnsupportedError


def cloud(n, d, seed, shift=0.0):
    return np.random.default_rng(seed).normal(shift, 1, size=(n, d))


@pytest.mark.parametrize("order", [1, 2])
def test_assignment_is_pots(order):
    x, y = cloud(40, 3, 0), cloud(40, 3, 1, 1.0)
    cost = ot.dist(x, y, metric="euclidean") ** order
    pot = ot.emd2([], [], cost) ** (1 / order)
    assert empirical.assignment(x, y, order).value == pytest.approx(pot, abs=1e-10)
    a, b = (np.random.default_rng(seed).dirichlet(np.ones(n)) for seed, n in ((2, 30), (3, 20)))
    x, y = x[:30], y[:20]
    pot = ot.emd2(a, b, ot.dist(x, y, metric="euclidean") ** order) ** (1 / order)
    ours = empirical.assignment(x, y, order, torch.from_numpy(a), torch.from_numpy(b))
    assert ours.agrees_with(pot)
    assert ours.method == "linear program"


@pytest.mark.parametrize("order", [1, 2])
def test_on_the_line_everything_is_the_sorted_distance(order):
    x, y = cloud(50, 1, 0), cloud(50, 1, 1, 1.0)
    truth = wasserstein.samples(torch.from_numpy(x[:, 0]), torch.from_numpy(y[:, 0]), order).item()
    assert empirical.assignment(x, y, order).value == pytest.approx(truth, abs=1e-12)
    assert empirical.sliced(x, y, order, projections=8).value == pytest.approx(truth, abs=1e-12)
    assert empirical.max_sliced(x, y, order, starts=2, steps=2).value == pytest.approx(truth, abs=1e-12)


@pytest.mark.parametrize("order", [1, 2])
def test_every_estimate_stands_on_its_side_of_the_truth(order):
    x, y = cloud(60, 3, 0), cloud(60, 3, 1, 0.7)
    truth = empirical.assignment(x, y, order)
    upper = empirical.sinkhorn(x, y, order, iterations=300)
    assert upper.kind == "upper bound"
    assert upper.settings["lower bound"] <= truth.value <= upper.value < 1.1 * truth.value
    assert upper.settings["lower bound"] > 0.9 * truth.value
    largest = empirical.max_sliced(x, y, order, steps=50)
    assert largest.kind == "lower bound"
    assert largest.value <= truth.value
    sliced = empirical.sliced(x, y, order, projections=128)
    assert sliced.name == f"sliced wasserstein-{order}"
    assert sliced.value <= largest.value
    if order == 2:
        assert empirical.fitted_gaussians(x, y).value <= truth.value + 1e-12


def test_sliced_agrees_with_pot_and_its_standard_error():
    x, y = cloud(200, 4, 0), cloud(100, 4, 1, 1.0)
    ours = empirical.sliced(x, y, 2, projections=500, seed=3)
    other = empirical.sliced(x, y, 2, projections=500, seed=4)
    assert ours.value != other.value
    assert ours.agrees_with(other)
    pot = ot.sliced_wasserstein_distance(x, y, n_projections=5000, seed=0)
    assert abs(ours.value - pot) < 5 * ours.stderr
    assert ours == empirical.sliced(x, y, 2, projections=500, seed=3)


def test_max_sliced_finds_the_one_direction_that_differs():
    x, y = cloud(300, 10, 0), cloud(300, 10, 0)
    y[:, 3] += 2.0
    found = empirical.max_sliced(x, y)
    assert found.value == pytest.approx(2.0, abs=1e-6)


def test_sinkhorn_of_equal_samples_is_near_zero():
    x = cloud(30, 2, 0)
    bound = empirical.sinkhorn(x, x, 2)
    assert bound.settings["lower bound"] <= 1e-6
    assert bound.value < 0.3


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((0, 2)), np.zeros((3, 2)), "sample x must be"),
        (np.zeros((3, 2)), np.zeros((3, 3)), "different dimensions: x in 2, y in 3"),
        (np.zeros(3), np.array([0, math.nan, math.inf]), "sample y has 2 points of 3 that are not finite"),
        (np.zeros((2, 2, 2)), np.zeros(2), "sample x must be"),
    ],
)
def test_bad_samples_are_refused(x, y, message):
    for method in (empirical.assignment, empirical.sliced, empirical.max_sliced, empirical.sinkhorn):
        with pytest.raises(DataError, match=message):
            method(x, y)


def test_too_large_an_assignment_names_the_estimate():
    x = np.zeros((empirical.LARGEST_ASSIGNMENT + 1, 2))
    with pytest.raises(UnsupportedError, match=r"empirical\.sliced"):
        empirical.assignment(x, x)
    with pytest.raises(UnsupportedError, match=r"empirical\.sliced"):
        empirical.assignment(x, x[:-1])
