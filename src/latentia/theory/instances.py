"""Instances on which the statements are checked: models whose every quantity is known by a second way."""

from __future__ import annotations

__all__ = [
    "LinearGaussian",
    "binary_digits",
    "every_image",
    "generator_of",
    "largest",
    "random_finite_model",
    "random_gaussian",
]

import itertools
import math
from functools import cache

import torch
from torch import Tensor
from torch.distributions import Categorical, MultivariateNormal

from latentia.data import Digits
from latentia.estimate import Estimate, exact
from latentia.models import BernoulliMixture


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
    images = source.prepare_fixed(source.load().train, "train")
    return images[:count].flatten(1).double()
