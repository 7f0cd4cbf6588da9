r"""Integrals and means under two distributions: ∫ f(log p(x), log q(x)) dx, and E_p f(x) from draws.

*Quadrature.* On the line the integral is cut at the ends of the supports, at modes and at quantiles of both
distributions, so that every known peak is found. In the plane a grid over a box that holds both distributions is
refined until the value stops changing, and the last change is the error. Both integrate the masses of P and Q with f,
and an integral that does not find a mass of 1 is refused. The error is numerical, not proven: nothing bounds the
densities between the nodes.

*Monte Carlo.* A mixture is sampled component by component, so that a rare component is never missed. The shape k̂ of
the terms' tail is recorded in `settings["pareto_k"]`: above ½ the terms may have no variance, and above 0.7 the mean is
of no use (Vehtari et al. 2024). There, and where the families prove an infinite variance, the standard error is
infinite. `settings["warning"]` gives the reason.
"""

from __future__ import annotations

__all__ = ["breakpoints"]

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch import distributions as td
from torch.distributions import Distribution

from latentia.distributions import Mixture, log_density
from latentia.divergences._canonical import atoms, boxes, dimension, gaussian_of, is_discrete, rebuild
from latentia.divergences._cumulative import cumulative
from latentia.errors import UnsupportedError
from latentia.estimate import Estimate, exact
from latentia.integration import Grid, RunningMean, integrate_many, panel_grid, regular_grid
from latentia.integration.pareto import K_HAT_LIMIT, pareto_k

_LANDMARKS = torch.tensor([1e-7, 1e-3, 0.05, 0.3, 0.5], dtype=torch.float64)
_MOST_POINTS = 2**21
_TOLERANCE_IN_THE_PLANE = 1e-10
_REACH = 9.0  # standard deviations of a Gaussian beyond which less than 1e-18 of it lies

_APART = 1e-9  # relative distance between breakpoints
_SAMPLED = 32  # points between two breakpoints at which the sign of a difference is found
_BLOCK = 65_536  # draws at a time; part of what determines a Monte Carlo result
_SMALLEST_STRATUM = 100
_SMALLEST_TAILED = 400  # draws without which the shape of a tail is not estimated

Integrand = Callable[[Tensor, Tensor], Tensor]


def exactly(value: float, name: str, settings: Mapping[str, Any] | None = None, **fields: Any) -> Estimate:
    """A closed form or a finite sum: an estimate of kind `exact`."""
    return exact(value, name, settings=settings or {}, **fields)


def breakpoints(*distributions: Distribution) -> list[float]:
    """Where to cut the line for integrals over these distributions: ends of supports, modes, quantiles; increasing."""
    supports = [_known_boxes(distribution)[:, 0] for distribution in distributions]
    ends = {float(end) for support in supports for end in support.flat}
    low, high = min(ends), max(ends)
    kept = sorted(ends)
    landmarks = {point for distribution in distributions for point in _landmarks(distribution)}
    for point in sorted(point for point in landmarks if low < point < high):
        # Points that are almost equal as floats make useless pieces.
        if all(math.isinf(other) or abs(point - other) > _APART * max(abs(point), abs(other)) for other in kept):
            kept.append(point)
    return sorted(kept)


def with_crossings(points: list[float], difference: Callable[[Tensor], Tensor]) -> list[float]:
    """Breakpoints with the zeros of a function between them, where its absolute value has kinks.

    At a kink the rules of quadrature converge slowly, and their difference may be small by accident.
    """
    knots = torch.tensor([point for point in points if math.isfinite(point)], dtype=torch.float64)
    inner = torch.linspace(0, 1, _SAMPLED + 1, dtype=torch.float64)[:-1]
    x = torch.cat([(knots[:-1, None] + knots.diff()[:, None] * inner).flatten(), knots[-1:]])
    signs = difference(x).nan_to_num(0.0).sign()
    kept = signs != 0  # an interval of zeros, as where both are flat, ends at breakpoints
    x, signs = x[kept], signs[kept]
    found = torch.nonzero(signs[1:] * signs[:-1] < 0)[:, 0]
    low, high, sign = x[:-1][found], x[1:][found], signs[:-1][found]
    for _ in range(80):
        middle = 0.5 * (low + high)
        same = difference(middle).nan_to_num(0.0).sign() == sign
        low, high = torch.where(same, middle, low), torch.where(same, high, middle)
    right = torch.searchsorted(knots, high).clamp(1, len(knots) - 1)
    left_gap, right_gap = high - knots[right - 1], knots[right] - high
    apart = torch.minimum(left_gap, right_gap) > _APART * (left_gap + right_gap)
    return sorted({*points, *high[apart].tolist()})


def integrate_pair(
    p: Distribution,
    q: Distribution,
    integrand: Integrand,
    *,
    name: str,
    tolerance: float,
    unit: str = "nats",
    kinked: bool = False,
) -> Estimate:
    """The integral over space of a function of both log-densities.

    Args:
        p: a canonical distribution with a density, on the line or in the plane.
        q: another over the same space.
        integrand: maps log p(x) and log q(x), (N,) each, −inf allowed, to values (N,).
        name: of the integral.
        tolerance: the error to reach.
        unit: of the integral.
        kinked: whether the integrand has kinks where the densities cross.

    Raises:
        UnsupportedError: more than two dimensions, an integral that does not converge, or mass that was not found.
    """

    def all_three(x: Tensor) -> Tensor:
        log_p, log_q = log_density(p, x).double(), log_density(q, x).double()
        return torch.stack([integrand(log_p, log_q), log_p.exp(), log_q.exp()], -1)

    d = dimension(p)
    if d > 2:
        raise UnsupportedError(
            f"quadrature serves distributions in one and two dimensions, and these have {d}; use monte_carlo"
        )
    if d == 1:
        shaped = all_three if not p.event_shape else lambda x: all_three(x.reshape(-1, *p.event_shape))
        names = [name, "the mass of P", "the mass of Q"]
        points = breakpoints(p, q)
        if kinked:
            shape = p.event_shape
            points = with_crossings(
                points, lambda x: log_density(p, x.reshape(-1, *shape)) - log_density(q, x.reshape(-1, *shape))
            )
        value, *masses = integrate_many(shaped, points, names=names, tolerance=tolerance, unit=unit)
    else:
        value, *masses = _on_grids(p, q, all_three, name, tolerance, unit, kinked)
    for mass in masses:
        if abs(mass.value - 1) > 1e-10 + 2 * mass.error:
            raise UnsupportedError(f"quadrature misses {mass.name} by {abs(mass.value - 1):.1e}; use monte_carlo")
    # The densities are rounded too: by ε |log p| relative to p, and by as much as their masses miss 1.
    missed = sum(abs(mass.value - 1) for mass in masses)
    error = value.error + 100 * torch.finfo(torch.float64).eps + missed * (1 + abs(value.value))
    return replace(value, settings={**value.settings, "error": error})


def _landmarks(distribution: Distribution) -> list[float]:
    """Finite points around which a distribution on the line has its mass: quantiles, and the mode if it is known."""
    if isinstance(distribution, Mixture):
        return [point for part in distribution.components for point in _landmarks(part)]
    try:
        functions = cumulative(distribution)
        quantiles = torch.cat([functions.quantile(_LANDMARKS), functions.upper_quantile(_LANDMARKS)])
    except (UnsupportedError, NotImplementedError):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            quantiles = distribution.sample((4096,)).double().flatten().quantile(torch.linspace(0, 1, 9).double())
    try:
        modes = distribution.mode.double().reshape(-1).tolist()
    except NotImplementedError:
        modes = []
    return [point for point in [*quantiles.tolist(), *modes] if math.isfinite(point)]


def _known_boxes(distribution: Distribution) -> np.ndarray:
    support = boxes(distribution)
    if support is None:
        raise UnsupportedError(f"the support of {distribution} is not a union of intervals or boxes; use monte_carlo")
    return support


def _span(distribution: Distribution) -> np.ndarray:
    """A box (2, 2), axis by axis, that holds a distribution in the plane up to rounding."""
    if isinstance(distribution, Mixture):
        spans = np.stack([_span(part) for part in distribution.components])
        return np.stack([spans[:, :, 0].min(0), spans[:, :, 1].max(0)], -1)
    gaussian = gaussian_of(distribution)
    if gaussian:
        mean, deviation = gaussian.mean.numpy(), gaussian.deviation.numpy()
        return np.stack([mean - _REACH * deviation, mean + _REACH * deviation], -1)
    support = _known_boxes(distribution)
    ends = np.stack([support[:, :, 0].min(0), support[:, :, 1].max(0)], -1)
    if isinstance(distribution, td.Independent):
        tail = torch.tensor([1e-20], dtype=torch.float64)
        for axis in range(2):
            try:
                marginal = rebuild(distribution.base_dist, lambda parameter, axis=axis: parameter[axis])
                if marginal is None:
                    break
                functions = cumulative(marginal)
            except UnsupportedError:
                break
            ends[axis] = [functions.quantile(tail).item(), functions.upper_quantile(tail).item()]
        else:
            return ends
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        draws = distribution.sample((4096,)).double().numpy()
    spread = _REACH * draws.std(0)
    return np.stack([np.maximum(ends[:, 0], draws.min(0) - spread), np.minimum(ends[:, 1], draws.max(0) + spread)], -1)


def _is_smooth(distribution: Distribution) -> bool:
    """Whether the density is known to be smooth on the whole plane: Gaussians and their mixtures."""
    if isinstance(distribution, Mixture):
        return all(_is_smooth(part) for part in distribution.components)
    return gaussian_of(distribution) is not None


def _modes(distribution: Distribution, axis: int) -> list[float]:
    """Where a distribution with independent coordinates may have a kink along one axis."""
    if isinstance(distribution, Mixture):
        return [mode for part in distribution.components for mode in _modes(part, axis)]
    if not isinstance(distribution, td.Independent) or _is_smooth(distribution):
        return []
    try:
        return [float(distribution.mode[axis])]
    except NotImplementedError:
        return []


def _on_grids(
    p: Distribution,
    q: Distribution,
    values: Callable[[Tensor], Tensor],
    name: str,
    tolerance: float,
    unit: str,
    kinked: bool,
) -> list[Estimate]:
    """Three integrals over the plane, on grids with twice the nodes along each axis until the values stop changing."""
    spans = np.stack([_span(p), _span(q)])
    low, high = spans[:, :, 0].min(0), spans[:, :, 1].max(0)
    edges = np.concatenate([_known_boxes(p), _known_boxes(q)])
    cuts = []
    for i in range(2):
        inner = [*edges[:, i].ravel(), *_modes(p, i), *_modes(q, i)]
        cuts.append(np.unique(np.clip([low[i], high[i], *(x for x in inner if math.isfinite(x))], low[i], high[i])))
    smooth = _is_smooth(p) and _is_smooth(q)

    def grid(level: int) -> Grid:
        if smooth:
            return regular_grid(low.tolist(), high.tolist(), ((high - low) / (32 * 2**level)).tolist())
        return panel_grid([cut.tolist() for cut in cuts], panels=2**level)

    previous, moved, evaluations, level = None, torch.full((3,), torch.inf), 0, 0
    while True:
        current = grid(level)
        if len(current) > _MOST_POINTS:
            break
        total = torch.zeros(3, dtype=torch.float64)
        for points, log_weights in current.blocks():
            total += (values(points) * log_weights.exp()[:, None]).sum(0)
        evaluations += len(current)
        if previous is not None:
            # At a kink one change may be small by accident, so a quarter of the change before it counts too.
            before = moved.nan_to_num(posinf=0.0) / 4 if kinked else torch.zeros(3)
            moved = torch.maximum((total - previous).abs(), before)
            if bool((moved <= max(tolerance, _TOLERANCE_IN_THE_PLANE)).all()):
                previous = total
                break
        previous, level = total, level + 1
    if previous is None or not bool((2 * moved <= 1e-3).all()):
        raise UnsupportedError(
            f"quadrature of {name} on {_MOST_POINTS} points of the plane does not converge; use monte_carlo"
        )
    rule = "trapezoid" if smooth else "Gauss-Legendre panels"
    return [
        Estimate(
            previous[k].item(),
            name=label,
            n=evaluations,
            unit=unit,
            kind="numerical",
            method="quadrature",
            settings={
                "error": 2 * moved[k].item() + 1e-13,
                "rule": rule,
                "box": np.stack([low, high], -1).tolist(),
            },
        )
        for k, label in enumerate((name, "the mass of P", "the mass of Q"))
    ]


def mean_over_draws(
    distribution: Distribution,
    function: Callable[[Tensor], Tensor],
    *,
    n: int,
    seed: int,
    name: str,
    estimator: str,
    unit: str = "nats",
    infinite_variance: str | None = None,
    bound: float | None = None,
) -> Estimate:
    """Mean of a function over n draws of a distribution, with its standard error and the shape of its tail.

    Args:
        distribution: canonical; the components of a mixture are sampled separately, in proportion to their weights.
        function: maps draws (count, *event_shape) to values (count,).
        n: number of draws, at least 2.
        seed: of torch's generator, which is restored afterwards.
        name: of the estimate.
        estimator: what is averaged, in words.
        unit: of the values.
        infinite_variance: why the values are known to have an infinite variance; None if they are not.
        bound: of the contributions of rare values, where one is known; their tail then needs no check.

    Raises:
        ValueError: n is below 2.
        UnsupportedError: a draw overflows, or the function is NaN on one.
    """
    if n < 2:
        raise ValueError(f"monte carlo needs n >= 2 for a standard error; given n = {n}")
    strata = [(1.0, distribution)]
    if isinstance(distribution, Mixture):
        strata = list(zip(distribution.weights.tolist(), distribution.components, strict=True))
    parts, kept = [], []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for weight, part in strata:
            count = n if len(strata) == 1 else max(_SMALLEST_STRATUM, round(weight * n))
            values = _values(part, function, count, name)
            mean = RunningMean().add(values)
            kept.append(values)
            # One more value, as far away as any, says what a rare event could do that was not drawn.
            farthest = (values - mean.mean).abs().max().item() if bound is None else bound
            error = math.hypot(_spread(part, function, values) / math.sqrt(count), farthest / count)
            parts.append((weight, mean.mean.item(), error))
    value = sum(weight * mean for weight, mean, _ in parts)
    stderr: float | None = math.hypot(*(weight * error for weight, _, error in parts))
    settings: dict[str, Any] = {"seed": seed, "estimator": estimator}
    shape = -math.inf
    if bound is None and math.isfinite(value):
        shape = settings["pareto_k"] = max(_tail_shape(values) for values in kept)
    if not math.isfinite(value) or not math.isfinite(stderr):
        stderr = None
    elif infinite_variance is not None or shape > K_HAT_LIMIT:
        found = infinite_variance or f"the largest terms follow a power with k̂ = {shape:.2f}"
        settings["warning"] = f"the terms have an infinite variance, so there is no standard error: {found}"
        stderr = math.inf
    elif stderr <= 1e-12 * (1 + abs(value)):
        settings["warning"] = f"all draws gave one value; an event of probability below {3 / n:.1g} may be missing"
        stderr = (1 + abs(value)) * 3 / n
    elif shape > 0.5:
        settings["warning"] = f"the terms may have an infinite variance: k̂ = {shape:.2f} > ½"
    return Estimate(value, name, stderr, n, unit, method="monte carlo", settings=settings)


def _values(distribution: Distribution, function: Callable[[Tensor], Tensor], n: int, name: str) -> Tensor:
    """A function of n draws, (n,), float64."""
    kept, drawn = [], 0
    while drawn < n:
        x = distribution.sample(torch.Size((min(_BLOCK, n - drawn),)))
        if not bool(torch.isfinite(x).all()):
            raise UnsupportedError(f"draws of {distribution} overflow float64; use quadrature")
        kept.append(function(x).double())
        # A term of −∞ means that a distribution has no density at its own draw: its density underflows there.
        if bool((torch.isnan(kept[-1]) | torch.isneginf(kept[-1])).any()):
            raise UnsupportedError(f"{name}: the densities are not defined at a draw of {distribution}; use quadrature")
        drawn += len(x)
    return torch.cat(kept)


def _tail_shape(values: Tensor) -> float:
    """k̂ of the heavier tail; the smaller of those of two tail sizes, since a second mode looks heavy at one of them."""
    n = len(values)
    if n < _SMALLEST_TAILED:
        return -math.inf
    low, high = values.aminmax()
    sides = torch.stack([values - low, high - values]).clamp_min(1e-300).log()
    sizes = (math.ceil(3 * math.sqrt(n)), math.ceil(math.sqrt(n) / 2))
    return torch.stack([pareto_k(sides, tail=size) for size in sizes]).amin(0).max().item()


def _spread(distribution: Distribution, function: Callable[[Tensor], Tensor], values: Tensor) -> float:
    """Standard deviation of a function: that of the draws, or the exact one where the points can be listed."""
    if is_discrete(distribution):
        try:
            points = atoms(distribution)[0]
        except UnsupportedError:
            return values.std().item()
        w, f = points.weights, function(points.points).double()
        f = torch.where(w > 0, f, torch.zeros_like(f))
        return (w * (f - (w * f).sum()).square()).sum().sqrt().item()
    return values.std().item()


def stratified(first: Estimate, second: Estimate) -> Estimate:
    """Half the sum of two means over independent draws, half of them from each distribution."""
    stderr = None
    if first.stderr is not None and second.stderr is not None:
        stderr = 0.5 * math.hypot(first.stderr, second.stderr)
    n, value = (first.n or 0) + (second.n or 0), 0.5 * (first.value + second.value)
    warnings = {key: part.settings[key] for part in (second, first) for key in ("warning",) if key in part.settings}
    return Estimate(
        value, first.name, stderr, n, first.unit, method=first.method, settings={**first.settings, **warnings}
    )
