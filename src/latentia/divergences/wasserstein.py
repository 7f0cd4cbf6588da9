r"""Wasserstein distances W₁ and W₂ between distributions: the least mean (root mean square) distance of any coupling.

They are metrics, in the unit of the space itself, and measure how far apart disjoint distributions are, which relative
entropy and Jensen-Shannon divergence do not.

On the line the optimal coupling pairs equal quantiles: W_pᵖ = ∫₀¹ |F⁻¹(u) − G⁻¹(u)|ᵖ du and W₁ = ∫ |F(x) − G(x)| dx.
For piecewise linear quantile functions (finite distributions, uniform distributions and their mixtures) the first is a
finite sum. Between Gaussians W₂ has a closed form in any dimension. `latentia.divergences.empirical` compares samples.
"""

from __future__ import annotations

__all__ = ["exact", "optimal_map", "quadrature", "samples"]

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch import distributions as td
from torch.distributions import Distribution

from latentia.distributions import Finite
from latentia.divergences._canonical import (
    atoms,
    canonical_pair,
    dimension,
    gaussian_of,
    heaviest_moment,
    is_discrete,
    rounding_of_masses,
    same_distribution,
)
from latentia.divergences._cumulative import Linear, cumulative, linear_quantiles
from latentia.divergences._integrals import breakpoints, exactly, mean_over_draws, with_crossings
from latentia.divergences.empirical import LARGEST_ASSIGNMENT, assignment, bures, name_of, samples
from latentia.errors import UnsupportedError
from latentia.estimate import Estimate
from latentia.integration import RunningMean, integrate

_GROUPS = 20
_SMALLEST_JUMP = 1e-25  # of a distribution function; smaller ones are lost in its rounding


def _known(p: Distribution, q: Distribution, order: int) -> Estimate | None:
    """0 between distributions known to be equal, and +∞ where the tails are too far apart."""
    name = name_of(order)
    if same_distribution(p, q):
        return exactly(0.0, name, unit="1", method="equal distributions")
    reason = None
    moments = heaviest_moment(p), heaviest_moment(q)
    if dimension(p) == 1 and moments[0] != moments[1] and min(moments) <= order:
        which, other = ("P", "Q") if moments[0] < moments[1] else ("Q", "P")
        reason = f"E|x|^{order} is infinite under {which}, whose tail is heavier than that of {other}"
    elif _closed_form(p, q, order) == math.inf:
        reason = f"the quantiles differ by δ + Δ z, Δ ≠ 0, and E|z|^{order} is infinite"
    return reason and exactly(math.inf, name, {"reason": reason}, unit="1", method="moments")  # pyright: ignore


def exact(p: Distribution, q: Distribution, order: int = 1) -> Estimate:
    """W_order(P, Q) by closed form or finite sum, in the unit of x.

    It applies to finite distributions (on the line, and small ones in Rᵈ), to uniform distributions on the line and
    their mixtures, to two members of a location-scale family where the integral is known, and to Gaussians in Rᵈ (order
    2, and order 1 for one covariance).

    Args:
        p: a distribution.
        q: another over the same space.
        order: 1 or 2.

    Raises:
        UnsupportedError: none of these; the message names a method that applies.
        ConfigurationError: a batch of distributions, or distributions over different spaces.
    """
    p, q = canonical_pair(p, q)
    name = name_of(order)
    known = _known(p, q, order)
    if known:
        return known
    first, second = linear_quantiles(p), linear_quantiles(q)
    if first and second:
        cost = _between_linear(first, second, order)
        return exactly(cost ** (1 / order), name, unit="1", method="finite sum")
    cost = _closed_form(p, q, order)
    if cost is not None:
        return exactly(cost ** (1 / order), name, unit="1")
    gaussians = gaussian_of(p), gaussian_of(q)
    if gaussians[0] and gaussians[1]:
        shift = gaussians[0].mean - gaussians[1].mean
        if torch.equal(gaussians[0].factor, gaussians[1].factor):
            return exactly(shift.norm().item(), name, unit="1", method="translation")
        if order == 2:
            return exactly(
                math.sqrt(bures(shift, gaussians[0].factor, gaussians[1].factor)), name, unit="1", method="bures"
            )
    if isinstance(p, Finite) and isinstance(q, Finite):
        return assignment(p.points, q.points, order, p.weights, q.weights)
    method = "quadrature" if dimension(p) == 1 else "monte_carlo, or empirical.sliced on samples"
    raise UnsupportedError(f"{name} has no closed form between {p} and {q}; use wasserstein.{method}")


def _line_breakpoints(p: Distribution, q: Distribution) -> list[float]:
    points: set[float] = set()
    for distribution in (p, q):
        if is_discrete(distribution):
            finite = atoms(distribution)[0]
            points |= set(finite.points[finite.weights > _SMALLEST_JUMP].tolist())
        else:
            points |= set(breakpoints(distribution))
    return sorted(points)


def quadrature(p: Distribution, q: Distribution, order: int = 1, *, tolerance: float = 1e-10) -> Estimate:
    """W₁ = ∫ |F − G| dx, or W₂ from ∫ (F⁻¹ − G⁻¹)² du, for distributions on the line.

    Raises:
        UnsupportedError: more dimensions, an unknown distribution function, or an integral that does not converge.
    """
    p, q = canonical_pair(p, q)
    name = name_of(order)
    if dimension(p) != 1 or p.event_shape:
        raise UnsupportedError(
            f"{name} by quadrature is for distributions on the line; use wasserstein.monte_carlo or empirical.sliced"
        )
    known = _known(p, q, order)
    if known:
        return known
    if order == 1:
        return _by_distribution_functions(p, q, name, tolerance)
    return _by_quantiles(p, q, name, tolerance)


def _by_distribution_functions(p: Distribution, q: Distribution, name: str, tolerance: float) -> Estimate:
    first, second = cumulative(p), cumulative(q)

    def difference(x: Tensor) -> Tensor:
        # The smaller tails are subtracted, since 1 − F loses their digits.
        below, other = first.below(x), second.below(x)
        return torch.where(below < 0.5, below - other, second.above(x) - first.above(x))

    points = with_crossings(_line_breakpoints(p, q), difference)
    found = integrate(lambda x: difference(x).abs(), points, name=name, tolerance=tolerance, unit="1")
    return replace(found, settings={**found.settings, "error": found.error + _moved(p) + _moved(q)})


def _moved(distribution: Distribution) -> float:
    """W₁ between a distribution and what the rounding of its masses makes of it; 0 where no masses are computed.

    Masses that are off by the relative error ε move at most ε E|x − E x|.
    """
    if not is_discrete(distribution) or isinstance(distribution, Finite):
        return 0.0
    return rounding_of_masses(atoms(distribution)[0].points) * float(distribution.variance.sqrt())


def _by_quantiles(p: Distribution, q: Distribution, name: str, tolerance: float) -> Estimate:
    first, second = cumulative(p), cumulative(q)
    points = torch.tensor([x for x in _line_breakpoints(p, q) if math.isfinite(x)], dtype=torch.float64)
    lower = torch.cat([f.below(points) for f in (first, second)])
    upper = torch.cat([f.above(points) for f in (first, second)])

    def half(knots: Tensor, quantiles: tuple) -> Estimate:
        inner = sorted({u for u in knots.tolist() if 1e-12 < u < 0.5 - 1e-12})
        thinned = [u for k, u in enumerate(inner) if k == 0 or u - inner[k - 1] > 1e-12]
        return integrate(
            lambda u: (quantiles[0](u) - quantiles[1](u)).square(),
            [0.0, *thinned, 0.5],
            name=name,
            tolerance=tolerance,
            unit="1",
        )

    low = half(lower, (first.quantile, second.quantile))
    high = half(upper, (first.upper_quantile, second.upper_quantile))
    cost, error = max(0.0, low.value + high.value), low.error + high.error
    moved = _moved(p) + _moved(q)
    if moved:  # d² changes by 2d and by its own square, 1 for neighboring whole numbers, where a unit of mass moves
        apart = [
            (quantiles[0](knots) - quantiles[1](knots)).abs()
            for knots, quantiles in (
                (lower.clamp(1e-12, 0.5), (first.quantile, second.quantile)),
                (upper.clamp(1e-12, 0.5), (first.upper_quantile, second.upper_quantile)),
            )
        ]
        error += (2 * torch.cat(apart).max().item() + 1) * moved
    value = math.sqrt(cost)
    # |√(c + e) − √c| is at most both √e and e / √c.
    error = min(math.sqrt(error), error / value if value > 0 else math.inf)
    return replace(low, value=value, n=(low.n or 0) + (high.n or 0), settings={**low.settings, "error": error})


def monte_carlo(p: Distribution, q: Distribution, order: int = 1, n: int = 10_000, seed: int = 0) -> Estimate:
    """W_order from draws.

    On the line: x ~ P is paired with the same quantile of Q, and |x − y|^order is averaged; for order 1 the mean is
    unbiased. In Rᵈ: `n` draws of each distribution in 20 groups are matched group by group. A matching of samples costs
    more, in the mean, than the distributions do, so this is an upper bound (up to its standard error), and loose in
    many dimensions.

    Raises:
        UnsupportedError: draws that overflow, or groups too large to match.
    """
    p, q = canonical_pair(p, q)
    name = name_of(order)
    known = _known(p, q, order)
    if known:
        return known
    if dimension(p) > 1 or p.event_shape:
        return _by_groups(p, q, order, n, seed)
    first, second = cumulative(p), cumulative(q)

    def cost(u: Tensor) -> Tensor:
        # u is uniform on (−½, ½): its sign selects the half, and the smaller tail is inverted.
        tail = u.abs().clamp_min(1e-18)
        low, high = (
            first.quantile(tail) - second.quantile(tail),
            first.upper_quantile(tail) - second.upper_quantile(tail),
        )
        return torch.where(u < 0, low, high).abs() ** order

    uniform = torch.distributions.Uniform(torch.tensor(-0.5).double(), torch.tensor(0.5).double(), validate_args=False)
    heavy, translated = min(heaviest_moment(p), heaviest_moment(q)), _closed_form(p, q, order) is not None
    mean = mean_over_draws(
        uniform,
        cost,
        n=n,
        seed=seed,
        name=name,
        estimator="quantile coupling",
        unit="1",
        infinite_variance=f"E|x|^{heavy:g} is infinite" if heavy <= 2 * order and not translated else None,
    )
    value = mean.value ** (1 / order)
    stderr = mean.stderr if order == 1 or mean.stderr is None or value == 0 else mean.stderr / (2 * value)
    return replace(mean, value=value, stderr=stderr)


def _by_groups(p: Distribution, q: Distribution, order: int, n: int, seed: int) -> Estimate:
    size = n // _GROUPS
    if not 2 <= size <= LARGEST_ASSIGNMENT:
        limit = _GROUPS * LARGEST_ASSIGNMENT
        raise UnsupportedError(
            f"matching needs n from {2 * _GROUPS} to {limit}, and n = {n}; use empirical.sliced on samples"
        )
    costs = RunningMean()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in range(_GROUPS):
            matched = assignment(p.sample((size,)), q.sample((size,)), order)
            costs.add(torch.tensor([matched.value**order], dtype=torch.float64))
    value, stderr = costs.mean.item() ** (1 / order), costs.stderr.item()
    if not math.isfinite(value) or not math.isfinite(stderr):
        raise UnsupportedError(f"{name_of(order)}: the costs of draws overflow float64; rescale both distributions")
    if order == 2 and value > 0:  # the delta method
        stderr = stderr / (2 * value)
    settings = {"seed": seed, "groups": _GROUPS, "group size": size}
    return Estimate(value, name_of(order), stderr, n, "1", kind="upper bound", method="monte carlo", settings=settings)


def optimal_map(p: Distribution, q: Distribution, points: int = 101) -> tuple[Tensor, Tensor]:
    """The optimal coupling of two distributions on the line: x and y of equal quantiles.

    Args:
        p: a distribution on the line.
        q: another.
        points: number of quantiles, spread evenly over (0, 1).

    Returns:
        x = F⁻¹(u) and y = G⁻¹(u), (points,) each, both increasing.

    Raises:
        UnsupportedError: distributions that are not on the line.
    """
    p, q = canonical_pair(p, q)
    first, second = cumulative(p), cumulative(q)
    u = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    return first.quantile(u), second.quantile(u)


# Closed forms.


def _between_linear(p: Linear, q: Linear, order: int) -> float:
    """W_order^order between distributions with piecewise linear quantile functions, a finite sum."""
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
    """Distributions of X = shift + width Z for one standard Z, its first two moments, and E|δ + Δ Z| if it is known."""

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
        lambda d: (0.0, d.df.item() / (d.df.item() - 2) if d.df > 2 else math.inf),
        same_shape=lambda p, q: p.df == q.df,
    ),
    td.Exponential: _Family(lambda d: (0.0, 1 / d.rate.item()), lambda _: (1.0, 2.0)),
    td.Gamma: _Family(
        lambda d: (0.0, 1 / d.rate.item()),
        lambda d: (d.concentration.item(), d.concentration.item() * (1 + d.concentration.item())),
        same_shape=lambda p, q: p.concentration == q.concentration,
    ),
}


def _closed_form(p: Distribution, q: Distribution, order: int) -> float | None:
    """W_order^order between two members of one location-scale family, whose quantiles differ by δ + Δ Z.

    None where it is not known; +inf where Δ ≠ 0 and Z lacks the moment.
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
