"""Lines that enclose a function of one variable on an interval: the activations of networks, and a few more.

Sources: Zhang et al. 2018 (CROWN) and Singh et al. 2018 (DeepZ) for the lines of activations.
"""

from __future__ import annotations

__all__: list[str] = []  # used by the proofs only

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from latentia.likelihood.proof.rounding import ELEMENTARY, TINY, UNIT


@dataclass(frozen=True)
class Curve:
    """A function φ of one variable with what is needed to enclose it by a line on any interval.

    On an interval of center a and radius ρ the line is the better of two:

    - slope φ'(a), with φ(u) − φ(a) − φ'(a)(u − a) = ½ φ''(ξ)(u − a)² between the extremes of φ'' there;
    - slope the middle of the range of φ', with an error of half that range times ρ.

    Attributes:
        value: φ.
        first: φ'.
        second: φ''.
        first_extremes: where φ' has its local extremes.
        second_extremes: where φ'' has its local extremes.
        monotone: whether φ increases everywhere; then the constant middle of its range is a third line to choose from.
        extra: a constant added to the error, for a φ that is computed by an approximation.
    """

    value: Callable[[Tensor], Tensor]
    first: Callable[[Tensor], Tensor]
    second: Callable[[Tensor], Tensor]
    first_extremes: tuple[float, ...] = ()
    second_extremes: tuple[float, ...] = ()
    monotone: bool = False
    extra: float = 0.0

    def line(self, center: Tensor, radius: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Slope λ, shift μ and error δ with |φ(u) − λ u − μ| ≤ δ for |u − center| ≤ radius."""
        lo, hi = center - radius, center + radius
        value, tangent = self.value(center), self.first(center)
        low_curvature, high_curvature = _range(self.second, self.second_extremes, lo, hi)
        low, high = 0.25 * low_curvature.clamp(max=0), 0.25 * high_curvature.clamp(min=0)
        square = radius.square()
        by_curvature = (high - low) * square
        low_slope, high_slope = _range(self.first, self.first_extremes, lo, hi)
        by_slope = 0.5 * (high_slope - low_slope) * radius
        steep = ~(by_curvature <= by_slope)  # also where the curvature is not finite
        slope = torch.where(steep, 0.5 * (low_slope + high_slope), tangent)
        middle = torch.where(steep, 0.0, (high + low) * square)
        error = torch.where(steep, by_slope, by_curvature)
        shift = value + middle - slope * center
        if self.monotone:
            bottom, top = self.value(lo), self.value(hi)
            by_range = 0.5 * (top - bottom)
            flat = ~(error <= by_range)
            slope, error = torch.where(flat, 0.0, slope), torch.where(flat, by_range, error)
            shift = torch.where(flat, 0.5 * (top + bottom), shift)
            value = value.abs() + top.abs().where(flat, 0.0)
        rounding = ELEMENTARY * (value.abs() + (1 + slope.abs()) * radius + slope.abs() * center.abs() + shift.abs())
        rounding = torch.where(slope == 0, ELEMENTARY * value.abs(), rounding)
        return slope, shift, error + 2 * rounding + self.extra + TINY


@dataclass(frozen=True)
class Rectifier(Curve):
    """positive · u for u ≥ 0, negative · u below: exact where the sign is known, else the chord and half its distance.

    The two slopes are numbers, or tensors that broadcast against the argument.
    """

    negative: Any = 0.0
    positive: Any = 1.0

    def line(self, center: Tensor, radius: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        lo, hi = center - radius, center + radius
        below, above = lo.clamp(max=0), hi.clamp(min=0)
        share = above / (above - below).clamp(min=1e-300)
        rise = self.positive - self.negative
        bends = (lo < 0) & (hi > 0)
        share = torch.where(bends, share, (lo >= 0).double())
        slope = self.negative + rise * share
        shift = torch.where(bends, -0.5 * rise * share * below, 0.0)
        rounding = torch.where(bends, ELEMENTARY * (above - below) * (abs(self.negative) + abs(self.positive)), 0.0)
        unknown = torch.isnan(lo) | torch.isnan(hi)
        return slope, shift, (shift.abs() + rounding).masked_fill(unknown, math.inf)


def rectifier(negative: Any, positive: Any = 1.0) -> Rectifier:
    return Rectifier(torch.relu, torch.relu, torch.relu, negative=negative, positive=positive)


def _range(f: Callable[[Tensor], Tensor], extremes: tuple[float, ...], lo: Tensor, hi: Tensor) -> tuple[Tensor, Tensor]:
    """The least and largest value of f on [lo, hi], widened by more than the rounding of f."""
    left, right = f(lo), f(hi)
    low, high = torch.minimum(left, right), torch.maximum(left, right)
    for place in extremes:
        there = f(torch.tensor(place, dtype=torch.float64))
        inside = (lo <= place) & (hi >= place)
        low = torch.where(inside, torch.minimum(low, there), low)
        high = torch.where(inside, torch.maximum(high, there), high)
    pad = 1e-14 * (1 + torch.maximum(low.abs(), high.abs()))
    return low - pad, high + pad


def _phi(u: Tensor) -> Tensor:
    return torch.exp(-0.5 * u.square()) / math.sqrt(2 * math.pi)


def _cumulative(u: Tensor) -> Tensor:
    return 0.5 * torch.erfc(-u / math.sqrt(2))


def _sigmoid_second(u: Tensor) -> Tensor:
    s, c = torch.sigmoid(u), torch.sigmoid(-u)
    return s * c * (c - s)


def _silu_first(u: Tensor) -> Tensor:
    s, c = torch.sigmoid(u), torch.sigmoid(-u)
    return s * (1 + u * c)


def _silu_second(u: Tensor) -> Tensor:
    s, c = torch.sigmoid(u), torch.sigmoid(-u)
    return s * c * (2 + u * (c - s))


def _tanh_first(u: Tensor) -> Tensor:
    return 4 * torch.sigmoid(2 * u) * torch.sigmoid(-2 * u)


RELU = rectifier(0.0)
TANH = Curve(
    torch.tanh,
    _tanh_first,
    lambda u: -2 * torch.tanh(u) * _tanh_first(u),
    (0.0,),
    (-math.atanh(3**-0.5), math.atanh(3**-0.5)),
    monotone=True,
)
SIGMOID = Curve(
    torch.sigmoid,
    lambda u: torch.sigmoid(u) * torch.sigmoid(-u),
    _sigmoid_second,
    (0.0,),
    (-math.log(2 + 3**0.5), math.log(2 + 3**0.5)),
    monotone=True,
)
SILU = Curve(
    lambda u: u * torch.sigmoid(u),
    _silu_first,
    _silu_second,
    (-2.3993572805154, 2.3993572805154),
    (-3.4357812925, 0.0, 3.4357812925),
)
GELU = Curve(
    lambda u: u * _cumulative(u),
    lambda u: _cumulative(u) + u * _phi(u),
    lambda u: (2 - u.square()) * _phi(u),
    (-math.sqrt(2), math.sqrt(2)),
    (-2.0, 0.0, 2.0),
    extra=1e-15,
)
EXP = Curve(torch.exp, torch.exp, torch.exp, monotone=True)
SQUARE = Curve(torch.square, lambda u: 2 * u, lambda u: torch.full_like(u, 2.0))
"""u²."""
INVERSE_ROOT = Curve(lambda u: u.rsqrt(), lambda u: -0.5 * u.pow(-1.5), lambda u: 0.75 * u.pow(-2.5))


def softplus(beta: float) -> Curve:
    """log(1 + e^{βu})/β. torch returns u beyond β u = threshold ≥ 20, which `extra` covers."""
    return Curve(
        lambda u: (torch.relu(beta * u) + torch.log1p(torch.exp(-(beta * u).abs()))) / beta,
        lambda u: torch.sigmoid(beta * u),
        lambda u: beta * torch.sigmoid(beta * u) * torch.sigmoid(-beta * u),
        (),
        (0.0,),
        monotone=True,
        extra=2.2e-9 / beta,
    )


def _sine(shift: float) -> Curve:
    """sin(u + shift); an extreme lies in [lo, hi] where it holds a multiple of π, which `_Periodic` checks."""
    return _Periodic(
        lambda u: torch.sin(u + shift), lambda u: torch.cos(u + shift), lambda u: -torch.sin(u + shift), shift=shift
    )


@dataclass(frozen=True)
class _Periodic(Curve):
    """A sine: ranges of φ' and φ'' from the quadrants that the interval touches."""

    shift: float = 0.0

    def line(self, center: Tensor, radius: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        value, tangent = self.value(center), self.first(center)
        # |φ''| ≤ min(1, |φ''(center)| + radius), since φ'' has slope at most 1.
        curvature, most = self.second(center), (self.second(center).abs() + radius).clamp(max=1)
        low = torch.maximum((curvature - radius).clamp(min=-1), -most).clamp(max=0)
        high = torch.minimum((curvature + radius).clamp(max=1), most).clamp(min=0)
        square = radius.square()
        by_curvature, flat = 0.25 * (high - low) * square, ~(radius < 2)
        slope = torch.where(flat, 0.0, tangent)
        middle = torch.where(flat, 0.0, 0.25 * (high + low) * square)
        error = torch.where(flat, 1.0, by_curvature)
        shift = torch.where(flat, 0.0, value + middle - slope * center)
        # The argument of the sine is rounded too.
        rounding = ELEMENTARY * (2 + center.abs() + radius.clamp(max=2))
        return slope, shift, error + torch.where(flat, ELEMENTARY, rounding) + TINY


SIN, COS = _sine(0.0), _sine(math.pi / 2)


def floored(curve: Curve, floor: float) -> Curve:
    """A convex decreasing curve for an argument that is known to be at least `floor`, whatever its bounds say."""
    return _Floored(curve.value, curve.first, curve.second, floor=floor)


@dataclass(frozen=True)
class _Floored(Curve):
    floor: float = 0.0

    def line(self, center: Tensor, radius: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        lo, hi = (center - radius).clamp(min=self.floor), (center + radius).clamp(min=self.floor)
        middle, half = 0.5 * (lo + hi), 0.5 * (hi - lo) * (1 + 4 * UNIT) + 4 * UNIT * hi
        safe = torch.maximum(middle - half, torch.full_like(lo, self.floor))
        # Chord of a convex function: the function lies at most the distance of the parallel tangent below it.
        slope, shift, error = Curve(self.value, self.first, self.second).line(middle, middle - safe)
        # A line is valid on [floor, ∞) ∩ [lo, hi] only, which is where the argument lies.
        low_value, high_value = self.value(hi), self.value(lo)
        by_range = 0.5 * (high_value - low_value)
        flat = ~(error <= by_range)
        rounding = ELEMENTARY * high_value * 4
        return (
            torch.where(flat, 0.0, slope),
            torch.where(flat, 0.5 * (high_value + low_value), shift),
            torch.where(flat, by_range + rounding, error + rounding),
        )
