"""KL divergences between a known density of the data and a model with an exact likelihood, in both directions.

    KL(data, model) = ∫ p log(p/q) dx      by quadrature over x: Gauss-Hermite around each Gaussian of a mixture,
                                           Gauss-Legendre on each uniform square
    KL(model, data) = E_q log(q/p)         the mean over draws of the model; ∞ where the data have no mass

log q(x) is the model's exact log-likelihood, by quadrature over z of at most three dimensions. The data's distribution
is a mixture of Gaussians or of uniform boxes, as all toy distributions are.
"""

from __future__ import annotations

__all__ = ["divergences_from_known"]

import math
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily, Normal, Uniform

from latentia.distributions import log_density
from latentia.errors import UnsupportedError
from latentia.estimate import Estimate
from latentia.likelihood.latent_model import LatentModel
from latentia.likelihood.quadrature import exact_log_likelihood

NODES = 1000  # of x, about; a likelihood takes some 10 ms
FEWEST, MOST = 3, 24  # nodes along an axis of one component
TOLERANCE = 0.01  # nats, of each log q(x); the error of their mean comes out far smaller


def divergences_from_known(
    data: Distribution, model: Any, *, draws: int = 1000, seconds: float = 300.0
) -> list[Estimate]:
    """KL(data, model) and KL(model, data), in nats.

    The error of the first is the difference to the rule with one node fewer along each axis, plus the error of the mean
    of log q. The second is a mean over draws of x from the model, by torch's global generator, with its standard error.

    Args:
        data: a mixture of Gaussians or of uniform boxes, event shape (d,).
        model: a `VAE`, a run or a `LatentModel`, with z of at most three dimensions.
        draws: of x, for the second.
        seconds: time allowed for each set of likelihoods.

    Raises:
        UnsupportedError: for another distribution of the data, such as a point mass, or likelihoods that are not
            reached in the time.
    """
    latent = LatentModel.from_model(model)
    mixture, base = _components(data)
    count, dimension = base.batch_shape[0], base.batch_shape[1]
    order = min(MOST, max(FEWEST, int((NODES / count) ** (1 / dimension))))
    values = [_forward(latent, data, mixture, base, order - less, seconds) for less in (0, 1)]
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
    return [forward, _backward(latent, data, draws, seconds)]


def _backward(model: LatentModel, data: Distribution, draws: int, seconds: float) -> Estimate:
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
    model: LatentModel, data: Distribution, mixture: Categorical, base: Normal | Uniform, order: int, seconds: float
) -> tuple[float, float]:
    """The integral, and the error that log q contributes."""
    x, weights = _nodes(mixture, base, order)
    log_p = log_density(data, x.float()).double()
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
