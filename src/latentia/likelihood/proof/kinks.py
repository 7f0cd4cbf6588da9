"""Moments of rectifiers over tiles: how far relu(u) lies from a line on average, and not only at most.

For u = a + b·t on t ∈ [−1, 1]ᵈ the moments are ∫ relu(u) Pₚ(t₁) P_q(t₂) dt / 2ᵈ with Legendre polynomials of total
degree at most 3. Along the axis of the larger |b| the integral is a polynomial of the place where u = 0. Along the
other axis the integrand is a polynomial of degree 5 on each of three pieces, for which Gauss's rule with three nodes is
exact. Rounding is the only error of the moments.
"""

from __future__ import annotations

__all__: list[str] = []  # used by the proofs only

import math

import torch
from torch import Tensor

DEGREES = {1: [(p,) for p in range(4)], 2: [(p, n - p) for n in range(4) for p in range(n, -1, -1)]}
"""Degrees along each axis, of total degree at most 3, by dimension; other dimensions have no moments."""
ROUNDING = 1e-13  # of a moment, relative to |a| + Σ |b|: some 400 roundings, of fewer than 200 operations
CUBES = {
    1: torch.tensor([[0, 1 / 5, 0, 2 / 35]], dtype=torch.float64),
    2: torch.zeros(4, 10, dtype=torch.float64),
}
"""By dimension: moments of the monomials t₁³, t₁² t₂, t₁ t₂², t₂³ (or t³), (4 or 1, Q)."""
for _row, _entries in enumerate(
    (
        {(1, 0): 1 / 5, (3, 0): 2 / 35},
        {(0, 1): 1 / 9, (2, 1): 2 / 45},
        {(1, 0): 1 / 9, (1, 2): 2 / 45},
        {(0, 1): 1 / 5, (0, 3): 2 / 35},
    )
):
    for _degrees, _moment in _entries.items():
        CUBES[2][_row, DEGREES[2].index(_degrees)] = _moment


def _times_coordinate(d: int) -> Tensor:
    """(2p + 1) t Pₚ = (p + 1) Pₚ₊₁ + p Pₚ₋₁ along each axis, (d, Q, Q)."""
    degrees = DEGREES[d]
    found = torch.zeros(d, len(degrees), len(degrees), dtype=torch.float64)
    for row, wanted in enumerate(degrees):
        for axis, p in enumerate(wanted):
            for neighbor, factor in ((p + 1, p + 1), (p - 1, p)):
                known = (*wanted[:axis], neighbor, *wanted[axis + 1 :])
                if sum(wanted) < 3 and known in degrees:
                    found[axis, row, degrees.index(known)] = factor / (2 * p + 1)
    return found


TIMES_COORDINATE = {d: _times_coordinate(d) for d in DEGREES}
"""By dimension: the moments of tₖ f up to total degree 2 from those of f, (d, Q, Q); those of degree 3 are 0."""
_NODES = torch.tensor([-math.sqrt(0.6), 0.0, math.sqrt(0.6)], dtype=torch.float64)
_WEIGHTS = torch.tensor([5 / 9, 8 / 9, 5 / 9], dtype=torch.float64)


def rectifier_moments(center: Tensor, slopes: Tensor) -> Tensor:
    """Means of relu(center + slopes · t) times Legendre polynomials over [−1, 1]ᵈ, (N, Q), for d ≤ 2.

    Args:
        center: a, (N,).
        slopes: b, (N, d).
    """
    if slopes.shape[1] == 1:
        return _along(center, slopes[:, 0].abs()).T * _signs(slopes[:, 0])
    swap = slopes[:, 0].abs() > slopes[:, 1].abs()
    first, second = torch.where(swap, slopes.flip(1).T, slopes.T)
    size = second.abs()
    # Where u = ±|b₂| the integral along the second axis changes its form; a slope too small to matter moves it nowhere.
    least = (1e-12 * size).clamp(min=1e-300)
    safe = torch.where(first.abs() < least, least, first)
    breaks = torch.stack([(-size - center) / safe, (size - center) / safe], -1).clamp(-1, 1).sort(-1).values
    ends = torch.cat([-torch.ones_like(breaks[:, :1]), breaks, torch.ones_like(breaks[:, :1])], -1)
    half = 0.5 * ends.diff(dim=-1)
    middle = ends[:, :-1] + half
    t = (middle.unsqueeze(-1) + half.unsqueeze(-1) * _NODES).flatten(1)
    weights = (0.5 * half.unsqueeze(-1) * _WEIGHTS).flatten(1)
    inner = _along(center[:, None] + first[:, None] * t, size[:, None]) * weights
    found = torch.einsum("png,qng->npq", _legendre(t), inner) * _signs(second).unsqueeze(1)
    found = torch.where(swap[:, None, None], found.mT, found)
    return torch.stack([found[:, p, q] for p, q in DEGREES[2]], -1)


def _along(offset: Tensor, size: Tensor) -> Tensor:
    """½ ∫ relu(offset + size · t) P_q(t) dt over [−1, 1] for q = 0 … 3, (4, …), with size ≥ 0."""
    root = (-offset / size.clamp(min=1e-300)).clamp(-1, 1)
    square = (1 - root).square()
    both = (1 - root.square()).square() / 8
    beyond = 2 * torch.relu(offset - size)  # u > 0 everywhere
    parts = [size * square / 2 + beyond, size * square * (2 + root) / 6, size * both, size * both * root]
    return 0.5 * torch.stack(parts)


def _legendre(t: Tensor) -> Tensor:
    return torch.stack([torch.ones_like(t), t, 1.5 * t.square() - 0.5, t * (2.5 * t.square() - 1.5)])


def _signs(slope: Tensor) -> Tensor:
    """(−1)^q for q = 0 … 3 where the slope is negative, (N, 4)."""
    sign = torch.where(slope < 0, -1.0, 1.0).to(slope.dtype)
    one = torch.ones_like(sign)
    return torch.stack([one, sign, one, sign], -1)
