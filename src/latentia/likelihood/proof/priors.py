"""Priors for the proof: bounds of log p(z) on tiles, and of the mass outside a box that holds the prior."""

from __future__ import annotations

__all__: list[str] = []  # used by the proofs only

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MixtureSameFamily, MultivariateNormal, Normal

from latentia.distributions.gaussians import DiagonalGaussian, StandardGaussian
from latentia.distributions.mixtures import Mixture
from latentia.errors import UnsupportedError
from latentia.likelihood.proof.masses import Density, largest, minorant
from latentia.likelihood.proof.rounding import ELEMENTARY, UNIT

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class BoxedPrior(ABC):
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
    def on_tiles(self, centers: Tensor, radius: float) -> Density:
        """Bounds of log p(z) for z = origin + scale ∘ s on the tiles |s − center| ≤ radius; centers (S, d)."""


@dataclass(frozen=True)
class Normals:
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

    def box(self, margin: float) -> BoxedPrior:
        """The prior on such a box."""
        return _NormalPrior(self, margin)


class _NormalPrior(BoxedPrior):
    def __init__(self, components: Normals, margin: float):
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

    def on_tiles(self, centers: Tensor, radius: float) -> Density:
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
        tops = (scores + rounding + largest(slopes, minorant(curvatures))).logsumexp(-1)
        tops = tops.nan_to_num(nan=math.inf, posinf=math.inf, neginf=-math.inf)
        value = scores.logsumexp(-1)
        shares = (scores - value.unsqueeze(-1)).unsqueeze(-1)
        noise = (shares.squeeze(-1) + rounding).logsumexp(-1).abs() + ELEMENTARY * value.abs()
        if scores.shape[1] == 1:
            slope, curvature = slopes[:, 0], curvatures[:, 0]
            return Density(value, slope, curvature, curvature, noise, noise, tops)
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
        return Density(value, slope, flat, curvature, above + noise + slant, noise + slant, tops)


@dataclass(frozen=True)
class Box:
    """The uniform distribution between two corners, (d,) each."""

    low: Tensor
    high: Tensor

    def origin(self, margin: float) -> Tensor:
        return 0.5 * (self.low + self.high)

    def box(self, margin: float) -> BoxedPrior:
        return _UniformPrior(self.low, self.high)


class _UniformPrior(BoxedPrior):
    def __init__(self, low: Tensor, high: Tensor):
        self.origin, self.scale = 0.5 * (low + high), 0.5 * (high - low)
        self.spread, self.log_tail = float(self.scale.max()), -math.inf
        self.log_density = -float(torch.log(high - low).sum())

    def on_tiles(self, centers: Tensor, radius: float) -> Density:
        count, d = centers.shape
        value = torch.full((count,), self.log_density, dtype=torch.float64)
        noise = torch.full_like(value, 1e-13 * (1 + abs(self.log_density)))
        flat = torch.zeros(count, d, d, dtype=torch.float64)
        return Density(value, torch.zeros_like(centers), flat, flat, noise, noise, value + noise)


def normals_of(prior: Distribution) -> Normals:
    """A normal distribution or a mixture of them as its components.

    Raises:
        UnsupportedError: for any other distribution.
    """
    kind = type(prior)
    if kind in (StandardGaussian, DiagonalGaussian) or (kind is Independent and type(prior.base_dist) is Normal):  # pyright: ignore
        base = prior.base_dist  # pyright: ignore[reportAttributeAccessIssue]
        means, scales = (x.detach().double().cpu() for x in (base.loc, base.scale))
        means, scales = means.reshape(-1, means.shape[-1]), scales.reshape(-1, scales.shape[-1])
        peaks = -(scales.log() + HALF_LOG_2PI).sum(-1)
        relative = torch.full_like(peaks, 64 * UNIT)
        return Normals(torch.zeros_like(peaks), means, torch.diag_embed(scales**-2), scales, peaks, relative)
    if kind is MultivariateNormal:
        factor = prior.scale_tril.detach().double().cpu().reshape(-1, *prior.event_shape * 2)  # pyright: ignore
        means = prior.loc.detach().double().cpu().reshape(-1, *prior.event_shape)  # pyright: ignore
        inverse = torch.linalg.solve_triangular(factor, torch.eye(factor.shape[-1], dtype=torch.float64), upper=False)
        peaks = -(factor.diagonal(dim1=-2, dim2=-1).log() + HALF_LOG_2PI).sum(-1)
        condition = (inverse.abs() @ factor.abs()).flatten(1).amax(1)
        relative = 64 * UNIT * condition.square()
        deviations = factor.square().sum(-1).sqrt()
        return Normals(torch.zeros_like(peaks), means, inverse.mT @ inverse, deviations, peaks, relative)
    if kind is MixtureSameFamily:
        logits = prior.mixture_distribution.logits  # pyright: ignore[reportAttributeAccessIssue]
        return _weighted(logits.detach().double().cpu().log_softmax(-1), [normals_of(prior.component_distribution)])  # pyright: ignore
    if kind is Mixture:
        weights = prior.weights.detach().double().cpu()  # pyright: ignore[reportAttributeAccessIssue]
        return _weighted(weights.log(), [normals_of(part) for part in prior.components])  # pyright: ignore
    base = type(prior.base_dist).__name__ if isinstance(prior, Independent) else kind.__name__
    raise UnsupportedError(
        f"no proven bound is known for the prior {base}; normal priors and mixtures of them, and independent uniform, "
        "Beta, gamma and exponential ones are served. Use the numerical quadrature (exact_log_likelihood without prove)"
    )


def _weighted(log_weights: Tensor, parts: list[Normals]) -> Normals:
    joined = [torch.cat([getattr(part, name) for part in parts]) for name in Normals.__dataclass_fields__]
    some = log_weights > -math.inf
    return Normals((log_weights + joined[0])[some], *(tensor[some] for tensor in joined[1:]))
