r"""Latent spaces that are spheres: von Mises-Fisher posteriors and the uniform prior (Davidson et al. 2018).

    z ∈ S^{d−1} = {z ∈ R^d : |z| = 1},      log q(z) = κ μ·z + log C_d(κ),      C_d(κ) = κ^ν / ((2π)^{d/2} I_ν(κ)),

ν = d/2 − 1, densities with respect to the surface measure. The mean is A_d(κ) μ with A_d = I_{ν+1}/I_ν, and

    KL(q, uniform) = κ A_d(κ) + log C_d(κ) + log |S^{d−1}|.

`latent` is d, so that S² has latent=3. A draw is z = cos θ μ + sin θ v, with v uniform and orthogonal to μ. The angle θ
has the density ∝ sin^{d−2} θ exp(κ cos θ) on [0, π]. It is drawn without rejection on S² (by the inverse of its
distribution function) and by Wood's (1994) rejection elsewhere, and its gradient is implicit (Figurnov et al. 2018),

    dθ/dκ = −∫₀^θ (sin s / sin θ)^{d−2} exp(κ (cos s − cos θ)) (cos s − A_d(κ)) ds,

by a Gauss-Legendre rule. So it has no term for the rejection, and adds no noise.
"""

from __future__ import annotations

__all__ = ["UniformSphere", "VonMisesFisher", "dimension_of", "is_on_sphere", "onto_support"]

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Beta, Distribution, constraints, register_kl

from latentia.distributions.conditional import Conditional, at_least_float32
from latentia.distributions.posteriors import LatentSpace, Posterior
from latentia.distributions.priors import Prior
from latentia.errors import ConfigurationError

NODES = 64  # of the rule for dθ/dκ
DEPTH = 40.0  # nats below θ's own, where the integrand is left out
ALMOST_UNIT = 1e-4  # distance of |z| from 1 that float32 may leave
LARGE = 1e5  # κ above which 1 − A² − (d − 1) A/κ has lost its digits


class _OnSphere(LatentSpace):
    """The unit sphere in R^latent."""

    def space(self, latent: int) -> str:
        if latent < 2:
            text = "the sphere in R¹ is two points; set latent=2 (a circle) or latent=3 (S²), or for two values"
            raise ConfigurationError([("latent", f"{text} posterior=categorical prior=categorical latent=2")])
        return f"the unit sphere in R^{latent}"


class VonMisesFisher(_OnSphere, Posterior):
    """von Mises-Fisher distributions on the unit sphere: d numbers for the direction μ, then log κ − 2.

    Use it with `prior=sphere`; the KL is in closed form. `latent=3` is S².
    """

    @property
    def partner(self) -> str:
        return "sphere"

    def center(self, q: Distribution) -> Tensor:
        return q.mode

    def parameter_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (math.prod(event_shape) + 1,)

    def distribution(self, parameters: Tensor, shared: Any = None, event_dims: int = 1) -> Distribution:
        parameters = at_least_float32(parameters)
        direction = torch.nn.functional.normalize(parameters[..., :-1], dim=-1)
        # An encoder starts near 0. At κ = 7 its directions have an effect; at κ = 1 they have little, and q may stay at
        # the prior.
        return VonMisesFisherDistribution(direction, (2 + parameters[..., -1]).exp())


class UniformSphere(_OnSphere, Prior, name="sphere"):
    """The uniform distribution on the unit sphere in R^latent, for `posterior=von-mises-fisher`."""

    @property
    def partner(self) -> str:
        return "von-mises-fisher"

    def build(self, latent: int, event_shape: tuple[int, ...]) -> nn.Module:
        return _Uniform(latent)


class _Uniform(nn.Module):
    zeros: Tensor

    def __init__(self, latent: int):
        super().__init__()
        self.register_buffer("zeros", torch.zeros(latent), persistent=False)

    def forward(self, posterior: Conditional | None = None) -> Distribution:
        return SphereUniform(self.zeros)


class _Sphere(constraints.Constraint):
    """Vectors of length 1, as far as float32 holds it."""

    event_dim = 1

    def check(self, value: Tensor) -> Tensor:
        return (value.norm(dim=-1) - 1).abs() < ALMOST_UNIT


class SphereUniform(Distribution):
    """The uniform distribution on the unit sphere.

    Args:
        zeros: (d,), d ≥ 2; sets the type and the device.
    """

    arg_constraints = {}  # noqa: RUF012  # pyright: ignore
    support = _Sphere()  # pyright: ignore
    has_rsample = True

    def __init__(self, zeros: Tensor):
        self.zeros = zeros
        super().__init__(event_shape=zeros.shape, validate_args=False)

    @property
    def log_area(self) -> float:
        """log |S^{d−1}|."""
        d = len(self.zeros)
        return math.log(2) + 0.5 * d * math.log(math.pi) - math.lgamma(0.5 * d)

    @property
    def mean(self) -> Tensor:
        return self.zeros

    @property
    def variance(self) -> Tensor:
        return torch.full_like(self.zeros, 1 / len(self.zeros))

    def rsample(self, sample_shape: torch.Size | Sequence[int] = torch.Size()) -> Tensor:
        normal = torch.randn(*sample_shape, *self.zeros.shape, dtype=self.zeros.dtype, device=self.zeros.device)
        return torch.nn.functional.normalize(normal, dim=-1)

    def log_prob(self, value: Tensor) -> Tensor:
        return value.new_full(value.shape[:-1], -self.log_area)

    def entropy(self) -> Tensor:
        return self.zeros.new_tensor(self.log_area)


class VonMisesFisherDistribution(Distribution):
    """A von Mises-Fisher distribution with event shape (d,), d ≥ 2.

    Args:
        loc: μ, of length 1, (*batch, d).
        concentration: κ ≥ 0, (*batch).
    """

    arg_constraints = {}  # noqa: RUF012  # pyright: ignore
    support = _Sphere()  # pyright: ignore
    has_rsample = True

    def __init__(self, loc: Tensor, concentration: Tensor):
        self.loc, self.concentration = loc, concentration
        super().__init__(loc.shape[:-1], loc.shape[-1:], validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Distribution:
        shape = torch.Size(batch_shape)
        return VonMisesFisherDistribution(self.loc.expand(*shape, *self.event_shape), self.concentration.expand(shape))

    @property
    def mean(self) -> Tensor:
        """A_d(κ) μ, which lies inside the sphere."""
        return self._resultant().to(self.loc)[..., None] * self.loc

    @property
    def mode(self) -> Tensor:
        """μ."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        d, kappa = self.event_shape[0], self.concentration.double()
        resultant = self._resultant()
        share = bessel_ratio(kappa.detach(), d)[1]  # A/κ
        along = 1 - d * share - resultant.square()
        return (share[..., None] + along[..., None] * self.loc.double().square()).to(self.loc)

    def entropy(self) -> Tensor:
        kappa = self.concentration.double()
        return (kappa * (1 - self._resultant()) - self._log_normalizer()).to(self.loc)

    def log_prob(self, value: Tensor) -> Tensor:
        """log q(z) in nats, for z of length 1."""
        # κ(μ·z − 1) = −κ|z − μ|²/2 keeps its digits where κ is large.
        distance = (value - self.loc).square().sum(-1)
        return self._log_normalizer().to(self.loc) - 0.5 * self.concentration * distance

    def rsample(self, sample_shape: torch.Size | Sequence[int] = torch.Size()) -> Tensor:
        d, shape = self.event_shape[0], (*sample_shape, *self.batch_shape)
        kappa = self.concentration.double().expand(shape)
        with torch.no_grad():
            drawn = draw_angle(kappa, d)
        angle = cast(Tensor, _Angle.apply(kappa, drawn, d))[..., None]
        mean = torch.nn.functional.normalize(self.loc.double(), dim=-1).expand(*shape, d)
        across = torch.randn_like(mean)
        for _ in range(2):  # twice, since the first rounds by much where the draw is almost parallel to μ
            across = torch.nn.functional.normalize(across - (across * mean).sum(-1, keepdim=True) * mean, dim=-1)
        return (angle.cos() * mean + angle.sin() * across).to(self.loc)

    def _resultant(self) -> Tensor:
        """A_d(κ), float64."""
        return cast(Tensor, _Resultant.apply(self.concentration.double(), self.event_shape[0]))

    def _log_normalizer(self) -> Tensor:
        """log C_d(κ) + κ, float64."""
        return cast(Tensor, _LogNormalizer.apply(self.concentration.double(), self.event_shape[0]))


@register_kl(VonMisesFisherDistribution, SphereUniform)
def _kl_to_uniform(q: VonMisesFisherDistribution, p: SphereUniform) -> Tensor:
    return p.log_area - q.entropy()


def is_on_sphere(prior: Distribution) -> bool:
    """Whether z lies on the unit sphere."""
    return isinstance(prior, SphereUniform)


def dimension_of(prior: Distribution) -> int:
    """The dimension of the space that z varies in: d for R^d, d − 1 for the sphere in R^d."""
    return int(prior.event_shape[0]) - is_on_sphere(prior)


def onto_support(prior: Distribution, z: Tensor) -> Tensor:
    """z (..., d) moved to the nearest point of the sphere, if the prior lives on one."""
    return torch.nn.functional.normalize(z, dim=-1) if is_on_sphere(prior) else z


def bessel_ratio(kappa: Tensor, d: int) -> tuple[Tensor, Tensor, Tensor]:
    """A_d(κ), A_d(κ)/κ and log(I_ν(κ) κ^−ν e^−κ), ν = d/2 − 1, for κ ≥ 0 in float64.

    The ratios r_j = I_{j+1}/I_j obey r_j = κ / (2(j + 1) + κ r_{j+1}). Downward the recurrence forgets its start (Amos
    1974, eq. 9); for κ above ν² it is used upward, from I₁/I₀ or, for odd d, from coth κ − 1/κ.
    """
    base, nu = (0.0, d / 2 - 1) if d % 2 == 0 else (0.5, d / 2 - 1)
    steps = round(nu - base)
    limit = max(16.0, nu * nu)
    small, large = kappa.clamp(max=limit), kappa.clamp(min=limit)
    top = math.ceil(math.sqrt(nu * nu + 40 * limit) - base) + 2
    order = base + top
    ratio = small / (order + 1 + (small.square() + (order + 1) ** 2).sqrt())
    downward = []
    for step in reversed(range(top)):
        share = 1 / (2 * (base + step + 1) + small * ratio)  # r/κ
        ratio = small * share
        if step <= steps:
            downward.append(share)
    downward.reverse()
    decay = (-2 * large).exp()
    first = torch.special.i1e(large) / torch.special.i0e(large)
    if base > 0:
        first = 1 + 2 * decay / (1 - decay) - 1 / large
    upward = [first / large]
    for step in range(steps):
        first = 1 / first - 2 * (base + step + 1) / large
        upward.append(first / large)
    shares = [torch.where(kappa <= limit, a, b) for a, b in zip(downward, upward, strict=True)]
    if base == 0:
        log_first = torch.special.i0e(kappa).log()
    else:
        tiny = kappa.clamp_min(1e-300)
        log_first = 0.5 * math.log(2 / math.pi) + (-torch.expm1(-2 * tiny) / (2 * tiny)).log()
    log_bessel = log_first + sum((share.log() for share in shares[:-1]), torch.zeros_like(kappa))
    return shares[-1] * kappa, shares[-1], log_bessel


class _Resultant(torch.autograd.Function):
    """A_d(κ) with A' = 1 − A² − (d − 1) A/κ."""

    @staticmethod
    def forward(ctx: Any, kappa: Tensor, d: int) -> Tensor:
        resultant, share, _ = bessel_ratio(kappa, d)
        slope = 1 - resultant.square() - (d - 1) * share
        far = kappa.clamp_min(1.0)
        asymptotic = (d - 1) / (2 * far.square()) * (1 - (d - 3) / (2 * far))
        ctx.save_for_backward(torch.where(kappa > LARGE, asymptotic, slope))
        return resultant

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.saved_tensors[0], None


class _LogNormalizer(torch.autograd.Function):
    """log C_d(κ) + κ, whose derivative is 1 − A_d(κ)."""

    @staticmethod
    def forward(ctx: Any, kappa: Tensor, d: int) -> Tensor:
        resultant, _, log_bessel = bessel_ratio(kappa, d)
        ctx.save_for_backward(1 - resultant)
        return -0.5 * d * math.log(2 * math.pi) - log_bessel

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.saved_tensors[0], None


class _Angle(torch.autograd.Function):
    """The drawn angle, with its implicit derivative in κ."""

    @staticmethod
    def forward(ctx: Any, kappa: Tensor, angle: Tensor, d: int) -> Tensor:
        ctx.save_for_backward(kappa, angle)
        ctx.d = d
        return angle.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        kappa, angle = ctx.saved_tensors
        return gradients[0] * angle_slope(kappa, angle, ctx.d), None, None


def draw_angle(kappa: Tensor, d: int) -> Tensor:
    """Angles θ between z and μ, one for each κ, float64."""
    if d == 3:
        spread = -torch.expm1(-2 * kappa)  # 1 − w = −log(1 − u (1 − e^{−2κ}))/κ for w = cos θ
        uniform = torch.rand_like(kappa)
        below = torch.where(kappa < 1e-12, 2 * uniform, -torch.log1p(-uniform * spread) / kappa.clamp_min(1e-12))
        return 2 * (below / 2).clamp(0, 1).sqrt().asin()
    flat, n = kappa.flatten(), d - 1
    b = n / (2 * flat + (4 * flat.square() + n * n).sqrt())
    start = (1 - b) / (1 + b)
    constant = flat * start + n * torch.log1p(-start.square())
    below = torch.zeros_like(flat)  # 1 − cos θ
    going = torch.arange(len(flat), device=flat.device)
    beta = Beta(*(torch.tensor(0.5 * n, dtype=flat.dtype, device=flat.device) for _ in range(2)), validate_args=False)
    while len(going):
        share, z = b[going], beta.sample(going.shape)
        offered = 2 * share * z / (1 - (1 - share) * z)
        w = 1 - offered
        accept = flat[going] * w + n * torch.log1p(-start[going] * w) - constant[going]
        taken = accept >= torch.rand_like(offered).log()
        below[going[taken]] = offered[taken]
        going = going[~taken]
    return (2 * (below / 2).clamp(0, 1).sqrt().asin()).view(kappa.shape)


def angle_slope(kappa: Tensor, angle: Tensor, d: int) -> Tensor:
    """dθ/dκ at a fixed value of θ's distribution function.

    The whole integral is 0, so the part below θ and minus the part above are equal; that on the side of θ where
    cos s − A has one sign is computed, so that nothing cancels.
    """
    nodes, weights = (part.to(angle) for part in _legendre())
    short = 1 - bessel_ratio(kappa, d)[0]  # 1 − A
    inner = 2 * (0.5 * angle).sin().square() < short
    reach = (2 * (0.5 * angle).sin().square() + DEPTH / kappa.clamp_min(1e-30)).clamp(max=2.0)
    end = torch.where(inner, torch.zeros_like(angle), 2 * (reach / 2).sqrt().clamp(max=1.0).asin())
    s = angle[..., None] + (end - angle)[..., None] * nodes
    fall = 2 * (0.5 * (angle[..., None] + s)).sin() * (0.5 * (angle[..., None] - s)).sin()  # cos s − cos θ
    log_ratio = (d - 2) * (s.sin().clamp_min(1e-300).log() - angle.sin().clamp_min(1e-300).log()[..., None])
    value = (kappa[..., None] * fall + log_ratio).exp() * (short[..., None] - 2 * (0.5 * s).sin().square())
    return (end - angle) * (value @ weights)


@lru_cache(maxsize=1)
def _legendre() -> tuple[Tensor, Tensor]:
    """Nodes and weights for [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    return torch.from_numpy(0.5 * (nodes + 1)), torch.from_numpy(0.5 * weights)
