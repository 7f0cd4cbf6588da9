"""The mass of a tile between two bounds, from an enclosure of the logarithm of the density on it.

On a tile with z = c + r∘t and t ∈ [−1, 1]ᵈ let

    log p(x|z) p(z)  =  α + g·t − w(t)  ± slack,        w(t) = ½ tᵀH t,  0 ≤ w ≤ w̄.

With m₀ the mean of exp(g·t) over the tile and E the mean under the density that is proportional to it, the mass is

    at least  |tile| m₀ exp(α − slack − E w)                          by Jensen's inequality,
    at most   |tile| m₀ exp(α + slack) (1 − (1 − w̄/2) E w)            by e^{−w} ≤ 1 − w + w²/2, for w̄ ≤ 1.

Where deviations are known on average, log p(x|z) p(z) = α + g·t − w(t) + X(t) ± rest with |X| ≤ s, and with the moments
of X against Legendre polynomials. Since e^{g·t} is a sum of products of aₚ(gᵢ) Pₚ(tᵢ) with aₚ = (2p + 1) iₚ (modified
spherical Bessel functions, positive for g > 0), the terms of total degree above 3 add at most s (e^{|g|₁}/m₀ − Σ |aₚ
a_q|/m₀) to E X, over total degrees at most 3. The mass is

    at least  |tile| m₀ exp(α − rest + E X − E w)                     by Jensen's inequality,
    at most   |tile| m₀ exp(α + rest) (1 + E X − E w + κ (s² + (2s + w̄) E w)),    κ = 1/2 + s e^s/6,

by e^y ≤ 1 + y + κ y² for y ≤ s.
"""

from __future__ import annotations

__all__: list[str] = []  # used by the proofs only

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from latentia.likelihood.proof.kinks import DEGREES
from latentia.likelihood.proof.likelihoods import Table
from latentia.likelihood.proof.rounding import UNIT


@dataclass(frozen=True)
class Density:
    """log p(z) on S tiles: value + slope·t − ½ tᵀH t with slack; above with one H, below with another.

    Attributes:
        value: (S,).
        slope: (S, d).
        curvature_above, curvature_below: H of the upper and of the lower bound, (S, d, d).
        above, below: slack upwards and downwards, (S,).
        top: an upper bound over the whole tile, (S,).
        edge: (S, d), the coordinates in which the density may be singular: there `value` is the logarithm of its mean
            over the tile, and nothing is known of how it varies; None for none.
    """

    value: Tensor
    slope: Tensor
    curvature_above: Tensor
    curvature_below: Tensor
    above: Tensor
    below: Tensor
    top: Tensor
    edge: Tensor | None = None


def log_masses(table: Table, prior: Density, log_volume: float, supremum: Tensor) -> tuple[Tensor, Tensor]:
    """Upper and lower bounds of log ∫ p(x|z) p(z) dz over each tile, (n, S) each."""
    slope = table.slope + prior.slope
    log_mean, first, second = _moments(slope)
    value = table.value + (prior.value + log_volume) + log_mean.sum(-1)
    below = table.curvature + prior.curvature_below
    noise = 1e-13 * (1 + 0.5 * below.abs().sum((-1, -2)))
    lower = value - _mean_square(below, first, second) - table.slack - (table.below + prior.below + noise)
    above = torch.where(table.flat[:, None, None], 0.0, table.curvature) + prior.curvature_above
    most = 0.5 * above.abs().sum((-1, -2)) * (1 + 16 * UNIT)
    loss = torch.where(most <= 1, 1 - 0.5 * most, 0.0) * _mean_square(above, first, second)
    extra = torch.where(table.flat, table.above_flat, table.above) + prior.above + 1e-13
    upper = value + torch.log1p(-loss.clamp(max=0.75)) + table.slack + extra
    if prior.edge is not None and bool(prior.edge.any()):
        # There exp(g t) lies between e^−|g| and e^|g| under any density, and w between 0 and its largest value.
        least, most_of_all = (torch.where(prior.edge, x, log_mean) for x in (-slope.abs(), slope.abs()))
        base, at = table.value + (prior.value + log_volume), prior.edge.any(-1)
        w = 0.5 * below.abs().sum((-1, -2)) * (1 + 16 * UNIT)
        lower = torch.where(at, base + least.sum(-1) - w - table.slack - (table.below + prior.below + noise), lower)
        upper = torch.where(at, base + most_of_all.sum(-1) + table.slack + extra, upper)
    if bool((most > 1).any()):
        peak = table.value + (prior.value + log_volume) + largest(slope, minorant(above)) + table.slack + extra
        upper = torch.where(peak < upper, peak, upper)
    x = table.average
    if x is not None and prior.edge is None:
        size = table.slack + x.rest + x.swing
        mean = _mean_deviation(slope, log_mean, first, second, x.moments, size, x.crossed)
        base, bend = table.value + (prior.value + log_volume) + log_mean.sum(-1), _mean_square(below, first, second)
        floor = base + mean[0] - bend - x.rest - (x.sunk + prior.below + noise)
        lower = torch.where(floor > lower, floor, lower)
        curvature = table.curvature + prior.curvature_above
        most, w = 0.5 * curvature.abs().sum((-1, -2)) * (1 + 16 * UNIT), _mean_square(curvature, first, second)
        growth = mean[1] - w + (0.5 + size * size.exp() / 6) * (size.square() + (2 * size + most) * w)
        growth = (growth + 1e-13 * (1 + most)).clamp(min=-0.75)
        ceiling = base + torch.log1p(growth) + x.rest + prior.above + 1e-13
        upper = torch.where(ceiling < upper, ceiling, upper)
    cap = supremum[:, None] + (prior.top + log_volume + 1e-13)
    upper = torch.where(upper < cap, upper, cap)  # also where it is not a number
    return upper, torch.where(torch.isnan(lower), -math.inf, lower)


def _moments(slope: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """log ½∫exp(g t) dt, E t and E t² over [−1, 1] under the density ∝ exp(g t)."""
    size = slope.abs()
    small = size < 0.1
    safe = size.clamp(min=0.1)
    decay = torch.exp(-2 * safe)
    ratio = ((1 + decay) / (1 - decay) - 1 / safe) / safe  # (coth g − 1/g)/g
    square = size.square().clamp(max=0.01)
    series = 1 / 3 - square * (1 / 45 - square * (2 / 945 - square * (1 / 4725 - square * (2 / 93555))))
    ratio = torch.where(small, series, ratio)
    closed = safe + torch.log((1 - decay) / (2 * safe))
    log_series = square * (1 / 6 - square * (1 / 180 - square * (1 / 2835 - square * (1 / 37800))))
    return torch.where(small, log_series, closed), slope * ratio, 1 - 2 * ratio


def _mean_deviation(
    slope: Tensor, log_mean: Tensor, first: Tensor, second: Tensor, moments: Tensor, most: Tensor, crossed: Tensor
) -> tuple[Tensor, Tensor]:
    """Lower and upper bounds of E X under the density ∝ exp(g·t), (n, S) each.

    Args:
        slope: g, (n, S, d).
        log_mean, first, second: of that density, as `_moments` gives them.
        moments: of X, (n, S, Q).
        most: bound of |X|, (n, S).
        crossed: bound of a part of X whose moments of degree 3 are not in `moments`, (S,).
    """
    size = slope.abs()
    square = size.square().clamp(max=0.01)
    cubic = slope * square * (1 / 105 - square * (1 / 945 - square * 1.0903e-4))
    quadratic = 0.5 * (3 * second - 1)
    third = torch.where(size < 0.1, cubic, first - 5 * quadratic / torch.where(size < 0.1, 1.0, slope))
    shares = torch.stack([torch.ones_like(first), 3 * first, 5 * quadratic, 7 * third])  # (4, n, S, d)
    total, absolute, highest = (torch.zeros_like(most) for _ in range(3))
    for number, degrees in enumerate(DEGREES[slope.shape[-1]]):
        product = shares[degrees[0], ..., 0]
        if len(degrees) > 1:
            product = product * shares[degrees[1], ..., 1]
        total = total + product * moments[..., number]
        absolute = absolute + product.abs()
        highest = highest + product.abs() if sum(degrees) == 3 else highest
    whole = torch.exp(size.sum(-1) - log_mean.sum(-1))
    error = ((whole - absolute).clamp(min=0) + 1e-8 * whole) * most + highest * (1 + 1e-8) * crossed
    return total - error, total + error


def _mean_square(curvature: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """E ½ tᵀH t, (n, S), for independent coordinates of the given moments (n, S, d) and H (S, d, d)."""
    result = 0.5 * (second * curvature.diagonal(dim1=-2, dim2=-1)).sum(-1)
    d = curvature.shape[-1]
    for i in range(d):
        for j in range(i + 1, d):
            result = result + curvature[:, i, j] * first[..., i] * first[..., j]
    return result


def minorant(curvature: Tensor) -> Tensor:
    """h ≥ 0, (…, d), with tᵀH t ≥ Σ hᵢ tᵢ² for all t, from a positive semidefinite H, (…, d, d).

    With C the matrix of H scaled to a diagonal of ones, H − diag(h) is positive semidefinite for h = λ diag(H) and any
    λ at most the least eigenvalue of C, which is at least 1 − maxᵢ Σⱼ |Cᵢⱼ| over j ≠ i (Gershgorin).
    """
    diagonal = curvature.diagonal(dim1=-2, dim2=-1)
    root = diagonal.clamp(min=1e-300).rsqrt()
    others = (curvature * root.unsqueeze(-1) * root.unsqueeze(-2)).abs().sum(-1).amax(-1) - 1
    least = (1 - others - 64 * UNIT).clamp(0, 1).nan_to_num(0.0)
    return least.unsqueeze(-1) * diagonal


def largest(slope: Tensor, curvature: Tensor) -> Tensor:
    """Σ over axes of the maximum of g t − ½ h t² over |t| ≤ 1, with h ≥ 0: (…, d) → (…)."""
    size = slope.abs()
    inner = size.square() / (2 * curvature).clamp(min=1e-300)
    return (torch.where(size >= curvature, size - 0.5 * curvature, inner) * (1 + 16 * UNIT)).sum(-1)
