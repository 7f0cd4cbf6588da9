"""Tables of log p(x|z) for many images and many z at once.

Where the likelihood is an exponential family whose features of x do not depend on z, the table is one matrix product:

    log p(x|z) = φ(x) · θ(z) + b(z) + a(x)

    Bernoulli              φ = x − m    θ = l(z)              b = −Σ softplus((1 − 2m) l)
    continuous Bernoulli   φ = x        θ = l(z)              b = Σ log C(l) − softplus(l)
    Gaussian, fixed scale  φ = x − m    θ = (μ(z) − m)/σ²     b = −|μ − m|²/2σ² − Σ log σ√2π     a = −|x − m|²/2σ²

with m the mean image, for Bernoulli rounded to 0 or 1, which keeps the numbers small. Anything else is scored by its
own `log_prob`, pair by pair.
"""

from __future__ import annotations

__all__ = ["Block", "Scorer", "score_pairs", "scorer_for"]

import math
from abc import ABC, abstractmethod
from functools import singledispatch
from typing import cast

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Distribution, Independent, Normal
from torch.nn.functional import softplus

from latentia.distributions import ContinuousBernoulliDistribution

CENTERED = 4_000_000  # numbers of the images above which a centered copy takes more memory than it is worth
FEW = 8  # images
CANCELED = 1e-9  # nats of rounding in a table, above which a Gaussian one of few images is not a product
PAIRS_AT_ONCE = 4_000_000  # numbers in the intermediate results of a distribution's own log_prob


class Block(ABC):
    """Distributions p(x|z) for a block of M points z, ready to score images."""

    @abstractmethod
    def scores(self, rows: Tensor | slice, columns: slice) -> Tensor:
        """log p(x|z) for the images `rows` and the points `columns`, (n, m)."""


class Scorer(ABC):
    """A set of images, prepared for being scored.

    Attributes:
        images: (N, *event_shape).
        discrete: whether log p(x|z) is a log-probability, at most 0.
        nodes_at_once: how many points z a block should have.
    """

    discrete = False
    nodes_at_once = 1024  # points near each other have the same units at 0, which `SkipZeros` leaves out

    def __init__(self, images: Tensor):
        self.images = images

    @abstractmethod
    def block(self, distribution: Distribution) -> Block:
        """Prepare the distributions of a block of points; `distribution` has batch shape (M,)."""

    def supremum(self) -> Tensor | None:
        """An upper bound of log p(x|z) over all z, for each image, (N,); None where none is known.

        That of a density is what the scales of the blocks so far show.
        """
        return None


class _LinearBlock(Block):
    def __init__(self, features: Tensor, constants: Tensor | None, theta: Tensor, offset: Tensor):
        self.features, self.constants, self.theta, self.offset = features, constants, theta, offset

    def scores(self, rows: Tensor | slice, columns: slice) -> Tensor:
        features, theta = self.features[rows], self.theta[columns]
        table = torch.addmm(self.offset[columns], features, theta.T)
        return table if self.constants is None else table.add_(self.constants[rows, None])


class _Linear(Scorer):
    """φ(x) · θ(z) + b(z) + a(x); subclasses say what the four are."""

    features: Tensor
    constants: Tensor | None = None

    @abstractmethod
    def parts(self, distribution: Distribution) -> tuple[Tensor, Tensor] | None:
        """θ (M, F) and b (M,), or None where these distributions are not of this form."""

    def block(self, distribution: Distribution) -> Block:
        parts = self.parts(distribution)
        if parts is None:
            return _GenericBlock(self.images, distribution)
        theta, offset = parts
        return _LinearBlock(self.features, self.constants, theta.to(self.features.dtype), offset.to(theta.dtype))


class _BernoulliScorer(_Linear):
    discrete = True

    def __init__(self, images: Tensor):
        super().__init__(images)
        self.features, self.flips = images.flatten(1), None
        if images.numel() <= CENTERED:
            # Where most images are 1 and the logit is large, x l and softplus(l) are large and cancel.
            common = (self.features.mean(0) > 0.5).to(images.dtype)
            self.features, self.flips = self.features - common, 1 - 2 * common

    def parts(self, distribution: Distribution) -> tuple[Tensor, Tensor]:
        logits = cast(Bernoulli, _base(distribution)).logits.flatten(1).to(self.features.dtype)
        return logits, -softplus(logits if self.flips is None else logits * self.flips).sum(-1)

    def supremum(self) -> Tensor:
        return torch.zeros(len(self.images), dtype=torch.float64)


class _ContinuousBernoulliScorer(_Linear):
    def __init__(self, images: Tensor):
        super().__init__(images)
        self.features = images.flatten(1)

    def parts(self, distribution: Distribution) -> tuple[Tensor, Tensor]:
        base = cast(ContinuousBernoulliDistribution, _base(distribution))
        logits = base.logits.flatten(1)
        return logits, (base.log_normalizer().flatten(1) - softplus(logits)).sum(-1)


class _GaussianScorer(_Linear):
    """Normal distributions of one scale for each pixel, the same for every z as long as no block shows another."""

    def __init__(self, images: Tensor, scale: Tensor):
        super().__init__(images)
        self.is_fixed = True
        flat = images.flatten(1)
        self.center = flat.mean(0)
        self.scale = scale.flatten()
        self.features = flat - self.center
        self.constants = -0.5 * (self.features / self.scale).double().square().sum(-1).to(flat.dtype)
        self.log_normalizer = -(self.scale.double().log() + 0.5 * math.log(2 * math.pi)).sum()
        # Terms so large cancel to fewer digits than an error asks for; few images are scored pair by pair instead.
        canceled = torch.finfo(flat.dtype).eps * self.constants.detach().abs().max().item()
        self.is_direct = flat.dtype == torch.float64 and len(images) <= FEW and canceled > CANCELED
        if self.is_direct:
            self.nodes_at_once = _nodes_at_once(images)

    def parts(self, distribution: Distribution) -> tuple[Tensor, Tensor] | None:
        base = cast(Normal, _base(distribution))
        if not torch.equal(base.scale, self.scale.view(base.scale.shape[1:]).expand_as(base.scale)):
            self.is_fixed = False
            return None
        if self.is_direct:
            return None
        mean = base.loc.flatten(1).to(self.features.dtype) - self.center
        offset = -0.5 * (mean / self.scale).double().square().sum(-1) + self.log_normalizer
        return mean / self.scale.square(), offset

    def supremum(self) -> Tensor | None:
        return self.log_normalizer.expand(len(self.images)).cpu() if self.is_fixed else None


class _Generic(Scorer):
    def __init__(self, images: Tensor, discrete: bool):
        super().__init__(images)
        self.discrete = discrete
        self.nodes_at_once = _nodes_at_once(images)

    def supremum(self) -> Tensor | None:
        return torch.zeros(len(self.images), dtype=torch.float64) if self.discrete else None

    def block(self, distribution: Distribution) -> Block:
        return _GenericBlock(self.images, distribution)


def _nodes_at_once(images: Tensor) -> int:
    """Points of a block that is scored pair by pair: for all of few images at once, for many a tile at a time."""
    most = PAIRS_AT_ONCE // images.numel() if len(images) <= FEW else 0
    return min(max(64, most - most % 64), Scorer.nodes_at_once)


class _GenericBlock(Block):
    def __init__(self, images: Tensor, distribution: Distribution):
        self.images, self.distribution = images, distribution
        self.table: Tensor | None = None  # of all images and points, where both are few

    def scores(self, rows: Tensor | slice, columns: slice) -> Tensor:
        points, size = self.distribution.batch_shape[0], self.distribution.event_shape.numel()
        if len(self.images) <= FEW and self.images.numel() * points <= PAIRS_AT_ONCE:
            if self.table is None:
                self.table = self.distribution.log_prob(self.images.unsqueeze(1))
            return self.table[rows][:, columns].clone()
        images = self.images[rows]
        step = max(1, PAIRS_AT_ONCE // (points * size))
        # A distribution cannot be sliced in general, so all of its block is scored and the columns are cut out.
        parts = [self.distribution.log_prob(some.unsqueeze(1))[:, columns] for some in images.split(step)]
        return torch.cat(parts)


def scorer_for(distribution: Distribution, images: Tensor) -> Scorer:
    """The fastest scorer for distributions like this one.

    Args:
        distribution: p(x|z) at a few points z, batch shape (M,), M ≥ 2.
        images: (N, *event_shape), in the float type to compute in.
    """
    return _scorer(_base(distribution), images)


@singledispatch
def _scorer(base: Distribution, images: Tensor) -> Scorer:
    return _Generic(images, _is_discrete(base))


@_scorer.register
def _(base: Bernoulli, images: Tensor) -> Scorer:  # noqa: ARG001
    return _BernoulliScorer(images)


@_scorer.register
def _(base: ContinuousBernoulliDistribution, images: Tensor) -> Scorer:  # noqa: ARG001
    return _ContinuousBernoulliScorer(images)


@_scorer.register
def _(base: Normal, images: Tensor) -> Scorer:
    first = base.scale[:1]
    if torch.equal(base.scale, first.expand_as(base.scale)):
        return _GaussianScorer(images, first[0])
    return _Generic(images, discrete=False)


def score_pairs(distribution: Distribution, images: Tensor) -> Tensor:
    """log p(x|z) of each image under its own distribution, in the distribution's float type and then float64: (N,).

    Args:
        distribution: batch shape (N,), or (K, N) for K distributions for each image: then the result is (K, N).
        images: (N, *event_shape).
    """
    return distribution.log_prob(images).double()


def _is_discrete(distribution: Distribution) -> bool:
    try:
        support = distribution.support
    except NotImplementedError:
        return False
    return support is not None and bool(support.is_discrete)


def _base(distribution: Distribution) -> Distribution:
    while isinstance(distribution, Independent):
        distribution = distribution.base_dist
    return distribution
