"""KL divergences between a known density of the data and a model with an exact likelihood, in both directions.

    KL(data, model) = ∫ p log(p/q) dx      by quadrature over x: Gauss-Hermite around each Gaussian of a mixture,
                                           Gauss-Legendre on each uniform square
    KL(model, data) = ∫ q log(q/p) dx      by the trapezoidal rule over a grid of x; ∞ where the data have no mass

In the first, log q(x) is the model's exact log-likelihood, by quadrature over z of at most three dimensions. In the
second, x has one or two coordinates that are independent Gaussians given z, with densities a(x₁|z) and b(x₂|z): q on a
whole grid is then one product of matrices, Σ w(z) a(x₁|z) b(x₂|z) over a lattice of z, which is cheap for a million z.
The lattice and the grid are refined until the integral stays. Where that does not happen, for other likelihoods (a grid
would leave out heavy tails), z of three dimensions and x of more than two, the second is the mean of log(q/p) over
draws of x from the model, with its standard error.

The data's distribution is a mixture of Gaussians or of uniform boxes, as all toy distributions are.
"""

from __future__ import annotations

__all__ = ["divergences_from_known"]

import math
import time
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.distributions import (
    Categorical,
    Distribution,
    Independent,
    MixtureSameFamily,
    Normal,
    Uniform,
)

from latentia.distributions import log_density
from latentia.errors import UnsupportedError
from latentia.estimate import Estimate
from latentia.likelihood.charts import Chart, charts_of
from latentia.likelihood.latent_model import LatentModel
from latentia.likelihood.quadrature import exact_log_likelihood

NODES = 1000  # of x, about; a likelihood takes some 10 ms
FEWEST, MOST = 3, 24  # nodes along an axis of one component
TOLERANCE = 0.01  # nats, of each log q(x); the error of their mean comes out far smaller
REACH = 7.0  # of the lattice of z in its unit coordinates; a normal distribution has 3e-12 of its mass beyond
LATTICES = {1: (2**12, 2**14, 2**16, 2**18), 2: (128, 256, 512, 1024)}  # nodes along an axis of z, in turn
PER_SCALE = (2, 4, 8, 16)  # nodes of the grid of x in the smallest standard deviation of p(x|z), in turn
GRID = {1: 20_001, 2: 501}  # nodes along an axis of x at most
MARGIN = 9.0  # standard deviations of p(x|z) around its means that the grid covers
AT_ONCE = 4096


def divergences_from_known(
    data: Distribution, model: Any, *, draws: int = 1000, seconds: float = 300.0
) -> list[Estimate]:
    """KL(data, model) and KL(model, data), in nats.

    The error of the first is the difference to the rule with one node fewer along each axis, plus the error of the mean
    of log q. That of the second is the difference to a lattice of z and a grid of x with half as many nodes along each
    axis; where it does not come out below 0.01 nats or 1 % of the value, the second is a mean over draws of x from the
    model, by torch's global generator, with its standard error.

    Args:
        data: a mixture of Gaussians or of uniform boxes, event shape (d,).
        model: a `VAE`, a run or a `LatentModel`, with z of at most three dimensions.
        draws: of x, for the second where it is not integrated.
        seconds: time allowed for each set of likelihoods.

    Raises:
        UnsupportedError: for another distribution of the data, such as a point mass, or likelihoods that are not
            reached in the time.
    """
    latent = LatentModel.from_model(model)
    mixture, base = _components(data)
    count, dimension = base.batch_shape[0], base.batch_shape[1]
    order = min(MOST, max(FEWEST, int((NODES / count) ** (1 / dimension))))
    values = [_forward(latent, mixture, base, order - less, seconds) for less in (0, 1)]
    error = abs(values[0][0] - values[1][0]) + values[0][1]
    nodes = count * order**dimension
    settings = {"nodes": nodes, "error": error, "tolerance": TOLERANCE}
    forward = Estimate(
        values[0][0],
        "kl_data_model",
        n=count * order**dimension,
        kind="numerical",
        method="quadrature",
        settings=settings,
    )
    backward = _integrated(latent, mixture, base, seconds) or _sampled(latent, data, draws, seconds)
    return [forward, backward]


def _integrated(model: LatentModel, mixture: Categorical, base: Normal | Uniform, seconds: float) -> Estimate | None:
    """KL(model, data) by quadrature over z and x; None where that does not serve."""
    dimension = base.batch_shape[1]
    if dimension not in GRID or model.latent not in LATTICES or not model.has_grid:
        return None
    ends, before, value, error, nodes = time.monotonic() + seconds, math.inf, math.nan, math.inf, 0
    log_p = torch.zeros(0)
    with model.evaluating():
        charts = charts_of(model.prior, model.log_prior)
        box = _box(model, charts, dimension)
        if box is None:
            return None
        for nodes, per_scale in zip(LATTICES[model.latent], PER_SCALE, strict=True):
            begun = time.monotonic()
            axes = _axes(*box, per_scale)
            log_p = _log_mixture(mixture, base, torch.cartesian_prod(*axes.T).reshape(-1, dimension))
            if bool(log_p.isinf().any()):  # p(x|z) is positive everywhere
                about = {"x_without_density": int(log_p.isinf().sum()), "grid": len(log_p)}
                return Estimate(math.inf, "kl_model_data", kind="exact", method="absolute continuity", settings=about)
            q, mass = _density_on_grid(model, charts, nodes, axes)
            cell = (axes[1] - axes[0]).prod()
            value = float(cell * (torch.xlogy(q, q) - q * log_p.view(q.shape)).sum())
            error, before = abs(value - before) + abs(1 - mass), value
            if error < TOLERANCE / 10 * max(1.0, abs(value)) or 2 * time.monotonic() - begun > ends:
                break
    if error > TOLERANCE * max(1.0, abs(value)):
        return None
    settings = {"lattice": nodes**model.latent, "grid": len(log_p), "error": error}
    return Estimate(value, "kl_model_data", n=len(log_p), kind="numerical", method="quadrature", settings=settings)


def _box(model: LatentModel, charts: list[Chart], dimension: int) -> tuple[Tensor, Tensor, Tensor] | None:
    """Corners of a box of x that holds the model, and the smallest scale of p(x|z); None for other densities."""
    means, scales = [], []
    for z, weights in _lattice(charts, model.latent, LATTICES[model.latent][0]):
        base = _coordinates(model, z[weights > 1e-14])
        if base is None or base.batch_shape[1:] != (dimension,):
            return None
        means.append(base.mean.double().cpu())
        scales.append(base.stddev.double().cpu())
    mean, scale = torch.cat(means), torch.cat(scales)
    return (mean - MARGIN * scale).amin(0), (mean + MARGIN * scale).amax(0), scale.amin(0)


def _axes(low: Tensor, high: Tensor, scale: Tensor, per_scale: int) -> Tensor:
    """The axes of a grid of x, (n, dimension)."""
    wanted = (per_scale * (high - low) / scale).max().item()
    count = min(GRID[len(low)], 1 + math.ceil(wanted))
    return torch.stack([torch.linspace(a, b, count, dtype=torch.float64) for a, b in zip(low, high, strict=True)], 1)


def _coordinates(model: LatentModel, z: Tensor) -> Distribution | None:
    """p(x|z) of the single coordinates, batch shape (M, D); None where they are dependent, or not Gaussian.

    The grid leaves out what lies beyond 9 standard deviations, which only light tails allow.
    """
    found = model.decoder(z.to(model.device, model.dtype))
    base = found.base_dist if isinstance(found, Independent) and found.reinterpreted_batch_ndims == 1 else None
    return base if isinstance(base, Normal) else None


def _lattice(charts: list[Chart], d: int, nodes: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Pieces of a lattice of z: z (M, d) and weights (M,); the weights of all pieces sum to 1."""
    line = torch.linspace(-REACH, REACH, nodes + 1, dtype=torch.float64)
    log_cell = d * (line[1] - line[0]).log()
    for chart in charts:
        for first in line.split(max(1, AT_ONCE // (nodes + 1) ** (d - 1))):
            u = torch.cartesian_prod(first, *[line] * (d - 1)).reshape(-1, d)
            z = chart.to_z(u)
            log_weights = chart.log_density(u, z) + log_cell
            kept = log_weights > -45  # e^-45 is 3e-20
            if bool(kept.any()):
                yield z[kept], log_weights[kept].exp()


def _density_on_grid(model: LatentModel, charts: list[Chart], nodes: int, axes: Tensor) -> tuple[Tensor, float]:
    """q on the grid, (n,) or (n, n), and the sum of the lattice's weights."""
    n, dimension = axes.shape
    total, mass = torch.zeros([n] * dimension, dtype=torch.float64), 0.0
    for z, weights in _lattice(charts, model.latent, nodes):
        base = _coordinates(model, z)
        assert base is not None
        density = base.log_prob(axes[:, None].to(model.device, model.dtype)).exp().double().cpu()  # (n, M, dimension)
        mass += weights.sum().item()
        first = density[..., 0] * weights
        total += first.sum(1) if dimension == 1 else first @ density[..., 1].T
    return total, mass


def _log_mixture(mixture: Categorical, base: Normal | Uniform, x: Tensor) -> Tensor:
    """log p(x) of the data in float64, (M, D) → (M,)."""
    log_weights = mixture.probs.double().log()
    if isinstance(base, Normal):
        parts: Distribution = Normal(base.loc.double(), base.scale.double(), validate_args=False)
    else:
        parts = Uniform(base.low.double(), base.high.double(), validate_args=False)
    scores = [parts.log_prob(some[:, None]).sum(-1).add(log_weights).logsumexp(1) for some in x.split(AT_ONCE)]
    return torch.cat(scores)


def _sampled(model: LatentModel, data: Distribution, draws: int, seconds: float) -> Estimate:
    """KL(model, data) from draws of the model."""
    with torch.no_grad():
        z = model.prior.sample(torch.Size([draws])).to(model.device, model.dtype)
        x = model.decoder(z).sample()
    log_p = log_density(data, x.cpu()).double()
    outside = int(log_p.isinf().sum())
    if outside:  # with a density that is positive everywhere, the data's zeros have mass under the model
        settings = {"draws_outside": outside, "draws": draws}
        return Estimate(
            math.inf, "kl_model_data", n=draws, kind="exact", method="absolute continuity", settings=settings
        )
    log_q, _ = _exact(model, x, seconds)
    return Estimate.mean(log_q - log_p, name="kl_model_data", settings={"tolerance": TOLERANCE})


def _forward(
    model: LatentModel, mixture: Categorical, base: Normal | Uniform, order: int, seconds: float
) -> tuple[float, float]:
    """The integral, and the error that log q contributes."""
    x, weights = _nodes(mixture, base, order)
    log_p = _log_mixture(mixture, base, x)
    log_q, errors = _exact(model, x.float(), seconds)
    return float((weights * (log_p - log_q)).sum()), float((weights * errors).sum())


def _exact(model: LatentModel, x: Tensor, seconds: float) -> tuple[Tensor, Tensor]:
    """log q(x) and its error, float64, on the CPU."""
    result = exact_log_likelihood(model, x.to(model.device, model.dtype), TOLERANCE, seconds=seconds)
    return result.values.cpu(), result.errors.cpu()


def _components(data: Distribution) -> tuple[Categorical, Normal | Uniform]:
    """Weights and components of a mixture; the components have batch shape (K, d).

    Raises:
        UnsupportedError: for another distribution.
    """
    if isinstance(data, MixtureSameFamily) and isinstance(data.component_distribution, Independent):
        base = data.component_distribution.base_dist
        if isinstance(base, Normal | Uniform) and len(base.batch_shape) == 2:
            return cast(Categorical, data.mixture_distribution), base
    raise UnsupportedError(
        "KL divergences are integrated for mixtures of Gaussians and of boxes, and the data are a "
        f"{type(data).__name__}; average log p(x) over draws of the data: latentia.evaluate(run, likelihood='exact')"
    )


def _nodes(mixture: Categorical, base: Normal | Uniform, order: int) -> tuple[Tensor, Tensor]:
    """Nodes (M, d) and weights (M,) that integrate against the mixture, float64; the weights sum to one."""
    if isinstance(base, Normal):
        line, weight = np.polynomial.hermite_e.hermegauss(order)
        start, scale = base.loc.double(), base.scale.double()
    else:
        line, weight = np.polynomial.legendre.leggauss(order)
        start = (base.low + base.high).double() / 2
        scale = (base.high - base.low).double() / 2
    count, dimension = start.shape
    axes = [torch.from_numpy(line)] * dimension
    grid = torch.cartesian_prod(*axes).reshape(-1, dimension)  # (order^d, d)
    product = (
        torch.cartesian_prod(*[torch.from_numpy(weight / weight.sum())] * dimension).reshape(-1, dimension).prod(1)
    )
    x = start[:, None] + scale[:, None] * grid
    weights = mixture.probs.double()[:, None] * product
    return x.reshape(-1, dimension), weights.reshape(count * len(grid))
