r"""Adaptive quadrature in one dimension, with an error that it vouches for.

An integral is cut at the given breakpoints (the places where the integrand may jump, bend, or grow without bound) and
each piece is mapped to t in (0, 1] with its delicate end at t = 0:

    finite end e      x = e + (m − e) t⁴          an algebraic singularity |x − e|^(−a), a ≤ 3/4, becomes bounded
    infinite end      x = a ± s (t⁻² − 1)         a tail |x|^(−3/2) or lighter becomes bounded

The pieces are then halved together, whole generations at a time, under the Gauss-Kronrod (10, 21) pair. The
difference of the two rules bounds the error of the poorer one, and what the last halving changed bounds it again;
the larger of the two is what `settings["error"]` sums up, with a floor for rounding and with all that lies where
floats cannot resolve the integrand. So the certificate is usually pessimistic by orders of magnitude.

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


@dataclass(frozen=True)
class _Pieces:
    """Where each piece of the line starts (its delicate end), how long it is (signed), and whether it is infinite."""

    origin: Tensor
    length: Tensor
    infinite: Tensor

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
        """Points x and dx/dt at t (intervals, nodes) of the pieces `index` (intervals,); x never touches an end."""
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
    """Integrals of several functions over one range of the line, sharing every evaluation.

    Args:
        integrand: maps x (N,), float64, to values (N, K) in float64, one column for each name.
        breakpoints: at least two numbers in rising order, the ends included; the first may be −inf, the last +inf.
        names: of the K integrals.
        tolerance: the certified error to reach, relative to ∫|f| (or to 1/1000, if that is more). Where rounding or an
            awkward integrand stops short of it, the larger error reached is what the estimates record.
        unit: of the integrals.

    Returns:
        K estimates of kind "estimate", method "quadrature", whose `settings["error"]` bounds their error.

    Raises:
        UnsupportedError: the integral does not converge, or the integrand is not finite inside a piece.
    """
    points = _with_a_finite_point(breakpoints)
    pieces = _Pieces.between(points)

    def rule(index: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Kronrod's sum, its distance to Gauss's, ∫|f|, and the error below which no halving helps: (intervals, K)."""
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
        # Near a singular end x itself is rounded, by |x| ε in a distance |x − end|: halving cannot mend that.
        blur = _EPSILON * x.abs() / (x - pieces.origin[index, None]).abs()
        noise = torch.einsum("ijk,ij,j->ik", weighted.abs(), blur, _KRONROD)
        resolved = ((x[:, -1] - x[:, 0]).abs() > 16 * _EPSILON * x.abs().amax(-1)) & (half > 1e-100)
        # Where floats no longer tell the nodes apart, the rules agree about nothing: the whole of it is in doubt.
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
        # On a kink the two rules may agree by accident; then what halving changed tells how far they were off.
        moved = (halves[0][: len(split)] + halves[0][len(split) :] - kronrod[split]).abs()
        results = (halves[0], torch.maximum(halves[1], moved.repeat(2, 1)), *halves[2:])
        evaluations += 21 * len(new[0])
        index, low, high = (torch.cat([a[keep], b]) for a, b in zip((index, low, high), new, strict=True))
        old = (kronrod, error, size, floor)
        kronrod, error, size, floor = (torch.cat([a[keep], b]) for a, b in zip(old, results, strict=True))

    value, total = kronrod.sum(0), size.sum(0)
    bound = error.sum(0) + 50 * _EPSILON * total
    if not bool((bound <= 1e-3 * total.clamp_min(1e-9)).all()):
        worst = names[int((bound / total.clamp_min(1e-9)).argmax())]
        worst_name = f" for {worst}" if worst else ""
        raise UnsupportedError(
            f"quadrature: the integral{worst_name} does not converge on [{points[0]:.6g}, {points[-1]:.6g}] after "
            f"{evaluations} evaluations; it may be infinite. Ask monte_carlo, and distrust it too"
        )
    return [
        Estimate(
            value[k].item(),
            name=name,
            n=evaluations,
            unit=unit,
            method="quadrature",
            settings={"error": bound[k].item(), "rule": "adaptive Gauss-Kronrod (10, 21)", "intervals": len(index)},
        )
        for k, name in enumerate(names)
    ]


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
        raise ValueError(f"breakpoints must be at least two numbers in rising order; given: {points}")
    if any(math.isinf(point) for point in points[1:-1]) or points[0] == math.inf or points[-1] == -math.inf:
        raise ValueError(f"only the outer breakpoints may be infinite; given: {points}")
    return points if any(math.isfinite(point) for point in points) else [points[0], 0.0, points[1]]
