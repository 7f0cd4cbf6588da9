"""Proven bounds of a network's outputs over boxes of z, by affine relaxation in float64.

Over a box {c + r∘t : t ∈ [−1, 1]ᵈ} every output is enclosed between two parallel affine functions,

    |f(c + r∘t) − a − B·t| ≤ e        for all t ∈ [−1, 1]ᵈ,

and each layer takes (a, B, e) of its input to (a, B, e) of its output, for many boxes at once. A linear layer takes
them to W a + b, W B and |W| e. An activation φ is replaced on the interval of its input by a line λ u + μ and the
largest distance δ from it, so that (a, B, e) becomes (λ a + μ, λ B, |λ| e + δ). A ReLU whose input does not change
sign has δ = 0, and a smooth activation has δ of second order in the box's side.

**What is enclosed** is the function that the modules stand for with their stored weights as real numbers, in real
arithmetic. The rounding of float64 is added to e: a sum of n products in any order errs by at most γₙ Σ |terms|
with γₙ = n u/(1 − n u) (Higham 2002, section 3.1), and an elementary function by at most 4 ulp.

Modules of unknown type are refused, and so are modules with hooks, with parametrizations, with half-precision weights,
or in a training mode that changes the function. `register_bounds` teaches a new type.

Sources: Zhang et al. 2018 (CROWN) and Singh et al. 2018 (DeepZ) for the lines of activations; Stolfi and de Figueiredo
2003 for affine arithmetic.
"""

from __future__ import annotations

__all__ = ["register_bounds"]

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from latentia.errors import UnsupportedError
from latentia.networks.dcgan import BatchNorm
from latentia.networks.layers import Center, PreciseLinear, ResidualSum
from latentia.networks.mlp import FourierFeatures
from latentia.networks.strided import FeatureMaps, StridedConvolution, TransposedConvolution

UNIT = 2.0**-53  # unit roundoff of float64
TINY = 1e-290  # more than any sum of underflown products in this module can lose
ELEMENTARY = 16 * UNIT  # relative error of an elementary function and the few operations around it

Size = tuple[int, ...]
Rule = Callable[[Any, "AffineBounds"], "AffineBounds"]
_Rule = TypeVar("_Rule", bound=Rule)


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
    kinks: _Kinks | None = None

    @classmethod
    def of_boxes(
        cls, centers: Tensor, radii: Tensor, error: Tensor | None = None, kinks: _Kinks | None = None
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
        gamma = gamma_of(terms)
        coefficients = operation(self.coefficients.flatten(0, 1), weight).unflatten(0, (boxes, rows))
        spread = operation(self.error + 2 * gamma * self.magnitude, weight.abs()) * (1 + 4 * gamma)
        if bias is not None:
            coefficients[:, 0] += bias.detach().double()
            spread = spread + 2 * UNIT * coefficients[:, 0].abs()
        return AffineBounds(coefficients, spread + TINY, self.kinks)

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
        return AffineBounds(
            _with_rows(self.coefficients, rows) + _with_rows(other.coefficients, rows), error, self.kinks
        )

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
            if isinstance(curve, _Rectifier):
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


def _joined(*parts: AffineBounds) -> AffineBounds:
    """Vectors one after the other, (T, n₁ + n₂ + …)."""
    rows = max(part.coefficients.shape[1] for part in parts)
    coefficients = torch.cat([_with_rows(part.coefficients, rows) for part in parts], -1)
    return AffineBounds(coefficients, torch.cat([part.error for part in parts], -1), parts[0].kinks)


def _with_rows(coefficients: Tensor, rows: int) -> Tensor:
    missing = rows - coefficients.shape[1]
    if not missing:
        return coefficients
    shape = (coefficients.shape[0], missing, *coefficients.shape[2:])
    return torch.cat([coefficients, coefficients.new_zeros(shape)], dim=1)


# --- networks restricted to a box ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Group:
    """Rectifiers that bend on a box: their inputs, and the variables ε with relu(u) = λ u + μ (1 + ε), |ε| ≤ 1.

    Attributes:
        weight: (K, V), from the variables before them to u.
        bias: (K,).
        error: of u, by rounding, (K,).
        slope: λ, (K,).
        height: μ, (K,).
    """

    weight: Tensor
    bias: Tensor
    error: Tensor
    slope: Tensor
    height: Tensor


class _Kinks:
    """Collects the rectifiers that bend on one box while bounds pass through a network; the others are affine there.

    Args:
        dimension: d.
        limit: of rectifiers that may become variables.
    """

    def __init__(self, dimension: int, limit: int):
        self.dimension, self.limit = dimension, limit
        self.groups: list[_Group] = []
        self.count = 0
        self.exact = True  # whether every other step so far was affine, and the limit was kept

    def rectify(self, bounds: AffineBounds, curve: _Rectifier) -> AffineBounds:
        """The bounds after the rectifier, with a variable for each number that bends."""
        lo, hi = (side[0].flatten() for side in bounds.interval())
        error = bounds.error[0].flatten()
        inputs = _with_rows(bounds.coefficients, 1 + self.dimension + self.count)[0].flatten(1)
        bends = (lo < 0) & (hi > 0)
        slope = torch.where(bends, hi / (hi - lo), (lo >= 0).double())
        height = torch.where(bends, torch.maximum(hi * (1 - slope), -lo * slope) * (0.5 + 1e-14), 0.0)
        thin = bends & (height <= 1e-11 * (hi - lo))  # too thin for a variable: into the error
        index = (bends & ~thin).nonzero().flatten()
        if self.count + len(index) > self.limit or not self.exact:
            self.exact, index = False, index[:0]  # the caller discards what comes after
        # The rectifier is negative · u + (positive − negative) · max(u, 0).
        rise = torch.as_tensor(curve.positive - curve.negative, dtype=torch.float64).expand_as(lo)
        factor = curve.negative + rise * slope
        size = torch.as_tensor(abs(curve.negative) + abs(curve.positive), dtype=torch.float64)
        result, jump = inputs * factor, (rise * height)[index]
        result[0, index] += jump
        rounding = ELEMENTARY * (inputs.abs().sum(0) + height) * size
        wide = torch.where(thin, 2 * size * height, 0.0)
        error_after = (error * factor.abs() + rounding + wide) * (1 + ELEMENTARY) + TINY
        new = torch.zeros(len(index), inputs.shape[1], dtype=torch.float64)
        new[torch.arange(len(index)), index] = jump
        if len(index):
            group = inputs[:, index]
            self.groups.append(_Group(group[1:].T.contiguous(), group[0], error[index], slope[index], height[index]))
            self.count += len(index)
        shape = bounds.error.shape[1:]
        coefficients = torch.cat([result, new])[None].unflatten(2, shape)
        return AffineBounds(coefficients, error_after.unflatten(0, shape)[None], self)


@dataclass(frozen=True)
class Restriction:
    """A network f on one box, as f = weight · v(z) + bias ± error with few variables v.

    Of a network of affine layers and rectifiers, v holds t and one number for each rectifier that bends on the box: on
    a small box the network is as small as that, and smaller boxes inside are bounded by it. Of any other network v is
    what enters its last linear layer, or the output itself.

    Attributes:
        weight: (D, V); None for the identity.
        bias: (D,).
        error: (D,).
        inner: bounds of v from those of s.
        outer: bounds of the output from those of s, without W; None once the network is restricted to v = (t, ε).
        limit: of variables.
        change: v of the network that this one was made from, as an affine function of the present v: (V', ) and (V',
            V); None where that one was not restricted.
    """

    weight: Tensor | None
    bias: Tensor
    error: Tensor
    inner: Callable[[AffineBounds], AffineBounds]
    outer: Callable[[AffineBounds], AffineBounds] | None
    limit: int
    change: tuple[Tensor, Tensor] | None = None

    @classmethod
    def of_network(cls, network: nn.Module, origin: Tensor, scale: Tensor, limit: int = 1500) -> Restriction:
        """The network everywhere, as a function of s with z = origin + scale ∘ s.

        Args:
            network: z (T, d) → (T, …), which `bound_network` can bound.
            origin: (d,).
            scale: (d,).
            limit: of variables; a box on which more rectifiers bend is bounded without them.

        Raises:
            UnsupportedError: as `bound_network`.
        """
        head, last = _split(network)

        def outer(x: AffineBounds) -> AffineBounds:
            return _flat(bound_network(network, x.scaled(scale.double(), origin.double())))

        if last is None:
            zero = torch.zeros((), dtype=torch.float64)
            return cls(None, zero, zero, outer, outer, limit)
        weight = last.weight.detach().double()
        bias = torch.zeros(len(weight), dtype=torch.float64) if last.bias is None else last.bias.detach().double()

        def inner(x: AffineBounds) -> AffineBounds:
            x = x.scaled(scale.double(), origin.double())
            for part in head:
                x = bound_network(part, x)
            return x

        return cls(weight, bias, torch.zeros_like(bias), inner, outer, limit)

    def variables(self, bounds: AffineBounds) -> AffineBounds:
        """Bounds of v, (T, V), on boxes inside, from those of s."""
        return self.inner(bounds)

    def outputs(self, variables: Tensor) -> Tensor:
        """weight · v + bias, (…, V) → (…, D)."""
        return self.linear(variables) + self.bias

    def linear(self, variables: Tensor) -> Tensor:
        """weight · v, (…, V) → (…, D)."""
        return variables if self.weight is None else variables @ self.weight.T

    def absolute(self, variables: Tensor) -> Tensor:
        """|weight| · v, (…, V) → (…, D)."""
        return variables if self.weight is None else variables @ self.weight.abs().T

    def transposed(self, outputs: Tensor) -> Tensor:
        """weightᵀ · y, (…, D) → (…, V)."""
        return outputs if self.weight is None else outputs @ self.weight

    def bias_of(self, outputs: int) -> Tensor:
        """The bias, (D,)."""
        return self.bias.expand(outputs)

    def restricted(self, bounds: AffineBounds) -> Restriction:
        """The same network on a box inside, with no more variables than bend there.

        Args:
            bounds: of s on the box, T = 1, from `AffineBounds.of_boxes`.
        """
        dimension = bounds.error.shape[1]
        kinks = _Kinks(dimension, self.limit)
        traced = AffineBounds(bounds.coefficients, bounds.error, kinks)
        variables = None
        if self.outer is None:
            variables = self.inner(traced)
            assert self.weight is not None
            output = variables.linear(functional.linear, self.weight, self.bias, self.weight.shape[1])
        else:
            output = self.outer(traced)
        if not kinks.exact or not bool(torch.isfinite(output.error).all()):
            return self
        count = 1 + dimension + kinks.count
        rows = _with_rows(output.coefficients, count)[0]
        change = None
        if variables is not None:
            old = _with_rows(variables.coefficients, count)[0]
            change = old[0], old[1:].T.contiguous()
        local = _Local(bounds, kinks.groups)
        error = output.error[0] + self.error
        return Restriction(rows[1:].T.contiguous(), rows[0], error, local, None, self.limit, change)


def _split(network: nn.Module) -> tuple[list[nn.Module], nn.Linear | None]:
    """A network that ends with a linear layer (and reshapes) as what comes before and that layer; else None."""
    if type(network) is not nn.Sequential:
        return [network], None
    parts = list(network)
    while parts and type(parts[-1]) in (nn.Unflatten, nn.Flatten, nn.Identity):
        parts.pop()
    if not parts or type(parts[-1]) is not nn.Linear:
        return [network], None
    _rule_of(network)
    _rule_of(parts[-1])
    return parts[:-1], parts[-1]


def _flat(bounds: AffineBounds) -> AffineBounds:
    return bounds.reshaped(lambda x: x.flatten(1))


@dataclass(frozen=True)
class _Local:
    """Bounds of the variables t and ε of a box, on boxes inside.

    Attributes:
        box: s on the box, T = 1.
        groups: the rectifiers that bend, in the network's order.
    """

    box: AffineBounds
    groups: list[_Group]

    def __call__(self, bounds: AffineBounds) -> AffineBounds:
        center, radii = self.box.coefficients[:, 0], torch.diagonal(self.box.coefficients[0, 1:])[None]
        moved = bounds.coefficients.clone()
        moved[:, 0] -= center
        variables = AffineBounds(moved / radii, 4 * UNIT * bounds.magnitude / radii, bounds.kinks)  # t of the box
        for group in self.groups:
            inputs = variables.linear(functional.linear, group.weight, group.bias, group.weight.shape[1])
            inputs = AffineBounds(inputs.coefficients, inputs.error + group.error, bounds.kinks)
            excess = inputs.through(_rectifier(-group.slope, 1 - group.slope))  # relu(u) − λ u = μ (1 + ε)
            minus_one = -torch.ones((), dtype=torch.float64)
            variables = _joined(variables, excess.scaled(1 / group.height, minus_one))
        return variables


# --- functions of one variable ---------------------------------------------------------------------------------------


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
class _Rectifier(Curve):
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


def _rectifier(negative: Any, positive: Any = 1.0) -> _Rectifier:
    return _Rectifier(torch.relu, torch.relu, torch.relu, negative=negative, positive=positive)


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


RELU = _rectifier(0.0)
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


def _softplus(beta: float) -> Curve:
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


# --- modules ---------------------------------------------------------------------------------------------------------

_RULES: dict[type[nn.Module], Rule] = {}


def register_bounds(*types: type[nn.Module]) -> Callable[[_Rule], _Rule]:
    """Register how modules of these types map the bounds of their input: a decorator of `rule(module, bounds)`.

    A subclass inherits the rule as long as it does not override `forward`. Rules compose the methods of `AffineBounds`
    (`linear`, `scaled`, `through`, `reshaped`, `+`, `*`) and `bound_network` for modules inside.

    Examples:
        >>> class Square(nn.Module):
        ...     def forward(self, x):
        ...         return x * x
        >>> @register_bounds(Square)
        ... def _(module, bounds):
        ...     return bounds.through(SQUARE)
    """

    def register(rule: _Rule) -> _Rule:
        for kind in types:
            _RULES[kind] = rule
        return rule

    return register


def bound_network(network: nn.Module, bounds: AffineBounds) -> AffineBounds:
    """Bounds of the network's outputs, from bounds of its inputs.

    Args:
        network: a module of known parts, without hooks, in evaluation mode.
        bounds: of its inputs on T boxes, such as `AffineBounds.of_boxes`.

    Raises:
        UnsupportedError: for a part whose function is not known, naming the part and the cure.
    """
    return _rule_of(network)(network, bounds).cleaned()


def _rule_of(module: nn.Module) -> Rule:
    """The rule of the class whose `forward` this module runs."""
    kind, name = type(module), type(module).__name__
    hooks = (module._forward_hooks, module._forward_pre_hooks)
    if any(hooks) or "forward" in vars(module):
        raise UnsupportedError(
            f"the decoder's {name} has hooks, which may change what it computes; remove them for a proven bound, or "
            f"use "
            "method='importance'"
        )
    if parametrize.is_parametrized(module):
        raise UnsupportedError(
            f"the decoder's {name} computes its weights by a parametrization; make them plain with "
            "torch.nn.utils.parametrize.remove_parametrizations for a proven bound"
        )
    for tensor in module.parameters(recurse=False):
        if tensor.dtype not in (torch.float32, torch.float64):
            raise UnsupportedError(
                f"the decoder's {name} holds {tensor.dtype} weights, and proven bounds serve float32 and float64; "
                "convert the model by model.float()"
            )
    for base in kind.__mro__:
        if base in _RULES:
            if kind.forward is not base.forward:
                break
            return _RULES[base]
    raise UnsupportedError(
        f"no proven bound is known for the decoder's part {name}; register one with "
        "latentia.likelihood.register_bounds, build the decoder from known modules, or use the numerical quadrature "
        "(exact_log_likelihood)"
    )


def _activation(curve: Curve, _: nn.Module, bounds: AffineBounds) -> AffineBounds:
    return bounds.through(curve)


@register_bounds(nn.Sequential)
def _sequential(module: nn.Sequential, bounds: AffineBounds) -> AffineBounds:
    for part in module:
        bounds = bound_network(part, bounds)
    return bounds


@register_bounds(ResidualSum)
def _residual(module: ResidualSum, bounds: AffineBounds) -> AffineBounds:
    return bounds + bound_network(module.branch, bounds)


@register_bounds(nn.Linear, PreciseLinear)
def _linear(module: nn.Linear, bounds: AffineBounds) -> AffineBounds:
    return bounds.linear(functional.linear, module.weight, module.bias, module.in_features)


@register_bounds(nn.Conv1d, nn.Conv2d, StridedConvolution)
def _convolution(module: nn.Conv1d | nn.Conv2d, bounds: AffineBounds) -> AffineBounds:
    _require_zero_padding(module)
    convolve = functional.conv1d if isinstance(module, nn.Conv1d) else functional.conv2d

    def operation(x: Tensor, weight: Tensor) -> Tensor:
        return convolve(x, weight, None, module.stride, module.padding, module.dilation, module.groups)  # pyright: ignore

    return bounds.linear(operation, module.weight, _per_channel(module.bias, module), module.weight[0].numel())


@register_bounds(nn.ConvTranspose1d, nn.ConvTranspose2d, TransposedConvolution)
def _transposed(module: nn.ConvTranspose1d | nn.ConvTranspose2d, bounds: AffineBounds) -> AffineBounds:
    _require_zero_padding(module)
    convolve = functional.conv_transpose1d if isinstance(module, nn.ConvTranspose1d) else functional.conv_transpose2d

    places: Any = (module.stride, module.padding, module.output_padding, module.groups, module.dilation)

    def operation(x: Tensor, weight: Tensor) -> Tensor:
        return convolve(x, weight, None, *places)

    return bounds.linear(operation, module.weight, _per_channel(module.bias, module), module.weight[:, 0].numel())


@register_bounds(nn.BatchNorm1d, nn.BatchNorm2d, BatchNorm)
def _batch_norm(module: nn.BatchNorm1d | nn.BatchNorm2d, bounds: AffineBounds) -> AffineBounds:
    if module.training or module.running_mean is None or module.running_var is None:
        raise UnsupportedError(
            f"{type(module).__name__} takes its statistics from the batch, so p(x|z) depends on which z are evaluated "
            "together; call model.eval() (with running statistics) first"
        )
    factor = (module.running_var.double() + module.eps).rsqrt()
    shift = -module.running_mean.double()
    moved = bounds.scaled(torch.ones((), dtype=torch.float64), _channels_first(shift, bounds))
    if module.affine:
        factor = factor * module.weight.detach().double()
    result = moved.scaled(_channels_first(factor, bounds), torch.zeros((), dtype=torch.float64))
    if not module.affine:
        return result
    return result.scaled(torch.ones((), dtype=torch.float64), _channels_first(module.bias.detach().double(), bounds))


@register_bounds(nn.LayerNorm)
def _layer_norm(module: nn.LayerNorm, bounds: AffineBounds) -> AffineBounds:
    dims = len(module.normalized_shape)
    grouped = bounds.reshaped(lambda x: x.flatten(-dims))
    result = _normalized(grouped, module.eps).reshaped(lambda x: x.unflatten(-1, module.normalized_shape))
    return _with_gain(result, module.weight, module.bias)


@register_bounds(nn.GroupNorm)
def _group_norm(module: nn.GroupNorm, bounds: AffineBounds) -> AffineBounds:
    shape = bounds.error.shape[1:]
    grouped = bounds.reshaped(lambda x: x.reshape(len(x), module.num_groups, -1))
    result = _normalized(grouped, module.eps).reshaped(lambda x: x.reshape(len(x), *shape))
    if not module.affine:
        return result
    return _with_gain(result, _channels_first(module.weight, bounds), _channels_first(module.bias, bounds))


@register_bounds(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout)
def _dropout(module: nn.Module, bounds: AffineBounds) -> AffineBounds:
    if module.training:
        raise UnsupportedError(f"{type(module).__name__} in training mode makes p(x|z) random; call model.eval() first")
    return bounds


@register_bounds(nn.Identity)
def _identity(_: nn.Identity, bounds: AffineBounds) -> AffineBounds:
    return bounds


@register_bounds(nn.Flatten, nn.Unflatten, FeatureMaps)
def _reshape(module: nn.Flatten | nn.Unflatten, bounds: AffineBounds) -> AffineBounds:
    return bounds.reshaped(module.forward)


@register_bounds(nn.AvgPool1d, nn.AvgPool2d)
def _average(module: nn.AvgPool1d | nn.AvgPool2d, bounds: AffineBounds) -> AffineBounds:
    return _positive_map(bounds, module.forward)


@register_bounds(nn.Upsample)
def _upsample(module: nn.Upsample, bounds: AffineBounds) -> AffineBounds:
    if module.mode not in ("nearest", "nearest-exact", "linear", "bilinear"):
        raise UnsupportedError(
            f"no proven bound is known for nn.Upsample(mode={module.mode!r}); use mode='bilinear' or mode='nearest', "
            f"or "
            "the numerical quadrature (exact_log_likelihood)"
        )
    return _positive_map(bounds, module.forward)


@register_bounds(Center)
def _centered(_: Center, bounds: AffineBounds) -> AffineBounds:
    return bounds.scaled(torch.tensor(2.0, dtype=torch.float64), torch.tensor(-1.0, dtype=torch.float64))


@register_bounds(FourierFeatures)
def _fourier(module: FourierFeatures, bounds: AffineBounds) -> AffineBounds:
    directions = module.directions
    phase = bounds.linear(lambda x, weight: x @ weight, directions, None, len(directions))
    parts = (bounds, phase.through(SIN), phase.through(COS))
    return _joined(*parts)


for _kind, _curve in ((nn.ReLU, RELU), (nn.Tanh, TANH), (nn.Sigmoid, SIGMOID), (nn.SiLU, SILU)):
    register_bounds(_kind)(partial(_activation, _curve))


@register_bounds(nn.LeakyReLU)
def _leaky_relu(module: nn.LeakyReLU, bounds: AffineBounds) -> AffineBounds:
    return bounds.through(_rectifier(module.negative_slope))


@register_bounds(nn.ELU)
def _elu(module: nn.ELU, bounds: AffineBounds) -> AffineBounds:
    alpha = float(module.alpha)

    def first(u: Tensor) -> Tensor:
        return torch.where(u > 0, 1.0, alpha * torch.exp(u.clamp(max=0)))

    # φ' jumps to 1 at 0 unless α = 1, so its range there holds both; φ'' is not bounded then, and is not used.
    rough = Curve(
        lambda u: torch.where(u > 0, u, alpha * torch.expm1(u.clamp(max=0))),
        first,
        lambda u: torch.full_like(u, math.inf),
        (0.0, 1e-300),
        monotone=alpha > 0,
    )
    return bounds.through(rough)


@register_bounds(nn.GELU)
def _gelu(module: nn.GELU, bounds: AffineBounds) -> AffineBounds:
    if module.approximate != "none":
        raise UnsupportedError("no proven bound is known for nn.GELU(approximate='tanh'); use nn.GELU()")
    return bounds.through(GELU)


@register_bounds(nn.Softplus)
def _softplus_rule(module: nn.Softplus, bounds: AffineBounds) -> AffineBounds:
    if module.threshold < 20 or module.beta <= 0:
        raise UnsupportedError("no proven bound is known for nn.Softplus with beta <= 0 or threshold < 20")
    return bounds.through(_softplus(float(module.beta)))


# --- parts of rules --------------------------------------------------------------------------------------------------


def gamma_of(terms: int) -> float:
    """γₙ for a sum of so many products, with room for the additions around it."""
    return (terms + 4) * UNIT / (1 - (terms + 4) * UNIT)


def _require_zero_padding(module: Any) -> None:
    if module.padding_mode != "zeros":
        raise UnsupportedError(
            f"no proven bound is known for {type(module).__name__}(padding_mode={module.padding_mode!r}); use "
            "padding_mode='zeros'"
        )


def _per_channel(bias: Tensor | None, module: nn.Module) -> Tensor | None:
    spatial = 1 if isinstance(module, nn.Conv1d | nn.ConvTranspose1d) else 2
    return None if bias is None else bias.detach().view(-1, *[1] * spatial)


def _channels_first(numbers: Tensor, bounds: AffineBounds) -> Tensor:
    """(C,) → (C, 1, …), against the shape (C, …) of the bounds."""
    return numbers.detach().double().view(-1, *[1] * (bounds.error.dim() - 2))


def _positive_map(bounds: AffineBounds, operation: Callable[[Tensor], Tensor]) -> AffineBounds:
    """The image under local averages, whose weights are positive, sum to at most 1 and are rounded themselves."""
    boxes, rows = bounds.coefficients.shape[:2]
    coefficients = operation(bounds.coefficients.flatten(0, 1)).unflatten(0, (boxes, rows))
    largest = bounds.magnitude.flatten(1).amax(1).view(boxes, *[1] * (bounds.error.dim() - 1))
    rounding = 1024 * UNIT * largest  # source positions up to 128 pixels are rounded to 128 u
    error = operation(bounds.error) * (1 + 1024 * UNIT) + rounding + TINY
    return AffineBounds(coefficients, error, bounds.kinks)


def _normalized(bounds: AffineBounds, eps: float) -> AffineBounds:
    """(v − mean v)/√(var v + ε) over the last axis, v of shape (…, n)."""
    count = bounds.error.shape[-1]
    one = torch.ones((), dtype=torch.float64)
    mean = AffineBounds(-bounds.coefficients.mean(-1, keepdim=True), bounds.error.mean(-1, keepdim=True))
    gamma = gamma_of(count)
    mean = AffineBounds(
        mean.coefficients, mean.error * (1 + gamma) + gamma * bounds.magnitude.mean(-1, keepdim=True) * 2 + TINY
    )
    # The error of v − mean v: each number enters with 1 − 1/n and the others with 1/n.
    centered = bounds + mean
    squares = centered.through(SQUARE)
    variance = AffineBounds(
        squares.coefficients.mean(-1, keepdim=True),
        squares.error.mean(-1, keepdim=True) * (1 + 2 * gamma)
        + 2 * gamma * squares.magnitude.mean(-1, keepdim=True)
        + TINY,
    ).scaled(one, torch.tensor(eps, dtype=torch.float64))
    inverse = variance.through(_floored(INVERSE_ROOT, eps * (1 - ELEMENTARY)))
    return centered * AffineBounds(inverse.coefficients.expand_as(centered.coefficients), inverse.error)


def _floored(curve: Curve, floor: float) -> Curve:
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


def _with_gain(bounds: AffineBounds, weight: Tensor | None, bias: Tensor | None) -> AffineBounds:
    if weight is None:
        return bounds
    shift = torch.zeros((), dtype=torch.float64) if bias is None else bias.detach().double()
    return bounds.scaled(weight.detach().double(), shift)
