import math

import numpy as np
import pytest
import torch

from latentia.distributions.parsing import parse_distribution
from latentia.divergences import distances, empirical, wasserstein
from latentia.divergences.wasserstein import optimal_map
from latentia.errors import ConfigurationError, DataError, UnsupportedError

NAMES = ["kl(P, Q)", "kl(Q, P)", "jensen-shannon", "total variation", "wasserstein-1", "wasserstein-2"]


def by_name(estimates):
    return {name: [e for e in estimates if e.name == name] for name in {e.name for e in estimates}}


@pytest.mark.parametrize(
    ("p", "q"), [("Normal(0,1)", "Normal(1,2)"), ("Poisson(2)", "Poisson(3)"), ("Uniform(0,1)", "Uniform(-1,2)")]
)
def test_every_row_of_a_divergence_agrees(p, q):
    table = distances(p, q, n=5000)
    rows = by_name(table.estimates)
    assert set(rows) == set(NAMES)
    for estimates in rows.values():
        assert all(e.method for e in estimates)
        assert all(estimates[0].agrees_with(other) for other in estimates[1:])
    assert list(dict.fromkeys(e.name for e in table.estimates)) == NAMES


def test_the_uniforms_of_item_3e():
    rows = by_name(distances("Uniform(0,1)", "Uniform(.5,1.5)", n=1000).estimates)
    assert [e.value for e in rows["kl(P, Q)"]] == [math.inf]
    assert rows["kl(P, Q)"][0].settings["reason"] == "P has mass on [0, 0.5], where Q has none"
    assert rows["kl(Q, P)"][0].settings["reason"] == "Q has mass on [1, 1.5], where P has none"
    assert rows["jensen-shannon"][0].agrees_with(0.5 * math.log(2))
    assert rows["wasserstein-1"][0].agrees_with(0.5)


def test_refused_methods_are_listed():
    table = distances("Normal(0,1)", "Cauchy(0,1)", n=1000)
    refused = {(name, method) for name, method, _ in table.refused}
    assert ("jensen-shannon", "exact") in refused
    assert all(reason for _, _, reason in table.refused)
    with pytest.raises(ConfigurationError, match="different spaces"):
        distances("Normal(0,1)", "Normal([0,0],1)")


def test_samples_on_the_line():
    rows = by_name(distances(np.array([0.0, 1.0]), np.array([3.0, 4.0, 3.5])).estimates)
    assert rows["wasserstein-1"][0].agrees_with(3.0)
    assert rows["wasserstein-1"][0].kind == "exact"
    assert "kl(P, Q) of the empirical distributions" not in rows


def test_samples_with_points_in_common():
    rows = by_name(distances(np.array([0, 1]), np.array([0, 1, 1, 1])).estimates)
    assert rows["jensen-shannon of the empirical distributions"][0].kind == "exact"
    truth = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert rows["kl(P, Q) of the empirical distributions"][0].agrees_with(truth)


def test_samples_in_space():
    rng = np.random.default_rng(0)
    table = distances(rng.normal(size=(50, 2)), rng.normal(1, 1, size=(40, 2)))
    rows = by_name(table.estimates)
    assert {"wasserstein-1", "sliced wasserstein-1", "max-sliced wasserstein-2"} <= set(rows)
    exact, *bounds = rows["wasserstein-2"]
    assert exact.kind == "exact"
    for bound in bounds:
        assert exact.at_most(bound) if bound.kind == "upper bound" else bound.at_most(exact)
    with pytest.raises(DataError, match="different dimensions"):
        distances(np.zeros((2, 2)), np.zeros((2, 3)))


def test_the_optimal_map_of_gaussians_is_linear():
    x, y = optimal_map(parse_distribution("Normal(0,1)"), parse_distribution("Normal(1,2)"), points=51)
    assert x.shape == y.shape == (51,)
    assert torch.allclose(y, 1 + 2 * x, atol=1e-12)
    assert (x.diff() > 0).all()
    with pytest.raises(UnsupportedError, match="on the line"):
        optimal_map(parse_distribution("Normal([0,0],1)"), parse_distribution("Normal([1,0],1)"))


def test_sinkhorn_is_left_out_of_the_table_where_it_would_take_minutes():
    points = torch.randn(2100, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    refused = {(name, method): reason for name, method, reason in distances(points, points + 1).refused}
    assert "empirical.sinkhorn" in refused["wasserstein-1", "sinkhorn"]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (np.ones(3) + 1j, "complex"),
        (torch.ones(3, dtype=torch.complex64), "complex"),
        (np.array(["a", "b"]), "<U1"),
        (np.array([1, None]), "object"),
        ([[1, 2], [3]], "list"),
        (np.ma.masked_equal(np.arange(4.0), 2), "masked"),
        (torch.eye(3).to_sparse(), "sparse"),
    ],
)
def test_values_that_are_not_real_numbers_are_refused(values, kind):
    for compare in (distances, wasserstein.samples, empirical.sliced):
        for pair in ((values, np.ones(3)), (np.ones(3), values)):
            with pytest.raises(DataError, match=f"must be real numbers.*{kind}"):
                compare(*pair)
