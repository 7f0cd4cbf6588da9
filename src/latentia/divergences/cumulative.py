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
from latentia.errors import CannotServe

_Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Cumulative:
    """The four functions of a law on the line, float64 (N,) to float64 (N,).

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
    td.Beta: lambda law: scipy.stats.beta(law.concentration1.item(), law.concentration0.item()),
    td.Cauchy: lambda law: scipy.stats.cauchy(law.loc.item(), law.scale.item()),
    td.Chi2: lambda law: scipy.stats.chi2(law.df.item()),
    td.Exponential: lambda law: scipy.stats.expon(scale=1 / law.rate.item()),
    td.Gamma: lambda law: scipy.stats.gamma(law.concentration.item(), scale=1 / law.rate.item()),
    td.Gumbel: lambda law: scipy.stats.gumbel_r(law.loc.item(), law.scale.item()),
    td.HalfCauchy: lambda law: scipy.stats.halfcauchy(scale=law.scale.item()),
    td.HalfNormal: lambda law: scipy.stats.halfnorm(scale=law.scale.item()),
    td.InverseGamma: lambda law: scipy.stats.invgamma(law.concentration.item(), scale=law.rate.item()),
    td.Laplace: lambda law: scipy.stats.laplace(law.loc.item(), law.scale.item()),
    td.LogNormal: lambda law: scipy.stats.lognorm(law.scale.item(), scale=law.loc.exp().item()),
    td.Normal: lambda law: scipy.stats.norm(law.loc.item(), law.scale.item()),
    td.Pareto: lambda law: scipy.stats.pareto(law.alpha.item(), scale=law.scale.item()),
    td.StudentT: lambda law: scipy.stats.t(law.df.item(), law.loc.item(), law.scale.item()),
    td.Uniform: lambda law: scipy.stats.uniform(law.low.item(), (law.high - law.low).item()),
    td.Weibull: lambda law: scipy.stats.weibull_min(law.concentration.item(), scale=law.scale.item()),
}


def cumulative(law: Distribution) -> Cumulative:
    """The distribution functions of a canonical law on the line.

    Raises:
        CannotServe: the law is not on the line, or has no distribution function that is known.
    """
    if law.event_shape:
        raise CannotServe("distribution functions are of laws on the line; in more dimensions use sliced or samples")
    if is_discrete(law):
        return _of_atoms(atoms(law)[0])
    if isinstance(law, Mixture):
        return _of_mixture(law)
    if type(law) in _SCIPY:
        frozen = _SCIPY[type(law)](law)
        return Cumulative(*(_through_numpy(f) for f in (frozen.cdf, frozen.sf, frozen.ppf, frozen.isf)))
    try:
        law.cdf(law.sample((1,)))
    except NotImplementedError:
        raise CannotServe(f"{law} has no distribution function; compare samples by wasserstein.samples") from None
    return Cumulative(law.cdf, lambda x: 1 - law.cdf(x), law.icdf, lambda v: law.icdf(1 - v))


def _through_numpy(function: Callable[..., Any]) -> _Function:
    def through(values: Tensor) -> Tensor:
        with np.errstate(all="ignore"):  # exp(−exp(−x)) overflows on its way to 0
            return torch.from_numpy(np.asarray(function(values.numpy()), dtype=np.float64))

    return through


def _of_atoms(law: Finite) -> Cumulative:
    points, order = law.points.sort()
    weights = law.weights[order]
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


def _of_mixture(law: Mixture) -> Cumulative:
    parts = [cumulative(part) for part in law.components]

    def mean(values: list[Tensor]) -> Tensor:
        return torch.einsum("k,kn->n", law.weights, torch.stack(values))

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
