"""Likelihoods for the proof: bounds of log p(x|z) for many images on many tiles.

p(x|z) is an exponential family in its natural parameters l, log p = φ(x)·l − A(l) + const(x), and the decoder gives
l = W v(z) + b with v = a + B t + e(t), |e| ≤ ē. The first-order error (φ − A′)·W e is at most Σᵢ |(φ − A′)W|ᵢ ēᵢ: sums
over pixels are taken first, and there errors cancel. The third order of A is bounded pixel by pixel: for Bernoulli
pixels A‴ = A″ (1 − 2A′), hence |A(l + δ) − A − A′δ − ½ A″δ²| ≤ A″ (|1 − 2A′| + ½|δ|) |δ|³ e^|δ|/6 (after Bach 2010,
proposition 1); for normal pixels there is none.
"""

from __future__ import annotations

__all__: list[str] = []  # used by the proofs only

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from latentia.errors import UnsupportedError
from latentia.likelihood.proof.affine import AffineBounds
from latentia.likelihood.proof.kinks import CUBES, TIMES_COORDINATE
from latentia.likelihood.proof.restriction import Deviations, Restriction
from latentia.likelihood.proof.rounding import UNIT, gamma_of

LOG_GAMMA = 64 * UNIT  # relative error of torch.lgamma, against log Γ(x + 1) and its parts
SMALLEST_SCALE = 1e-100
PAIRS_AT_ONCE = 100_000  # images times tiles in one table
NUMBERS_AT_ONCE = 1_000_000  # in one array: memory that is larger goes back to the system when it is freed
HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
SAFE = 1 + 1e-12  # more than rounding changes in sums of positive numbers


@dataclass(frozen=True)
class Table:
    """What is known of log p(x|z) for images (rows) on tiles (columns); t-forms as in the module's docstring.

    Attributes:
        value: α, (n, S).
        slope: g, (n, S, d).
        slack: of the first order, both ways, (n, S).
        curvature: H, (S, d, d).
        above, below: further slack of the form with H, upwards and downwards, (S,).
        flat: (S,), whether the upper bound is better without H and with `above_flat` in place of `above`.
        above_flat: (S,).
        rounding: the part of the slack that smaller tiles do not make smaller, (S,).
        average: the deviation from the form with H that is known on average; None where none is.
    """

    value: Tensor
    slope: Tensor
    slack: Tensor
    curvature: Tensor
    above: Tensor
    below: Tensor
    flat: Tensor
    above_flat: Tensor
    rounding: Tensor
    average: Average | None = None


@dataclass(frozen=True)
class Average:
    """A deviation X(t) from the form of `Table` whose moments are known: log p = form + X ± rest, less `sunk` at most.

    X holds what is of first order in the deviations of the variables, the product of these and t, and the third order.

    Attributes:
        moments: of X against Legendre polynomials (see `kinks`), (n, S, Q).
        rest: slack both ways besides X, (n, S).
        swing: |X| is at most the table's slack + rest + swing, (S,).
        crossed: the part of `swing` whose moments of degree 3 are not known, (S,).
        sunk: slack downwards besides `rest`, (S,).
    """

    moments: Tensor
    rest: Tensor
    swing: Tensor
    crossed: Tensor
    sunk: Tensor


@dataclass(frozen=True)
class _Expansion:
    """A(W v + b) on S tiles: total + pull·(v − a) + ½ (v − a)ᵀWᵀA''W (v − a), with v = a + B t + e.

    Attributes:
        total: (S,).
        pull: (S, V).
        curvature: Bᵀ Wᵀ A'' W B, (S, d, d).
        force: Bᵀ Wᵀ A'' W, (S, d, V): t and e contribute t·(force e) together.
        crossed: bound on that, (S,).
        squares: bound on what e contributes by itself, (S,); it only raises A.
        remainder: bound on the third order, (S,).
        tangent: by how much the terms of first order may lie above A, (S,): 0 where they are A's tangent.
        rounding: (S,).
        third: the term of third order in t, where it was computed; None where it is a part of `remainder`.
    """

    total: Tensor
    pull: Tensor
    curvature: Tensor
    force: Tensor
    crossed: Tensor
    squares: Tensor
    remainder: Tensor
    tangent: Tensor
    rounding: Tensor
    third: _Third | None = None


@dataclass(frozen=True)
class _Third:
    """The term of third order of A, (1/6) Σ A‴ (W B t)³, as a polynomial in t of one or two variables.

    Attributes:
        moments: of the polynomial against Legendre polynomials, of the degrees of `DEGREES`, (S, Q).
        most: bound of its size, (S,).
        beyond: bound on what else there is of third and higher order, (S,).
    """

    moments: Tensor
    most: Tensor
    beyond: Tensor


@dataclass(frozen=True)
class Products:
    """What images contribute to log p(x|z) through a network l = W v + b.

    Attributes:
        shift: φ·b, (n,).
        weighted: φ W, (n, V).
        drift: bound on what rounding in `shift` and `weighted` changes in φ·l, for any image and any v.
    """

    shift: Tensor
    weighted: Tensor
    drift: float

    def of(self, rows: Tensor) -> Products:
        """Of some of the images."""
        return Products(self.shift[rows], self.weighted[rows], self.drift)


class Likelihoods(ABC):
    """log p(x|z) = φ(x)·l(z) − A(l(z)) + const(x) for a set of images.

    Attributes:
        features: φ, (N, D), float64.
        constants: (N,).
        supremum: of log p(x|z) over all z, (N,).
        noise: bound on the rounding of the constants, (N,).
    """

    def __init__(self, features: Tensor, constants: Tensor, supremum: Tensor, noise: Tensor):
        self.features, self.constants, self.supremum, self.noise = features, constants, supremum, noise
        self.largest = features.abs().amax(0)

    def shifted(self, constant: Tensor) -> Likelihoods:
        """The same with a constant added to log p(x|z)."""
        noise = 1e-13 * (1 + constant.abs())
        self.constants, self.supremum = self.constants + constant, self.supremum + constant + noise
        self.noise = self.noise + noise
        return self

    @abstractmethod
    def terms(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Σ A, (S,), and A' and A'', (S, D), at l, (S, D)."""

    @abstractmethod
    def third(self, mean: Tensor, reach: Tensor) -> tuple[Tensor, Tensor]:
        """Bounds of A''(l + δ)/A''(l) and of |A‴(l + δ)|/A''(l) for |δ| ≤ reach, from A'(l)."""

    @abstractmethod
    def skew(self, mean: Tensor) -> Tensor:
        """A‴/A'' at l from A'(l); |A⁗/A''| must be at most 1 everywhere."""

    def at(self, network: Restriction, points: Tensor) -> Tensor:
        """log p(x|z) at single points, (N, S), without a bound of rounding."""
        variables = network.variables(AffineBounds.of_boxes(points, torch.zeros_like(points)))
        parameters = network.outputs(variables.center)
        return self.features @ parameters.T - self.terms(parameters)[0] + self.constants[:, None]

    def products(self, network: Restriction, rows: Tensor) -> Products:
        """φ·b and φ W for some images."""
        found, outputs = [], self.features.shape[1]
        for some in rows.split(max(1, NUMBERS_AT_ONCE // max(1, outputs))):
            features = self.features[some]
            found.append((features @ network.bias_of(outputs), network.transposed(features)))
        shift, weighted = (torch.cat(parts) for parts in zip(*found, strict=True))
        return Products(shift, weighted, 0.0)

    def restricted(self, products: Products, before: Restriction, after: Restriction) -> Products:
        """The same for a network that was made from `before`, without a sum over pixels: φ W' = (φ W) C."""
        assert after.change is not None
        start, change = after.change
        shift, weighted = products.shift + products.weighted @ start, products.weighted @ change
        # In real arithmetic both are what they stand for; here they differ by the rounding of W C and of (φ W) C.
        reach = before.absolute(start.abs() + change.abs().sum(-1))
        drift = 4 * gamma_of(len(start) + self.features.shape[1]) * float((self.largest * reach).sum())
        return Products(shift, weighted, products.drift + drift)

    def table(
        self,
        network: Restriction,
        tiles: AffineBounds,
        rows: Tensor,
        products: Products,
        together: int,
        choices: list[Tensor],
        limit: float,
        integrate: bool = False,
    ) -> list[tuple[Tensor, Table]]:
        """Bounds for the images `rows` on S tiles, in parts: (rows of the part, table).

        Args:
            network: the decoder, restricted to a box around the tiles.
            tiles: as `AffineBounds.of_boxes` gives them.
            rows: which images, (n,).
            products: of these images with that network.
            together: how many tiles in succession are near to each other.
            choices: ways to group the tiles to cells of neighbors, from few cells to one for each tile: the cell of
                each tile, (S,), from 0 up, all of one size.
            limit: how much slack in nats it may cost to expand A once for each cell.
            integrate: whether to find how far rectifiers lie from their lines on average, and not only at most.
        """
        variables, known = network.integrated(tiles) if integrate else (network.variables(tiles), None)
        center, slopes, error = variables.center, variables.slopes, variables.error
        choices = choices if network.weight is not None else choices[-1:]
        expansion = self._chosen(network, variables, choices, limit, known is not None)
        near = (len(center) // together, together)
        middle = expansion.pull.unflatten(0, near).mean(1)  # (S / together, V)
        away = (middle.repeat_interleave(together, 0) - expansion.pull).abs()
        floor = expansion.rounding + 4 * products.drift
        fixed = floor + (away * error).sum(-1)
        tilt = (expansion.pull.unsqueeze(1) * slopes).sum(-1)
        above = expansion.crossed + expansion.remainder
        below = above + expansion.squares
        flat = ~(above < expansion.curvature.diagonal(dim1=-2, dim2=-1).sum(-1) / 6)
        more = None if known is None else _of_higher_order(expansion, error, known)
        parts = []
        size = max(1, min(PAIRS_AT_ONCE // len(center), NUMBERS_AT_ONCE // max(1, middle.numel())))
        split = (rows.split(size), products.weighted.split(size), products.shift.split(size))
        for some, product, shift in zip(*split, strict=True):
            value = product @ center.T
            value += (shift + self.constants[some])[:, None] - expansion.total
            slope = (product @ slopes.flatten(0, 1).T).unflatten(1, slopes.shape[:2]) - tilt
            force = product - middle.unsqueeze(1)  # (S / together, n, V)
            slack = (force.abs() @ error.unflatten(0, near).mT).transpose(0, 1).flatten(1)
            slack += fixed + self.noise[some, None]
            table = Table(value, slope, slack, expansion.curvature, above, below, flat, expansion.tangent, floor)
            if known is not None and more is not None:
                moments = (force @ known.moments.unflatten(0, near).flatten(1, 2).mT).transpose(0, 1)
                moments = moments.flatten(1).unflatten(1, known.moments.shape[:2])
                off = expansion.pull - middle.repeat_interleave(together, 0)
                moments += more.moments - (known.moments @ off.unsqueeze(-1)).squeeze(-1)
                rest = (force.abs() @ known.rest.unflatten(0, near).mT).transpose(0, 1).flatten(1)
                rest += floor + (away * known.rest).sum(-1) + more.beyond
                rest += self.noise[some, None]
                average = Average(moments, rest, more.most, more.crossed, expansion.squares)
                table = replace(table, average=average)
            parts.append((some, table))
        return parts

    def _chosen(
        self, network: Restriction, variables: AffineBounds, choices: list[Tensor], limit: float, third: bool
    ) -> _Expansion:
        """The expansion by the fewest cells of small remainder; cells are half as wide from one to the next."""
        for number, cells in enumerate(choices[:-1]):
            expansion = self._expansion(network, variables, cells)
            most = float(expansion.remainder.max())
            if most <= limit:
                return expansion
            if number + 2 < len(choices) and not most / 6 <= limit:  # of third order: the next ones will not do either
                break
        return self._expansion(network, variables, choices[-1], third)

    def _expansion(
        self, network: Restriction, variables: AffineBounds, cells: Tensor, with_third: bool = False
    ) -> _Expansion:
        """A to second order in v around one point for each cell, and bounds of what is beyond.

        With `with_third`, for a cell for each tile, the term of third order in t too.
        """
        count = int(cells.max()) + 1
        order = cells.argsort(stable=True)
        back = order.argsort()

        def grouped(x: Tensor) -> Tensor:
            return x[order].unflatten(0, (count, -1))

        def ungrouped(x: Tensor) -> Tensor:
            return x.expand(count, len(cells) // count, *x.shape[2:]).flatten(0, 1)[back]

        center, slopes, error = (grouped(x) for x in (variables.center, variables.slopes, variables.error))
        gamma = 4 * gamma_of(center.shape[-1] + self.features.shape[1])
        place = center.mean(1, keepdim=True)
        away = center - place
        parameters = network.outputs(place[:, 0])
        total, mean, variance = self.terms(parameters)
        size = network.absolute((grouped(variables.magnitude) + error).amax(1)) + parameters.abs()
        size = size + network.bias_of(parameters.shape[1]).abs()
        reach = network.absolute((away.abs() + slopes.abs().sum(2) + error).amax(1)) * (1 + gamma) + network.error
        growth, third = self.third(mean, reach)
        remainder = (variance * (reach * reach * reach) * third).sum(-1, keepdim=True) / 6 * (1 + gamma)
        # Rounding of l = W v + b, of A and its derivatives, and of the sums over pixels.
        weight = self.largest + mean.abs() + variance * reach * growth
        rounding = (weight * (gamma * size + network.error)).sum(-1, keepdim=True) * 4
        rounding = rounding + gamma * total.abs()[:, None] + 1e-13
        pull = network.transposed(mean).unsqueeze(1)  # A' W at the place
        cubic = None
        if count == len(cells):  # away = 0, and a product with W for each tile is less than Wᵀ A'' W
            tangents = network.linear(slopes[:, 0])
            weighted = network.transposed(variance.unsqueeze(1) * tangents).unsqueeze(1)
            wide = network.absolute(error[:, 0])
            squares = (variance * wide.square()).sum(-1, keepdim=True)
            crossed = (weighted.abs() * error.unsqueeze(2)).sum((-1, -2))
            rounding = rounding + gamma * (variance * reach.square()).sum(-1, keepdim=True) * 4
            if with_third:
                cube = variance * reach * reach * reach
                fourth = (cube * reach * growth).sum(-1, keepdim=True) / 24
                noise = 64 * gamma * (cube * (1 + third)).sum(-1, keepdim=True)
                skew = variance * self.skew(mean)
                cubic = _third(network, tangents, skew, error[:, 0], wide, reach, fourth + noise)
                cubic = _Third(*(ungrouped(x) for x in (cubic.moments, cubic.most, cubic.beyond * (1 + gamma))))
        else:
            assert network.weight is not None
            hessian = (network.weight.T * variance.unsqueeze(1)) @ network.weight  # (cells, V, V)
            force = away @ hessian
            total = total[:, None] + (pull * away).sum(-1) + 0.5 * (force * away).sum(-1)
            pull = pull + force
            weighted = slopes @ hessian.unsqueeze(1)
            squares = (error @ hessian.abs() * error).sum(-1)
            crossed = (weighted.abs() * error.unsqueeze(2)).sum((-1, -2))
        total = total if total.dim() > 1 else total[:, None]
        # A is convex, so its tangent lies below it; moved away from the place, the expansion is not a tangent.
        tangent = torch.zeros_like(remainder) if count == len(cells) else remainder
        return _Expansion(
            ungrouped(total),
            ungrouped(pull),
            ungrouped(weighted @ slopes.mT),
            ungrouped(weighted),
            ungrouped(crossed * (1 + gamma)),
            ungrouped(0.5 * squares * (1 + gamma)),
            ungrouped(remainder),
            ungrouped(tangent),
            ungrouped(rounding),
            cubic,
        )


@dataclass(frozen=True)
class _Higher:
    """Deviations of second and third order that are known on average; attributes as of `_Third`, on S tiles.

    Attributes:
        crossed: the part of `most` whose moments of degree 3 are not known, (S,).
    """

    moments: Tensor
    most: Tensor
    beyond: Tensor
    crossed: Tensor


def _of_higher_order(expansion: _Expansion, error: Tensor, known: Deviations) -> _Higher:
    """What t and the deviations of the variables contribute together to log p, and the third order of A."""
    products = torch.einsum("sdv,sqv->sdq", expansion.force, known.moments)
    moments = -torch.einsum("dpq,sdq->sp", TIMES_COORDINATE[expansion.force.shape[1]], products)
    size = expansion.force.abs().sum(1)
    unknown, crossed = (size * known.rest).sum(-1), (size * (error + known.rest)).sum(-1)
    if expansion.third is None:
        return _Higher(moments, crossed, (unknown + expansion.remainder) * SAFE, crossed * SAFE)
    third = expansion.third
    most = (crossed + third.most) * SAFE
    return _Higher(moments - third.moments, most, (unknown + third.beyond) * SAFE, crossed * SAFE)


def _third(
    network: Restriction, tangents: Tensor, skew: Tensor, error: Tensor, wide: Tensor, reach: Tensor, fourth: Tensor
) -> _Third:
    """The third order of A for l = W (a + B t + e) + b on S tiles, (S, 1, …) each.

    Args:
        network: W.
        tangents: W B, (S, d, D).
        skew: A‴, (S, D).
        error: of v, (S, V).
        wide: |W| e, (S, D).
        reach: at least |W (B t + e)|, (S, D).
        fourth: bound on higher orders and rounding, (S, 1).
    """
    d = tangents.shape[1]
    pairs = torch.stack([skew * tangents[:, i] * tangents[:, j] for i in range(d) for j in range(i, d)], 1)
    often = torch.tensor([1.0, 2.0, 1.0] if d == 2 else [1.0], dtype=torch.float64)
    # (τ + η)³ − τ³ = 3 τ² η + 3 τ η² + η³ with |τ| + |η| ≤ reach and |η| ≤ wide.
    bent = 0.5 * ((network.transposed(pairs).abs() * error.unsqueeze(1)).sum(-1) * often).sum(-1, keepdim=True)
    bent = bent + 0.5 * (skew.abs() * reach * wide.square()).sum(-1, keepdim=True)
    triples = torch.cat([pairs[:, :1] * tangents[:, :1], pairs * tangents[:, -1:]], 1) if d == 2 else pairs * tangents
    coefficients = triples.sum(-1) * torch.tensor([1.0, 3.0, 3.0, 1.0] if d == 2 else [1.0]) / 6
    return _Third((coefficients @ CUBES[d]).unsqueeze(1), coefficients.abs().sum(-1, keepdim=True), bent + fourth)


class BernoulliLikelihoods(Likelihoods):
    """l: logits. A = softplus, A‴ = A'' (1 − 2A'), and so |(log A'')'| ≤ 1."""

    def __init__(self, images: Tensor):
        zeros = torch.zeros(len(images), dtype=torch.float64)
        super().__init__(images, zeros, zeros, zeros)

    def terms(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        small = torch.exp(-parameters.abs())
        total = (parameters.clamp(min=0) + torch.log1p(small)).sum(-1)
        mean = torch.where(parameters >= 0, 1.0, small) / (1 + small)
        return total, mean, (small / (1 + small).square()).clamp(min=1e-300)  # as the third order grows from it

    def third(self, mean: Tensor, reach: Tensor) -> tuple[Tensor, Tensor]:
        growth = torch.exp(reach)
        return growth, growth * ((1 - 2 * mean).abs() + 0.5 * reach + 1e-15)

    def skew(self, mean: Tensor) -> Tensor:
        return 1 - 2 * mean  # and A⁗ = A'' (1 − 6 A'') with A'' ≤ 1/4


class PoissonLikelihoods(Likelihoods):
    """l: log-means. A and all its derivatives are eˡ."""

    def __init__(self, images: Tensor):
        factorials = torch.lgamma(images + 1).sum(-1)
        # x l − eˡ is largest at l = log x, and at most 0 for x = 0.
        best = (torch.xlogy(images, images) - images).sum(-1)
        size = factorials.abs() + (torch.xlogy(images, images).abs() + images).sum(-1)
        noise = 1e-13 + (gamma_of(4 * images.shape[1]) + LOG_GAMMA) * size
        super().__init__(images, -factorials, best - factorials + noise, noise)

    def terms(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rate = torch.exp(parameters)
        return rate.sum(-1), rate, rate.clamp(min=1e-300)  # as the third order grows from it

    def third(self, mean: Tensor, reach: Tensor) -> tuple[Tensor, Tensor]:
        growth = torch.exp(reach)
        return growth, growth

    def skew(self, mean: Tensor) -> Tensor:
        return torch.ones_like(mean)


class NormalLikelihoods(Likelihoods):
    """l: means. φ = x/σ², A = μ²/2σ².

    Args:
        images: (N, D).
        scales: of each pixel, (D,).
    """

    def __init__(self, images: Tensor, scales: Tensor):
        if not bool(((scales > SMALLEST_SCALE) & (scales < 1 / SMALLEST_SCALE)).all()):
            raise UnsupportedError(
                f"the likelihood's scales run from {scales.min():.3g} to {scales.max():.3g}, and a proof serves scales "
                f"between {SMALLEST_SCALE} and {1 / SMALLEST_SCALE}; use method='importance'"
            )
        logs, squares = scales.log() + HALF_LOG_2PI, 0.5 * (images / scales).square().sum(-1)
        peak = -logs.sum().expand(len(images))
        noise = gamma_of(4 * images.shape[1]) * ((logs.abs() + 1).sum() + squares)
        super().__init__(images / scales**2, peak - squares, peak + noise, noise)
        self.precision = scales**-2

    def terms(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean = parameters * self.precision
        total = 0.5 * (parameters * mean).sum(-1)
        return total, mean, self.precision.expand_as(mean)

    def third(self, mean: Tensor, reach: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(mean), torch.zeros_like(mean)

    def skew(self, mean: Tensor) -> Tensor:
        return torch.zeros_like(mean)
