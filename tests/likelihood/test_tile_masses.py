"""Proven bounds of the mass of single tiles of Bernoulli decoders, against quadrature over their smooth pieces.

A ReLU decoder is affine on convex polygons: the square is cut along the kinks of one layer after the other, and every
triangle of a polygon is integrated by a product of Gauss-Legendre rules. A SiLU decoder is analytic on the square.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal, Uniform

from latentia.distributions import Bernoulli, Conditional
from latentia.likelihood.latent_model import LatentModel
from latentia.likelihood.proof.affine import AffineBounds
from latentia.likelihood.proof.enclosure import enclose_log_likelihood
from latentia.likelihood.proof.likelihoods import BernoulliLikelihoods
from latentia.likelihood.proof.masses import log_masses
from latentia.likelihood.proof.priors import normals_of
from latentia.likelihood.proof.restriction import Restriction

D = torch.float64
PIXELS = 12
NORMAL = Independent(Normal(torch.zeros(2, dtype=D), torch.ones(2, dtype=D)), 1)
ACTIVATIONS = {"relu": nn.ReLU, "silu": nn.SiLU}


def network(activation: str, seed: int, gain: float = 2.0, pixels: int = PIXELS) -> nn.Sequential:
    torch.manual_seed(seed)
    layer = ACTIVATIONS[activation]
    net = nn.Sequential(nn.Linear(2, 9), layer(), nn.Linear(9, 7), layer(), nn.Linear(7, pixels)).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter *= gain
    return net


def cut(polygon: np.ndarray, values: np.ndarray) -> list[np.ndarray]:
    """The parts of a convex polygon, (k, 2), on which an affine function is positive and negative."""
    parts = []
    for sign in (1.0, -1.0):
        corners = []
        for i, (point, v) in enumerate(zip(polygon, sign * values, strict=True)):
            after, w = polygon[i - 1], sign * values[i - 1]
            if v * w < 0:
                corners.append(point + (after - point) * (v / (v - w)))
            if v >= 0:
                corners.append(point)
        if len(corners) > 2:
            parts.append(np.array(corners))
    return parts


def pieces(net: nn.Sequential, square: np.ndarray) -> list[np.ndarray]:
    """Convex polygons on which a ReLU network is affine."""
    polygons = [square]
    for depth in range(1, len(net), 2):
        for unit in range(net[depth - 1].out_features):  # pyright: ignore
            found = []
            for polygon in polygons:
                with torch.no_grad():
                    values = net[:depth](torch.from_numpy(polygon))[:, unit].numpy()
                found += cut(polygon, values) if values.min() < 0 < values.max() else [polygon]
            polygons = found
    return polygons


def nodes_of(net: nn.Sequential, center: np.ndarray, radius: float, count: int) -> tuple[Tensor, Tensor]:
    """Nodes and logarithms of weights of a rule over a square, exact for smooth functions on every piece."""
    line, weight = np.polynomial.legendre.leggauss(count)
    u, v = (line[:, None] + 1) / 2, (line[None] + 1) / 2
    both = np.outer(weight, weight) / 4
    corners = center + radius * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    if not isinstance(net[1], nn.ReLU):
        points = np.stack(np.broadcast_arrays(u, v), -1) * 2 * radius + corners[0]
        return torch.from_numpy(points.reshape(-1, 2)), torch.from_numpy(both.ravel() * 4 * radius**2).log()
    points, weights = [], []
    for polygon in pieces(net, corners):
        first = polygon[0]
        for second, third in zip(polygon[1:-1] - first, polygon[2:] - first, strict=True):
            area = abs(second[0] * third[1] - second[1] * third[0])
            inner = u[..., None] * ((1 - v)[..., None] * second + v[..., None] * third)
            points.append((first + inner).reshape(-1, 2))
            weights.append((both * u * area).ravel())
    return torch.from_numpy(np.concatenate(points)), torch.from_numpy(np.concatenate(weights)).log()


def log_mass(
    net: nn.Sequential, images: Tensor, prior: Distribution, center: np.ndarray, radius: float
) -> tuple[Tensor, float]:
    """log ∫ p(x|z) p(z) dz over the square, (N,), and the distance of two rules."""
    found = []
    for count in (12, 16) if isinstance(net[1], nn.ReLU) else (30, 40):
        z, log_weight = nodes_of(net, center, radius, count)
        with torch.no_grad():
            logits = net(z)
        score = -nn.functional.softplus(torch.where(images[:, None] > 0, -logits, logits)).sum(-1)
        found.append((score + prior.log_prob(z) + log_weight).logsumexp(-1))
    return found[1], float((found[1] - found[0]).abs().max())


def bounds(net: nn.Sequential, images: Tensor, center: np.ndarray, radius: float, integrate: bool = True):
    """Lower and upper bounds of the same from the proof, for one tile, by a network restricted to its parent."""
    prior, family = normals_of(NORMAL).box(7.0), BernoulliLikelihoods(images)
    place, inner = (torch.from_numpy(center)[None] - prior.origin) / prior.scale, radius / float(prior.scale[0])
    rows = torch.arange(len(images))
    with torch.no_grad():
        whole = Restriction.of_network(net, prior.origin, prior.scale)
        node = whole.restricted(AffineBounds.of_boxes(place, torch.full_like(place, 1.5 * inner)))
        tile = AffineBounds.of_boxes(place, torch.full_like(place, inner))
        cells, products = [torch.zeros(1, dtype=torch.int64)], family.products(node, rows)
        ((_, table),) = family.table(node, tile, rows, products, 1, cells, 0.0, integrate)
        density, volume = prior.on_tiles(place, inner), 2 * math.log(2 * radius)
        upper, lower = log_masses(table, density, volume, family.supremum)
    return lower[:, 0], upper[:, 0]


def inside(lower: Tensor, upper: Tensor, truth: Tensor, error: float) -> bool:
    slack = error + 1e-11 * (1 + truth.abs())
    return bool(((lower <= truth + slack) & (truth - slack <= upper)).all())


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_masses_of_bernoulli_tiles(activation, seed):
    """Of sides from 1/64 to 1 at random places, for images that fit and images that do not."""
    net, rng = network(activation, seed, gain=1.5 + seed), np.random.default_rng(seed)
    images = torch.from_numpy(rng.integers(0, 2, size=(6, PIXELS)).astype(float))
    for power in range(1, 8):
        for center in rng.integers(-96, 97, size=(3, 2)) / 64:
            truth, error = log_mass(net, images, NORMAL, center, 2.0**-power)
            assert error < 1e-4
            for integrate in (False, True):
                assert inside(*bounds(net, images, center, 2.0**-power, integrate), truth, error)


@pytest.mark.parametrize("seed", range(4))
def test_masses_of_nearly_affine_decoders(seed):
    """One faint rectifier bends, and 100 pixels are unlikely: errors of higher order outweigh what the bounds leave."""
    torch.manual_seed(seed)
    rng, images = np.random.default_rng(seed), (torch.rand(6, 100, dtype=D) < 0.7).double()
    for power in rng.integers(3, 7, size=12):
        net = nn.Sequential(nn.Linear(2, 5), nn.ReLU(), nn.Linear(5, 100)).double()
        with torch.no_grad():
            net[0].bias += 10 * torch.arange(5).sign()  # pyright: ignore
            net[2].weight[:] = 4.0 ** rng.uniform(-1, 1) * net[2].weight.abs()  # pyright: ignore
            net[2].weight[:, 0] *= 10.0 ** rng.choice([-6, -1])  # pyright: ignore
            net[2].bias[:] = rng.uniform(-4, -1) - net[2].weight[:, 1:].sum(-1) * 10  # pyright: ignore
        weight, bias = net[0].weight.detach()[0], net[0].bias.detach()[0]  # pyright: ignore
        radius = 2.0**-power
        center = (-bias * weight / weight.square().sum()).numpy() + radius * rng.uniform(-0.6, 0.6, size=2)
        truth, error = log_mass(net, images, NORMAL, center, radius)
        assert inside(*bounds(net, images, center, radius), truth, error)


ORDERS = {"silu": 2, "relu on a kink": 2, "relu away from kinks": 3}


@pytest.mark.parametrize("name", ORDERS)
def test_bounds_of_a_tile_meet_at_the_order_that_is_stated(name):
    """The distance of the bounds on tiles of half the side, five times: the order is nearer to p than to p − 1."""
    net, images = network(name.split()[0], 2), torch.ones(3, PIXELS, dtype=D).tril()
    weight, bias = net[0].weight.detach()[0], net[0].bias.detach()[0]  # pyright: ignore
    kink = (-bias * weight / weight.square().sum()).numpy()
    center = kink if "on a kink" in name else kink + np.array([0.21, 0.13])
    widths = []
    for power in range(6, 12):
        truth, error = log_mass(net, images, NORMAL, center, 2.0**-power)
        lower, upper = bounds(net, images, center, 2.0**-power)
        assert inside(lower, upper, truth, error)
        widths.append(upper - lower)
    orders = (widths[0] / widths[-1]).log2() / 5
    assert bool((orders > ORDERS[name] - 0.5).all())


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_searches_over_a_square(activation, mean):
    """Under a uniform prior the square is all there is: waves in depth and their sums against the same quadrature."""
    net, rng = network(activation, 5, gain=3.0), np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 2, size=(5, PIXELS)).astype(float))
    center, radius = np.array([0.25, -0.5]), 0.75
    low, high = (torch.from_numpy(center + side) for side in (-radius, radius))
    prior = Independent(Uniform(low, high, validate_args=False), 1)
    truth, error = log_mass(net, images, prior, center, radius)
    decoder = Conditional(net, Bernoulli(), event_shape=(PIXELS,), condition_shape=(2,))
    for tolerance in (0.3, 1e-3 if activation == "relu" else 0.03):
        found = enclose_log_likelihood(LatentModel(decoder, prior), images, tolerance, mean=mean)
        assert inside(found.lower, found.upper, truth, error)
        assert float(found.width.mean()) <= tolerance
