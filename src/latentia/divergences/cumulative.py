"""Distribution functions on the line, and their inverses, with full precision in both tails.

1 − F(x) loses every digit where F(x) is near 1, so the upper tail S = 1 − F and its inverse are functions of their own.
For torch's families they come from scipy; a mixture's quantiles are found by bisection, between the least and the
greatest of its components' quantiles.
"""

from __future__ import annotations

__all__ = ["Cumulative", "cumulative"]

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy  # its parts are slow to import; it does that when they are first used
import torch
from torch import Tensor
from torch import distributions as td
from torch.distributions import Distribution

from latentia.distributions.finite import Finite
from latentia.distributions.mixtures import Mixture
from latentia.divergences.supports import atoms, is_discrete
from latentia.errors import UnsupportedError

_Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Cumulative:
    """The four functions of a distribution on the line, float64 (N,) to float64 (N,).

    Attributes:
        below: F(x) = P(X ≤ x).
        above: S(x) = P(X > x).
        quantile: the least x with F(x) ≥ u, for u in (0, 1).
        upper_quantile: the least x with S(x) ≤ v, for v in (0, 1): `quantile(1 − v)`, without the subtraction.
    """

    below: _Function
    above: _Function
    quantile: _Function
    upper_quantile: _Function


_SCIPY: dict[type[Distribution], Callable[[Any], Any]] = {
    td.Beta: lambda distribution: scipy.stats.beta(
        distribution.concentration1.item(), distribution.concentration0.item()
    ),
    td.Cauchy: lambda distribution: scipy.stats.cauchy(distribution.loc.item(), distribution.scale.item()),
    td.Chi2: lambda distribution: scipy.stats.chi2(distribution.df.item()),
    td.Exponential: lambda distribution: scipy.stats.expon(scale=1 / distribution.rate.item()),
    td.Gamma: lambda distribution: scipy.stats.gamma(
        distribution.concentration.item(), scale=1 / distribution.rate.item()
    ),
    td.Gumbel: lambda distribution: scipy.stats.gumbel_r(distribution.loc.item(), distribution.scale.item()),
    td.HalfCauchy: lambda distribution: scipy.stats.halfcauchy(scale=distribution.scale.item()),
    td.HalfNormal: lambda distribution: scipy.stats.halfnorm(scale=distribution.scale.item()),
    td.InverseGamma: lambda distribution: scipy.stats.invgamma(
        distribution.concentration.item(), scale=distribution.rate.item()
    ),
    td.Laplace: lambda distribution: scipy.stats.laplace(distribution.loc.item(), distribution.scale.item()),
    td.LogNormal: lambda distribution: scipy.stats.lognorm(
        distribution.scale.item(), scale=distribution.loc.exp().item()
    ),
    td.Normal: lambda distribution: scipy.stats.norm(distribution.loc.item(), distribution.scale.item()),
    td.Pareto: lambda distribution: scipy.stats.pareto(distribution.alpha.item(), scale=distribution.scale.item()),
    td.StudentT: lambda distribution: scipy.stats.t(
        distribution.df.item(), distribution.loc.item(), distribution.scale.item()
    ),
    td.Uniform: lambda distribution: scipy.stats.uniform(
        distribution.low.item(), (distribution.high - distribution.low).item()
    ),
    td.Weibull: lambda distribution: scipy.stats.weibull_min(
        distribution.concentration.item(), scale=distribution.scale.item()
    ),
}


def cumulative(distribution: Distribution) -> Cumulative:
    """The distribution functions of a canonical distribution on the line.

    Raises:
        UnsupportedError: the distribution is not on the line, or has no distribution function that is known.
    """
    if distribution.event_shape:
        raise UnsupportedError(
            "distribution functions are of distributions on the line; in more dimensions use sliced or samples"
        )
    if is_discrete(distribution):
        return _of_atoms(atoms(distribution)[0])
    if isinstance(distribution, Mixture):
        return _of_mixture(distribution)
    if type(distribution) in _SCIPY:
        frozen = _SCIPY[type(distribution)](distribution)
        return Cumulative(*(_through_numpy(f) for f in (frozen.cdf, frozen.sf, frozen.ppf, frozen.isf)))
    try:
        distribution.cdf(distribution.sample((1,)))
    except NotImplementedError:
        raise UnsupportedError(
            f"{distribution} has no distribution function; compare samples by wasserstein.samples"
        ) from None
    return Cumulative(
        distribution.cdf, lambda x: 1 - distribution.cdf(x), distribution.icdf, lambda v: distribution.icdf(1 - v)
    )


def _through_numpy(function: Callable[..., Any]) -> _Function:
    def through(values: Tensor) -> Tensor:
        with np.errstate(all="ignore"):  # exp(−exp(−x)) overflows on its way to 0
            return torch.from_numpy(np.asarray(function(values.numpy()), dtype=np.float64))

    return through


def _of_atoms(distribution: Finite) -> Cumulative:
    points, order = distribution.points.sort()
    weights = distribution.weights[order]
    zero = weights.new_zeros(1)
    below = torch.cat([zero, weights.cumsum(0)])
    above = torch.cat([weights.flip(0).cumsum(0).flip(0), zero])
    last = len(points) - 1

    def upper_quantile(v: Tensor) -> Tensor:
        # `above` falls along the atoms: the least x with S(x) <= v is found from the top.
        return points[(last - torch.searchsorted(above[1:].flip(0).contiguous(), v, right=True) + 1).clamp(0, last)]

    return Cumulative(
        below=lambda x: below[torch.searchsorted(points, x, right=True)],
        above=lambda x: above[torch.searchsorted(points, x, right=True)],
        quantile=lambda u: points[torch.searchsorted(below[1:].contiguous(), u).clamp(max=last)],
        upper_quantile=upper_quantile,
    )


def _of_mixture(distribution: Mixture) -> Cumulative:
    parts = [cumulative(part) for part in distribution.components]

    def mean(values: list[Tensor]) -> Tensor:
        return torch.einsum("k,kn->n", distribution.weights, torch.stack(values))

    def below(x: Tensor) -> Tensor:
        return mean([part.below(x) for part in parts])

    def above(x: Tensor) -> Tensor:
        return mean([part.above(x) for part in parts])

    def bisect(ends: list[Tensor], too_low: Callable[[Tensor], Tensor]) -> Tensor:
        low, high = torch.stack(ends).amin(0), torch.stack(ends).amax(0)
        for _ in range(80):
            middle = 0.5 * (low + high)
            up = too_low(middle)
            low, high = torch.where(up, middle, low), torch.where(up, high, middle)
            if bool((high - low <= 2e-16 * torch.maximum(low.abs(), high.abs())).all()):
                break
        return high

    return Cumulative(
        below=below,
        above=above,
        quantile=lambda u: bisect([part.quantile(u) for part in parts], lambda x: below(x) < u),
        upper_quantile=lambda v: bisect([part.upper_quantile(v) for part in parts], lambda x: above(x) > v),
    )
