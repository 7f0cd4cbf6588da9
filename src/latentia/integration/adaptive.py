r"""Adaptive quadrature in one dimension, with an estimate of its error.

The range is cut at the given breakpoints (the places where the integrand may jump, bend, or grow without bound). Each
piece is mapped to t in (0, 1] with its singular end at t = 0:

    finite end e      x = e + (m − e) t⁴          an algebraic singularity |x − e|^(−a), a ≤ 3/4, becomes bounded
    infinite end      x = a ± s (t⁻² − 1)         a tail |x|^(−3/2) or lighter becomes bounded

The pieces are halved, all those of one generation together, under the Gauss-Kronrod (10, 21) pair. The error of an
interval is the larger of two numbers: the difference of the two rules, and the change made by the last halving.
Rounding is added, and so is everything where floats cannot resolve the integrand. `settings["error"]` is the sum. It is
usually pessimistic by orders of magnitude, but it is not a proof: the nodes cannot see a peak between them.

*Heavy tails.* A tail such as |x|^(−1.01) holds a part of its integral beyond the largest float. What lies in the last
interval at t = 0 is therefore found from the power of t that the integrand follows there, C t^β: it is C h^(1+β)/(1+β).
The error of that part follows from the difference of the powers found on two octaves, and β ≤ −1 means that the
integral diverges.

Source: Piessens et al. 1983, QUADPACK (rule and global strategy).
"""

from __future__ import annotations

__all__ = ["integrate", "integrate_many"]

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from latentia.errors import UnsupportedError
from latentia.estimate import Estimate

_HALF_NODES = (
    0.995657163025808080735527280689003,
    0.973906528517171720077964012084452,
    0.930157491355708226001207180059508,
    0.865063366688984510732096688423493,
    0.780817726586416897063717578345042,
    0.679409568299024406234327365114874,
    0.562757134668604683339000099272694,
    0.433395394129247190799265943165784,
    0.294392862701460198131126603103866,
    0.148874338981631210884826001129720,
)
_HALF_WEIGHTS = (
    0.011694638867371874278064396062192,
    0.032558162307964727478818972459390,
    0.054755896574351996031381300244580,
    0.075039674810919952767043140916190,
    0.093125454583697605535065465083366,
    0.109387158802297641899210590325805,
    0.123491976262065851077958109585166,
    0.134709217311473325928054001771707,
    0.142775938577060080797094273138717,
    0.147739104901338491374841515972068,
)
_CENTER_WEIGHT = 0.149445554002916905664936468389821

_NODES = torch.tensor([-x for x in _HALF_NODES] + [0.0] + list(_HALF_NODES[::-1]), dtype=torch.float64)
_KRONROD = torch.tensor([*_HALF_WEIGHTS, _CENTER_WEIGHT, *_HALF_WEIGHTS[::-1]], dtype=torch.float64)
_GAUSS = torch.zeros(21, dtype=torch.float64)
_GAUSS[1::2] = torch.from_numpy(np.polynomial.legendre.leggauss(10)[1])

_EPSILON = torch.finfo(torch.float64).eps
_MOST_GENERATIONS = 400
_MOST_INTERVALS = 100_000
_LARGEST = 1e140  # intervals are halved up to this |x|; at their last node, 1e5 times further, x² is still a float
_NEAREST = 1e-280  # and down to this distance from a finite end


@dataclass(frozen=True)
class _Pieces:
    """Pieces of the line: the singular end of each, its signed length, and whether it is infinite."""

    origin: Tensor
    length: Tensor
    infinite: Tensor

    @property
    def smallest(self) -> Tensor:
        """The width in t at which halving stops, (pieces,)."""
        length = self.length.abs()
        return torch.where(self.infinite, (length / _LARGEST).sqrt(), (_NEAREST / length) ** 0.25).clamp(1e-100, 0.1)

    @classmethod
    def between(cls, breakpoints: Sequence[float]) -> _Pieces:
        """Both halves of each finite piece, and each infinite one on the scale of its finite neighbor."""
        finite = [point for point in breakpoints if math.isfinite(point)]
        gaps = [high - low for low, high in itertools.pairwise(finite)] or [max(1.0, abs(finite[0]))]
        pieces: list[tuple[float, float, bool]] = []
        for low, high in itertools.pairwise(breakpoints):
            if math.isinf(low):
                pieces.append((high, -gaps[0], True))
            elif math.isinf(high):
                pieces.append((low, gaps[-1], True))
            else:
                half = 0.5 * (high - low)
                pieces += [(low, half, False), (high, -half, False)]
        origin, length, infinite = zip(*pieces, strict=True)
        double = torch.float64
        return cls(torch.tensor(origin, dtype=double), torch.tensor(length, dtype=double), torch.tensor(infinite))

    def place(self, index: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Points x and dx/dt at t (intervals, nodes) of the pieces `index` (intervals,); x never equals an end."""
        origin, length, infinite = (part[index, None] for part in (self.origin, self.length, self.infinite))
        reach = torch.where(infinite, t**-2 - 1, t**4)
        slope = torch.where(infinite, 2 * t**-3, 4 * t**3)
        x = origin + length * reach
        inside = torch.nextafter(origin, origin + length)  # a density may be infinite, or ambiguous, at the end itself
        x = torch.where(length > 0, torch.maximum(x, inside), torch.minimum(x, inside))
        return x, length.abs() * slope


def integrate_many(
    integrand: Callable[[Tensor], Tensor],
    breakpoints: Sequence[float],
    *,
    names: Sequence[str],
    tolerance: float = 1e-12,
    unit: str = "nats",
) -> list[Estimate]:
    """Integrals of several functions over one range of the line; all share every evaluation.

    Args:
        integrand: maps x (N,), float64, to values (N, K) in float64, one column for each name.
        breakpoints: at least two numbers in increasing order, the ends included; the first may be −inf, the last +inf.
        names: of the K integrals.
        tolerance: the error to reach, relative to ∫|f| (or to 1/1000, if that is more). The estimates record the error
            that was reached, which is larger where rounding or a difficult integrand prevents the tolerance.
        unit: of the integrals.

    Returns:
        K estimates of kind "numerical", method "quadrature"; `settings["error"]` estimates the numerical error.

    Raises:
        UnsupportedError: the integral does not converge, or the integrand is not finite inside a piece.
    """
    points = _with_a_finite_point(breakpoints)
    pieces = _Pieces.between(points)

    def rule(index: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Kronrod's sum, its error, ∫|f|, and the error that halving cannot reduce: (intervals, K) each."""
        half = 0.5 * (high - low)
        t = (low + half)[:, None] + half[:, None] * _NODES
        x, slope = pieces.place(index, t)
        values = integrand(x.flatten()).reshape(*x.shape, -1)
        if not torch.isfinite(values).all():
            where = x[~torch.isfinite(values).all(-1)][0].item()
            raise UnsupportedError(
                f"quadrature: the integrand is not finite at x = {where:.6g}; make it a breakpoint, "
                "or suspect that the integral is infinite"
            )
        weighted = values * (slope * half[:, None])[..., None]
        kronrod = torch.einsum("ijk,j->ik", weighted, _KRONROD)
        gauss = torch.einsum("ijk,j->ik", weighted, _GAUSS)
        size = torch.einsum("ijk,j->ik", weighted.abs(), _KRONROD)
        # Near a singular end x is rounded by |x| ε at a distance |x − end|. Halving cannot reduce that error.
        blur = _EPSILON * x.abs() / (x - pieces.origin[index, None]).abs()
        noise = torch.einsum("ijk,ij,j->ik", weighted.abs(), blur, _KRONROD)
        wide = (x[:, -1] - x[:, 0]).abs() > 16 * _EPSILON * x.abs().amax(-1)
        resolved = wide & ((low > 0) | (half > pieces.smallest[index]))
        # Where the nodes are not distinct floats, the two rules mean nothing, and the whole integral is the error.
        error = torch.where(resolved[:, None], (kronrod - gauss).abs(), size) + noise
        return kronrod, error, size, torch.where(resolved[:, None], 4 * noise, torch.inf)

    index = torch.arange(len(pieces.origin))
    low, high = torch.zeros(len(index), dtype=torch.float64), torch.ones(len(index), dtype=torch.float64)
    kronrod, error, size, floor = rule(index, low, high)
    evaluations = 21 * len(index)
    for _ in range(_MOST_GENERATIONS):
        goal = tolerance * size.sum(0).clamp_min(1e-3) + 10 * _EPSILON * size.sum(0)
        bad = (error / goal).amax(-1)
        worst = torch.argsort(bad, descending=True)
        # Halve the fewest intervals without which the rest would meet half the goal.
        rest = error[worst].flip(0).cumsum(0).flip(0)
        split = worst[(rest > 0.5 * goal).any(-1)]
        split = split[(error[split] > floor[split]).any(-1)]
        if bool((error.sum(0) <= goal).all()) or len(split) == 0 or len(index) + len(split) > _MOST_INTERVALS:
            break
        keep = torch.ones(len(index), dtype=torch.bool)
        keep[split] = False
        middle = 0.5 * (low[split] + high[split])
        new = (index[split].repeat(2), torch.cat([low[split], middle]), torch.cat([middle, high[split]]))
        halves = rule(*new)
        # At a kink the two rules may agree by accident. The change made by halving then shows their error.
        moved = (halves[0][: len(split)] + halves[0][len(split) :] - kronrod[split]).abs()
        share = halves[1].unflatten(0, (2, -1)) + 1e-300
        moved = (moved * share / share.sum(0)).flatten(0, 1)
        results = (halves[0], torch.maximum(halves[1], moved), *halves[2:])
        evaluations += 21 * len(new[0])
        index, low, high = (torch.cat([a[keep], b]) for a, b in zip((index, low, high), new, strict=True))
        old = (kronrod, error, size, floor)
        kronrod, error, size, floor = (torch.cat([a[keep], b]) for a, b in zip(old, results, strict=True))

    ends = torch.nonzero((low == 0) & torch.isinf(floor).any(-1) & (high <= 0.25))[:, 0]
    if len(ends):
        kronrod[ends], error[ends] = _power_ends(
            integrand, pieces, index[ends], high[ends], (kronrod[ends], error[ends])
        )
        evaluations += 3 * len(ends)
    value, total = kronrod.sum(0), size.sum(0)
    bound = error.sum(0) + 50 * _EPSILON * total
    if not bool((bound <= 1e-3 * total.clamp_min(1e-9)).all()):
        worst = names[int((bound / total.clamp_min(1e-9)).argmax())]
        worst_name = f" for {worst}" if worst else ""
        raise UnsupportedError(
            f"quadrature: the integral{worst_name} does not converge on [{points[0]:.6g}, {points[-1]:.6g}] after "
            f"{evaluations} evaluations; it may be infinite"
        )
    return [
        Estimate(
            value[k].item(),
            name=name,
            n=evaluations,
            unit=unit,
            kind="numerical",
            method="quadrature",
            settings={
                "error": bound[k].item(),
                "rule": "adaptive Gauss-Kronrod (10, 21)",
                "intervals": len(index),
            },
        )
        for k, name in enumerate(names)
    ]


def _power_ends(
    integrand: Callable[[Tensor], Tensor],
    pieces: _Pieces,
    index: Tensor,
    width: Tensor,
    fallback: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor]:
    """Integrals over (0, width] in t by the power law C t^β found at width, 2·width and 4·width, and their errors.

    Args:
        integrand: as in `integrate_many`.
        pieces: of the line.
        index: the pieces, (E,).
        width: of the intervals, (E,).
        fallback: integrals and errors, (E, K), where the integrand changes its sign or is 0.

    Raises:
        UnsupportedError: β ≤ −1, so that the integral diverges.
    """
    t = width[:, None] * torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    x, slope = pieces.place(index, t)
    values = integrand(x.flatten()).reshape(*x.shape, -1) * slope[..., None]
    known = (values.sign() == values[:, :1].sign()).all(1) & (values != 0).all(1) & torch.isfinite(values).all(1)
    logs = torch.where(known[:, None], values.abs(), 1.0).log2()
    near, far = logs[:, 1] - logs[:, 0] + 1, logs[:, 2] - logs[:, 1] + 1  # 1 + β on both octaves
    unbounded = known & (near <= 1e-6) & (pieces.infinite | (pieces.origin == 0))[index, None]
    if bool(unbounded.any()):
        where = x[unbounded.any(-1)][0, 0].item()
        raise UnsupportedError(
            f"quadrature: the integral does not converge towards x = {where:.3g}; it may be infinite"
        )
    known &= (near > 1e-6) & (far > 1e-6)
    near, far = (torch.where(known, part, 1.0) for part in (near, far))
    h = width[:, None]
    part = values[:, 0] * h / near
    other = values[:, 1] * 2 * h * (1 / far - (1 - 2**-near) / near)
    blur = 8 * _EPSILON * (1 + (x[:, 0] / (x[:, 0] - pieces.origin[index])).abs())[:, None]
    drift = 4 * (near - far).abs() / near.square()  # a logarithm, as in p log p, changes the power slowly
    error = (part - other).abs() + part.abs() * (drift + blur * (1 + logs[:, 0].abs()) / near).clamp(max=1)
    return torch.where(known, part, fallback[0]), torch.where(known, error, fallback[1])


def integrate(
    integrand: Callable[[Tensor], Tensor],
    breakpoints: Sequence[float],
    *,
    name: str = "",
    tolerance: float = 1e-12,
    unit: str = "nats",
) -> Estimate:
    """The integral of one function; see `integrate_many`.

    Examples:
        >>> area = integrate(lambda x: torch.exp(-x * x / 2), [-math.inf, math.inf])
        >>> area.agrees_with(math.sqrt(2 * math.pi))
        True
    """
    return integrate_many(lambda x: integrand(x)[:, None], breakpoints, names=[name], tolerance=tolerance, unit=unit)[0]


def _with_a_finite_point(breakpoints: Sequence[float]) -> list[float]:
    points = [float(point) for point in breakpoints]
    if len(points) < 2 or any(math.isnan(point) for point in points) or points != sorted(set(points)):
        raise ValueError(f"breakpoints must be at least two numbers in increasing order; given: {points}")
    if any(math.isinf(point) for point in points[1:-1]) or points[0] == math.inf or points[-1] == -math.inf:
        raise ValueError(f"only the outer breakpoints may be infinite; given: {points}")
    return points if any(math.isfinite(point) for point in points) else [points[0], 0.0, points[1]]
