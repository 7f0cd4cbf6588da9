"""Affine bounds of functions of z over boxes, in float64, and the operations that carry them through a network.

Over a box {c + r∘t : t ∈ [−1, 1]ᵈ} every number is enclosed between two parallel affine functions,

    |f(c + r∘t) − a − B·t| ≤ e        for all t ∈ [−1, 1]ᵈ,

and each layer takes (a, B, e) of its input to (a, B, e) of its output, for many boxes at once. A linear layer takes
them to W a + b, W B and |W| e. An activation φ is replaced on the interval of its input by a line λ u + μ and the
largest distance δ from it (`latentia.likelihood.proof.curves`), so that (a, B, e) becomes (λ a + μ, λ B, |λ| e + δ). A
ReLU whose input does not change sign has δ = 0, and a smooth activation has δ of second order in the box's side.

The rounding of float64 is added to e: a sum of n products in any order errs by at most γₙ Σ |terms| with
γₙ = n u/(1 − n u) (Higham 2002, section 3.1), and an elementary function by at most 4 ulp.

Source: Stolfi and de Figueiredo 2003 for affine arithmetic.
"""

from __future__ import annotations

__all__: list[str] = []  # used by the proofs only

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from latentia.likelihood.proof.curves import Curve, Rectifier
from latentia.likelihood.proof.rounding import ELEMENTARY, TINY, UNIT, gamma_of


class Bends(ABC):
    """Where bounds leave the rectifiers that bend on the box, to be kept as variables instead of errors.

    Attributes:
        exact: whether every other step so far was affine.
    """

    exact: bool

    @abstractmethod
    def rectify(self, bounds: AffineBounds, curve: Rectifier) -> AffineBounds:
        """The bounds after the rectifier."""


@dataclass(frozen=True)
class AffineBounds:
    """Functions f of z on T boxes: |f − (row 0 of coefficients + Σₖ (row k) tₖ)| ≤ error, for t ∈ [−1, 1]ᵈ.

    Attributes:
        coefficients: (T, 1 + d, *shape), float64: the value a at the center, then the slope B along each axis.
        error: (T, *shape), float64; ∞ where nothing is known.
        kinks: where the rectifiers that bend on the box are kept as variables (see `Restriction`); None for none.
    """

    coefficients: Tensor
    error: Tensor
    kinks: Bends | None = None

    @classmethod
    def of_boxes(
        cls, centers: Tensor, radii: Tensor, error: Tensor | None = None, kinks: Bends | None = None
    ) -> AffineBounds:
        """The coordinates of z themselves on the boxes centers ± radii.

        Args:
            centers: (T, d).
            radii: half the side along each axis, (T, d).
            error: how far z may lie from center + radius · t, (T, d); 0 by default.
        """
        centers, radii = centers.double(), radii.double()
        coefficients = torch.cat([centers[:, None], torch.diag_embed(radii)], dim=1)
        return cls(coefficients, torch.zeros_like(centers) if error is None else error.double(), kinks)

    @property
    def center(self) -> Tensor:
        """a, (T, *shape)."""
        return self.coefficients[:, 0]

    @property
    def slopes(self) -> Tensor:
        """B, (T, d, *shape)."""
        return self.coefficients[:, 1:]

    @property
    def magnitude(self) -> Tensor:
        """The sum of the coefficients' sizes, which rounding is proportional to, (T, *shape)."""
        return self.coefficients.abs().sum(1)

    def radius(self) -> Tensor:
        """The largest |f − a| over each box, (T, *shape)."""
        return (self.slopes.abs().sum(1) + self.error) * (1 + 8 * UNIT) + UNIT * self.center.abs() * 4

    def interval(self) -> tuple[Tensor, Tensor]:
        """Lower and upper bounds of f over each box, (T, *shape) each."""
        radius = self.radius()
        return self.center - radius, self.center + radius

    def reshaped(self, change: Callable[[Tensor], Tensor]) -> AffineBounds:
        """Move numbers about without computing: `change` maps (n, *shape) to (n, *other)."""
        boxes, rows = self.coefficients.shape[:2]
        coefficients = change(self.coefficients.flatten(0, 1)).unflatten(0, (boxes, rows))
        return AffineBounds(coefficients, change(self.error), self.kinks)

    def linear(
        self, operation: Callable[[Tensor, Tensor], Tensor], weight: Tensor, bias: Tensor | None, terms: int
    ) -> AffineBounds:
        """The image under a linear map and a shift.

        Args:
            operation: (inputs (n, *shape), weight) → (n, *other), linear in both.
            weight: of the map.
            bias: added to every output, broadcast against (*other); None for none.
            terms: how many products one output sums at most.
        """
        weight = weight.detach().double()
        boxes, rows = self.coefficients.shape[:2]
        coefficients = operation(self.coefficients.flatten(0, 1), weight).unflatten(0, (boxes, rows))
        spread = self.spread(operation, weight, self.error, terms)
        if bias is not None:
            coefficients[:, 0] += bias.detach().double()
            spread = spread + 2 * UNIT * coefficients[:, 0].abs()
        return AffineBounds(coefficients, spread + TINY, self.kinks)

    def spread(
        self, operation: Callable[[Tensor, Tensor], Tensor], weight: Tensor, error: Tensor, terms: int
    ) -> Tensor:
        """The error after that map from one before it, with the rounding of the map."""
        gamma = gamma_of(terms)
        return operation(error + 2 * gamma * self.magnitude, weight.abs()) * (1 + 4 * gamma) + TINY

    def scaled(self, factor: Tensor, shift: Tensor) -> AffineBounds:
        """factor · f + shift, both broadcast against (*shape) and each known to 16 roundings."""
        coefficients = self.coefficients * factor
        coefficients[:, 0] += shift
        rounding = ELEMENTARY * (self.magnitude * factor.abs() + shift.abs())
        error = (self.error * factor.abs() + 2 * rounding) * (1 + ELEMENTARY) + TINY
        return AffineBounds(coefficients, error, self.kinks)

    def __add__(self, other: AffineBounds) -> AffineBounds:
        rounding = 2 * UNIT * (self.magnitude + other.magnitude)
        error = (self.error + other.error + rounding) * (1 + 4 * UNIT)
        rows = max(self.coefficients.shape[1], other.coefficients.shape[1])
        return AffineBounds(with_rows(self.coefficients, rows) + with_rows(other.coefficients, rows), error, self.kinks)

    def __mul__(self, other: AffineBounds) -> AffineBounds:
        """The product, of second order: (a + u)(b + v) with the product of the deviations u v put into the error."""
        if self.kinks is not None:
            self.kinks.exact = False
        a, b = self.center.unsqueeze(1), other.center.unsqueeze(1)
        coefficients = a * other.coefficients + b * self.coefficients
        coefficients[:, 0] = self.center * other.center
        crossed = self.center.abs() * other.error + other.center.abs() * self.error + self.radius() * other.radius()
        error = (crossed + 16 * UNIT * self.magnitude * other.magnitude) * (1 + 16 * UNIT) + TINY
        return AffineBounds(coefficients, error, self.kinks)

    def through(self, curve: Curve) -> AffineBounds:
        """The image under a function of one variable, applied to every number."""
        if self.kinks is not None:
            if isinstance(curve, Rectifier):
                return self.kinks.rectify(self, curve)
            self.kinks.exact = False
        slope, shift, error = curve.line(self.center, self.radius())
        coefficients = self.coefficients * slope.unsqueeze(1)
        coefficients[:, 0] += shift
        rounding = 8 * UNIT * (self.magnitude * slope.abs() + shift.abs())
        error = (self.error * slope.abs() + error + rounding) * (1 + 8 * UNIT) + TINY
        return AffineBounds(coefficients, error, self.kinks)

    def cleaned(self) -> AffineBounds:
        """The same with an infinite error wherever a number overflowed, so that no NaN is taken for a bound."""
        bad = ~(torch.isfinite(self.coefficients).all(1) & torch.isfinite(self.error))
        if not bool(bad.any()):
            return self
        coefficients = self.coefficients.masked_fill(bad.unsqueeze(1), 0.0)
        return AffineBounds(coefficients, self.error.masked_fill(bad, math.inf), self.kinks)


def joined(*parts: AffineBounds) -> AffineBounds:
    """Vectors one after the other, (T, n₁ + n₂ + …)."""
    rows = max(part.coefficients.shape[1] for part in parts)
    coefficients = torch.cat([with_rows(part.coefficients, rows) for part in parts], -1)
    return AffineBounds(coefficients, torch.cat([part.error for part in parts], -1), parts[0].kinks)


def with_rows(coefficients: Tensor, rows: int) -> Tensor:
    missing = rows - coefficients.shape[1]
    if not missing:
        return coefficients
    shape = (coefficients.shape[0], missing, *coefficients.shape[2:])
    return torch.cat([coefficients, coefficients.new_zeros(shape)], dim=1)
