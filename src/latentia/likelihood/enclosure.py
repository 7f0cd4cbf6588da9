"""log p(x) = log ∫ p(x|z) p(z) dz between two proven bounds, for z of few dimensions and a decoder of known parts.

A box that holds the prior's mass, but for a tail that is bounded on its side, is divided into tiles. On a tile of
center c and half sides r, with z = c + r∘t and t ∈ [−1, 1]ᵈ, the decoder lies between affine functions of t
(`latentia.likelihood.relaxation`), and

    log p(x|z) p(z)  =  α + g·t − w(t)  ± slack,        w(t) = ½ tᵀH t,  0 ≤ w ≤ w̄.

With m₀ the mean of exp(g·t) over the tile and E the mean under the density that is proportional to it, the mass is

    at least  |tile| m₀ exp(α − slack − E w)                          by Jensen's inequality,
    at most   |tile| m₀ exp(α + slack) (1 − (1 − w̄/2) E w)            by e^{−w} ≤ 1 − w + w²/2, for w̄ ≤ 1.

Tiles of too wide a gap are divided again; a tile without mass that matters keeps its upper bound. Nothing is left out.

**Slack.** p(x|z) is an exponential family in its natural parameters l, log p = φ(x)·l − A(l) + const(x), and the
decoder gives l = W v(z) + b with v = a + B t + e(t), |e| ≤ ē. The first-order error (φ − A')·W e is at most Σᵢ |(φ −
A')W|ᵢ ēᵢ: sums over pixels are taken first, and there errors cancel. The third order of A is bounded pixel by pixel:
for Bernoulli pixels A''' = A'' (1 − 2A'), hence |A(l + δ) − A − A'δ − ½ A''δ²| ≤ A'' (|1 − 2A'| + ½|δ|) |δ|³ e^|δ|/6
(after Bach 2010, proposition 1); for normal pixels there is none.

**Rounding** of float64 is added to every bound. What is enclosed is the integral in real arithmetic, of the decoder
with its stored weights and of the prior with its stored parameters.
"""

from __future__ import annotations

__all__ = ["enclose_log_likelihood", "prove_exclusion"]

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MixtureSameFamily, MultivariateNormal, Normal, Uniform
from torch.nn.modules.batchnorm import _BatchNorm

from latentia.distributions import Bernoulli, Conditional, Family, Gaussian, GaussianLearnedScale
from latentia.distributions.gaussians import DiagonalGaussian, StandardGaussian
from latentia.distributions.mixtures import Mixture
from latentia.errors import ConfigurationError, UnsupportedError
from latentia.likelihood.latent_model import LatentModel
from latentia.likelihood.relaxation import ELEMENTARY, UNIT, AffineBounds, Restriction, gamma_of
from latentia.models import VAE
from latentia.objectives.score_table import score_pairs

LARGEST_SPLIT = {1: 64, 2: 16, 3: 4}  # parts along each side that a tile is divided into at most
PAIRS_AT_ONCE = 400_000  # images times tiles in one table
MOST_DIMENSIONS = 3
MOST_VARIABLES = 256  # of a restricted network; on tiles where more rectifiers bend, the whole network is bounded
WIDE = 8.0  # nats between two bounds beyond which the gap does not yet fall with the square of the side
LENIENCY = math.log(4.0)  # by which a gap may exceed its share on the parts of a tile that were to be the last
LARGEST_ROUNDING = 1e-4  # share of the tolerance that rounding may take before something is computed from the start
EXPANSION = 0.05  # share of the tolerance that may be lost to expanding the normalizer once for several tiles
CAUTION = 0.5  # nats that an estimate of log p(x) is lowered by before tiles are dropped against it
HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True)
class Enclosure:
    """Proven bounds of log p(x), image by image.

    Attributes:
        lower: of log p(x) in nats, (N,), float64; −∞ where nothing is known.
        upper: likewise.
        statistics: `tiles` that were bounded, `pairs` of an image and a tile, `rounds`, `seconds`.
    """

    lower: Tensor
    upper: Tensor
    statistics: dict[str, float] = field(default_factory=dict)

    @property
    def width(self) -> Tensor:
        """upper − lower, in nats, (N,)."""
        return self.upper - self.lower


@dataclass(frozen=True)
class KeptTiles:
    """Tiles outside which an image has next to no posterior mass, proven.

    Attributes:
        centers: of the tiles, (T, d).
        radii: half their sides, (d,): the tiles form part of one grid.
        images: (P,), which image each kept pair belongs to; sorted by tile.
        tiles: (P,), and which tile.
        log_excluded: upper bound of log ∫ p(x|z) p(z) dz outside the image's kept tiles, (N,).
        log_lower: lower bound of log p(x), (N,), of low quality: the tiles are coarse.
        statistics: as of `Enclosure`.
    """

    centers: Tensor
    radii: Tensor
    images: Tensor
    tiles: Tensor
    log_excluded: Tensor
    log_lower: Tensor
    statistics: dict[str, float] = field(default_factory=dict)


def enclose_log_likelihood(
    model: Any, images: Tensor, tolerance: float = 0.01, *, seconds: float = math.inf
) -> Enclosure:
    """Lower and upper bounds of log p(x) for every image, proven, for z of at most three dimensions.

    Args:
        model: a `VAE`, a run, or a `LatentModel` whose decoder is a `Conditional`; in evaluation mode.
        images: (N, *event_shape).
        tolerance: how far apart the two bounds of an image may be, in nats.
        seconds: time allowed; the best bounds reached by then are returned.

    Raises:
        UnsupportedError: a decoder, likelihood or prior that cannot be bounded, naming it and the cure.
        DataError: images that the likelihood cannot score.
    """
    if not tolerance > 0:
        raise ConfigurationError(f"tolerance is {tolerance}; it must be above 0 nats")
    begin = time.monotonic()
    with torch.no_grad():
        problem = _Problem.of_model(model, images)
        search = _Search(problem, tolerance, begin + seconds)
        lower, upper = search.run(torch.arange(len(images)), problem.hints, tolerance / 200)
        share, rounds = tolerance / 200, 1
        while time.monotonic() < begin + seconds and rounds < 8:
            open_ = ~(upper - lower <= tolerance) & torch.isfinite(lower)
            index = open_.nonzero().flatten()
            if len(index) == 0:
                break
            share, rounds = share / 8, rounds + 1
            low, high = search.run(index, lower[index], share)
            better = high - low < (upper - lower)[index]
            lower[index], upper[index] = torch.where(better, low, lower[index]), torch.where(better, high, upper[index])
    statistics = {**search.statistics(), "rounds": float(rounds), "seconds": time.monotonic() - begin}
    return Enclosure(lower, upper, statistics)


def prove_exclusion(
    model: Any, images: Tensor, *, side: float = 0.1, share: float = 1e-6, seconds: float = math.inf
) -> KeptTiles:
    """The tiles of a grid that an image needs: all others together hold at most about `share` of p(x), proven.

    Args:
        model: as for `enclose_log_likelihood`.
        images: (N, *event_shape).
        side: of the tiles at most, in units of z.
        share: of p(x) that may be excluded. The bound on what was excluded is in the result.
        seconds: time allowed.

    Raises:
        UnsupportedError: as for `enclose_log_likelihood`, and where the time ends before all tiles are that small.
    """
    begin = time.monotonic()
    with torch.no_grad():
        problem = _Problem.of_model(model, images)
        search = _Search(problem, math.inf, begin + seconds)
        level = max(0, math.ceil(math.log2(2 * float(problem.prior.scale.max()) / side)))
        found = search.exclude(torch.arange(len(images)), problem.hints, level, share)
    statistics = {**search.statistics(), "seconds": time.monotonic() - begin}
    return replace(_kept_tiles(problem, level, found), statistics=statistics)


# --- what is integrated ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Problem:
    """The parts of log p(x|z) p(z), with z = origin + scale ∘ s and s ∈ [−1, 1]ᵈ."""

    family: _Family
    prior: _Prior
    whole: Restriction
    hints: Tensor

    @classmethod
    def of_model(cls, model: Any, images: Tensor) -> _Problem:
        subject = LatentModel.from_model(model)
        subject.require_scorable(images)
        conditional = _conditional(subject)
        latent = subject.latent
        if latent > MOST_DIMENSIONS:
            raise UnsupportedError(
                f"tiles serve z of at most {MOST_DIMENSIONS} dimensions, and this model has {latent}; use "
                "method='importance' or method='annealed'"
            )
        family = _family(conditional.family, conditional.shared, images.detach().double().flatten(1).cpu())
        components = _components(subject.prior)
        first = components.origin(0.0)
        whole = Restriction.of_network(conditional.network, first, torch.ones_like(first), MOST_VARIABLES)
        at_center = family.at(whole, torch.zeros(1, latent, dtype=torch.float64))
        if not bool(torch.isfinite(at_center).all()):
            raise UnsupportedError(
                "the decoder gives numbers that are not finite; check its weights, or use method='importance'"
            )
        reach = float((family.supremum - at_center).max().clamp(0, 1e12)) + 200
        prior = components.box(math.sqrt(2 * reach))
        whole = Restriction.of_network(conditional.network, prior.origin, prior.scale, MOST_VARIABLES)
        return cls(family, prior, whole, _hints(subject, images))


def _conditional(subject: LatentModel) -> Conditional:
    """The network and family that p(x|z) is made of."""
    found = subject.decoder
    if isinstance(subject.source, VAE) and type(subject.source).decode is VAE.decode:
        found = subject.source.likelihood
    if (
        not isinstance(found, Conditional)
        or type(found) is not Conditional
        or found._forward_hooks
        or found._forward_pre_hooks
    ):
        raise UnsupportedError(
            "a proven bound needs to know what the decoder computes: pass LatentModel(Conditional(network, family, "
            "event_shape=…, condition_shape=…), prior) without hooks, or use the numerical quadrature "
            "(exact_log_likelihood)"
        )
    return found


def _hints(subject: LatentModel, images: Tensor) -> Tensor:
    """What the encoder suggests log p(x) to be, (N,): only the order of work depends on it, no bound does."""
    nothing = torch.full((len(images),), -math.inf, dtype=torch.float64)
    modules = [] if subject.source is None else list(subject.source.modules())
    if subject.encoder is None or any(isinstance(part, _BatchNorm) and part.training for part in modules):
        return nothing
    parts = []
    for some in images.to(subject.device, subject.dtype).split(1000):
        q = subject.encoder(some)
        mean, spread = q.mean, q.stddev.double()
        joint = score_pairs(subject.decoder(mean), some) + subject.log_prior(mean)
        parts.append((joint + (spread.log() + HALF_LOG_2PI).sum(-1)).cpu())
    return torch.where(torch.isfinite(found := torch.cat(parts)), found - CAUTION, nothing)


@dataclass(frozen=True)
class _Table:
    """What is known of log p(x|z) for images (rows) on tiles (columns); t-forms as in the module's docstring.

    Attributes:
        value: α, (n, S).
        slope: g, (n, S, d).
        slack: of the first order, both ways, (n, S).
        curvature: H, (S, d, d).
        above, below: further slack of the form with H, upwards and downwards, (S,).
        flat: (S,), whether the upper bound is better without H and without `above`.
        rounding: the part of the slack that smaller tiles do not make smaller, (S,).
    """

    value: Tensor
    slope: Tensor
    slack: Tensor
    curvature: Tensor
    above: Tensor
    below: Tensor
    flat: Tensor
    rounding: Tensor


@dataclass(frozen=True)
class _Expansion:
    """A(W v + b) on S tiles: total + pull·(v − a) + ½ (v − a)ᵀWᵀA''W (v − a), with v = a + B t + e.

    Attributes:
        total: (S,).
        pull: (S, V).
        curvature: Bᵀ Wᵀ A'' W B, (S, d, d).
        crossed: bound on what t and e contribute together, (S,).
        squares: bound on what e contributes by itself, (S,); it only raises A.
        remainder: bound on the third order, (S,).
        rounding: (S,).
    """

    total: Tensor
    pull: Tensor
    curvature: Tensor
    crossed: Tensor
    squares: Tensor
    remainder: Tensor
    rounding: Tensor


@dataclass(frozen=True)
class _Products:
    """What images contribute to log p(x|z) through a network l = W v + b.

    Attributes:
        shift: φ·b, (n,).
        weighted: φ W, (n, V).
        drift: bound on what rounding in `shift` and `weighted` changes in φ·l, for any image and any v.
    """

    shift: Tensor
    weighted: Tensor
    drift: float

    def of(self, rows: Tensor) -> _Products:
        """Of some of the images."""
        return _Products(self.shift[rows], self.weighted[rows], self.drift)


class _Family(ABC):
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

    @abstractmethod
    def terms(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Σ A, (S,), and A' and A'', (S, D), at l, (S, D)."""

    @abstractmethod
    def third(self, mean: Tensor, reach: Tensor) -> tuple[Tensor, Tensor]:
        """Bounds of A''(l + δ)/A''(l) and of |A'''(l + δ)|/A''(l) for |δ| ≤ reach, from A'(l)."""

    def at(self, network: Restriction, points: Tensor) -> Tensor:
        """log p(x|z) at single points, (N, S), without a bound of rounding."""
        variables = network.variables(AffineBounds.of_boxes(points, torch.zeros_like(points)))
        parameters = network.outputs(variables.center)
        return self.features @ parameters.T - self.terms(parameters)[0] + self.constants[:, None]

    def products(self, network: Restriction, rows: Tensor) -> _Products:
        """φ·b and φ W for some images."""
        features = self.features[rows]
        return _Products(features @ network.bias_of(features.shape[1]), network.transposed(features), 0.0)

    def restricted(self, products: _Products, before: Restriction, after: Restriction) -> _Products:
        """The same for a network that was made from `before`, without a sum over pixels: φ W' = (φ W) C."""
        assert after.change is not None
        start, change = after.change
        shift, weighted = products.shift + products.weighted @ start, products.weighted @ change
        # In real arithmetic both are what they stand for; here they differ by the rounding of W C and of (φ W) C.
        reach = before.absolute(start.abs() + change.abs().sum(-1))
        drift = 4 * gamma_of(len(start)) * float((self.largest * reach).sum())
        return _Products(shift, weighted, products.drift + drift)

    def table(
        self,
        network: Restriction,
        tiles: AffineBounds,
        rows: Tensor,
        products: _Products,
        choices: list[Tensor],
        limit: float,
    ) -> list[tuple[Tensor, _Table]]:
        """Bounds for the images `rows` on S tiles, in parts: (rows of the part, table).

        Args:
            network: the decoder, restricted to a box around the tiles.
            tiles: as `AffineBounds.of_boxes` gives them.
            rows: which images, (n,).
            products: of these images with that network.
            choices: ways to group the tiles to cells of neighbors, from few cells to one for each tile: the cell of
                each tile, (S,), from 0 up, all of one size.
            limit: how much slack in nats it may cost to expand A once for each cell.
        """
        variables = network.variables(tiles)
        center, slopes, error = variables.center, variables.slopes, variables.error
        expansion = None
        for cells in choices if network.weight is not None else choices[-1:]:
            expansion = self._expansion(network, variables, cells)
            if bool((expansion.remainder <= limit).all()):
                break
        assert expansion is not None
        middle = expansion.pull.mean(0)
        floor = expansion.rounding + 4 * products.drift
        fixed = floor + ((middle - expansion.pull).abs() * error).sum(-1)
        tilt = (expansion.pull.unsqueeze(1) * slopes).sum(-1)
        above = expansion.crossed + expansion.remainder
        below = above + expansion.squares
        flat = ~(above < expansion.curvature.diagonal(dim1=-2, dim2=-1).sum(-1) / 6)
        parts, size = [], max(1, PAIRS_AT_ONCE // len(center))
        split = (rows.split(size), products.weighted.split(size), products.shift.split(size))
        for some, product, shift in zip(*split, strict=True):
            value = product @ center.T
            value += (shift + self.constants[some])[:, None] - expansion.total
            slope = (product @ slopes.flatten(0, 1).T).unflatten(1, slopes.shape[:2]) - tilt
            slack = (product - middle).abs() @ error.T
            slack += fixed + self.noise[some, None]
            parts.append((some, _Table(value, slope, slack, expansion.curvature, above, below, flat, floor)))
        return parts

    def _expansion(self, network: Restriction, variables: AffineBounds, cells: Tensor) -> _Expansion:
        """A to second order in v around one point for each cell, and bounds of what is beyond."""
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
        remainder = (variance * reach.pow(3) * third).sum(-1, keepdim=True) / 6 * (1 + gamma)
        # Rounding of l = W v + b, of A and its derivatives, and of the sums over pixels.
        weight = self.largest + mean.abs() + variance * reach * growth
        rounding = (weight * (gamma * size + network.error)).sum(-1, keepdim=True) * 4
        rounding = rounding + gamma * total.abs()[:, None] + 1e-13
        pull = network.transposed(mean).unsqueeze(1)  # A' W at the place
        if count == len(cells):  # away = 0, and a product with W for each tile is less than Wᵀ A'' W
            tangents = network.linear(slopes[:, 0])
            weighted = network.transposed(variance.unsqueeze(1) * tangents).unsqueeze(1)
            wide = network.absolute(error[:, 0])
            squares = (variance * wide.square()).sum(-1, keepdim=True)
            crossed = (variance.unsqueeze(1) * tangents.abs() * wide.unsqueeze(1)).sum((-1, -2)).unsqueeze(1)
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
        return _Expansion(
            ungrouped(total),
            ungrouped(pull),
            ungrouped(weighted @ slopes.mT),
            ungrouped(crossed * (1 + gamma)),
            ungrouped(0.5 * squares * (1 + gamma)),
            ungrouped(remainder),
            ungrouped(rounding),
        )


class _BernoulliFamily(_Family):
    """l: logits. A = softplus, A''' = A'' (1 − 2A'), and so |(log A'')'| ≤ 1."""

    def terms(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        small = torch.exp(-parameters.abs())
        total = (parameters.clamp(min=0) + torch.log1p(small)).sum(-1)
        mean = torch.where(parameters >= 0, 1.0, small) / (1 + small)
        return total, mean, small / (1 + small).square()

    def third(self, mean: Tensor, reach: Tensor) -> tuple[Tensor, Tensor]:
        growth = torch.exp(reach)
        return growth, growth * ((1 - 2 * mean).abs() + 0.5 * reach + 1e-15)


class _NormalFamily(_Family):
    """l: means. φ = x/σ², A = μ²/2σ²."""

    def __init__(self, images: Tensor, scale: float):
        count = images.shape[1]
        peak = torch.full((len(images),), -count * (math.log(scale) + HALF_LOG_2PI), dtype=torch.float64)
        squares = 0.5 * (images / scale).square().sum(-1)
        noise = gamma_of(4 * count) * (count * (abs(math.log(scale)) + 1) + squares)
        super().__init__(images / scale**2, peak - squares, peak + noise, noise)
        self.precision = scale**-2

    def terms(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean = parameters * self.precision
        total = 0.5 * (parameters * mean).sum(-1)
        return total, mean, torch.full_like(mean, self.precision)

    def third(self, mean: Tensor, reach: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(mean), torch.zeros_like(mean)


def _family(kind: Family, shared: Tensor | None, images: Tensor) -> _Family:
    """The bounds' view of a likelihood, by its exact type: a subclass may mean something else.

    Raises:
        UnsupportedError: for a likelihood without a bound.
    """
    if type(kind) is Bernoulli:
        zeros = torch.zeros(len(images), dtype=torch.float64)
        return _BernoulliFamily(images, zeros, zeros, zeros)
    if type(kind) is Gaussian:
        return _NormalFamily(images, kind.scale)
    if type(kind) is GaussianLearnedScale and shared is not None:
        return _NormalFamily(images, math.exp(float(shared.detach())))
    raise UnsupportedError(
        f"no proven bound is known for the likelihood {type(kind).__name__}; use likelihood=bernoulli, gaussian or "
        "gaussian-learned, or the numerical quadrature (exact_log_likelihood)"
    )


@dataclass(frozen=True)
class _Density:
    """log p(z) on S tiles: value + slope·t − ½ tᵀH t with slack; above with one H, below with another.

    Attributes:
        value: (S,).
        slope: (S, d).
        curvature_above, curvature_below: H of the upper and of the lower bound, (S, d, d).
        above, below: slack upwards and downwards, (S,).
        top: an upper bound over the whole tile, (S,).
    """

    value: Tensor
    slope: Tensor
    curvature_above: Tensor
    curvature_below: Tensor
    above: Tensor
    below: Tensor
    top: Tensor


class _Prior(ABC):
    """p(z) on the box origin ± scale.

    Attributes:
        origin, scale: (d,).
        spread: the largest scale of a component, which separates coarse tiles from fine ones.
        log_tail: upper bound of the log-probability outside the box.
    """

    origin: Tensor
    scale: Tensor
    spread: float
    log_tail: float

    @abstractmethod
    def on_tiles(self, centers: Tensor, radius: float) -> _Density:
        """Bounds of log p(z) for z = origin + scale ∘ s on the tiles |s − center| ≤ radius; centers (S, d)."""


@dataclass(frozen=True)
class _Normals:
    """A mixture of K normal distributions.

    Attributes:
        log_weights: (K,).
        means: (K, d).
        precisions: inverse covariances, (K, d, d).
        deviations: standard deviation of each coordinate, (K, d).
        log_peaks: log-density at the mean, (K,).
        relative: bound on the relative rounding of the quadratic forms, (K,).
    """

    log_weights: Tensor
    means: Tensor
    precisions: Tensor
    deviations: Tensor
    log_peaks: Tensor
    relative: Tensor

    def origin(self, margin: float) -> Tensor:
        """The middle of a box that holds so many deviations around every component, (d,)."""
        low = (self.means - margin * self.deviations).amin(0)
        return 0.5 * (low + (self.means + margin * self.deviations).amax(0))

    def box(self, margin: float) -> _Prior:
        """The prior on such a box."""
        return _NormalPrior(self, margin)


class _NormalPrior(_Prior):
    def __init__(self, components: _Normals, margin: float):
        self.components = components
        self.origin = components.origin(margin)
        half = ((components.means - self.origin).abs() + margin * components.deviations).amax(0)
        self.scale = torch.exp2(torch.ceil(torch.log2(half * (1 + ELEMENTARY))))
        self.spread = float(components.deviations.max())
        distance = self.scale - (components.means - self.origin).abs()
        deviations = (distance / components.deviations).clamp(min=0) * (1 - 64 * UNIT)
        # P(|Z| ≥ m) = erfc(m/√2) ≤ exp(−m²/2), for each coordinate.
        tails = components.log_weights[:, None] - 0.5 * deviations.square()
        self.log_tail = float(tails.flatten().logsumexp(0)) + 1e-9

    def on_tiles(self, centers: Tensor, radius: float) -> _Density:
        parts, side = self.components, self.scale * radius
        shift = (self.origin + self.scale * centers).unsqueeze(1) - parts.means  # (S, K, d)
        force = (parts.precisions @ shift.unsqueeze(-1)).squeeze(-1)
        squares = (shift * force).sum(-1)
        scores = parts.log_weights + parts.log_peaks - 0.5 * squares  # (S, K)
        slopes = -force * side
        curvatures = (parts.precisions * side * side[:, None]).expand(len(centers), *parts.precisions.shape)
        room = (shift.abs() + side + UNIT * (self.origin.abs() + self.scale)).unsqueeze(-1)
        size = (room * parts.precisions.abs() * room.mT).sum((-1, -2)) + scores.abs() + 16
        position = 4 * UNIT * (self.origin.abs() + self.scale)  # rounding of z = origin + scale ∘ s
        rounding = parts.relative * size + 2 * (parts.precisions.abs() @ (room * 1.0)).squeeze(-1) @ position
        dominance = curvatures.diagonal(dim1=-2, dim2=-1) * 2 - curvatures.abs().sum(-1)
        tops = (scores + rounding + _largest(slopes, dominance.clamp(min=0))).logsumexp(-1)
        value = scores.logsumexp(-1)
        shares = (scores - value.unsqueeze(-1)).unsqueeze(-1)
        noise = (shares.squeeze(-1) + rounding).logsumexp(-1).abs() + ELEMENTARY * value.abs()
        if scores.shape[1] == 1:
            slope, curvature = slopes[:, 0], curvatures[:, 0]
            return _Density(value, slope, curvature, curvature, noise, noise, tops)
        weights = shares.exp()
        slope = (weights * slopes).sum(1)
        curvature = (weights.unsqueeze(-1) * curvatures).sum(1)
        # log E exp(X) for X = (gₖ − g)·t, whose mean over the components is 0, is at most log(1 + E(e^|X| − 1 − |X|)).
        apart = (slopes - slope.unsqueeze(1)).abs().sum(-1)
        growth = torch.where(apart > 20, apart, (torch.expm1(apart.clamp(max=20)) - apart).clamp(min=1e-300).log())
        growth = (shares.squeeze(-1) + growth).logsumexp(-1)
        above = torch.logaddexp(torch.zeros_like(growth), growth) + 1e-13
        slant = 1e-13 * (weights * slopes.abs()).sum((-1, -2))
        flat = torch.zeros_like(curvature)
        return _Density(value, slope, flat, curvature, above + noise + slant, noise + slant, tops)


@dataclass(frozen=True)
class _Box:
    """The uniform distribution between two corners, (d,) each."""

    low: Tensor
    high: Tensor

    def origin(self, margin: float) -> Tensor:
        return 0.5 * (self.low + self.high)

    def box(self, margin: float) -> _Prior:
        return _UniformPrior(self.low, self.high)


class _UniformPrior(_Prior):
    def __init__(self, low: Tensor, high: Tensor):
        self.origin, self.scale = 0.5 * (low + high), 0.5 * (high - low)
        self.spread, self.log_tail = float(self.scale.max()), -math.inf
        self.log_density = -float(torch.log(high - low).sum())

    def on_tiles(self, centers: Tensor, radius: float) -> _Density:
        count, d = centers.shape
        value = torch.full((count,), self.log_density, dtype=torch.float64)
        noise = torch.full_like(value, 1e-13 * (1 + abs(self.log_density)))
        flat = torch.zeros(count, d, d, dtype=torch.float64)
        return _Density(value, torch.zeros_like(centers), flat, flat, noise, noise, value + noise)


def _components(prior: Distribution) -> _Normals | _Box:
    """The prior in a form whose mass on a tile can be bounded."""
    if type(prior) is Independent and type(prior.base_dist) is Uniform:
        return _Box(prior.base_dist.low.detach().double().cpu(), prior.base_dist.high.detach().double().cpu())
    return _normals(prior)


def _normals(prior: Distribution) -> _Normals:
    kind = type(prior)
    if kind in (StandardGaussian, DiagonalGaussian) or (kind is Independent and type(prior.base_dist) is Normal):  # pyright: ignore
        base = prior.base_dist  # pyright: ignore[reportAttributeAccessIssue]
        means, scales = (x.detach().double().cpu() for x in (base.loc, base.scale))
        means, scales = means.reshape(-1, means.shape[-1]), scales.reshape(-1, scales.shape[-1])
        peaks = -(scales.log() + HALF_LOG_2PI).sum(-1)
        relative = torch.full_like(peaks, 64 * UNIT)
        return _Normals(torch.zeros_like(peaks), means, torch.diag_embed(scales**-2), scales, peaks, relative)
    if kind is MultivariateNormal:
        factor = prior.scale_tril.detach().double().cpu().reshape(-1, *prior.event_shape * 2)  # pyright: ignore
        means = prior.loc.detach().double().cpu().reshape(-1, *prior.event_shape)  # pyright: ignore
        inverse = torch.linalg.solve_triangular(factor, torch.eye(factor.shape[-1], dtype=torch.float64), upper=False)
        peaks = -(factor.diagonal(dim1=-2, dim2=-1).log() + HALF_LOG_2PI).sum(-1)
        condition = (inverse.abs() @ factor.abs()).flatten(1).amax(1)
        relative = 64 * UNIT * condition.square()
        deviations = factor.square().sum(-1).sqrt()
        return _Normals(torch.zeros_like(peaks), means, inverse.mT @ inverse, deviations, peaks, relative)
    if kind is MixtureSameFamily:
        logits = prior.mixture_distribution.logits  # pyright: ignore[reportAttributeAccessIssue]
        return _weighted(logits.detach().double().cpu().log_softmax(-1), [_normals(prior.component_distribution)])  # pyright: ignore
    if kind is Mixture:
        weights = prior.weights.detach().double().cpu()  # pyright: ignore[reportAttributeAccessIssue]
        return _weighted(weights.log(), [_normals(part) for part in prior.components])  # pyright: ignore
    base = type(prior.base_dist).__name__ if isinstance(prior, Independent) else kind.__name__
    raise UnsupportedError(
        f"no proven bound is known for the prior {base}; normal, uniform and mixtures of normal priors are served. Use "
        f"the "
        "numerical quadrature (exact_log_likelihood)"
    )


def _weighted(log_weights: Tensor, parts: list[_Normals]) -> _Normals:
    joined = [torch.cat([getattr(part, name) for part in parts]) for name in _Normals.__dataclass_fields__]
    some = log_weights > -math.inf
    return _Normals((log_weights + joined[0])[some], *(tensor[some] for tensor in joined[1:]))


def _largest(slope: Tensor, curvature: Tensor) -> Tensor:
    """Σ over axes of the maximum of g t − ½ h t² over |t| ≤ 1, with h ≥ 0: (…, d) → (…)."""
    size = slope.abs()
    inner = size.square() / (2 * curvature).clamp(min=1e-300)
    return (torch.where(size >= curvature, size - 0.5 * curvature, inner) * (1 + 16 * UNIT)).sum(-1)


# --- masses of tiles -------------------------------------------------------------------------------------------------


def _log_masses(table: _Table, prior: _Density, log_volume: float, supremum: Tensor) -> tuple[Tensor, Tensor]:
    """Upper and lower bounds of log ∫ p(x|z) p(z) dz over each tile, (n, S) each."""
    slope = table.slope + prior.slope
    log_mean, first, second = _moments(slope)
    log_mean = log_mean.sum(-1)
    value = table.value + (prior.value + log_volume) + log_mean
    below = table.curvature + prior.curvature_below
    noise = 1e-13 * (1 + 0.5 * below.abs().sum((-1, -2)))
    lower = value - _mean_square(below, first, second) - table.slack - (table.below + prior.below + noise)
    above = torch.where(table.flat[:, None, None], 0.0, table.curvature) + prior.curvature_above
    most = 0.5 * above.abs().sum((-1, -2)) * (1 + 16 * UNIT)
    loss = torch.where(most <= 1, 1 - 0.5 * most, 0.0) * _mean_square(above, first, second)
    extra = torch.where(table.flat, 0.0, table.above) + prior.above + 1e-13
    upper = value + torch.log1p(-loss.clamp(max=0.75)) + table.slack + extra
    if bool((most > 1).any()):
        dominance = (above.diagonal(dim1=-2, dim2=-1) * 2 - above.abs().sum(-1)).clamp(min=0)
        peak = table.value + (prior.value + log_volume) + _largest(slope, dominance) + table.slack + extra
        upper = torch.where(peak < upper, peak, upper)
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


def _mean_square(curvature: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """E ½ tᵀH t, (n, S), for independent coordinates of the given moments (n, S, d) and H (S, d, d)."""
    result = 0.5 * (second * curvature.diagonal(dim1=-2, dim2=-1)).sum(-1)
    d = curvature.shape[-1]
    for i in range(d):
        for j in range(i + 1, d):
            result = result + curvature[:, i, j] * first[..., i] * first[..., j]
    return result


# --- the search ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Tile:
    """A tile that some images still need divided, with what is known of their masses on it.

    Attributes:
        level: the tile's side is 2 · 2^−level in units of the box.
        center: (d,), in the box's coordinates.
        images: (n,).
        upper, lower: bounds of the log-masses, (n,).
        parts: how many to divide each side into.
        rounding: the part of the slack that is rounding, in nats.
        network: the decoder, restricted to a tile around this one.
        products: of these images with that network, where they are kept.
    """

    level: int
    center: Tensor
    images: Tensor
    upper: Tensor
    lower: Tensor
    parts: int
    rounding: float
    network: Restriction
    products: _Products | None


class _Sums:
    """log Σ exp for each image, in float64, of numbers that come in groups."""

    def __init__(self, count: int):
        self.values = torch.full((count,), -math.inf, dtype=torch.float64)
        self.groups = 0

    def add(self, images: Tensor, values: Tensor) -> None:
        """Add a group: values (n, S) or (n,), of distinct images (n,)."""
        new = values.logsumexp(-1) if values.dim() > 1 else values
        self.values[images] = torch.logaddexp(self.values[images], new)
        self.groups += 1

    @property
    def rounding(self) -> Tensor:
        """Bound on the error of the values in nats, (N,): each addition errs by a few roundings of its result."""
        size = torch.where(torch.isfinite(self.values), self.values.abs(), 0.0)
        return 16 * UNIT * (self.groups + 64) * (64 + size)


class _Search:
    """Divides tiles until the bounds are near enough."""

    def __init__(self, problem: _Problem, tolerance: float, deadline: float):
        self.problem, self.tolerance, self.deadline = problem, tolerance, deadline
        self.tiles, self.pairs = 0, 0
        self.whole: _Products | None = None

    def statistics(self) -> dict[str, float]:
        """How much was computed."""
        return {"tiles": float(self.tiles), "pairs": float(self.pairs)}

    def run(self, index: Tensor, reference: Tensor, share: float) -> tuple[Tensor, Tensor]:
        """Bounds of log p(x) for the images `index`, (n,) each.

        Args:
            index: which images.
            reference: what log p(x) is thought to be at least, for all images of `index`, or −∞.
            share: of p(x) that the gap on one tile may be.
        """
        frontier, known, lower, upper = self._start(index, reference)
        while level := frontier.next_level():
            self._learn(known, lower, level, frontier)
            while level and time.monotonic() <= self.deadline:
                for child in self._divide(level.pop(), known, share, lower, upper):
                    frontier.add(child)
            if time.monotonic() > self.deadline:
                for left in (*level, *frontier.all()):
                    lower.add(left.images, left.lower)
                    upper.add(left.images, left.upper)
                break
        return (lower.values - lower.rounding)[index], (upper.values + upper.rounding)[index]

    def exclude(self, index: Tensor, reference: Tensor, level: int, share: float) -> tuple[Tensor, Tensor, list[_Tile]]:
        """Log-mass that was excluded at most, log p(x) at least, (n,) each, and the tiles of the level that were not.

        Raises:
            UnsupportedError: where the time ends first.
        """
        frontier, known, lower, upper = self._start(index, reference)
        kept: list[_Tile] = []
        while tiles := frontier.next_level():
            self._learn(known, lower, tiles, frontier)
            for tile in tiles:
                if time.monotonic() > self.deadline:
                    raise UnsupportedError("the time ended before all tiles were small enough; allow more seconds")
                for child in self._divide(tile, known, share / 1000, lower, upper, level):
                    if child.level < level:
                        frontier.add(child)
                        continue
                    lower.add(child.images, child.lower)
                    kept.append(child)
        return (upper.values + upper.rounding)[index], (lower.values - lower.rounding)[index], kept

    def _start(self, index: Tensor, reference: Tensor) -> tuple[_Frontier, Tensor, _Sums, _Sums]:
        count = len(self.problem.family.features)
        known = torch.full((count,), -math.inf, dtype=torch.float64)
        known[index] = reference
        lower, upper = _Sums(count), _Sums(count)
        upper.add(index, self.problem.prior.log_tail + self.problem.family.supremum[index])
        return _Frontier(self._root(index)), known, lower, upper

    def _learn(self, known: Tensor, lower: _Sums, level: list[_Tile], frontier: _Frontier) -> None:
        """Raise what log p(x) is known to be to its lower bound by all tiles, done and waiting."""
        total = _Sums(len(known))
        for tile in (*level, *frontier.all()):
            total.add(tile.images, tile.lower)
        torch.maximum(known, torch.logaddexp(total.values, lower.values), out=known)

    def _root(self, index: Tensor) -> _Tile:
        d = len(self.problem.prior.origin)
        nothing = torch.full((len(index),), -math.inf, dtype=torch.float64)
        most = self.problem.family.supremum[index]
        center = torch.zeros(d, dtype=torch.float64)
        return _Tile(0, center, index, most, nothing, 2, math.inf, self.problem.whole, None)

    def _divide(
        self, tile: _Tile, known: Tensor, share: float, lower: _Sums, upper: _Sums, deepest: int | None = None
    ) -> list[_Tile]:
        """Bound the masses on the parts of a tile, add up those that are settled, and return the others as tiles.

        With `deepest` only the upper bound counts: a part is settled where it is small.
        """
        prior, d = self.problem.prior, len(tile.center)
        radius = 2.0**-tile.level
        box = AffineBounds.of_boxes(tile.center[None], torch.full((1, d), radius))
        network = tile.network.restricted(box)
        if network.change is not None and self._matters(float((self.problem.family.largest * network.error).sum())):
            network = self.problem.whole.restricted(box)  # rounding adds up from restriction to restriction
        steps = (2 * torch.arange(tile.parts, dtype=torch.float64) + 1 - tile.parts) / tile.parts * radius
        centers = tile.center + (torch.cartesian_prod(*[steps] * d) if d > 1 else steps[:, None])
        inner = radius / tile.parts
        level = tile.level + int(math.log2(tile.parts))
        density = prior.on_tiles(centers, inner)
        log_volume = float((2 * prior.scale * inner).log().sum())
        boxes = AffineBounds.of_boxes(centers, torch.full_like(centers, inner))
        found: list[tuple[Tensor, ...]] = []
        rounding: list[float] = []
        products = self._products(tile, network)
        sizes = [size for size in (4, 8) if size < tile.parts] if deepest is None else []
        choices = [_cells(tile.parts, d, size) for size in (*sizes, tile.parts)]
        limit = EXPANSION * min(self.tolerance, 1.0)
        for rows, table in self.problem.family.table(network, boxes, tile.images, products, choices, limit):
            high, low = _log_masses(table, density, log_volume, self.problem.family.supremum[rows])
            threshold = (known[rows] + math.log(share))[:, None]
            gap = torch.where(low > -math.inf, high + torch.log(-torch.expm1(low - high)), high)
            if deepest is None:
                enough = threshold if tile.parts == 2 else threshold + LENIENCY
                stuck = torch.where(table.rounding > 0.5 * tile.rounding, 8 * table.rounding, 0.0)
                done = (gap <= enough) | (high - low <= stuck.clamp(min=0.5 * self.tolerance))
                lower.add(rows, low.masked_fill(~done, -math.inf))
                need = torch.minimum((gap - threshold) / (d + 2), 0.5 * ((high - low) / (0.5 * self.tolerance)).log())
                need = need.masked_fill(~(high - low < WIDE), 0.0)
            else:
                done, need = high <= threshold, torch.zeros_like(high)
            upper.add(rows, high.masked_fill(~done, -math.inf))
            rounding = table.rounding.tolist()
            found.append((high, low, done, need))
        self.tiles += len(centers)
        self.pairs += len(centers) * len(tile.images)
        high, low, done, need = (torch.cat(parts) for parts in zip(*found, strict=True))
        children = []
        for column in (~done).any(0).nonzero().flatten().tolist():
            rows = (~done[:, column]).nonzero().flatten()
            wanted = float(need[rows, column].quantile(0.95, interpolation="higher")) / math.log(2)
            parts = 2 ** math.ceil(min(max(1.0, wanted - 0.2), math.log2(LARGEST_SPLIT[d])))
            if deepest is not None:
                parts = 2
            kept = None if network is self.problem.whole else products.of(rows)
            bounds = high[rows, column], low[rows, column]
            children.append(
                _Tile(level, centers[column], tile.images[rows], *bounds, parts, rounding[column], network, kept)
            )
        return children

    def _products(self, tile: _Tile, network: Restriction) -> _Products:
        family = self.problem.family
        if network is self.problem.whole:
            if self.whole is None:
                self.whole = family.products(network, torch.arange(len(family.features)))
            return self.whole.of(tile.images)
        if tile.products is None or network.change is None:
            return tile.products if network is tile.network and tile.products else family.products(network, tile.images)
        if network is tile.network:
            return tile.products
        found = family.restricted(tile.products, tile.network, network)
        return family.products(network, tile.images) if self._matters(found.drift) else found

    def _matters(self, rounding: float) -> bool:
        return not rounding < LARGEST_ROUNDING * min(self.tolerance, 1.0)


def _cells(parts: int, d: int, size: int) -> Tensor:
    """The cell of each part of a tile, (partsᵈ,), in the order of `torch.cartesian_prod`: `size` cells along a side."""
    index = torch.arange(parts) // (parts // size)
    axes = torch.cartesian_prod(*[index] * d) if d > 1 else index[:, None]
    return (axes * size ** torch.arange(d)).sum(-1)


class _Frontier:
    """Tiles that wait, by level: the coarsest are next."""

    def __init__(self, root: _Tile):
        self._levels = {root.level: [root]}

    def next_level(self) -> list[_Tile]:
        """All tiles of the coarsest level, taken out; none where nothing waits."""
        return self._levels.pop(min(self._levels)) if self._levels else []

    def add(self, tile: _Tile) -> None:
        """Let a tile wait."""
        self._levels.setdefault(tile.level, []).append(tile)

    def all(self) -> Iterator[_Tile]:
        """Every tile that waits."""
        for tiles in self._levels.values():
            yield from tiles


def _kept_tiles(problem: _Problem, level: int, found: tuple[Tensor, Tensor, list[_Tile]]) -> KeptTiles:
    excluded, low, kept = found
    prior, d = problem.prior, len(problem.prior.origin)
    centers = torch.stack([tile.center for tile in kept]) if kept else torch.zeros(0, d, dtype=torch.float64)
    images = torch.cat([tile.images for tile in kept]) if kept else torch.zeros(0, dtype=torch.int64)
    counts = torch.tensor([len(tile.images) for tile in kept])
    tiles = torch.repeat_interleave(torch.arange(len(kept)), counts)
    return KeptTiles(prior.origin + prior.scale * centers, prior.scale * 2.0**-level, images, tiles, excluded, low)
