"""Products of Beta or gamma densities for the proof: bounded supports, half-lines, and singular edges.

The logarithm of such a density is const + α log u + β log v − γ z in each coordinate, with u and v the distances from
the two ends of the support; on a tile away from the ends the logarithms are enclosed by lines. On a tile at an end
where the density is singular (or zero), the mass of the end's interval [0, h] is known instead,

    ∫₀ʰ u^α w(u) du = h^(α + 1)/(α + 1) · w(θ)      for one θ in [0, h],

with w the other factors, which are continuous there.
"""

from __future__ import annotations

__all__: list[str] = []  # used by the proofs only

import math
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor
from torch.distributions import Beta, Chi2, Distribution, Exponential, Gamma

from latentia.errors import UnsupportedError
from latentia.likelihood.proof.curves import Curve
from latentia.likelihood.proof.masses import Density
from latentia.likelihood.proof.priors import BoxedPrior
from latentia.likelihood.proof.rounding import ELEMENTARY, UNIT

LOG = Curve(torch.log, torch.reciprocal, lambda u: -1 / u.square())
CONSTANT_NOISE = 1e-12  # relative error of the logarithm of a normalizing constant


@dataclass(frozen=True)
class Coordinate:
    """log p(z) = constant + power log z + other log(1 − z) − rate z on [0, 1], or with other = 0 on [0, ∞).

    Attributes:
        power: α > −1.
        other: β > −1.
        rate: γ.
        constant: of the density's logarithm.
        bounded: whether the support is [0, 1].
    """

    power: float
    other: float
    rate: float
    constant: float
    bounded: bool

    def log_tail(self, end: float) -> float:
        """Upper bound of log P(z > end), by Chernoff: (γR/a)^a e^(a − γR) for γR ≥ a = α + 1."""
        if self.bounded:
            return -math.inf if end >= 1 else 0.0
        shape, far = self.power + 1, self.rate * end
        return 0.0 if far <= shape else shape * math.log(far / shape) + shape - far + 1e-9

    def end(self, reach: float) -> float:
        """A power of two (1 for a bounded support) beyond which there is at most e^−reach."""
        if self.bounded:
            return 1.0
        end = 2.0 ** math.ceil(math.log2((self.power + 1) / self.rate))
        while self.log_tail(end) > -reach:
            end *= 2
        return end


@dataclass(frozen=True)
class Product:
    """Independent coordinates."""

    coordinates: list[Coordinate]

    def origin(self, margin: float) -> Tensor:
        """The middle of the box that leaves out at most exp(−½ margin²) in each coordinate, (d,)."""
        return 0.5 * self._ends(margin)

    def box(self, margin: float) -> BoxedPrior:
        """The prior on that box."""
        return _ProductPrior(self.coordinates, self._ends(margin))

    def _ends(self, margin: float) -> Tensor:
        return torch.tensor([part.end(0.5 * margin**2) for part in self.coordinates], dtype=torch.float64)


class _ProductPrior(BoxedPrior):
    def __init__(self, coordinates: list[Coordinate], ends: Tensor):
        self.coordinates, self.ends = coordinates, ends.tolist()
        self.origin, self.scale = 0.5 * ends, 0.5 * ends
        self.spread = float(ends.max())
        tails = [part.log_tail(end) for part, end in zip(coordinates, self.ends, strict=True)]
        self.log_tail = float(torch.tensor(tails, dtype=torch.float64).logsumexp(0))

    def on_tiles(self, centers: Tensor, radius: float) -> Density:
        columns = zip(self.coordinates, self.ends, centers.T, strict=True)
        found = [_on_intervals(part, end, column, radius) for part, end, column in columns]
        values, slopes, noises, edges = (torch.stack(parts, -1) for parts in zip(*found, strict=True))
        value, noise = values.sum(-1), noises.sum(-1) + 1e-13 * (1 + values.abs().sum(-1))
        flat = torch.zeros(*centers.shape, centers.shape[1], dtype=torch.float64)
        top = (value + slopes.abs().sum(-1) + noise).nan_to_num(nan=math.inf, posinf=math.inf)
        return Density(value, slopes, flat, flat, noise, noise, top, edges)


def _on_intervals(part: Coordinate, end: float, center: Tensor, radius: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Value, slope and error of log p(z) for z = end (1 + s)/2, |s − center| ≤ radius; at an edge, of its mean density.

    The centers are dyadic, so 1 ± s are exact near the edges.
    """
    half = 0.5 * end
    u, v, r = half * (1 + center), half * (1 - center), half * radius
    edge = torch.zeros_like(center, dtype=torch.bool)
    value, slope = part.constant - part.rate * u, torch.full_like(u, -part.rate * r)
    noise = CONSTANT_NOISE * (1 + abs(part.constant)) + ELEMENTARY * part.rate * (u + r)
    for power, place, sign in ((part.power, u, 1.0), (part.other, v, -1.0)):
        if power == 0:
            continue
        at_edge = place <= r * (1 + 8 * UNIT)
        safe = torch.where(at_edge, 2 * r, place)
        line, shift, error = LOG.line(safe, r + 4 * UNIT * safe)
        value = value + torch.where(at_edge, 0.0, power * (line * place + shift))
        slope = slope + torch.where(at_edge, 0.0, sign * power * line * r)
        bound = abs(power) * (error + ELEMENTARY * (line * (place + r)).abs() + ELEMENTARY * shift.abs())
        noise = noise + torch.where(at_edge, 0.0, bound)
        edge = edge | at_edge
        mean = power * math.log(2 * r) - math.log1p(power)
        value = value + torch.where(at_edge, mean, 0.0)
        noise = noise + torch.where(at_edge, ELEMENTARY * (1 + abs(mean)), 0.0)
    # At an edge the other factors vary within the bounds that their lines give: no slope, all of it error.
    noise = torch.where(edge, noise + slope.abs(), noise)
    return value, torch.where(edge, 0.0, slope), noise, edge


def product_of(base: Distribution) -> Product:
    """The coordinates of a batch of one-dimensional distributions.

    Raises:
        UnsupportedError: for parameters beyond what float64 serves.
    """
    if type(base) is Beta:
        pairs = zip(*_numbers(base.concentration1, base.concentration0), strict=True)
        return Product([_beta(a, b) for a, b in pairs])
    if type(base) is Exponential:
        (rates,) = _numbers(base.rate)
        return Product([_gamma(1.0, rate) for rate in rates])
    assert isinstance(base, Gamma)
    return Product([_gamma(a, b) for a, b in zip(*_numbers(base.concentration, base.rate), strict=True)])


SERVED = (Beta, Gamma, Chi2, Exponential)


def _numbers(*parameters: Tensor) -> list[list[float]]:
    return [x.detach().double().cpu().flatten().tolist() for x in torch.broadcast_tensors(*parameters)]


def _beta(a: float, b: float) -> Coordinate:
    _require_ordinary(a, b)
    constant = reduce(lambda total, x: total - math.lgamma(x), (a, b), math.lgamma(a + b))
    return Coordinate(a - 1, b - 1, 0.0, constant, bounded=True)


def _gamma(shape: float, rate: float) -> Coordinate:
    _require_ordinary(shape, rate)
    return Coordinate(shape - 1, 0.0, rate, shape * math.log(rate) - math.lgamma(shape), bounded=False)


def _require_ordinary(*parameters: float) -> None:
    if not all(1e-3 < x < 1e3 for x in parameters):
        raise UnsupportedError(
            f"the prior's parameters {parameters} are not between 0.001 and 1000, where a proof serves Beta and gamma "
            "priors; use the numerical quadrature (exact_log_likelihood without prove)"
        )
