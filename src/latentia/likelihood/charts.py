r"""The prior as a sum of parts, each in coordinates u in which it is smooth and of unit scale.

    p(z) dz = Σₖ gₖ(u) du,   z = Tₖ(u),          so that   p(x) = Σₖ ∫ p(x | Tₖ(u)) gₖ(u) du

A narrow or far component of a mixture is thus integrated on a lattice that its parameters place, whatever its weight.

| prior | charts |
|---|---|
| normal, any covariance | z = m + L u, g = N(0, I) |
| mixture of normals | components whose scales one lattice can resolve share a chart; the others have one each |
| other mixtures | the charts of every component |
| flow, transformed distribution | the charts of its base, followed by the transforms |
| uniform on a sphere | the charts of a uniform distribution on a square, followed by a map that keeps areas |
| product on an interval or half-line | tanh-sinh or exp-exp maps (Takahasi and Mori 1974): singular edges are harmless
| | anything else | location and scale from draws; log p(z) as it is; its integral must then be checked |
"""

from __future__ import annotations

__all__: list[str] = []

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.distributions import (
    Beta,
    Distribution,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    TransformedDistribution,
    Uniform,
    constraints,
)

from latentia.distributions import Mixture
from latentia.distributions.gaussians import DiagonalGaussian, StandardGaussian
from latentia.distributions.priors import FlowDistribution
from latentia.distributions.sphere import dimension_of, is_on_sphere
from latentia.errors import ConfigurationError, UnsupportedError

DRAWS = 4096
HEAVY = (
    -200.0
)  # nats that log p falls by at 30 scales from the median: less is not a light tail, a normal one's is −450
FIRST_SPACING = {1: 0.0125, 2: 0.1, 3: 0.2}  # of level 0, in units of u; ±4.8 with 12 tiles along each side
CORES = {1: (48, 96, 192), 2: (12, 24, 48), 3: (12, 24)}
NODES_PER_SCALE = 3.0  # of the first grid, for the narrowest component that shares it
MOST_PARTS = 64  # components of a mixture that is not of normals

Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Chart:
    """One part of the prior.

    Attributes:
        to_z: T, u (M, d) float64 → z (M, d) float64.
        log_density: (u, z) → log g(u), (M,) float64.
        to_u: the inverse of T; None where it is not known.
        verified: whether ∫ g is known without being computed.
        core: tiles along the side of the first box, ±4.8 units of u wide.
        reach: distance of u from 0 within which g may rise again after a gap.
        is_unit: whether T is the identity.
    """

    to_z: Map
    log_density: Callable[[Tensor, Tensor], Tensor]
    to_u: Map | None = None
    verified: bool = True
    core: int = 12
    reach: float = 0.0
    is_unit: bool = False

    def weighted(self, log_weight: float) -> Chart:
        """This part times a constant."""
        inner = self.log_density
        return self if log_weight == 0 else replace(self, log_density=lambda u, z: inner(u, z) + log_weight)

    def turned(self, seed: int, d: int) -> Chart:
        """The same part in coordinates v with u = s v R + c, for a random rotation R, shift c and scale s near 0.9."""
        generator = torch.Generator().manual_seed(seed)
        rotation = torch.linalg.qr(torch.randn(d, d, dtype=torch.float64, generator=generator))[0]
        shift = torch.rand(d, dtype=torch.float64, generator=generator)
        scale = 0.85 + 0.1 * torch.rand(1, generator=generator).item()
        to_z, inner, to_u = self.to_z, self.log_density, self.to_u

        def forward(v: Tensor) -> Tensor:
            return scale * v @ rotation + shift

        return replace(
            self,
            to_z=lambda v: to_z(forward(v)),
            log_density=lambda v, z: inner(forward(v), z) + d * math.log(scale),
            to_u=None if to_u is None else lambda z: (to_u(z) - shift) @ rotation.T / scale,
            verified=True,
            reach=2 * self.reach,
            is_unit=False,
        )

    def followed_by(self, transform: Map, inverse: Map | None) -> Chart:
        """The same density of u, for transform(z)."""
        to_z, to_u, inner = self.to_z, self.to_u, self.log_density
        back = None if inverse is None or to_u is None else (lambda z: to_u(inverse(z)))
        return replace(
            self,
            to_z=lambda u: transform(to_z(u)),
            log_density=lambda u, _: inner(u, to_z(u)),
            to_u=back,
            is_unit=False,
        )


def charts_of(prior: Distribution, log_prob: Map) -> list[Chart]:
    """The charts of a prior over z, event shape (d,).

    Args:
        prior: the distribution.
        log_prob: its log-density as the model evaluates it, −inf outside the support: for priors without structure.

    Raises:
        ConfigurationError: draws that are not finite or do not vary.
        UnsupportedError: a support without a density on Rᵈ.
    """
    found = _structured(prior) or [_generic(prior, log_prob)]
    least = CORES[dimension_of(prior)][0]  # on the line a fine first grid costs little
    return [replace(chart, core=max(chart.core, least)) for chart in found]


def _structured(prior: Distribution) -> list[Chart]:
    """The charts of a prior whose class says what it is; none for another."""
    normal = _normals(prior)
    if normal is not None:
        return [_affine_normal(*normal)]
    if is_on_sphere(prior):
        return [_sphere(prior.event_shape[0])]
    if _is(prior, MixtureSameFamily):
        return _mixture(prior)  # pyright: ignore[reportArgumentType]
    if isinstance(prior, Mixture):
        return _parts(prior.weights, prior.components)
    transformed = _transformed(prior)
    if transformed is not None:
        base, transform, inverse = transformed
        return [chart.followed_by(transform, inverse) for chart in _structured(base)]
    if _is(prior, Independent) and isinstance(prior.base_dist, (Uniform, Beta)):  # pyright: ignore
        return [_bounded(prior.base_dist)]  # pyright: ignore
    return []


def _is(distribution: Distribution, family: type[Distribution]) -> bool:
    """Whether a distribution has the density of this family: a subclass may have replaced it."""
    return isinstance(distribution, family) and type(distribution).log_prob is family.log_prob


def _normals(distribution: Distribution) -> tuple[Tensor, Tensor] | None:
    """Means (*batch, d) and Cholesky factors (*batch, d, d), float64, of normal distributions over vectors."""
    if _is(distribution, MultivariateNormal):
        return distribution.loc.detach().double(), distribution.scale_tril.detach().double()  # pyright: ignore
    plain = _is(distribution, Independent) and _is(distribution.base_dist, Normal)  # pyright: ignore
    if plain or _is(distribution, StandardGaussian) or _is(distribution, DiagonalGaussian):
        base = distribution.base_dist  # pyright: ignore[reportAttributeAccessIssue]
        return base.loc.detach().double(), torch.diag_embed(base.scale.detach().double())
    return None


def _log_normal(u: Tensor) -> Tensor:
    return -0.5 * u.square().sum(-1) - 0.5 * math.log(2 * math.pi) * u.shape[-1]


def _affine_normal(mean: Tensor, factor: Tensor) -> Chart:
    """z = m + L u with u ~ N(0, I)."""
    mean, factor = mean.cpu(), factor.cpu()
    if bool((mean == 0).all()) and torch.equal(factor, torch.eye(len(mean), dtype=torch.float64)):
        return Chart(lambda u: u, lambda u, _: _log_normal(u), lambda z: z, is_unit=True)
    inverse = torch.linalg.inv(factor)
    return Chart(lambda u: mean + u @ factor.T, lambda u, _: _log_normal(u), lambda z: (z - mean) @ inverse.T)


def _mixture(prior: MixtureSameFamily) -> list[Chart]:
    log_weights = prior.mixture_distribution.logits.detach().double().log_softmax(-1).cpu()
    normals = _normals(prior.component_distribution)
    if normals is None:
        count = len(log_weights)
        parts = [_component(prior.component_distribution, k) for k in range(count)] if count <= MOST_PARTS else [None]
        return [] if None in parts else _parts(log_weights.exp(), [p for p in parts if p is not None])
    return _normal_mixture(log_weights, normals[0].cpu(), normals[1].cpu())


def _parts(weights: Tensor, components: Sequence[Distribution]) -> list[Chart]:
    """The charts of every component, weighted; none if one of them has no structure."""
    found: list[Chart] = []
    for weight, component in zip(weights.tolist(), components, strict=True):
        charts = _structured(component)
        if not charts:
            return []
        found += [chart.weighted(math.log(weight)) for chart in charts] if weight > 0 else []
    return found


def _component(batch: Distribution, k: int) -> Distribution | None:
    """The k-th distribution of a batch, where its parameters say all about it."""
    if type(batch) is Independent:
        inner = _component(batch.base_dist, k)
        return None if inner is None else Independent(inner, batch.reinterpreted_batch_ndims)
    names = [name for name in batch.arg_constraints if name in vars(batch) or isinstance(batch, Beta)]
    try:
        return type(batch)(**{name: getattr(batch, name)[k] for name in names}, validate_args=False)
    except (TypeError, ValueError, IndexError):
        return None


def _normal_mixture(log_weights: Tensor, means: Tensor, factors: Tensor) -> list[Chart]:
    """Charts of Σ wₖ N(mₖ, Lₖ Lₖᵀ): those that one lattice resolves together, and the rest."""
    found = []
    left = (log_weights > -torch.inf).nonzero().squeeze(1)
    while len(left):
        center, scale = _moments(log_weights[left], means[left], factors[left])
        members, core = left[:0], CORES[means.shape[-1]][0]
        for tiles in CORES[means.shape[-1]]:
            fits = left[_resolved((means[left] - center) / scale, factors[left] / scale[:, None], tiles)]
            if len(fits) > len(members):
                members, core = fits, tiles
        if len(members) <= 1:
            members = left[log_weights[left].argmax()].reshape(1)
            k = int(members)
            found.append(_affine_normal(means[k], factors[k]).weighted(float(log_weights[k])))
        else:
            found.append(_group(log_weights[members], means[members], factors[members], center, scale, core))
        left = left[~torch.isin(left, members)]
    return found


def _moments(log_weights: Tensor, means: Tensor, factors: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviations of a mixture, (d,) each."""
    weight = log_weights.softmax(0)[:, None]
    center = (weight * means).sum(0)
    variance = factors.square().sum(-1) + (means - center).square()
    return center, (weight * variance).sum(0).sqrt()


def _resolved(means: Tensor, factors: Tensor, core: int) -> Tensor:
    """Which components (K,) the first grid of a chart resolves where they lie: its rings have double spacing each."""
    d = means.shape[-1]
    narrow = torch.linalg.svdvals(factors)[:, -1]
    ring = (means.abs().amax(-1) / 4.0).clamp_min(1).log2().ceil()
    return narrow >= NODES_PER_SCALE * FIRST_SPACING[d] * 12 / core * 2.0**ring


def _group(log_weights: Tensor, means: Tensor, factors: Tensor, center: Tensor, scale: Tensor, core: int) -> Chart:
    inverse = torch.linalg.inv(factors)
    constant = log_weights + torch.linalg.slogdet(inverse)[1] + scale.log().sum()

    def log_density(u: Tensor, z: Tensor) -> Tensor:  # noqa: ARG001
        parts = []
        for some in z.split(max(1, 2_000_000 // len(means))):
            noise = torch.einsum("kij,mkj->mki", inverse, some[:, None] - means)
            parts.append((_log_normal(noise) + constant).logsumexp(-1))
        return torch.cat(parts)

    reach = float(((means - center) / scale).abs().max())
    return Chart(lambda u: center + scale * u, log_density, lambda z: (z - center) / scale, core=core, reach=reach)


def _transformed(prior: Distribution) -> tuple[Distribution, Map, Map | None] | None:
    """Base, transform and inverse of a transformed distribution over vectors."""
    if _is(prior, Independent) and _is(prior.base_dist, TransformedDistribution):  # pyright: ignore
        inner: TransformedDistribution = prior.base_dist  # pyright: ignore
        return Independent(inner.base_dist, 1), _forward(inner.transforms), _backward(inner.transforms)
    if _is(prior, TransformedDistribution):
        base = prior.base_dist  # pyright: ignore[reportAttributeAccessIssue]
        base = base if base.event_shape else Independent(base, 1)
        return base, _forward(prior.transforms), _backward(prior.transforms)  # pyright: ignore
    zuko = sys.modules.get("zuko")  # a flow of zuko's is there only where zuko is
    bare = zuko is not None and _is(prior, zuko.distributions.NormalizingFlow)
    if bare or _is(prior, FlowDistribution):
        transform = prior.transform  # pyright: ignore[reportAttributeAccessIssue]
        with torch.random.fork_rng(devices=[]):
            kind = prior.sample().dtype
        return (
            prior.base,  # pyright: ignore[reportAttributeAccessIssue]
            lambda u: transform.inv(u.to(kind)).double(),
            lambda z: transform(z.to(kind)).double(),
        )
    return None


def _forward(transforms: Sequence[Any]) -> Map:
    def apply(z: Tensor) -> Tensor:
        for transform in transforms:
            z = transform(z)
        return z.double()

    return apply


def _backward(transforms: Sequence[Any]) -> Map:
    def apply(z: Tensor) -> Tensor:
        for transform in reversed(transforms):
            z = transform.inv(z)
        return z.double()

    return apply


def _bounded(base: Distribution) -> Chart:
    """Uniform and beta distributions: log z and log(1 − z) are taken from u, so that no digit is lost at the edges."""
    if isinstance(base, Uniform):
        low, width = base.low.double().cpu(), (base.high - base.low).double().cpu()
        a = b = torch.ones_like(low)
    else:
        low, width = torch.zeros(()).double(), torch.ones(()).double()
        a, b = base.concentration1.double().cpu(), base.concentration0.double().cpu()  # pyright: ignore
    constant = torch.lgamma(a + b) - torch.lgamma(a) - torch.lgamma(b)

    def log_density(u: Tensor, z: Tensor) -> Tensor:  # noqa: ARG001
        v, log_slope = _double_exponential(u)
        log_z, log_rest = torch.nn.functional.logsigmoid(v), torch.nn.functional.logsigmoid(-v)
        return (a * log_z + b * log_rest + constant + log_slope).sum(-1)

    def to_z(u: Tensor) -> Tensor:
        return low + width * _double_exponential(u)[0].sigmoid()

    return Chart(to_z, log_density, lambda z: _double_logarithm(torch.logit((z - low) / width)))


def _sphere(d: int) -> Chart:
    """The uniform distribution on the sphere in R² or R³, from an interval or a square by a map that keeps areas.

    The circle has its angle, S² the cylinder's map of Archimedes.
    """
    zeros, turn = torch.zeros(d - 1, dtype=torch.float64), 2 * math.pi

    def to_sphere(t: Tensor) -> Tensor:
        circle = torch.stack([(turn * t[:, -1]).cos(), (turn * t[:, -1]).sin()], -1)
        if d == 2:
            return circle
        share = t[:, :1]
        return torch.cat([2 * (share * (1 - share)).sqrt() * circle, 1 - 2 * share], -1)

    def from_sphere(z: Tensor) -> Tensor:
        angle = (torch.atan2(z[:, 1], z[:, 0]) / turn)[:, None] % 1.0
        return angle if d == 2 else torch.cat([(1 - z[:, 2:]) / 2, angle], -1)

    return _bounded(Uniform(zeros, zeros + 1, validate_args=False)).followed_by(to_sphere, from_sphere)


def _double_exponential(u: Tensor) -> tuple[Tensor, Tensor]:
    """v = π sinh(0.6 u), the argument of a sigmoid, and log dv/du."""
    t = (0.6 * u).clamp(-200, 200)
    return math.pi * t.sinh(), t.abs() + torch.log1p((-2 * t.abs()).exp()) + math.log(0.3 * math.pi)


def _double_logarithm(v: Tensor) -> Tensor:
    return (v / math.pi).asinh() / 0.6


def _generic(prior: Distribution, log_prob: Map) -> Chart:
    """A chart from the support and the quantiles of draws, for densities without a known structure."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        draws = prior.sample(torch.Size([DRAWS])).double().cpu()
    low, middle, high = torch.quantile(draws, torch.tensor([0.159, 0.5, 0.841], dtype=torch.float64), dim=0)
    scale = (high - low) / 2
    if not bool(torch.isfinite(draws).all()) or not bool((scale > 0).all()):
        raise ConfigurationError(
            "the prior's draws are not finite or do not vary; a grid needs a distribution with a density"
        )
    below, above = _edges(prior, draws.shape[-1])
    if torch.allclose(scale, torch.ones_like(scale), atol=0.1) and torch.allclose(middle, 0 * middle, atol=0.1):
        scale, middle = torch.ones_like(scale), torch.zeros_like(middle)  # N(0, I) but for the noise of the draws
    far = middle + 30 * torch.diag_embed(scale)
    fall = log_prob(torch.cat([middle[None], far, middle - (far - middle)])).double().cpu()
    heavy = (fall[1:].view(2, -1).amax(0) - fall[0]) > HEAVY
    heavy &= ~torch.isfinite(below) & ~torch.isfinite(above)
    half = torch.isfinite(below) ^ torch.isfinite(above)
    both = torch.isfinite(below) & torch.isfinite(above)
    sign = torch.where(torch.isfinite(above), -1.0, 1.0)
    edge = torch.where(torch.isfinite(below), below, above)
    size = torch.where(half, (middle - edge).abs(), scale)

    def axes(u: Tensor) -> tuple[Tensor, Tensor]:
        """z and log dz/du, axis by axis."""
        real, log_real = middle + scale * u, scale.log().expand_as(u)
        t = u.clamp(-300, 300)
        wide, log_wide = middle + scale * t.sinh(), scale.log() + t.abs() + torch.log1p((-2 * t.abs()).exp())
        log_wide = log_wide - math.log(2)
        inner = u.clamp(-6.6, 600)  # exp(u − exp(−u)): double-exponential at the edge
        exponent = inner - (-inner).exp()
        ray, log_ray = edge + sign * size * exponent.exp(), size.log() + exponent + torch.log1p((-inner).exp())
        v, log_slope = _double_exponential(u)
        span = above - below
        segment = below + span * v.sigmoid()
        log_segment = span.log() + torch.nn.functional.logsigmoid(v) + torch.nn.functional.logsigmoid(-v) + log_slope
        z = torch.where(both, segment, torch.where(half, ray, torch.where(heavy, wide, real)))
        log = torch.where(both, log_segment, torch.where(half, log_ray, torch.where(heavy, log_wide, log_real)))
        log = torch.where((half & (u != inner)) | (heavy & (u != t)), -torch.inf, log)  # beyond what float64 holds
        # A number so near an edge that float64 rounds it there is not in an open support.
        inside = torch.maximum(torch.minimum(z, _inward(above, -1)), _inward(below, 1))
        return torch.where(both | half, inside, z), log

    def log_density(u: Tensor, z: Tensor) -> Tensor:
        density = log_prob(z).double().cpu()
        return torch.where(density == -torch.inf, density, density + axes(u)[1].sum(-1))

    def to_u(z: Tensor) -> Tensor:
        plain = (z - middle) / scale
        flat = torch.where(heavy, plain.asinh(), plain)
        flat = torch.where(both, _double_logarithm(torch.logit((z - below) / (above - below))), flat)
        exponent = (sign * (z - edge) / size).log()  # = u − exp(−u), by Newton's iterations
        ray = torch.where(exponent > 0, exponent, -torch.log1p(-exponent))
        for _ in range(8):
            ray = ray - (ray - (-ray).exp() - exponent) / (1 + (-ray).exp())
        return torch.where(half, ray, flat)

    return Chart(lambda u: axes(u)[0], log_density, to_u, verified=False)


def _inward(edge: Tensor, direction: int) -> Tensor:
    """The next float64 inside an edge; ±inf stays."""
    return torch.where(torch.isfinite(edge), edge + direction * (edge.abs() * 2.3e-16).clamp_min(1e-300), edge)


def _edges(prior: Distribution, d: int) -> tuple[Tensor, Tensor]:
    """Lower and upper ends of the support along each axis, (d,) each, ±inf where there are none."""
    low, high = torch.full((d,), -torch.inf, dtype=torch.float64), torch.full((d,), torch.inf, dtype=torch.float64)
    try:
        support = prior.support
    except NotImplementedError:
        return low, high
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    if support is constraints.simplex or (support is not None and support.is_discrete):
        raise UnsupportedError(
            f"a grid needs a prior with a density on R^{d}, and this one lives on {support}; "
            "use method='importance' (importance_log_likelihood; --likelihood importance)"
        )
    lower, upper = getattr(support, "lower_bound", None), getattr(support, "upper_bound", None)
    if lower is not None:
        low = torch.as_tensor(lower, dtype=torch.float64).cpu().expand(d)
    if upper is not None:
        high = torch.as_tensor(upper, dtype=torch.float64).cpu().expand(d)
    return low, high
