"""Models for proven enclosures alone: extreme weights, kinks on the corners of tiles, and searches cut off at any time.

Every class asks `enclose_log_likelihood` for bounds and stops it after a random time, so that bounds from coarse tiles
are compared with the truth as well as the final ones.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.stats import norm
from torch import distributions as td
from torch import nn

from attack_case import (
    DOUBLE,
    Array,
    Bernoulli,
    Case,
    Conditional,
    Gaussian,
    LatentModel,
    attack,
    enclosures,
    log_uniform,
    pick,
    rotation,
    short,
    standard,
    tensor,
)
from attack_models import ACTIVATIONS, layers_of, log_bernoulli, network
from attack_oracles import around, log_integral, log_multivariate_normal, log_normal, log_piecewise, relu_pieces

STOPS = (0.0, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)


def model(rng: np.random.Generator, net: nn.Sequential, noise: float | None, prior: Any) -> LatentModel:
    """The network as a module, in float64 or in float32 with the same weights."""
    family = Bernoulli() if noise is None else Gaussian(scale=noise)
    (d,), pixels = prior.event_shape, net[-1].out_features  # pyright: ignore
    decoder = Conditional(copy.deepcopy(net), family, event_shape=(1, 1, pixels), condition_shape=(d,)).eval()
    return LatentModel(decoder.to(pick(rng, DOUBLE, torch.float32)), prior)


def ask(
    rng: np.random.Generator, subject: LatentModel, x: Array, found: Sequence[tuple[float, float]], about: str
) -> Case:
    """Enclosures of the rows of x, stopped at a random time, against truths and their errors."""
    tolerance, stop = log_uniform(rng, 1e-7, 1.0), float(pick(rng, *STOPS))
    images = tensor(x).reshape(len(x), 1, 1, -1)
    mean = rng.random() < 0.4
    about = f"{about} stop={stop} mean={mean}"
    return enclosures(subject, images, found, tolerance=tolerance, stop=stop, mean=mean, about=about)


def observed(rng: np.random.Generator, out: Array, noise: float | None) -> Array:
    """Images from decoder outputs (N, P); the last one has a pixel that the decoder does not expect."""
    if noise is None:
        x = (rng.random(size=out.shape) < 1 / (1 + np.exp(-np.clip(out, -500, 500)))).astype(float)
        x[-1, 0] = 1 - x[-1, 0]
        return x
    x = out + noise * rng.normal(size=out.shape)
    x[-1, 0] += noise * log_uniform(rng, 0.1, 100)
    return x


def covariance_factor(rng: np.random.Generator, d: int, low: float, high: float) -> Array:
    """A lower triangular factor with scales between the two, correlated at random."""
    a = rotation(rng, d) * log_uniform(rng, low, high, d)
    return np.linalg.cholesky(a @ a.T + 1e-12 * np.trace(a @ a.T) * np.eye(d))


@attack("proof-linear")
def proof_linear(rng: np.random.Generator) -> Case:
    """x = W z + b + noise under mixtures of correlated normal priors with weights down to 1e-30."""
    d, pixels, parts = int(rng.integers(1, 4)), int(rng.integers(1, 5)), int(rng.integers(1, 4))
    weight = rng.normal(size=(pixels, d)) * log_uniform(rng, 0.01, 100, d)
    if d > 1 and rng.random() < 0.5:  # nearly parallel columns
        weight[:, 1] = weight[:, 0] * rng.uniform(-3, 3) + 0.1 * weight[:, 1]
    bias, noise = rng.normal(size=pixels) * log_uniform(rng, 0.01, 100), log_uniform(rng, 1e-3, 10)
    shares = log_uniform(rng, 1e-30, 1, parts)
    logits = np.log(shares)
    means = rng.normal(size=(parts, d)) * log_uniform(rng, 0.1, 30)
    factors = [covariance_factor(rng, d, 0.01, 10) for _ in range(parts)]
    prior: td.Distribution = td.MultivariateNormal(tensor(means[0]), scale_tril=tensor(factors[0]))
    if parts > 1:
        normals = td.MultivariateNormal(tensor(means), scale_tril=tensor(np.stack(factors)))
        prior = td.MixtureSameFamily(td.Categorical(logits=tensor(logits)), normals)
    net = nn.Sequential(nn.Linear(d, pixels).double())
    with torch.no_grad():
        net[0].weight.copy_(tensor(short(weight)))  # pyright: ignore
        net[0].bias.copy_(tensor(short(bias)))  # pyright: ignore
    weight, bias = short(weight), short(bias)
    z = np.stack([m + f @ rng.normal(size=d) for m, f in zip(means, factors, strict=True)])
    x = observed(rng, z @ weight.T + bias, noise)
    log_shares = logits - np.logaddexp.reduce(logits)

    def truth(row: Array) -> tuple[float, float]:
        terms = [
            log_share + log_multivariate_normal(row, weight @ m + bias, [weight @ f], noise)
            for log_share, m, f in zip(log_shares, means, factors, strict=True)
        ]
        value = float(np.logaddexp.reduce(terms))
        return value, 1e-9 * (1 + abs(value))

    about = f"d={d} pixels={pixels} parts={parts} noise={noise:.2g}"
    return ask(rng, model(rng, net, noise, prior), x, [truth(row) for row in x], about)


@attack("proof-line")
def proof_line(rng: np.random.Generator) -> Case:
    """Networks of one input with gains up to 30 and outputs scaled up to 1000: saturated pixels, steep ramps."""
    name = pick(rng, "relu", "leaky", *ACTIVATIONS, "elu")
    makers = {**ACTIVATIONS, "relu": nn.ReLU, "leaky": lambda: nn.LeakyReLU(0.25), "elu": lambda: nn.ELU(1.5)}
    hidden = [int(rng.integers(2, 24)) for _ in range(rng.integers(1, 3))]
    pixels, gain = int(rng.integers(1, 30)), log_uniform(rng, 0.3, 30)
    noise = pick(rng, None, short(log_uniform(rng, 0.01, 3)))
    net = network(rng, [1, *hidden, pixels], makers[name], gain)
    if noise is None:
        with torch.no_grad():
            net[-1].weight.mul_(2.0 ** int(rng.integers(0, 11)))  # pyright: ignore
    if name in ("relu", "leaky"):
        breaks = relu_pieces(layers_of(net), 0.25 if name == "leaky" else 0.0)[0]
    else:
        weight, bias = layers_of(net)[0]
        breaks = np.concatenate([around(-b / w, 1 / abs(w), 30, 12) for w, b in zip(weight[:, 0], bias, strict=True)])
    edges = [np.concatenate([breaks[np.abs(breaks) < 13], np.linspace(-13, 13, 521)])]

    def truth(row: Array) -> tuple[float, float]:
        def log_f(z: Array) -> Array:
            with torch.no_grad():
                out = net(torch.from_numpy(z)).numpy()
            score = log_bernoulli(row, out) if noise is None else log_normal(row, out, noise).sum(-1)
            return score + log_normal(z[:, 0], 0.0, 1.0)

        value, error = log_integral(log_f, edges)
        return value, error + 1e-8 + 1e-12 * abs(value)

    with torch.no_grad():
        x = observed(rng, net(tensor(rng.normal(size=(3, 1)))).numpy(), noise)
    found = [truth(row) for row in x]
    subject = model(rng, net, noise, standard(1))
    return ask(rng, subject, x, found, f"{name} widths={hidden} pixels={pixels} gain={gain:.1f} noise={noise}")


@attack("proof-corners")
def proof_corners(rng: np.random.Generator) -> Case:
    """A sum of rectifiers of one coordinate each whose kinks lie on corners of tiles, under a uniform prior.

    Pixel i depends on coordinate i alone, so that the integral is a product over the line.
    """
    d, units = int(rng.integers(1, 4)), int(rng.integers(2, 9))
    noise = short(log_uniform(rng, 0.02, 2))
    first, last = nn.Linear(d, d * units).double(), nn.Linear(d * units, d).double()
    places = rng.integers(-8, 9, size=(d, units)) / 8.0
    signs = rng.choice([-1.0, 1.0], size=(d, units))
    gains = rng.integers(-16, 17, size=(d, units)) / 8.0
    offset = rng.integers(-4, 5, size=d) / 4.0
    with torch.no_grad():
        first.weight.zero_()
        last.weight.zero_()
        for i, k in itertools.product(range(d), range(units)):
            first.weight[i * units + k, i] = signs[i, k]
            first.bias[i * units + k] = -signs[i, k] * places[i, k]
            last.weight[i, i * units + k] = gains[i, k]
        last.bias.copy_(tensor(offset))
    net = nn.Sequential(first, nn.ReLU(), last)
    low, high = -torch.ones(d, dtype=DOUBLE), torch.ones(d, dtype=DOUBLE)
    prior = td.Independent(td.Uniform(low, high), 1)
    with torch.no_grad():
        x = observed(rng, net(prior.sample(torch.Size([3]))).numpy(), noise)

    def truth(row: Array) -> tuple[float, float]:
        total = 0.0
        for i in range(d):
            breaks = np.unique(np.clip(places[i], -1, 1))
            breaks = breaks[(breaks > -1) & (breaks < 1)]
            middles = (np.concatenate([[-1.0], breaks]) + np.concatenate([breaks, [1.0]])) / 2
            on = signs[i] * (middles[:, None] - places[i]) > 0
            slope = (gains[i] * signs[i] * on).sum(-1)
            start = offset[i] - (gains[i] * signs[i] * places[i] * on).sum(-1)
            # A normal prior of large scale is flat on the support: the density 1/2 replaces it.
            wide = 1e8
            flat = log_piecewise(
                breaks,
                start[:, None],
                slope[:, None],
                np.full((len(slope), 1), noise),
                row[i : i + 1],
                (0.0, wide),
                (-1.0, 1.0),
            )
            total += flat - math.log(2) + math.log(wide) + 0.5 * math.log(2 * math.pi)
        return total, 1e-6 * (1 + abs(total))

    return ask(rng, model(rng, net, noise, prior), x, [truth(row) for row in x], f"d={d} units={units} noise={noise}")


@attack("proof-plane")
def proof_plane(rng: np.random.Generator) -> Case:
    """Networks of two inputs, by panels in the plane."""
    name = pick(rng, "relu", *ACTIVATIONS)
    pixels, gain = int(rng.integers(2, 12)), log_uniform(rng, 0.5, 3)
    noise = pick(rng, None, short(log_uniform(rng, 0.1, 1)))
    net = network(rng, [2, 12, pixels], {**ACTIVATIONS, "relu": nn.ReLU}[name], gain)

    def truth(row: Array) -> tuple[float, float]:
        def log_f(z: Array) -> Array:
            with torch.no_grad():
                out = net(torch.from_numpy(z)).numpy()
            score = log_bernoulli(row, out) if noise is None else log_normal(row, out, noise).sum(-1)
            return score + log_normal(z, 0.0, 1.0).sum(-1)

        value, error = log_integral(log_f, [np.linspace(-8.5, 8.5, 35)] * 2, 3e-5 if name == "relu" else 1e-7)
        # An observation far from the plane's image has its mass beyond the box, where the prior has 4 Φ(−8.5) at most.
        highest = 0.0 if noise is None else -pixels * math.log(noise * math.sqrt(2 * math.pi))
        beyond = float(np.logaddexp(value, highest + math.log(4) + norm.logcdf(-8.5))) - value
        return value + beyond / 2, beyond / 2 + error + 1e-8

    with torch.no_grad():
        x = observed(rng, net(tensor(rng.normal(size=(1, 2)))).numpy(), noise)
    about = f"{name} pixels={pixels} gain={gain:.1f} noise={noise}"
    return ask(rng, model(rng, net, noise, standard(2)), x, [truth(row) for row in x], about)


@attack("proof-saturated")
def proof_saturated(rng: np.random.Generator) -> Case:
    """Thousands of pixels with logits up to 1e6 around one that decides; the truth in closed form."""
    count, size = int(rng.integers(100, 4000)), log_uniform(rng, 10, 1e6)
    signs = rng.choice([-1.0, 1.0], size=count)
    d = int(rng.integers(1, 3))
    slope = short(log_uniform(rng, 0.01, 1e3))
    net = nn.Sequential(nn.Linear(d, count + 1).double())
    with torch.no_grad():
        net[0].weight.zero_()  # pyright: ignore
        net[0].weight[0, 0] = slope  # pyright: ignore
        net[0].bias.copy_(tensor(np.concatenate([[0.0], short(size * signs)])))  # pyright: ignore
    wrong = int(rng.integers(0, 3))  # pixels that the model takes for impossible
    x = np.concatenate([[1.0], (signs > 0).astype(float)])
    x[1 : 1 + wrong] = 1 - x[1 : 1 + wrong]
    levels = np.abs(short(size * signs))
    log_one = -np.logaddexp(0, -levels)  # of each pixel that is as expected
    value = math.log(0.5) + float(log_one[wrong:].sum() + (log_one[:wrong] - levels[:wrong]).sum())
    found = [(value, 1e-11 * (1 + abs(value)))]  # by symmetry pixel 0 has probability 1/2
    return ask(rng, model(rng, net, None, standard(d)), x[None], found, f"count={count} size={size:.2g} wrong={wrong}")


@attack("proof-edges")
def proof_edges(rng: np.random.Generator) -> Case:
    """Beta and gamma priors, singular or zero at their ends, under networks of one input."""
    a, b = short(log_uniform(rng, 0.1, 30)), short(log_uniform(rng, 0.1, 30))
    bounded = rng.random() < 0.6
    prior = td.Beta(tensor([a]), tensor([b])) if bounded else td.Gamma(tensor([a]), tensor([b]))
    pixels, noise = int(rng.integers(1, 5)), short(log_uniform(rng, 0.02, 3))
    net = network(rng, [1, 6, pixels], pick(rng, nn.Tanh, nn.ReLU), log_uniform(rng, 0.3, 10))
    with torch.no_grad():
        x = observed(rng, net(prior.sample(torch.Size([2]))).numpy(), noise)

    def truth(row: Array) -> tuple[float, float]:
        # With u = z^a (and v = (1 − z)^b near 1) the density has no singularity.
        def log_f(z: Array) -> Array:
            with torch.no_grad():
                return log_normal(row, net(torch.from_numpy(z[:, None])).numpy(), noise).sum(-1)

        weight, bias = layers_of(net)[0]
        kinks = -bias / weight[:, 0]
        steps = kinks[:, None] + np.abs(1 / weight[:, :1]) * np.linspace(-8, 8, 33)  # 0 among them
        places = np.unique(steps)
        end = 1.0 if bounded else (a + 60 * math.sqrt(a) + 800) / b
        middle = 0.5 if bounded else min(1.0, end / 2)
        inner = places[(places > 0) & (places < middle)]

        def left(u: Array) -> Array:
            z = u[:, 0] ** (1 / a)
            rest = (b - 1) * np.log1p(-z) if bounded else -b * z
            return log_f(z) + rest - math.log(a)

        found = [log_integral(left, [np.concatenate([np.linspace(0, middle**a, 65), inner**a])])]
        outer = places[(places > middle) & (places < end)]
        if bounded:

            def right(v: Array) -> Array:
                w = v[:, 0] ** (1 / b)
                return log_f(1 - w) + (a - 1) * np.log1p(-w) - math.log(b)

            found.append(log_integral(right, [np.concatenate([np.linspace(0, 0.5**b, 65), (1 - outer) ** b])]))
            constant = -math.lgamma(a) - math.lgamma(b) + math.lgamma(a + b)
        else:
            geometric = np.geomspace(middle, end, 257)

            def beyond(z: Array) -> Array:
                return log_f(z[:, 0]) + (a - 1) * np.log(z[:, 0]) - b * z[:, 0]

            found.append(log_integral(beyond, [np.concatenate([geometric, outer])]))
            constant = a * math.log(b) - math.lgamma(a)
        value = float(np.logaddexp.reduce([v for v, _ in found])) + constant
        return value, sum(e for _, e in found) + 1e-8 * (1 + abs(value))

    found = [truth(row) for row in x]
    subject = model(rng, net, noise, td.Independent(prior, 1))
    return ask(rng, subject, x, found, f"{'beta' if bounded else 'gamma'} a={a:.3g} b={b:.3g} noise={noise:.2g}")
