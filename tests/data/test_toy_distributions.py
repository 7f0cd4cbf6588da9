import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from latentia.data import Checkerboard, Dirac, Grid, Mixture1D, Moons, Ring, Spiral, ToyData, ToyDistribution
from latentia.errors import ConfigurationError
from latentia.estimate import Estimate

DISTRIBUTIONS = [
    Ring(),
    Ring(count=5, radius=2.0, sigma=0.2),
    Grid(),
    Grid(side=2, sigma=0.5),
    Spiral(),
    Spiral(arms=3, turns=1.0, links=64, sigma=0.1),
    Moons(),
    Checkerboard(),
    Checkerboard(squares=3, side=0.5),
    Mixture1D(),
    Mixture1D(means=(-1.0, 3.0), sigmas=(0.5, 0.1), weights=(3.0, 1.0)),
]
NAMES = [repr(distribution) for distribution in DISTRIBUTIONS]


@pytest.mark.parametrize("toy", DISTRIBUTIONS, ids=NAMES)
def test_density_integrates_to_one(toy):
    """E_u[p(x)/u(x)] = 1, with x from a proposal u that is half a box, half the distribution made wider."""
    torch.manual_seed(0)
    distribution = toy.distribution()
    dimension = distribution.event_shape[0]
    n = 4_000 if isinstance(toy, Spiral | Moons) else 20_000
    x = distribution.sample((n,)).double()
    half = 1.1 * x.abs().max().item() + 0.3
    box = (torch.rand(n, dimension, dtype=torch.float64) * 2 - 1) * half
    spread = 1.5 * (0.05 if toy.scale is None else toy.scale.max().item())
    near = distribution.sample((n,)).double()
    near = near + spread * torch.randn_like(near)
    # Proposal density: half box, half the distribution convolved with a Gaussian, a mixture where that is one.
    if isinstance(toy, Checkerboard):
        points, log_u = box, torch.full((n,), -dimension * math.log(2 * half), dtype=torch.float64)
    else:
        points = torch.cat([box, near])
        parts = distribution.component_distribution.base_dist
        wide = torch.distributions.Normal(parts.loc.double(), (parts.scale.double() ** 2 + spread**2).sqrt())
        kernel = wide.log_prob(points.unsqueeze(1)).sum(-1) + distribution.mixture_distribution.logits.double()
        flat = torch.full((2 * n,), -dimension * math.log(2 * half), dtype=torch.float64)
        flat[(points.abs() > half).any(-1)] = -math.inf
        log_u = torch.logaddexp(kernel.logsumexp(-1), flat) - math.log(2)
    ratio = (distribution.log_prob(points.float()).double() - log_u).exp()
    strata = ratio.split(n)  # each half of the proposal has its own n
    mean = sum(Estimate.mean(part).value for part in strata) / len(strata)
    stderr = math.hypot(*(Estimate.mean(part).stderr for part in strata)) / len(strata)
    assert abs(mean - 1) < 5 * stderr
    assert stderr < 0.05


@pytest.mark.parametrize("toy", DISTRIBUTIONS, ids=NAMES)
def test_samples_follow_the_density(toy):
    """The share of samples in random balls equals the density's integral there, by sampling uniformly in the ball."""
    torch.manual_seed(1)
    distribution = toy.distribution()
    x = distribution.sample((40_000,))
    for center in distribution.sample((4,)):
        radius = 0.7 * (0.3 if toy.scale is None else max(toy.scale.max().item(), 0.01))
        inside = ((x - center).abs().amax(-1) < radius).double()
        box = center + (torch.rand(3_000, len(center)) * 2 - 1) * radius
        mass = Estimate.mean(distribution.log_prob(box).double().exp() * (2 * radius) ** len(center))
        assert Estimate.mean(inside).agrees_with(mass)


@pytest.mark.parametrize("toy", DISTRIBUTIONS, ids=NAMES)
def test_shapes_and_seeds(toy):
    distribution = toy.distribution()
    torch.manual_seed(0)
    x = distribution.sample((7, 3))
    torch.manual_seed(0)
    assert torch.equal(x, toy.distribution().sample((7, 3)))
    assert distribution.batch_shape == ()
    assert x.shape == (7, 3, *distribution.event_shape)
    assert x.dtype == torch.float32
    assert distribution.log_prob(x).shape == (7, 3)
    assert distribution.log_prob(x).isfinite().all()
    if toy.modes is not None:
        assert toy.modes.shape[1:] == distribution.event_shape
        assert toy.scale.shape == toy.modes.shape[:1]


def test_ring_is_that_of_pacgan():
    ring = Ring()
    assert ring.modes.shape == (8, 2)
    assert torch.allclose(ring.modes.norm(dim=-1), torch.ones(8))
    assert torch.allclose(ring.modes[2], torch.tensor([0.0, 1.0]), atol=1e-7)
    assert ring.scale.unique().item() == pytest.approx(0.01)


def test_grid_is_that_of_pacgan():
    expected = {(float(a), float(b)) for a in (-4, -2, 0, 2, 4) for b in (-4, -2, 0, 2, 4)}
    assert {tuple(mode) for mode in Grid().modes.tolist()} == expected
    assert Grid().scale.unique().item() == pytest.approx(0.05)


def test_mixture_equals_scipy():
    toy = Mixture1D(means=(-1.0, 3.0), sigmas=(0.5, 0.1), weights=(3.0, 1.0))
    x = np.linspace(-4, 5, 101)
    expected = np.log(0.75 * stats.norm(-1, 0.5).pdf(x) + 0.25 * stats.norm(3, 0.1).pdf(x))
    ours = toy.distribution().log_prob(torch.tensor(x, dtype=torch.float32).unsqueeze(-1)).double().numpy()
    np.testing.assert_allclose(ours, expected, rtol=2e-6, atol=2e-5)  # float32 in, squares of up to 40 sigmas


def test_spiral_is_smooth_along_its_arms():
    """Neighboring links lie nearer than sigma, and evenly, so that the mixture has no beads."""
    centers = Spiral().distribution().component_distribution.base_dist.loc.double().reshape(2, 256, 2)
    gaps = centers.diff(dim=1).norm(dim=-1)
    assert gaps.max() < 0.05
    assert gaps[:, 1:].max() / gaps[:, 1:].min() < 1.02
    assert centers.norm(dim=-1).max() < 2
    assert torch.allclose(centers[0], -centers[1], atol=1e-6)


def test_moons_interleave():
    centers = Moons().distribution().component_distribution.base_dist.loc
    from sklearn.datasets import make_moons

    theirs = torch.tensor(make_moons(400, noise=0.0)[0], dtype=torch.float32)
    assert torch.cdist(theirs, centers).min(1).values.max() < 0.03


@given(st.floats(-3, 3), st.floats(-3, 3))
@settings(max_examples=200, deadline=None)
def test_checkerboard_density(a, b):
    x = torch.tensor([a, b])
    if ((x - x.round()).abs() < 1e-6).any():
        return
    dark = (x.abs() < 2).all() and (x.floor().sum() + 4) % 2 == 0
    expected = -math.log(8) if dark else -math.inf
    assert Checkerboard().distribution().log_prob(x).item() == pytest.approx(expected, abs=1e-6)


def test_dirac_is_a_point_mass():
    distribution = Dirac(point=(1.0, 2.0)).distribution()
    assert distribution.sample((5,)).unique(dim=0).tolist() == [[1.0, 2.0]]
    assert distribution.log_prob(torch.tensor([[1.0, 2.0], [1.0, 2.1]])).tolist() == [0.0, -math.inf]
    assert distribution.mean.tolist() == [1.0, 2.0]
    assert distribution.variance.tolist() == [0.0, 0.0]
    assert Dirac().distribution().event_shape == (1,)
    assert Dirac().modes.tolist() == [[0.0]]


def test_names_and_settings():
    assert list(ToyDistribution.members()) == ["ring", "grid", "spiral", "moons", "checkerboard", "mixture1d", "dirac"]
    for toy in DISTRIBUTIONS:
        assert ToyDistribution.parse(toy.to_mapping()) == toy
    with pytest.raises(ConfigurationError, match="2 means, 1 sigmas and 2 weights; give the same number of each"):
        ToyDistribution.parse({"type": "mixture1d", "means": [0, 1], "sigmas": [1], "weights": [1, 1]})
    with pytest.raises(ConfigurationError, match="sigma"):
        ToyDistribution.parse({"type": "ring", "sigma": 0})


@pytest.mark.parametrize(
    "toy", [member() for member in ToyDistribution.members().values()], ids=lambda toy: toy.type_name
)
def test_every_distribution_loads(toy: ToyDistribution):
    data = toy.load()
    assert isinstance(data, ToyData)
    assert data.sample(5).shape == (5, *data.shape)
    assert data.sample(5).dtype == torch.float32
    assert data.classes == ()
    assert data.content_hash == toy.load().content_hash


def test_the_hash_knows_the_setting():
    hashes = {toy.load().content_hash for toy in (Ring(), Ring(sigma=0.02), Grid(), Spiral())}
    assert len(hashes) == 4


def test_a_mixture_draws_its_weights_and_its_modes():
    torch.manual_seed(0)
    points = Grid(side=2).load().sample(8000)
    distance, mode = torch.cdist(points, Grid(side=2).modes).min(1)
    counts = torch.bincount(mode, minlength=4).double()
    assert ((counts - 2000).abs() < 5 * (8000 * 0.25 * 0.75) ** 0.5).all()
    square = distance.square() / 0.05**2  # χ² of two degrees of freedom: mean 2, variance 4
    assert abs(square.mean() - 2) < 5 * 2 / 8000**0.5
