"""Where distributions put their mass: supports as boxes and atoms, absolute continuity, tails, and the places where to cut.

A continuous distribution's support is taken as a union of closed boxes (products of intervals, infinite ones included); a
discrete distribution's as its atoms. KL(P ‖ Q) is finite only if P puts no mass where Q puts none (absolute continuity), and
that is a question about supports, answered here before any number is computed. All distributions here are canonical.
"""

from __future__ import annotations

__all__ = [
    "atoms",
    "boxes",
    "dimension",
    "escape",
    "heaviest_moment",
    "infinite_relative_entropy",
    "is_discrete",
    "separation",
]

import itertools
import math

import numpy as np
import torch
from torch import Tensor
from torch import distributions as td
from torch.distributions import Distribution, constraints

from latentia.distributions.finite import Finite
from latentia.distributions.mixtures import Mixture, log_density
from latentia.errors import UnsupportedError


def dimension(distribution: Distribution) -> int:
    """Dimension of the space that the distribution lies over: 1 for the line."""
    return math.prod(distribution.event_shape)


def is_discrete(distribution: Distribution) -> bool:
    """Whether the distribution is on points, rather than with a density."""
    return bool(distribution.support.is_discrete)  # pyright: ignore


def atoms(distribution: Distribution) -> tuple[Finite, float]:
    """A discrete distribution as a finite one, and the mass (0 if it was finite) beyond the atoms that were kept.

    A distribution on the whole numbers is cut where its tail is lost in rounding: 40 standard deviations above its mean.

    Raises:
        UnsupportedError: the distribution's atoms cannot be listed.
    """
    if isinstance(distribution, Finite):
        return distribution, 0.0
    if distribution.event_shape or not is_discrete(distribution):
        raise UnsupportedError(f"the atoms of {distribution} cannot be listed; use monte_carlo")
    parts = distribution.components if isinstance(distribution, Mixture) else (distribution,)
    top = max(float(part.mean + 40 * part.variance.sqrt()) for part in parts) + 50
    if not top < 2**22:
        raise UnsupportedError(f"{distribution} has more than {2**22} atoms that matter; use monte_carlo")
    points = torch.arange(math.ceil(top), dtype=torch.float64)
    weights = log_density(distribution, points).exp()
    return Finite(points, weights / weights.sum(), validate_args=False), max(1e-15, abs(1 - weights.sum().item()))


def boxes(distribution: Distribution) -> np.ndarray | None:
    """The support of a continuous distribution as boxes, (k, d, 2) of lower and upper ends; None if it is not known.

    A set that is no union of boxes, such as a simplex, is not known.
    """
    if isinstance(distribution, Mixture):
        parts = [boxes(part) for part in distribution.components]
        return None if any(part is None for part in parts) else np.concatenate([p for p in parts if p is not None])
    support = distribution.support
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    if isinstance(support, type(constraints.real)):
        low, high = -math.inf, math.inf
    elif hasattr(support, "lower_bound") or hasattr(support, "upper_bound"):
        low, high = getattr(support, "lower_bound", -math.inf), getattr(support, "upper_bound", math.inf)
    else:
        return None
    ends = [np.broadcast_to(np.asarray(end, dtype=float).reshape(-1), dimension(distribution)) for end in (low, high)]
    return np.stack(ends, axis=-1)[None]


def escape(p: Distribution, q: Distribution) -> str | None:
    """Why P is not absolutely continuous with respect to Q, in words; None if it is, or if supports are not known.

    Raises:
        UnsupportedError: the supports are many boxes in more than three dimensions.
    """
    if is_discrete(p) != is_discrete(q):
        return "one distribution sits on points and the other has a density, so they are mutually singular"
    if is_discrete(p):
        distribution, tail = atoms(p)
        lost = (log_density(q, distribution.points) == -torch.inf) & (distribution.weights > 0)
        if bool(lost.any()):
            mass, point = distribution.weights[lost].sum().item(), _show(distribution.points[lost][0])
            return f"P puts mass {mass:.6g} where Q puts none, such as on {point}"
        return "P has infinitely many atoms and Q finitely many" if tail and isinstance(q, Finite) else None
    first, second = boxes(p), boxes(q)
    if first is None or second is None:
        return None
    hole = _uncovered(first, second)
    return None if hole is None else f"P puts mass on {_show_box(hole)}, where Q puts none"


def separation(p: Distribution, q: Distribution) -> str | None:
    """Why no point has mass or density under both distributions (they are mutually singular); None if that is not so."""
    if is_discrete(p) != is_discrete(q):
        return "one distribution sits on points and the other has a density, so they are mutually singular"
    if is_discrete(p):
        distribution, tail = atoms(p)
        met = (log_density(q, distribution.points) > -torch.inf) & (distribution.weights > 0)
        return None if tail or bool(met.any()) else "the distributions have no atom in common"
    first, second = boxes(p), boxes(q)
    if first is None or second is None:
        return None
    meets = (
        np.maximum(first[:, None, :, 0], second[None, :, :, 0])
        < np.minimum(first[:, None, :, 1], second[None, :, :, 1])
    ).all(-1)
    return None if meets.any() else "the supports are disjoint, up to sets without mass"


def _uncovered(first: np.ndarray, second: np.ndarray) -> np.ndarray | None:
    """A box of positive volume, (d, 2), in the union of the first boxes and outside the union of the second."""
    d = first.shape[1]
    for box in first:
        inside = (second[:, :, 0] <= box[:, 0]) & (second[:, :, 1] >= box[:, 1])
        if inside.all(-1).any():
            continue
        if len(second) == 1:  # the part of the box beyond one face of the other
            axis = int(np.argmin(inside[0]))
            hole, (low, high) = box.copy(), second[0, axis]
            hole[axis] = (
                (box[axis, 0], min(low, box[axis, 1]))
                if box[axis, 0] < low
                else (max(high, box[axis, 0]), box[axis, 1])
            )
            return hole
        if d > 3:
            raise UnsupportedError(
                "absolute continuity between unions of boxes is decided in up to 3 dimensions; use monte_carlo"
            )
        cuts = [np.unique(np.clip(np.r_[box[i], second[:, i].ravel()], *box[i])) for i in range(d)]
        for cell in itertools.product(*(itertools.pairwise(cut) for cut in cuts)):
            hole = np.asarray(cell)
            if not ((second[:, :, 0] <= hole[:, 0]) & (second[:, :, 1] >= hole[:, 1])).all(-1).any():
                return hole
    return None


def _show(point: Tensor) -> str:
    return str(np.round(point.numpy(), 6).tolist())


def _show_box(box: np.ndarray) -> str:
    return " × ".join(f"[{low:.6g}, {high:.6g}]" for low, high in box)


# E|x|^a is finite for a below this, and infinite from it on. Families that are not named have every moment.
_MOMENTS = {
    td.Cauchy: lambda _: 1.0,
    td.HalfCauchy: lambda _: 1.0,
    td.StudentT: lambda distribution: distribution.df.item(),
    td.Pareto: lambda distribution: distribution.alpha.item(),
    td.InverseGamma: lambda distribution: distribution.concentration.item(),
}
# −log q(x) grows at least like |x|^g along each tail (Gumbel: even faster on the left).
_GROWTH = {
    td.Normal: lambda _: 2.0,
    td.MultivariateNormal: lambda _: 2.0,
    td.HalfNormal: lambda _: 2.0,
    td.Laplace: lambda _: 1.0,
    td.Exponential: lambda _: 1.0,
    td.Gamma: lambda _: 1.0,
    td.Chi2: lambda _: 1.0,
    td.Gumbel: lambda _: 1.0,
    td.Weibull: lambda distribution: distribution.concentration.item(),
}


def heaviest_moment(distribution: Distribution) -> float:
    """The smallest a for which E|x|^a is infinite; +inf where every moment is finite. For distributions on the line."""
    if isinstance(distribution, Mixture):
        return min(heaviest_moment(part) for part in distribution.components)
    return _MOMENTS.get(type(distribution), lambda _: math.inf)(distribution)


def infinite_relative_entropy(p: Distribution, q: Distribution) -> str | None:
    """Why E_p[−log q] is infinite although supports allow it: P's tail against the decay of Q. For distributions on the line."""
    parts = q.components if isinstance(q, Mixture) else (q,)
    growth = min(_GROWTH.get(type(part), lambda _: 0.0)(part) for part in parts)
    moment = heaviest_moment(p)
    if growth >= moment:
        return f"−log q grows like |x|^{growth:g} or faster, and E_p|x|^{moment:g} is infinite"
    return None
