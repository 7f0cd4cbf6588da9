r"""∫ f(log p(x), log q(x)) dx for two distributions with densities: adaptive on the line, on a grid in the plane.

On the line the integral is cut at the supports' ends, at modes and at quantiles of both distributions, so that no peak is
overlooked. In the plane a grid over a box that holds both distributions is refined until nothing moves; what the last
refinement moved is the certificate. In both, the masses of P and Q are integrated along with f: an integral that does
not find a mass of 1 is refused, and never reported.
"""

from __future__ import annotations

__all__ = ["breakpoints", "integrate_pair"]

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch import distributions as td
from torch.distributions import Distribution

from latentia.distributions.mixtures import Mixture, log_density
from latentia.divergences.canonical import gaussian_moments
from latentia.divergences.cumulative import cumulative
from latentia.divergences.supports import boxes, dimension
from latentia.errors import UnsupportedError
from latentia.estimate import Estimate
from latentia.integration import Grid, integrate_many, panel_grid, regular_grid

_LANDMARKS = torch.tensor([1e-7, 1e-3, 0.05, 0.3, 0.5], dtype=torch.float64)
_MOST_POINTS = 2**21
_TOLERANCE_IN_THE_PLANE = 1e-10
_REACH = 9.0  # standard deviations of a Gaussian beyond which less than 1e-18 of it lies

Integrand = Callable[[Tensor, Tensor], Tensor]


def breakpoints(*distributions: Distribution) -> list[float]:
    """Where to cut the line for integrals over these distributions: ends of supports, modes, quantiles; rising and distinct."""
    supports = [_known_boxes(distribution)[:, 0] for distribution in distributions]
    ends = {float(end) for support in supports for end in support.flat}
    low, high = min(ends), max(ends)
    kept = sorted(ends)
    for point in sorted(
        {point for distribution in distributions for point in _landmarks(distribution) if low < point < high}
    ):
        # Points that floats hardly tell apart make pieces of no use.
        if all(math.isinf(other) or abs(point - other) > 1e-9 * max(abs(point), abs(other)) for other in kept):
            kept.append(point)
    return sorted(kept)


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
        kinked: whether the integrand bends where the densities do not, so that grids converge slowly and unevenly.

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
        value, *masses = integrate_many(shaped, breakpoints(p, q), names=names, tolerance=tolerance, unit=unit)
    else:
        value, *masses = _on_grids(p, q, all_three, name, tolerance, unit, kinked)
    for mass in masses:
        if abs(mass.value - 1) > 1e-10 + 2 * mass.error:
            raise UnsupportedError(f"quadrature found {mass.value:.9g} for {mass.name}, which is 1; use monte_carlo")
    return value


def _landmarks(distribution: Distribution) -> list[float]:
    """Finite points around which a distribution on the line has its mass: quantiles, and the mode where it has one."""
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
        raise UnsupportedError(f"the support of {distribution} is no union of intervals or boxes; use monte_carlo")
    return support


def _span(distribution: Distribution) -> np.ndarray:
    """A box (2, 2), axis by axis, that holds all of a distribution in the plane but what rounding loses."""
    if isinstance(distribution, Mixture):
        spans = np.stack([_span(part) for part in distribution.components])
        return np.stack([spans[:, :, 0].min(0), spans[:, :, 1].max(0)], -1)
    moments = gaussian_moments(distribution)
    if moments:
        mean, deviation = moments[0].numpy(), moments[1].diagonal().sqrt().numpy()
        return np.stack([mean - _REACH * deviation, mean + _REACH * deviation], -1)
    support = _known_boxes(distribution)
    ends = np.stack([support[:, :, 0].min(0), support[:, :, 1].max(0)], -1)
    if isinstance(distribution, td.Independent):
        tail = torch.tensor([1e-20], dtype=torch.float64)
        for axis in range(2):
            try:
                functions = cumulative(_marginal(distribution, axis))
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
    return gaussian_moments(distribution) is not None


def _modes(distribution: Distribution, axis: int) -> list[float]:
    """Where a distribution with independent coordinates may bend along one axis."""
    if isinstance(distribution, Mixture):
        return [mode for part in distribution.components for mode in _modes(part, axis)]
    if not isinstance(distribution, td.Independent) or _is_smooth(distribution):
        return []
    try:
        return [float(distribution.mode[axis])]
    except NotImplementedError:
        return []


def _marginal(distribution: td.Independent, axis: int) -> Distribution:
    base = distribution.base_dist
    names = base.arg_constraints
    return type(base)(**{key: getattr(base, key)[axis] for key in names if key in base.__dict__}, validate_args=False)


def _on_grids(
    p: Distribution,
    q: Distribution,
    values: Callable[[Tensor], Tensor],
    name: str,
    tolerance: float,
    unit: str,
    kinked: bool,
) -> list[Estimate]:
    """Three integrals over the plane, on grids that double their nodes along each axis until nothing moves."""
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
            # A kink may by luck hardly move once: what the step before moved, shrunk by four, is believed too.
            luck = moved.nan_to_num(posinf=0.0) / 4 if kinked else torch.zeros(3)
            moved = torch.maximum((total - previous).abs(), luck)
            if bool((moved <= max(tolerance, _TOLERANCE_IN_THE_PLANE)).all()):
                previous = total
                break
        previous, level = total, level + 1
    if previous is None or not bool((2 * moved <= 1e-3).all()):
        raise UnsupportedError(
            f"quadrature of {name} on {_MOST_POINTS} points of the plane does not settle; use monte_carlo"
        )
    rule = "trapezoid" if smooth else "Gauss-Legendre panels"
    return [
        Estimate(
            previous[k].item(),
            name=label,
            n=evaluations,
            unit=unit,
            method="quadrature",
            settings={"error": 2 * moved[k].item() + 1e-13, "rule": rule, "box": np.stack([low, high], -1).tolist()},
        )
        for k, label in enumerate((name, "the mass of P", "the mass of Q"))
    ]
