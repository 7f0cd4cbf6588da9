"""Instances on which statements are checked: models and pairs of distributions whose quantities are known twice."""

from __future__ import annotations

__all__: list[str] = []

import itertools
import math
from collections.abc import Callable, Iterator
from functools import cache

import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution, Laplace, MultivariateNormal, Normal, Uniform

from latentia.data import Digits
from latentia.distributions.mixtures import Mixture
from latentia.divergences import breakpoints
from latentia.estimate import Estimate, exact
from latentia.integration import integrate
from latentia.models import BernoulliMixture
from latentia.objectives import Minimax

LOG_2, LOG_4 = math.log(2), math.log(4)
Logit = Callable[[Tensor], Tensor]


def generator_of(seed: int) -> torch.Generator:
    """A generator of a check's own, so that what is drawn elsewhere changes nothing here."""
    return torch.Generator().manual_seed(seed)


def largest(values: Tensor, name: str, unit: str = "nats") -> Estimate:
    """The largest absolute value, as a number known but for rounding."""
    return exact(values.abs().max().item(), name, n=values.numel(), unit=unit)


class LinearGaussian:
    """x = W z + b + σ ε with z ~ N(0, I_d), ε ~ N(0, I_G): its evidence and its posterior are Gaussian.

    Tipping and Bishop 1999, eqs. 3 to 8. All in float64.
    """

    def __init__(self, weights: Tensor, offset: Tensor, scale: float):
        self.weights, self.offset, self.scale = weights, offset, scale

    @classmethod
    def random(cls, dimension: int, pixels: int, scale: float, generator: torch.Generator) -> LinearGaussian:
        """Random weights of order one."""
        weights = torch.randn(pixels, dimension, dtype=torch.float64, generator=generator)
        return cls(weights, torch.randn(pixels, dtype=torch.float64, generator=generator), scale)

    @property
    def dimension(self) -> int:
        """d."""
        return self.weights.shape[1]

    @property
    def prior(self) -> MultivariateNormal:
        """N(0, I)."""
        return MultivariateNormal(self.offset.new_zeros(self.dimension), torch.eye(self.dimension, dtype=torch.float64))

    @property
    def evidence(self) -> MultivariateNormal:
        """p(x) = N(b, W Wᵀ + σ² I)."""
        noise = self.scale**2 * torch.eye(len(self.offset), dtype=torch.float64)
        return MultivariateNormal(self.offset, self.weights @ self.weights.T + noise)

    def posterior(self, x: Tensor) -> MultivariateNormal:
        """p(z|x) = N(M⁻¹ Wᵀ(x − b), σ² M⁻¹) with M = Wᵀ W + σ² I, for one x (G,) or many (B, G)."""
        m = self.weights.T @ self.weights + self.scale**2 * torch.eye(self.dimension, dtype=torch.float64)
        mean = torch.linalg.solve(m, ((x - self.offset) @ self.weights).unsqueeze(-1)).squeeze(-1)
        return MultivariateNormal(mean, self.scale**2 * torch.linalg.inv(m))

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x|z) for z (*draws, d) and x (G,): (*draws)."""
        residual = (x - self.offset - z @ self.weights.T) / self.scale
        return -0.5 * residual.square().sum(-1) - len(self.offset) * math.log(self.scale * math.sqrt(2 * math.pi))

    def expected_log_likelihood(self, x: Tensor, q: MultivariateNormal) -> Tensor:
        """E_q log p(x|z) in closed form: the value at q's mean, less tr(W Σ Wᵀ)/(2σ²)."""
        spread = torch.einsum("gi,ij,gj->", self.weights, q.covariance_matrix, self.weights)
        return self.log_likelihood(x, q.mean) - spread / (2 * self.scale**2)


def random_gaussian(dimension: int, generator: torch.Generator) -> MultivariateNormal:
    """A Gaussian with a random mean and a random full covariance."""
    factor = torch.randn(dimension, dimension, dtype=torch.float64, generator=generator)
    covariance = factor @ factor.T / dimension + 0.1 * torch.eye(dimension, dtype=torch.float64)
    return MultivariateNormal(torch.randn(dimension, dtype=torch.float64, generator=generator), covariance)


def random_finite_model(components: int, pixels: int, generator: torch.Generator) -> BernoulliMixture:
    """A mixture of Bernoullis with random weights and means."""
    weights = torch.rand(components, dtype=torch.float64, generator=generator) + 0.05
    means = torch.rand(components, pixels, dtype=torch.float64, generator=generator).clamp(0.02, 0.98)
    return BernoulliMixture(Categorical(weights).probs, means)


def every_image(pixels: int) -> Tensor:
    """All 2^G binary images, (2^G, G), float64."""
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=pixels)), dtype=torch.float64)


@cache
def binary_digits(count: int) -> Tensor:
    """The first images of the digits' training split, cut at half: (count, 64), float64 in {0, 1}."""
    source = Digits(binarize="threshold")
    images = source.load().examples("train").x
    return images[:count].flatten(1).double()


def normal(mean: float, scale: float) -> Normal:
    """N(mean, scale²), in float64."""
    numbers = torch.tensor([mean, scale], dtype=torch.float64)
    return Normal(numbers[0], numbers[1])


def uniform(low: float, high: float | None = None) -> Uniform:
    """U[low, high], high being low + 1 unless given, in float64."""
    ends = torch.tensor([low, low + 1 if high is None else high], dtype=torch.float64)
    return Uniform(ends[0], ends[1])


def cost_of(logit: Logit, p: Distribution, q: Distribution, name: str = "C(D)") -> Estimate:
    """The cost E_p[softplus(−t)] + E_q[softplus(t)] on the line, by quadrature of the library's loss."""

    def density_times_cost(x: Tensor) -> Tensor:
        t, silent = logit(x), torch.zeros(1, dtype=x.dtype)
        on_data = Minimax().discriminator(t, silent) - LOG_2  # the part of the real example alone
        on_generated = Minimax().discriminator(silent, t) - LOG_2
        return p.log_prob(x).exp() * on_data + q.log_prob(x).exp() * on_generated

    return integrate(density_times_cost, breakpoints(p, q), name=name, tolerance=1e-11)


def pairs(seed: int) -> Iterator[tuple[str, Distribution, Distribution]]:
    """Pairs of distributions of the line, with their names."""
    generator = generator_of(seed)
    a, b, r, s = (torch.rand(4, dtype=torch.float64, generator=generator) + 0.5).unbind()
    both = Mixture(torch.tensor([0.3, 0.7], dtype=torch.float64), [Normal(-2 * a, r), Normal(2 * b, s)])
    yield "normals", Normal(a, r), Normal(-b, s)
    yield "Laplace, normal", Laplace(a, r), Normal(b, s)
    yield "mixture, normal", both, Normal(a, 1 + r)
