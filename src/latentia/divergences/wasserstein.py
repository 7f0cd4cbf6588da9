r"""Wasserstein distances W₁ and W₂: the least mean distance (root mean square distance) of any coupling of two distributions.

They are metrics, in the unit of the space itself, and see how far apart disjoint distributions lie, which relative entropy and
Jensen-Shannon divergence do not (notes 3e).

On the line the optimal coupling pairs equal quantiles, so both are integrals. Between Gaussians W₂ has Bures's closed
form in any dimension. Between samples, `samples` serves the line in batches, and `latentia.divergences.transport` Rᵈ.
"""

from __future__ import annotations

__all__ = ["exact", "monte_carlo", "quadrature", "samples"]

import math
from dataclasses import replace

import torch
from torch import Tensor
from torch.distributions import Distribution

from latentia.distributions.finite import Finite
from latentia.divergences import line, transport
from latentia.divergences.canonical import canonical_pair, gaussian_moments, same_distribution
from latentia.divergences.cumulative import cumulative
from latentia.divergences.draws import mean_over_draws
from latentia.divergences.quadrature import breakpoints
from latentia.divergences.samples import samples
from latentia.divergences.supports import atoms, dimension, heaviest_moment, is_discrete
from latentia.errors import UnsupportedError
from latentia.estimate import Estimate
from latentia.estimate import exact as exactly
from latentia.integration import RunningMean, integrate

_GROUPS = 20


def _name(order: int) -> str:
    if order not in (1, 2):
        raise ValueError(f"order is {order}; it must be 1 or 2")
    return f"wasserstein-{order}"


def _known(p: Distribution, q: Distribution, order: int) -> Estimate | None:
    """0 between distributions known to be equal, and +∞ where one distribution alone has the moment that is needed."""
    if same_distribution(p, q):
        return exactly(0.0, _name(order), unit="1", method="equal distributions")
    if dimension(p) == 1 and (heaviest_moment(p) > order) != (heaviest_moment(q) > order):
        which = "P" if heaviest_moment(p) <= order else "Q"
        reason = f"E|x|^{order} is infinite under {which} and finite under the other"
        return exactly(math.inf, _name(order), unit="1", method="moments", settings={"reason": reason})
    if line.closed_form(p, q, order) == math.inf:
        reason = f"the quantiles differ by δ + Δ z, Δ ≠ 0, and E|z|^{order} is infinite"
        return exactly(math.inf, _name(order), unit="1", method="moments", settings={"reason": reason})
    return None


def exact(p: Distribution, q: Distribution, order: int = 1) -> Estimate:
    """W_order(P, Q) by closed form or finite sum, in the unit of x.

    It serves: finite distributions (on the line, and small ones in Rᵈ); uniform distributions on the line and their mixtures; two members
    of a location-scale family where the integral is known; Gaussians in Rᵈ (order 2, and order 1 for one covariance).

    Args:
        p: a distribution.
        q: another over the same space.
        order: 1 or 2.

    Raises:
        UnsupportedError: none of these; the message names a method that serves.
        ConfigurationError: a batch of distributions, or distributions over different spaces.
    """
    p, q = canonical_pair(p, q)
    name = _name(order)
    known = _known(p, q, order)
    if known:
        return known
    first, second = line.linear_quantiles(p), line.linear_quantiles(q)
    if first and second:
        cost = line.between_linear(first, second, order)
        return exactly(cost ** (1 / order), name, unit="1", method="finite sum")
    cost = line.closed_form(p, q, order)
    if cost is not None:
        return exactly(cost ** (1 / order), name, unit="1")
    gaussians = gaussian_moments(p), gaussian_moments(q)
    if gaussians[0] and gaussians[1]:
        if torch.equal(gaussians[0][1], gaussians[1][1]):
            return exactly((gaussians[0][0] - gaussians[1][0]).norm().item(), name, unit="1", method="translation")
        if order == 2:
            return exactly(math.sqrt(line.bures(*gaussians[0], *gaussians[1])), name, unit="1", method="bures")
    if isinstance(p, Finite) and isinstance(q, Finite):
        return transport.assignment(p.points, q.points, order, p.weights, q.weights)
    serving = "quadrature" if dimension(p) == 1 else "monte_carlo, or transport.sliced on samples"
    raise UnsupportedError(f"{name} has no closed form between {p} and {q}; use wasserstein.{serving}")


def _line_breakpoints(p: Distribution, q: Distribution) -> list[float]:
    points: set[float] = set()
    for distribution in (p, q):
        points |= set(
            atoms(distribution)[0].points.tolist() if is_discrete(distribution) else breakpoints(distribution)
        )
    return sorted(points)


def quadrature(p: Distribution, q: Distribution, order: int = 1, *, tolerance: float = 1e-10) -> Estimate:
    """W₁ = ∫ |F − G| dx, or W₂ from ∫ (F⁻¹ − G⁻¹)² du, for distributions on the line.

    Raises:
        UnsupportedError: more dimensions, no known distribution function, or an integral that does not converge.
    """
    p, q = canonical_pair(p, q)
    name = _name(order)
    if dimension(p) != 1 or p.event_shape:
        raise UnsupportedError(
            f"{name} by quadrature is for distributions on the line; use wasserstein.monte_carlo or transport.sliced"
        )
    known = _known(p, q, order)
    if known:
        return known
    if order == 1:
        return _by_distribution_functions(p, q, name, tolerance)
    return _by_quantiles(p, q, name, tolerance)


def _by_distribution_functions(p: Distribution, q: Distribution, name: str, tolerance: float) -> Estimate:
    first, second = cumulative(p), cumulative(q)

    def gap(x: Tensor) -> Tensor:
        # Whichever tails are small are subtracted: 1 − F would lose their digits.
        below = first.below(x) < 0.5
        return torch.where(below, first.below(x) - second.below(x), first.above(x) - second.above(x)).abs()

    return integrate(gap, _line_breakpoints(p, q), name=name, tolerance=tolerance, unit="1")


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
    value = math.sqrt(cost)
    # |√(c + e) − √c| is at most both √e and e / √c.
    error = min(math.sqrt(error), error / value if value > 0 else math.inf)
    return replace(low, value=value, n=(low.n or 0) + (high.n or 0), settings={**low.settings, "error": error})


def monte_carlo(p: Distribution, q: Distribution, order: int = 1, n: int = 10_000, seed: int = 0) -> Estimate:
    """W_order from draws.

    On the line: x ~ P is carried to the same quantile of Q, and |x − y|^order is averaged; for order 1 the mean is
    unbiased. In Rᵈ: `n` draws of each distribution in 20 groups are matched group by group. A matching of samples costs more, in
    the mean, than the distributions do, so that is an upper bound (up to its standard error), and loose in many dimensions.

    Raises:
        UnsupportedError: draws that overflow, or groups too large to match.
    """
    p, q = canonical_pair(p, q)
    name = _name(order)
    known = _known(p, q, order)
    if known:
        return known
    if dimension(p) > 1 or p.event_shape:
        return _by_groups(p, q, order, n, seed)
    first, second = cumulative(p), cumulative(q)

    def cost(u: Tensor) -> Tensor:
        # u is uniform on (−½, ½): its sign picks the half, and the smaller tail is inverted.
        tail = u.abs().clamp_min(1e-18)
        low, high = (
            first.quantile(tail) - second.quantile(tail),
            first.upper_quantile(tail) - second.upper_quantile(tail),
        )
        return torch.where(u < 0, low, high).abs() ** order

    uniform = torch.distributions.Uniform(torch.tensor(-0.5).double(), torch.tensor(0.5).double(), validate_args=False)
    mean = mean_over_draws(uniform, cost, n=n, seed=seed, name=name, estimator="quantile coupling", unit="1")
    value = mean.value ** (1 / order)
    stderr = mean.stderr if order == 1 or mean.stderr is None or value == 0 else mean.stderr / (2 * value)
    return replace(mean, value=value, stderr=stderr)


def _by_groups(p: Distribution, q: Distribution, order: int, n: int, seed: int) -> Estimate:
    size = n // _GROUPS
    if not 2 <= size <= transport.LARGEST_ASSIGNMENT:
        limit = _GROUPS * transport.LARGEST_ASSIGNMENT
        raise UnsupportedError(
            f"matching needs n from {2 * _GROUPS} to {limit}, and n = {n}; use transport.sliced on samples"
        )
    costs = RunningMean()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in range(_GROUPS):
            matched = transport.assignment(p.sample((size,)), q.sample((size,)), order)
            costs.add(torch.tensor([matched.value**order], dtype=torch.float64))
    value = costs.mean.item() ** (1 / order)
    stderr = costs.stderr.item() / (1 if order == 1 else 2 * value)
    settings = {"seed": seed, "groups": _GROUPS, "group size": size}
    return Estimate(value, _name(order), stderr, n, "1", kind="upper bound", method="monte carlo", settings=settings)
