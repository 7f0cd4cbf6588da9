"""Proven bounds of log p(x), against closed forms, piecewise integration and hard cases; nothing may lie outside."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.distributions import (
    Beta,
    Categorical,
    Cauchy,
    Distribution,
    Exponential,
    Gamma,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    Uniform,
)

from latentia.distributions import (
    Bernoulli,
    Conditional,
    ContinuousBernoulli,
    Gaussian,
    GaussianLearnedScale,
    GaussianPerColumn,
    GaussianPerPixel,
    Poisson,
)
from latentia.distributions.mixtures import Mixture
from latentia.distributions.standardization import Standardization, StandardizedConditional
from latentia.errors import UnsupportedError
from latentia.likelihood.latent_model import LatentModel
from latentia.likelihood.proof.affine import AffineBounds
from latentia.likelihood.proof.curves import EXP, SQUARE
from latentia.likelihood.proof.enclosure import Enclosure, enclose_log_likelihood, prove_exclusion
from latentia.likelihood.proof.kinks import CUBES, DEGREES, TIMES_COORDINATE, rectifier_moments
from latentia.likelihood.proof.likelihoods import NormalLikelihoods, Table
from latentia.likelihood.proof.masses import Density, log_masses
from latentia.likelihood.proof.modules import register_bounds
from latentia.likelihood.proof.priors import normals_of
from latentia.likelihood.proof.restriction import Restriction
from latentia.models import VAE
from latentia.networks import MLP

D = torch.float64


def normal(means: Tensor, scales: Tensor) -> Distribution:
    return Independent(Normal(means.double(), scales.double()), 1)


def standard(d: int) -> Distribution:
    return normal(torch.zeros(d), torch.ones(d))


def mixture(weights: list[float], means: Tensor, scales: list[float]) -> Distribution:
    spread = torch.tensor(scales, dtype=D)[:, None].expand(means.shape)
    return MixtureSameFamily(Categorical(probs=torch.tensor(weights, dtype=D)), normal(means, spread))


def model(network: nn.Module, family, prior: Distribution, pixels: int) -> LatentModel:
    """Images of shape (1, 1, pixels)."""
    (d,) = prior.event_shape
    network = nn.Sequential(network, nn.Unflatten(1, (1, 1, pixels)))
    decoder = Conditional(network, family, event_shape=(1, 1, pixels), condition_shape=(d,)).double()
    return LatentModel(decoder, prior)


def linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0]).double()
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return layer


def holds(found: Enclosure, truth: Tensor, rounding: float = 1e-11) -> bool:
    """Whether the truth, known up to rounding, lies within."""
    slack = rounding * (1 + truth.abs())
    return bool(((found.lower <= truth + slack) & (truth - slack <= found.upper)).all())


PRIORS = {
    "standard, one dimension": standard(1),
    "standard, two dimensions": standard(2),
    "standard, three dimensions": standard(3),
    "diagonal": normal(torch.tensor([3.0, -1.0]), torch.tensor([0.1, 20.0])),
    "full": MultivariateNormal(torch.tensor([1.0, 2.0], dtype=D), torch.tensor([[1.0, 1.99], [1.99, 4.0]], dtype=D)),
    "mixture": mixture([0.99, 0.01], torch.tensor([[0.0, 0.0], [3.337, -2.1713]]), [1.0, 1e-3]),
    "far component": mixture([1 - 1e-6, 1e-6], torch.tensor([[0.0], [1000.0]]), [1.0, 0.5]),
    "mixture of kinds": Mixture(
        torch.tensor([0.25, 0.75], dtype=D),
        [standard(2), MultivariateNormal(torch.ones(2, dtype=D), 0.3 * torch.eye(2, dtype=D))],
    ),
}


def parts(prior: Distribution) -> list[tuple[float, Tensor, Tensor]]:
    """Weights, means and covariances of the normal components."""
    match prior:
        case MixtureSameFamily():
            base = prior.component_distribution
            covariances = torch.diag_embed(base.variance)
            return list(zip(prior.mixture_distribution.probs.tolist(), base.mean, covariances, strict=True))
        case Mixture():
            inner = [parts(component)[0] for component in prior.components]
            return [(w, m, c) for w, (_, m, c) in zip(prior.weights.tolist(), inner, strict=True)]
        case MultivariateNormal():
            return [(1.0, prior.mean, prior.covariance_matrix)]
        case _:
            return [(1.0, prior.mean, torch.diag(prior.variance))]


@pytest.mark.parametrize("name", PRIORS)
@pytest.mark.parametrize(
    "family", [Gaussian(scale=0.1), GaussianLearnedScale(initial_scale=0.5)], ids=["narrow", "wide"]
)
def test_linear_models(name, family):
    """x = W z + m + noise under a mixture of normal priors: a mixture of normal distributions."""
    prior, pixels = PRIORS[name], 4
    torch.manual_seed(0)
    weight, bias = 0.5 * torch.randn(pixels, *prior.event_shape, dtype=D), torch.rand(pixels, dtype=D)
    components = parts(prior)
    places = torch.stack([mean for _, mean, _ in components for _ in range(2)])
    images = places @ weight.T + bias + 0.05 * torch.randn(len(places), pixels, dtype=D)
    noise = float(getattr(family, "scale", 0.0)) or float(torch.tensor(math.log(family.initial_scale)).double().exp())
    truth = torch.stack(
        [
            math.log(w)
            + MultivariateNormal(
                weight @ m + bias, weight @ c @ weight.T + noise**2 * torch.eye(4, dtype=D)
            ).log_prob(images)
            for w, m, c in components
        ]
    ).logsumexp(0)  # fmt: skip
    subject = model(linear(weight, bias), family, prior, pixels)
    tolerance = 0.2 if prior.event_shape[0] == 3 else 0.01
    found = enclose_log_likelihood(subject, images.view(-1, 1, 1, pixels), tolerance)
    assert holds(found, truth, 1e-8)
    assert float(found.width.max()) <= tolerance


def fine_rule(log_f, half: float, count: int = 200_001) -> Tensor:
    """log ∫ over the line by the trapezoidal rule; log_f maps (M,) to (N, M)."""
    line = torch.linspace(-half, half, count, dtype=D)
    return log_f(line).logsumexp(-1) + math.log(float(line[1] - line[0]))


def test_counts():
    """Poisson counts of a rate that changes by a factor of a thousand, one image far from any rate."""
    weight, bias = torch.tensor([[2.0], [-1.0], [0.3]], dtype=D), torch.tensor([1.0, 0.5, 3.0], dtype=D)
    images = torch.tensor([[3.0, 1.0, 20.0], [0.0, 0.0, 0.0], [400.0, 2.0, 11.0]], dtype=D)

    def log_f(z: Tensor) -> Tensor:
        rate = z[:, None] * weight[:, 0] + bias
        scores = images[:, None] * rate - rate.exp() - torch.lgamma(images[:, None] + 1)
        return scores.sum(-1) - 0.5 * z.square() - 0.5 * math.log(2 * math.pi)

    found = enclose_log_likelihood(model(linear(weight, bias), Poisson(), standard(1), 3), images.view(-1, 1, 1, 3))
    assert holds(found, fine_rule(log_f, 12.0), 1e-8)
    assert float(found.width.max()) <= 0.01


def test_a_scale_for_each_pixel():
    """Means and log-scales that both depend on z."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(1, 6), nn.Tanh(), nn.Linear(6, 4)).double()
    images = torch.tensor([[0.1, 0.4], [0.9, 0.2], [0.5, 7.0]], dtype=D)

    def log_f(z: Tensor) -> Tensor:
        mean, log_scale = network(z[:, None]).chunk(2, -1)
        scale = log_scale.exp() + 0.05
        scores = Normal(mean, scale).log_prob(images[:, None]).sum(-1)
        return scores - 0.5 * z.square() - 0.5 * math.log(2 * math.pi)

    decoder = Conditional(
        nn.Sequential(network, nn.Unflatten(1, (2, 1, 2))),
        GaussianPerPixel(smallest_scale=0.05),
        event_shape=(1, 1, 2),
        condition_shape=(1,),
    )
    found = enclose_log_likelihood(LatentModel(decoder, standard(1)), images.view(-1, 1, 1, 2))
    with torch.no_grad():
        assert holds(found, fine_rule(log_f, 12.0, 20_001), 1e-7)
    assert float(found.width.max()) <= 0.01


def test_standardized_columns():
    """x = c + s (W z + noise of a scale for each column): a normal distribution in the user's units."""
    weight, scales = torch.tensor([[1.0, 0.2], [-0.5, 1.0], [0.3, 0.3]], dtype=D), torch.tensor([0.3, 0.5, 0.2])
    standardization = Standardization((3,)).double()
    standardization.center.copy_(torch.tensor([100.0, -3.0, 0.0]))
    standardization.spread.copy_(torch.tensor([20.0, 0.1, 1.0]))
    shapes = {"event_shape": (3,), "condition_shape": (2,)}
    network = linear(weight, torch.zeros(3))
    decoder = StandardizedConditional(network, GaussianPerColumn(), standardization, False, **shapes).double()
    with torch.no_grad():
        decoder.shared.copy_(scales.log())
    subject = LatentModel(decoder, standard(2))
    images = subject.decoder(torch.randn(4, 2, dtype=D)).sample()
    spread = standardization.spread
    noise = torch.diag(decoder.shared.detach().exp() * spread)
    covariance = (spread[:, None] * weight) @ (spread[:, None] * weight).T + noise @ noise
    found = enclose_log_likelihood(subject, images)
    assert holds(found, MultivariateNormal(standardization.center, covariance).log_prob(images), 1e-8)
    assert float(found.width.max()) <= 0.01


@pytest.mark.parametrize("mean", [False, True])
def test_missing_values_are_integrated_out(mean):
    """The marginal normal distribution of the values that are there; 0 where none is."""
    torch.manual_seed(0)
    likelihood, decoder = GaussianLearnedScale(initial_scale=0.5), linear(torch.randn(4, 2), torch.randn(4))
    vae = VAE(nn.Linear(8, 4), decoder, latent=2, event_shape=(4,), likelihood=likelihood, missing=True).double().eval()
    covariance = decoder.weight.detach() @ decoder.weight.detach().T + 0.25 * torch.eye(4, dtype=D)
    x = torch.randn(6, 4, dtype=D)
    x[torch.tensor([[0, 1, 0, 0], [0, 0, 0, 0], [1, 0, 1, 0], [0, 1, 0, 0], [0, 1, 1, 1], [1, 1, 1, 1]]) > 0] = math.nan
    truth = torch.zeros(6, dtype=D)
    for row in range(5):
        seen = ~x[row].isnan()
        normal_part = MultivariateNormal(decoder.bias.detach()[seen], covariance[seen][:, seen])
        truth[row] = normal_part.log_prob(x[row, seen])
    found = enclose_log_likelihood(vae, x, 0.01, mean=mean)
    assert holds(found, truth, 1e-6)
    assert float(found.width.mean()) <= 0.01


def log_normal(x: float, mean: float, scale: float) -> float:
    return -0.5 * ((x - mean) / scale) ** 2 - math.log(scale) - 0.5 * math.log(2 * math.pi)


def log_interval(low: float, high: float) -> float:
    """log P(low < Z < high) for a standard normal Z, without cancellation in the tails."""
    if low > 0:
        low, high = -high, -low
    below, above = (float(torch.special.log_ndtr(torch.tensor(v, dtype=D))) for v in (low, high))
    return above + math.log1p(-math.exp(below - above)) if below < above else -math.inf


def piecewise(network: nn.Sequential, x: Tensor, scale: float) -> float:
    """log ∫ N(x; f(z), scale²) N(z; 0, 1) dz of a ReLU network of one input, from its pieces between kinks."""
    hidden, last = network[0], network[2]
    slopes, offsets = hidden.weight[:, 0].tolist(), hidden.bias.tolist()
    kinks = sorted(-b / a for a, b in zip(slopes, offsets, strict=True))
    edges = [-math.inf, *kinks, math.inf]
    total = []
    for low, high in pairwise(edges):
        middle = (max(low, -1e6) + min(high, 1e6)) / 2
        on = torch.tensor([float(a * middle + b > 0) for a, b in zip(slopes, offsets, strict=True)], dtype=D)
        slope = (last.weight * on) @ hidden.weight[:, 0]
        offset = (last.weight * on) @ hidden.bias + last.bias
        # N(x; slope z + offset, scale²) N(z; 0, 1) is a normal density in z times a constant.
        precision = 1 + float((slope @ slope) / scale**2)
        mean = float(slope @ (x - offset)) / scale**2 / precision
        peak = sum(log_normal(float(xi), float(o + s * mean), scale) for xi, o, s in zip(x, offset, slope, strict=True))
        constant = peak + log_normal(mean, 0.0, 1.0) + 0.5 * math.log(2 * math.pi / precision)
        root = math.sqrt(precision)
        total.append(constant + log_interval((low - mean) * root, (high - mean) * root))
    return float(torch.tensor(total, dtype=D).logsumexp(0))


@pytest.mark.parametrize("scale", [0.5, 0.02])
def test_rectifier_networks_in_one_dimension(scale):
    torch.manual_seed(3)
    network = nn.Sequential(nn.Linear(1, 12), nn.ReLU(), nn.Linear(12, 3)).double()
    images = torch.rand(6, 3, dtype=D)
    with torch.no_grad():
        network[2].weight *= 2
        truth = torch.tensor([piecewise(network, x, scale) for x in images], dtype=D)
    found = enclose_log_likelihood(
        model(network, Gaussian(scale=scale), standard(1), 3), images.view(-1, 1, 1, 3), 1e-3
    )
    assert holds(found, truth, 1e-8)
    assert float(found.width.max()) <= 1e-3


def brute_force(subject: LatentModel, images: Tensor, half: float, count: int) -> Tensor:
    """The trapezoidal rule on a dense grid: its own error is far below the tolerances here."""
    line = torch.linspace(-half, half, count, dtype=D)
    z = torch.cartesian_prod(line, line) if subject.latent == 2 else line[:, None]
    log_volume = subject.latent * math.log(float(line[1] - line[0]))
    with torch.no_grad():
        joint = [
            subject.decoder(some).log_prob(images.unsqueeze(1)) + subject.prior.log_prob(some) for some in z.split(4000)
        ]
    return torch.cat(joint, 1).logsumexp(1) + log_volume


@pytest.mark.parametrize("activation", ["relu", "silu", "tanh", "leaky-relu", "gelu"])
def test_binary_images_of_small_networks(activation):
    torch.manual_seed(0)
    network = MLP(hidden=(8, 8), activation=activation).decoder(2, (20,)).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter *= 2
    subject = model(network, Bernoulli(), standard(2), 20)
    images = subject.decoder(torch.randn(4, 2, dtype=D)).sample()
    found = enclose_log_likelihood(subject, images, 0.05)
    assert holds(found, brute_force(subject, images, 8.0, 401), 1e-6)
    assert float(found.width.max()) <= 0.05


class Needle(nn.Module):
    """A exp(−|z − c|²/2w²), w = 0.001, in one pixel."""

    height, width, place = 5.5, 1e-3, (1.337, -0.713)

    def forward(self, z: Tensor) -> Tensor:
        place = torch.tensor(self.place, dtype=z.dtype)
        return self.height * torch.exp(-(z - place).square().sum(-1, keepdim=True) / (2 * self.width**2))


@register_bounds(Needle)
def _needle(module: Needle, bounds: AffineBounds) -> AffineBounds:
    one, factor = torch.ones((), dtype=D), torch.tensor([[-0.5 / module.width**2] * 2], dtype=D)
    shifted = bounds.scaled(one, -torch.tensor(module.place, dtype=D))
    exponent = shifted.through(SQUARE).linear(nn.functional.linear, factor, None, 2)
    return exponent.through(EXP).scaled(module.height * one, 0 * one)


def test_a_needle_of_the_decoder_is_found():
    """The value is 25 nats above what the rest of the plane gives, on a millionth of it."""
    height, width, scale = Needle.height, Needle.width, 0.6
    center = torch.tensor(Needle.place, dtype=D)
    r = torch.linspace(0, 12 * width, 400_001, dtype=D)
    mean = height * torch.exp(-r * r / (2 * width**2))
    gain = math.exp(log_normal(height, 0, scale)) * torch.expm1(
        0.5 * (height / scale) ** 2 - 0.5 * ((height - mean) / scale) ** 2
    )
    ring = r * torch.exp(-0.5 * (r * r + center.square().sum())) * torch.special.i0(r * center.norm())
    truth = math.log(math.exp(log_normal(height, 0, scale)) + float(torch.trapezoid(gain * ring, r)))
    subject = model(Needle(), Gaussian(scale=scale), standard(2), 1)
    found = enclose_log_likelihood(subject, torch.tensor([[[[height]]]], dtype=D), 0.01)
    assert holds(found, torch.tensor([truth], dtype=D), 1e-7)
    assert float(found.width) <= 0.01


def test_a_component_that_alone_explains_the_image():
    """mean 6 σ(z − 50) under 0.99 N(0, 1) + 0.01 N(100, 1): saturated at either component."""
    network = nn.Sequential(
        linear(torch.ones(1, 1), torch.tensor([-50.0])), nn.Sigmoid(), linear(torch.tensor([[6.0]]), torch.zeros(1))
    )
    prior = mixture([0.99, 0.01], torch.tensor([[0.0], [100.0]]), [1.0, 1.0])
    truth = math.log(0.99 * math.exp(log_normal(6.0, 0.0, 1.0)) + 0.01 * math.exp(log_normal(6.0, 6.0, 1.0)))
    found = enclose_log_likelihood(model(network, Gaussian(scale=1.0), prior, 1), torch.tensor([[[[6.0]]]], dtype=D))
    assert holds(found, torch.tensor([truth], dtype=D))
    assert float(found.width) <= 0.01


def test_narrow_and_far_images_among_easy_ones():
    """x = z + noise of 0.001 at x = 20 and x = 40; the other images are not held up."""
    images = torch.tensor([20.0, 40.0, 0.3, -1.0], dtype=D)
    truth = torch.tensor([log_normal(float(x), 0.0, math.hypot(1.0, 1e-3)) for x in images], dtype=D)
    subject = model(linear(torch.ones(1, 1), torch.zeros(1)), Gaussian(scale=1e-3), standard(1), 1)
    found = enclose_log_likelihood(subject, images.view(-1, 1, 1, 1), 0.01)
    assert holds(found, truth, 1e-7)
    assert float(found.width.max()) <= 0.01


def test_uniform_prior():
    """U(−0.5, 1)², x = z + noise, image near a corner."""
    prior = Independent(Uniform(torch.full((2,), -0.5, dtype=D), torch.ones(2, dtype=D)), 1)
    x = torch.tensor([[0.95, 0.3]], dtype=D)
    sides = [math.exp(log_interval((-0.5 - float(v)) / 0.1, (1 - float(v)) / 0.1)) / 1.5 for v in x[0]]
    found = enclose_log_likelihood(
        model(linear(torch.eye(2), torch.zeros(2)), Gaussian(scale=0.1), prior, 2), x.view(1, 1, 1, 2)
    )
    assert holds(found, torch.tensor([math.log(sides[0] * sides[1])], dtype=D))
    assert float(found.width) <= 0.01


EDGED = {
    "arcsine": Beta(torch.tensor([0.5], dtype=D), torch.tensor([0.5], dtype=D)),
    "zero at one end": Beta(torch.tensor([3.5], dtype=D), torch.tensor([1.0], dtype=D)),
    "steep": Beta(torch.tensor([20.0], dtype=D), torch.tensor([0.7], dtype=D)),
    "singular gamma": Gamma(torch.tensor([0.4], dtype=D), torch.tensor([0.2], dtype=D)),
    "gamma": Gamma(torch.tensor([7.0], dtype=D), torch.tensor([30.0], dtype=D)),
    "exponential": Exponential(torch.tensor([0.05], dtype=D)),
}


@pytest.mark.parametrize("name", EDGED)
def test_priors_with_edges(name):
    """x = z + noise; the truth by the midpoint rule over the prior's quantiles, which have no singularity."""
    prior = EDGED[name]
    spread = float(prior.stddev)
    images = float(prior.mean) + spread * torch.tensor([0.0, 2.0, -1.0], dtype=D)
    noise = 0.3 * spread
    frozen = {
        Beta: lambda p: stats.beta(float(p.concentration1), float(p.concentration0)),
        Gamma: lambda p: stats.gamma(float(p.concentration), scale=1 / float(p.rate)),
        Exponential: lambda p: stats.expon(scale=1 / float(p.rate)),
    }[type(prior)](prior)
    z = torch.as_tensor(frozen.ppf((np.arange(400_000) + 0.5) / 400_000))
    truth = Normal(z, noise).log_prob(images[:, None]).logsumexp(-1) - math.log(len(z))
    subject = model(linear(torch.ones(1, 1), torch.zeros(1)), Gaussian(scale=noise), Independent(prior, 1), 1)
    found = enclose_log_likelihood(subject, images.view(-1, 1, 1, 1))
    assert holds(found, truth, 1e-4)
    assert float(found.width.max()) <= 0.01


def test_a_prior_with_edges_in_the_plane():
    """A product of two coordinates, each as on the line."""
    priors = [EDGED["arcsine"], Beta(torch.tensor([2.0], dtype=D), torch.tensor([0.6], dtype=D))]
    both = Beta(*(torch.cat([getattr(p, name) for p in priors]) for name in ("concentration1", "concentration0")))
    images = torch.tensor([[0.02, 0.97], [0.5, 0.4]], dtype=D)
    eye, zero = linear(torch.ones(1, 1), torch.zeros(1)), torch.zeros(2)
    parts = [
        enclose_log_likelihood(model(eye, Gaussian(scale=0.1), Independent(p, 1), 1), x.view(-1, 1, 1, 1), 1e-4)
        for p, x in zip(priors, images.T, strict=True)
    ]
    subject = model(linear(torch.eye(2), zero), Gaussian(scale=0.1), Independent(both, 1), 2)
    found = enclose_log_likelihood(subject, images.view(-1, 1, 1, 2))
    assert bool((found.lower <= sum(part.upper for part in parts)).all())
    assert bool((sum(part.lower for part in parts) <= found.upper).all())
    assert float(found.width.max()) <= 0.01


def test_saturated_pixels():
    """Logits of ±10 000, all right but one pixel of probability ½ by symmetry."""
    signs = torch.sign(torch.randn(3072, generator=torch.Generator().manual_seed(0))).double()
    weight, bias = torch.zeros(3073, 2, dtype=D), torch.cat([torch.zeros(1, dtype=D), 10_000 * signs])
    weight[0, 0] = 3.0
    images = torch.cat([torch.ones(1, dtype=D), (signs > 0).double()]).view(1, 1, 1, -1)
    found = enclose_log_likelihood(model(linear(weight, bias), Bernoulli(), standard(2), 3073), images)
    assert holds(found, torch.tensor([math.log(0.5)], dtype=D))
    assert float(found.width) <= 0.01


def small_vae() -> tuple[VAE, Tensor]:
    torch.manual_seed(0)
    nets = MLP(hidden=(30, 30))
    vae = VAE(nets.encoder((1, 4, 5), 4), nets.decoder(2, (1, 4, 5)), latent=2, event_shape=(1, 4, 5)).double().eval()
    with torch.no_grad():
        for parameter in vae.likelihood.parameters():
            parameter *= 2
    return vae, vae.sample(6)


def test_bounds_hold_whenever_the_time_ends():
    vae, images = small_vae()
    truth = brute_force(LatentModel.from_model(vae), images, 8.0, 401)
    widths = []
    for seconds in (0.0, 0.05, 0.5, 1000.0):
        found = enclose_log_likelihood(vae, images, 1e-2, seconds=seconds)
        assert holds(found, truth, 1e-6)
        widths.append(float(found.width.max()))
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] <= 1e-2


def test_the_mean_of_many_images_is_enclosed_to_its_tolerance():
    """At most as many pairs as for each image, and the bounds of every image hold."""
    vae, images = small_vae()
    truth = brute_force(LatentModel.from_model(vae), images, 8.0, 401)
    found = enclose_log_likelihood(vae, images, 1e-3, mean=True)
    each = enclose_log_likelihood(vae, images, 1e-3)
    assert holds(found, truth, 1e-6)
    assert 0 < float(found.width.mean()) <= 1e-3
    assert found.statistics["pairs"] < each.statistics["pairs"]


@pytest.mark.parametrize("mean", [False, True])
def test_bounds_do_not_depend_on_the_number_of_threads(mean):
    vae, images = small_vae()
    found = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        found.append(enclose_log_likelihood(vae, images, 0.01, mean=mean))
        assert torch.get_num_threads() == count
    torch.set_num_threads(1)
    for other in found[1:]:
        assert torch.equal(found[0].lower, other.lower)
        assert torch.equal(found[0].upper, other.upper)


def test_rectifiers_are_integrated_over_tiles():
    """Masses of tiles that kinks of two layers cross, by a fine rule, lie within bounds far nearer than the slack."""
    torch.manual_seed(3)
    net = nn.Sequential(nn.Linear(2, 10), nn.ReLU(), nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 5)).double()
    images, radius = torch.randn(4, 5, dtype=D), 2.0**-8
    family = NormalLikelihoods(images, torch.full((5,), 0.3, dtype=D))
    prior = normals_of(standard(2)).box(8.0)
    whole = Restriction.of_network(net, prior.origin, prior.scale)
    points = (torch.arange(256, dtype=D) + 0.5) / 128 - 1
    points = torch.cartesian_prod(points, points)
    shares = []
    for center in 0.2 * torch.rand(8, 1, 2, dtype=D) - 0.1:
        box = AffineBounds.of_boxes(center, torch.full_like(center, radius))
        node, rows = whole.restricted(box), torch.arange(4)
        log_volume = float((2 * prior.scale * radius).log().sum())
        with torch.no_grad():
            ((_, table),) = family.table(
                node,
                box,
                rows,
                family.products(node, rows),
                1,
                [torch.zeros(1, dtype=torch.int64)],
                0.0,
                integrate=True,
            )
            upper, lower = log_masses(table, prior.on_tiles(center, radius), log_volume, family.supremum)
            z = prior.origin + prior.scale * (center + points * radius)
            score = Normal(net(z), 0.3).log_prob(images.unsqueeze(1)).sum(-1) + standard(2).log_prob(z)
        truth = score.logsumexp(-1) - math.log(len(points)) + log_volume
        assert bool((lower[:, 0] <= truth + 1e-4).all())
        assert bool((truth <= upper[:, 0] + 1e-4).all())
        shares.append((upper - lower)[:, 0] / (2 * table.slack[:, 0] + 0.01))
    assert float(torch.cat(shares).max()) < 0.7
    assert float(torch.cat(shares).median()) < 0.1


@pytest.mark.parametrize("slopes", [(0.3, -0.9), (-2.0, 0.1), (0.0, 0.7), (1e-14, -1.0), (0.5, 0.5)])
def test_moments_of_rectifiers(slopes):
    """Against the midpoint rule with a million points."""
    line = (torch.arange(1000, dtype=D) + 0.5) / 500 - 1
    x, y = line[:, None], line[None]
    found = rectifier_moments(torch.tensor([0.2], dtype=D), torch.tensor([slopes], dtype=D))[0]
    u = torch.relu(0.2 + slopes[0] * x + slopes[1] * y)
    legendre = (torch.ones_like, lambda t: t, lambda t: 1.5 * t**2 - 0.5, lambda t: 2.5 * t**3 - 1.5 * t)
    truth = torch.stack([(u * legendre[p](x) * legendre[q](y)).mean() for p, q in DEGREES[2]])
    torch.testing.assert_close(found, truth, rtol=0, atol=3e-6)


@pytest.mark.parametrize("d", [1, 2])
def test_moments_of_cubes_and_of_products_with_coordinates(d):
    """Against numpy's Gauss-Legendre rule, for a polynomial of degree 3."""
    nodes, weights = (torch.from_numpy(x) for x in np.polynomial.legendre.leggauss(8))
    t = torch.cartesian_prod(*[nodes] * d).reshape(-1, d)
    weight = torch.cartesian_prod(*[weights / 2] * d).reshape(-1, d).prod(-1)

    def moments(f: Tensor) -> Tensor:
        products = []
        for degrees in DEGREES[d]:
            polynomials = [np.polynomial.legendre.Legendre.basis(p)(t[:, i].numpy()) for i, p in enumerate(degrees)]
            products.append((weight * f * torch.from_numpy(np.prod(polynomials, axis=0))).sum())
        return torch.stack(products)

    powers = [(3,)] if d == 1 else [(3, 0), (2, 1), (1, 2), (0, 3)]
    cubes = [moments(torch.stack([t[:, i] ** n for i, n in enumerate(power)]).prod(0)) for power in powers]
    torch.testing.assert_close(CUBES[d], torch.stack(cubes))
    f = 0.3 + (t.sum(-1) - 0.4) ** 3 + t[:, 0] ** 2
    low = torch.tensor([sum(degrees) <= 2 for degrees in DEGREES[d]])
    for axis in range(d):
        found = TIMES_COORDINATE[d][axis] @ moments(f)
        torch.testing.assert_close(found[low], moments(f * t[:, axis])[low])


def test_images_that_are_excluded_elsewhere():
    """Outside the kept tiles the posterior mass is as small as claimed, by brute force."""
    vae, images = small_vae()
    subject = LatentModel.from_model(vae)
    kept = prove_exclusion(vae, images, side=0.25, share=1e-4)
    parts, tiles = 5, 72  # points on each tile's side, and tiles from −9 to 9
    line = (torch.arange(parts * tiles, dtype=D) + 0.5) * 0.25 / parts - 9
    z, log_area = torch.cartesian_prod(line, line), 2 * math.log(0.25 / parts)
    with torch.no_grad():
        joint = subject.decoder(z).log_prob(images.unsqueeze(1)) + subject.prior.log_prob(z)
    truth = joint.logsumexp(1) + log_area
    assert kept.radii.tolist() == [0.125, 0.125]
    assert bool((kept.log_lower <= truth).all())
    open_ = torch.zeros(len(images), tiles, tiles, dtype=torch.bool)
    row, column = ((kept.centers + 9) / 0.25).floor().long()[kept.tiles].T
    inside = (row >= 0) & (row < tiles) & (column >= 0) & (column < tiles)
    open_[kept.images[inside], row[inside], column[inside]] = True
    open_points = open_.repeat_interleave(parts, 1).repeat_interleave(parts, 2).flatten(1)
    outside = joint.masked_fill(open_points, -math.inf).logsumexp(1) + log_area
    assert bool((outside <= kept.log_excluded + 1e-3).all())
    assert float((kept.log_excluded - truth).max()) < math.log(1e-3)
    assert float(open_.double().mean()) < 0.3


def test_the_gap_of_smooth_models_falls_fast():
    """Every division halves the side: a tolerance 100 times finer takes at most some 4 times the tiles, not 100."""
    subject = model(linear(torch.eye(2), torch.zeros(2)), Gaussian(scale=0.2), standard(2), 2)
    images = torch.tensor([[0.3, 0.2], [1.0, -0.5]], dtype=D).view(-1, 1, 1, 2)
    counts = [enclose_log_likelihood(subject, images, tolerance).statistics["tiles"] for tolerance in (1e-2, 1e-4)]
    assert counts[1] < 30 * counts[0]


def refused(decoder=None, family=None, prior=None) -> LatentModel:
    decoder = linear(torch.eye(2), torch.zeros(2)) if decoder is None else decoder
    return model(decoder, Bernoulli() if family is None else family, standard(2) if prior is None else prior, 2)


REFUSED = {
    "a callable": lambda: LatentModel(lambda z: normal(z, torch.ones_like(z)), standard(2)),
    "a density without a supremum": lambda: refused(family=ContinuousBernoulli()),
    "a prior without a bound": lambda: refused(
        prior=Independent(Cauchy(torch.ones(2, dtype=D), torch.ones(2, dtype=D)), 1)
    ),
    "an unknown part": lambda: refused(nn.Sequential(nn.Linear(2, 2), nn.Softmax(-1))),
    "weights that are not numbers": lambda: refused(linear(torch.full((2, 2), math.nan), torch.zeros(2))),
    "four dimensions": lambda: refused(nn.Linear(4, 2), prior=standard(4)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_bounded_is_refused(name):
    subject = REFUSED[name]()
    shape = subject.decoder(subject.prior.sample(torch.Size([1]))).event_shape
    with pytest.raises(UnsupportedError, match=r"exact_log_likelihood|method="):
        enclose_log_likelihood(subject, torch.ones(1, *shape, dtype=D))


@pytest.mark.parametrize("seed", range(4))
def test_masses_of_tiles_hold_for_any_quadratic_form(seed):
    """exp(g·t − ½ tᵀH t) over a square against a fine midpoint rule, H from flat to steep and correlated."""
    rng = torch.Generator().manual_seed(seed)
    line = (torch.arange(600, dtype=D) + 0.5) / 300 - 1
    t = torch.cartesian_prod(line, line)
    for _ in range(40):
        root = torch.randn(2, 2, generator=rng, dtype=D) * 10 ** (2 * torch.rand(1, generator=rng, dtype=D) - 0.5)
        curvature = root.T @ root
        slope = curvature @ (2.4 * torch.rand(2, generator=rng, dtype=D) - 1.2)
        truth = float((t @ slope - 0.5 * ((t @ curvature) * t).sum(-1)).logsumexp(0)) - math.log(len(t))
        zero, flat = torch.zeros(1, dtype=D), torch.zeros(1, 2, 2, dtype=D)
        exact = torch.zeros(1, dtype=torch.bool)
        form = Table(zero[None], slope[None, None], zero[None], curvature[None], zero, zero, exact, zero, zero)
        density = Density(zero, torch.zeros(1, 2, dtype=D), flat, flat, zero, zero, zero + 1e300)
        upper, lower = log_masses(form, density, 0.0, zero + 1e300)
        assert float(lower) <= truth + 1e-2
        assert truth - 1e-2 <= float(upper)


def test_a_decoder_that_computes_beyond_floats_is_refused_or_bounded():
    """Scales at the ends of float64 give bounds or an UnsupportedError, never another error."""
    spreads = [torch.tensor([spread], dtype=D) for spread in (1.0, 1e-200, 1e200)]
    for scale in (1e-290, 1e-120, 1e-30, 1e30, 1e290):
        for prior in (normal(torch.zeros(1), spread) for spread in spreads):
            subject = model(linear(torch.ones(1, 1), torch.zeros(1)), Gaussian(scale=scale), prior, 1)
            try:
                found = enclose_log_likelihood(subject, torch.tensor([[[[0.5]]]], dtype=D), seconds=0.2)
            except UnsupportedError:
                continue
            assert not bool(torch.isnan(found.lower).any() | torch.isnan(found.upper).any())
