"""Distribution functions on the line and their inverses, with full precision in both tails.

1 − F(x) loses every digit where F(x) is near 1, so the upper tail S = 1 − F and its inverse are separate functions.
For torch's families they come from scipy. A mixture's quantiles are found by bisection, between the smallest and the
largest quantile of its components.
"""

from __future__ import annotations

__all__: list[str] = []

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy  # imports its parts when they are first used
import torch
from torch import Tensor
from torch import distributions as td
from torch.distributions import Distribution

from latentia.distributions import ContinuousBernoulliDistribution, Finite, Mixture
from latentia.divergences._canonical import atoms, is_discrete, uniform_boxes
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


def _n(*parameters: Tensor) -> tuple[float, ...]:
    return tuple(parameter.item() for parameter in parameters)


_SCIPY: dict[type[Distribution], Callable[[Any], Any]] = {
    td.Beta: lambda d: scipy.stats.beta(*_n(d.concentration1, d.concentration0)),
    td.Cauchy: lambda d: scipy.stats.cauchy(*_n(d.loc, d.scale)),
    td.Chi2: lambda d: scipy.stats.chi2(*_n(d.df)),
    td.Exponential: lambda d: scipy.stats.expon(scale=1 / d.rate.item()),
    td.Gamma: lambda d: scipy.stats.gamma(*_n(d.concentration), scale=1 / d.rate.item()),
    td.Gumbel: lambda d: scipy.stats.gumbel_r(*_n(d.loc, d.scale)),
    td.HalfCauchy: lambda d: scipy.stats.halfcauchy(scale=d.scale.item()),
    td.HalfNormal: lambda d: scipy.stats.halfnorm(scale=d.scale.item()),
    td.InverseGamma: lambda d: scipy.stats.invgamma(*_n(d.concentration), scale=d.rate.item()),
    td.Laplace: lambda d: scipy.stats.laplace(*_n(d.loc, d.scale)),
    td.LogNormal: lambda d: scipy.stats.lognorm(*_n(d.scale), scale=d.loc.exp().item()),
    td.Normal: lambda d: scipy.stats.norm(*_n(d.loc, d.scale)),
    td.Pareto: lambda d: scipy.stats.pareto(*_n(d.alpha), scale=d.scale.item()),
    td.StudentT: lambda d: scipy.stats.t(*_n(d.df, d.loc, d.scale)),
    td.Uniform: lambda d: scipy.stats.uniform(*_n(d.low, d.high - d.low)),
    td.Weibull: lambda d: scipy.stats.weibull_min(*_n(d.concentration), scale=d.scale.item()),
}


def cumulative(distribution: Distribution) -> Cumulative:
    """The distribution functions of a canonical distribution on the line.

    Raises:
        UnsupportedError: the distribution is not on the line, or its distribution function is not known.
    """
    if distribution.event_shape:
        raise UnsupportedError(
            "distribution functions exist on the line; in more dimensions use empirical.sliced on samples"
        )
    if is_discrete(distribution):
        return _of_atoms(atoms(distribution)[0])
    if isinstance(distribution, Mixture):
        return _of_mixture(distribution)
    if type(distribution) in _SCIPY:
        frozen = _SCIPY[type(distribution)](distribution)
        return Cumulative(*(_through_numpy(f) for f in (frozen.cdf, frozen.sf, frozen.ppf, frozen.isf)))
    if isinstance(distribution, ContinuousBernoulliDistribution):
        mirrored = ContinuousBernoulliDistribution(-distribution.logits)
        return Cumulative(
            distribution.cdf, lambda x: mirrored.cdf(1 - x), distribution.icdf, lambda v: 1 - mirrored.icdf(v)
        )
    try:
        distribution.icdf(distribution.cdf(distribution.sample((1,))))
    except NotImplementedError:
        raise UnsupportedError(f"{distribution} has no known distribution function; use wasserstein.samples") from None
    return Cumulative(
        distribution.cdf, lambda x: 1 - distribution.cdf(x), distribution.icdf, lambda v: distribution.icdf(1 - v)
    )


def _through_numpy(function: Callable[..., Any]) -> _Function:
    def call(values: Tensor) -> Tensor:
        # exp(−exp(−x)) overflows before it is 0, and a quantile of a beta distribution may stop before its last digit.
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            return torch.from_numpy(np.asarray(function(values.numpy()), dtype=np.float64))

    return call


def _of_atoms(distribution: Finite) -> Cumulative:
    points, order = distribution.points.sort()
    weights = distribution.weights[order]
    zero = weights.new_zeros(1)
    below = torch.cat([zero, weights.cumsum(0)])
    above = torch.cat([weights.flip(0).cumsum(0).flip(0), zero])
    last = len(points) - 1

    def upper_quantile(v: Tensor) -> Tensor:
        # `above` decreases along the points, so the search for the least x with S(x) <= v runs from the top.
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


@dataclass(frozen=True)
class Linear:
    """A piecewise linear quantile function: the mass of each piece from the lowest, and its values at both ends."""

    mass: np.ndarray
    start: np.ndarray
    end: np.ndarray

    def at(self, lower: np.ndarray, upper: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values at both ends of intervals (lower, upper) of u that contain no knot."""
        knots = np.concatenate([[0.0], self.mass.cumsum()])
        index = np.clip(np.searchsorted(knots, 0.5 * (lower + upper), side="right") - 1, 0, len(self.mass) - 1)
        slope = (self.end - self.start)[index] / self.mass[index]
        return tuple(self.start[index] + slope * (u - knots[index]) for u in (lower, upper))  # pyright: ignore


def linear_quantiles(distribution: Distribution) -> Linear | None:
    """The quantile function of a finite or uniform distribution or of a mixture of uniforms; None for any other."""
    if isinstance(distribution, Finite) and not distribution.event_shape:
        points, order = distribution.points.sort()
        weights = distribution.weights[order].numpy()
        kept = weights > 0
        return Linear(weights[kept], points.numpy()[kept], points.numpy()[kept])
    known = None if distribution.event_shape else uniform_boxes(distribution)
    if known is None:
        return None
    (low, high), weights = known[0][:, 0].T, known[1]
    edges = np.unique(np.concatenate([low, high]))
    start, end = edges[:-1], edges[1:]
    inside = (low <= start[:, None]) & (high >= end[:, None])
    mass = (inside * weights / (high - low)).sum(-1) * (end - start)
    return Linear(mass[mass > 0], start[mass > 0], end[mass > 0])
