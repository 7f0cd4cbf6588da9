r"""Optimal transport on the line, where the optimal coupling pairs equal quantiles.

W_p^p = ∫₀¹ |F⁻¹(u) − G⁻¹(u)|^p du, and W₁ = ∫ |F(x) − G(x)| dx. For distributions whose quantile functions are piecewise linear
(finite distributions, uniform distributions and their mixtures) the first integral is a finite sum.
"""

from __future__ import annotations

__all__ = ["Linear", "between_linear", "bures", "closed_form", "linear_quantiles"]

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import distributions as td
from torch.distributions import Distribution

from latentia.distributions.finite import Finite
from latentia.divergences.partitions import uniform_boxes
from latentia.divergences.supports import heaviest_moment


@dataclass(frozen=True)
class Linear:
    """A piecewise linear quantile function: mass by mass from the lowest, where each stretch begins and ends."""

    mass: np.ndarray
    start: np.ndarray
    end: np.ndarray

    def at(self, lower: np.ndarray, upper: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values at both ends of intervals (lower, upper) of u, none of which crosses a knot."""
        knots = np.concatenate([[0.0], self.mass.cumsum()])
        index = np.clip(np.searchsorted(knots, 0.5 * (lower + upper), side="right") - 1, 0, len(self.mass) - 1)
        slope = (self.end - self.start)[index] / self.mass[index]
        return tuple(self.start[index] + slope * (u - knots[index]) for u in (lower, upper))  # pyright: ignore


def linear_quantiles(distribution: Distribution) -> Linear | None:
    """The quantile function of a finite distribution, of a uniform distribution or of a mixture of uniforms; None for any other distribution."""
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


def between_linear(p: Linear, q: Linear, order: int) -> float:
    """W_order^order between distributions with piecewise linear quantile functions, a finite sum. order: 1 or 2."""
    knots = np.unique(np.concatenate([[0.0], p.mass.cumsum()[:-1], q.mass.cumsum()[:-1], [1.0]]))
    knots = knots[(knots >= 0) & (knots <= 1)]
    lower, upper = knots[:-1], knots[1:]
    (p0, p1), (q0, q1) = p.at(lower, upper), q.at(lower, upper)
    a, b = p0 - q0, p1 - q1
    if order == 2:
        mean = (a * a + a * b + b * b) / 3
    else:
        crossing = a * b < 0
        span = np.where(crossing, np.abs(a - b), 1.0)
        mean = np.where(crossing, (a * a + b * b) / (2 * span), (np.abs(a) + np.abs(b)) / 2)
    return float((mean * (upper - lower)).sum())


@dataclass(frozen=True)
class _Family:
    """Distributions of X = shift + width Z for one standard Z: its first two moments, and E|δ + Δ Z| where it is known."""

    shift_and_width: Callable[[Any], tuple[float, float]]
    moments: Callable[[Any], tuple[float, float]]
    absolute: Callable[[float, float], float] | None = None
    same_shape: Callable[[Any, Any], bool] = lambda *_: True


def _folded_normal(shift: float, width: float) -> float:
    """E|shift + width Z| for a standard Gaussian Z."""
    if width == 0:
        return abs(shift)
    ratio = shift / width
    return abs(width) * math.sqrt(2 / math.pi) * math.exp(-0.5 * ratio * ratio) + shift * math.erf(
        ratio / math.sqrt(2)
    ) * math.copysign(1, width)


def _folded_laplace(shift: float, width: float) -> float:
    """E|shift + width Z| for Z ~ Laplace(0, 1)."""
    return abs(shift) + abs(width) * math.exp(-abs(shift / width)) if width else abs(shift)


def _loc_scale(distribution: Any) -> tuple[float, float]:
    return distribution.loc.item(), distribution.scale.item()


_EULER = 0.57721566490153286061
_FAMILIES: dict[type[Distribution], _Family] = {
    td.Normal: _Family(_loc_scale, lambda _: (0.0, 1.0), _folded_normal),
    td.Laplace: _Family(_loc_scale, lambda _: (0.0, 2.0), _folded_laplace),
    td.Gumbel: _Family(_loc_scale, lambda _: (_EULER, _EULER**2 + math.pi**2 / 6)),
    td.Cauchy: _Family(_loc_scale, lambda _: (math.nan, math.inf)),
    td.StudentT: _Family(
        _loc_scale,
        lambda distribution: (
            0.0,
            distribution.df.item() / (distribution.df.item() - 2) if distribution.df > 2 else math.inf,
        ),
        same_shape=lambda p, q: p.df == q.df,
    ),
    td.Exponential: _Family(lambda distribution: (0.0, 1 / distribution.rate.item()), lambda _: (1.0, 2.0)),
    td.Gamma: _Family(
        lambda distribution: (0.0, 1 / distribution.rate.item()),
        lambda distribution: (
            distribution.concentration.item(),
            distribution.concentration.item() * (1 + distribution.concentration.item()),
        ),
        same_shape=lambda p, q: p.concentration == q.concentration,
    ),
}


def closed_form(p: Distribution, q: Distribution, order: int) -> float | None:
    """W_order^order between two members of one location-scale family, whose quantiles differ by δ + Δ Z.

    None where it is not known; +inf where Δ ≠ 0 and Z lacks the moment. order: 1 or 2.
    """
    family = _FAMILIES.get(type(p))
    if family is None or type(p) is not type(q) or not family.same_shape(p, q):
        return None
    (shift_p, width_p), (shift_q, width_q) = family.shift_and_width(p), family.shift_and_width(q)
    shift, width = shift_p - shift_q, width_p - width_q
    if width == 0:
        return abs(shift) ** order
    if heaviest_moment(p) <= order:
        return math.inf
    first, second = family.moments(p)
    if order == 2:
        return shift * shift + 2 * shift * width * first + width * width * second
    if family.absolute:
        return family.absolute(shift, width)
    positive = type(p) in (td.Exponential, td.Gamma)
    return abs(width) * first if positive and shift == 0 else None


def bures(mean_p: torch.Tensor, covariance_p: torch.Tensor, mean_q: torch.Tensor, covariance_q: torch.Tensor) -> float:
    """W₂² between Gaussians: |δ|² + tr(A + B − 2 (A^½ B A^½)^½).

    The trace of the root is the sum of the singular values of A^½ B^½ (its nuclear norm), which squares no condition
    number. Source: Dowson and Landau 1982; Gelbrich 1990.
    """
    root_p, root_q = (_root(covariance) for covariance in (covariance_p, covariance_q))
    cross = torch.linalg.svdvals(root_p @ root_q).sum()
    spread = covariance_p.diagonal().sum() + covariance_q.diagonal().sum() - 2 * cross
    return ((mean_p - mean_q).square().sum() + spread.clamp_min(0)).item()


def _root(covariance: torch.Tensor) -> torch.Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T
