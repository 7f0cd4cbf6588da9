"""A network restricted to a box of z: as few variables as rectifiers bend there.

On a box a network of affine layers and rectifiers is affine in t and in one number εₖ ∈ [−1, 1] for each rectifier that
changes sign there: relu(uₖ) = λₖ uₖ + μₖ (1 + εₖ). This is an identity, so the restricted network loses nothing, and
smaller boxes inside are bounded by it at a fraction of the cost.
"""

from __future__ import annotations

__all__: list[str] = []  # used by the proofs only

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional

from latentia.likelihood.proof.affine import AffineBounds, Bends, joined, with_rows
from latentia.likelihood.proof.curves import Rectifier, rectifier
from latentia.likelihood.proof.kinks import DEGREES, ROUNDING, rectifier_moments
from latentia.likelihood.proof.modules import bound_network, rule_of
from latentia.likelihood.proof.rounding import ELEMENTARY, TINY, UNIT


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


class _TooManyError(Exception):
    """More rectifiers bend than may become variables, or another step is not affine."""


class _Bends(Bends):
    """Collects the rectifiers that bend on one box while bounds pass through a network; the others are affine there.

    Args:
        dimension: d.
        limit: of rectifiers that may become variables.
    """

    def __init__(self, dimension: int, limit: int):
        self.dimension, self.limit = dimension, limit
        self.groups: list[_Group] = []
        self.count = 0
        self.exact = True  # whether every other step so far was affine

    def rectify(self, bounds: AffineBounds, curve: Rectifier) -> AffineBounds:
        """The bounds after the rectifier, with a variable for each number that bends."""
        lo, hi = (side[0].flatten() for side in bounds.interval())
        error = bounds.error[0].flatten()
        inputs = with_rows(bounds.coefficients, 1 + self.dimension + self.count)[0].flatten(1)
        bends = (lo < 0) & (hi > 0)
        slope = torch.where(bends, hi / (hi - lo), (lo >= 0).double())
        height = torch.where(bends, torch.maximum(hi * (1 - slope), -lo * slope) * (0.5 + 1e-14), 0.0)
        thin = bends & (height <= 1e-11 * (hi - lo))  # too thin for a variable: into the error
        index = (bends & ~thin).nonzero().flatten()
        if self.count + len(index) > self.limit or not self.exact:
            raise _TooManyError
        # The rectifier is negative · u + (positive − negative) · max(u, 0).
        negative, positive = (
            torch.as_tensor(x, dtype=torch.float64).expand(bounds.error.shape[1:]).flatten()
            for x in (curve.negative, curve.positive)
        )
        rise, size = positive - negative, positive.abs() + negative.abs()
        factor = negative + rise * slope
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
    def of_network(
        cls, network: nn.Module, origin: Tensor, scale: Tensor, limit: int = 1500, seen: Tensor | None = None
    ) -> Restriction:
        """The network everywhere, as a function of s with z = origin + scale ∘ s.

        Args:
            network: z (T, d) → (T, …), which `bound_network` can bound.
            origin: (d,).
            scale: (d,).
            limit: of variables; a box on which more rectifiers bend is bounded without them.
            seen: which outputs to keep, (D,); None for all.

        Raises:
            UnsupportedError: as `bound_network`.
        """
        head, last = _split(network)

        def outer(x: AffineBounds) -> AffineBounds:
            every = _flat(bound_network(network, x.scaled(scale.double(), origin.double())))
            return every if seen is None else every.reshaped(lambda numbers: numbers[:, seen])

        if last is None:
            zero = torch.zeros((), dtype=torch.float64)
            return cls(None, zero, zero, outer, outer, limit)
        weight = last.weight.detach().double()
        bias = torch.zeros(len(weight), dtype=torch.float64) if last.bias is None else last.bias.detach().double()
        if seen is not None:
            weight, bias = weight[seen], bias[seen]

        def inner(x: AffineBounds) -> AffineBounds:
            x = x.scaled(scale.double(), origin.double())
            for part in head:
                x = bound_network(part, x)
            return x

        return cls(weight, bias, torch.zeros_like(bias), inner, outer, limit)

    def variables(self, bounds: AffineBounds) -> AffineBounds:
        """Bounds of v, (T, V), on boxes inside, from those of s."""
        return self.inner(bounds)

    def integrated(self, bounds: AffineBounds) -> tuple[AffineBounds, Deviations | None]:
        """The same with how far they lie from their lines on average; None where only the most is known."""
        if isinstance(self.inner, _Local) and self.inner.groups and bounds.error.shape[1] in DEGREES:
            return self.inner.integrated(bounds)
        return self.inner(bounds), None

    def outputs(self, variables: Tensor) -> Tensor:
        """weight · v + bias, (…, V) → (…, D)."""
        return self.linear(variables) + self.bias

    def linear(self, variables: Tensor) -> Tensor:
        """weight · v, (…, V) → (…, D)."""
        return variables if self.weight is None else variables @ self.weight.T

    def absolute(self, variables: Tensor) -> Tensor:
        """|weight| · v, (…, V) → (…, D)."""
        return variables if self._sizes is None else variables @ self._sizes

    @cached_property
    def _sizes(self) -> Tensor | None:
        """|weight|ᵀ, (V, D)."""
        return None if self.weight is None else self.weight.abs().T

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
        kinks = _Bends(dimension, self.limit)
        traced = AffineBounds(bounds.coefficients, bounds.error, kinks)
        variables = None
        try:
            if self.outer is None:
                variables = self.inner(traced)
                assert self.weight is not None
                output = variables.linear(functional.linear, self.weight, self.bias, self.weight.shape[1])
            else:
                output = self.outer(traced)
        except _TooManyError:
            return self
        if not kinks.exact or not bool(torch.isfinite(output.error).all()):
            return self
        count = 1 + dimension + kinks.count
        rows = with_rows(output.coefficients, count)[0]
        change = None
        if variables is not None:
            old = with_rows(variables.coefficients, count)[0]
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
    rule_of(network)
    rule_of(parts[-1])
    return parts[:-1], parts[-1]


def _flat(bounds: AffineBounds) -> AffineBounds:
    return bounds.reshaped(lambda x: x.flatten(1))


@dataclass(frozen=True)
class Deviations:
    """The deviations D of V variables from their lines on S boxes, as a part with known moments and a rest.

    Attributes:
        moments: means of the known part times Legendre polynomials in t, of the degrees of `DEGREES`, (S, Q, V).
        rest: the largest size of what else there is, (S, V).
    """

    moments: Tensor
    rest: Tensor


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
        variables = self._place(bounds)
        for group in self.groups:
            inputs = _inputs(group, variables)
            variables = joined(variables, _excess(group, inputs.through(_curve(group))))
        return variables

    def _place(self, bounds: AffineBounds) -> AffineBounds:
        """t of the box."""
        center, radii = self.box.coefficients[:, 0], torch.diagonal(self.box.coefficients[0, 1:])[None]
        moved = bounds.coefficients.clone()
        moved[:, 0] -= center
        return AffineBounds(moved / radii, 4 * UNIT * bounds.magnitude / radii, bounds.kinks)

    def integrated(self, bounds: AffineBounds) -> tuple[AffineBounds, Deviations]:
        """The same with the moments of the deviations, for boxes of one or two dimensions.

        With u = a + b·t + D, a rectifier f(u) − line is f(a + b·t) − line, whose moments are known, and f(u) − f(a +
        b·t), which is the slope times D where the sign of u is known. Elsewhere it is the mean of the two slopes times
        D, up to half of |D|.
        """
        d = bounds.error.shape[1]
        variables = self._place(bounds)
        rest, moments = variables.error, variables.error.new_zeros(len(variables.error), len(DEGREES[d]), d)
        for group in self.groups:
            inputs = _inputs(group, variables)
            unknown = variables.spread(functional.linear, group.weight, rest, group.weight.shape[1])
            unknown = unknown + 2 * UNIT * inputs.center.abs() + group.error
            slope, shift, _ = _curve(group).line(inputs.center, inputs.radius())
            lo, hi = inputs.interval()
            bends = ~((lo >= 0) | (hi <= 0))
            follow = torch.where(bends, 0.5 - group.slope, slope)
            known = (moments @ group.weight.T) * follow.unsqueeze(1)
            box, unit = bends.nonzero(as_tuple=True)
            if len(box):
                a, b = inputs.center[box, unit], inputs.slopes[box, :, unit]
                line = group.slope[unit] + slope[box, unit]  # what is taken off relu(u)
                own = rectifier_moments(a, b)
                own[:, 0] -= line * a + shift[box, unit]
                own[:, 1 : 1 + d] -= line[:, None] * b / 3
                known[box, :, unit] += own
            rounding = ROUNDING * ((inputs.magnitude + inputs.error) * (1 + slope.abs()) + shift.abs())
            unknown = (unknown * follow.abs() + rounding).add_(0.5 * inputs.error * bends)
            excess = _excess(group, inputs.through(_curve(group)))
            variables = joined(variables, excess)
            moments = torch.cat([moments, known / group.height], -1)
            rest = torch.cat([rest, unknown / group.height + ROUNDING * (1 + excess.magnitude)], -1)
        return variables, Deviations(moments, rest * (1 + ELEMENTARY) + ROUNDING * variables.error)


_MINUS_ONE = -torch.ones((), dtype=torch.float64)


def _inputs(group: _Group, variables: AffineBounds) -> AffineBounds:
    """u of the group."""
    inputs = variables.linear(functional.linear, group.weight, group.bias, group.weight.shape[1])
    return AffineBounds(inputs.coefficients, inputs.error + group.error, variables.kinks)


def _curve(group: _Group) -> Rectifier:
    """relu(u) − λ u."""
    return rectifier(-group.slope, 1 - group.slope)


def _excess(group: _Group, bounds: AffineBounds) -> AffineBounds:
    """ε from μ (1 + ε)."""
    return bounds.scaled(1 / group.height, _MINUS_ONE)
