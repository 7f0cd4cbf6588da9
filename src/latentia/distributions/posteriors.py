"""Families of Gaussian posteriors q(z|x).

For z ∈ R² the network gives 2 numbers with a fixed scale, 4 with a learned diagonal scale and 5 with a full covariance.
"""

from __future__ import annotations

__all__ = ["Diagonal", "Fixed", "Full", "LatentSpace", "Posterior"]

import math
from abc import abstractmethod
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal

from latentia.distributions.conditional import Family, at_least_float32
from latentia.distributions.gaussians import DiagonalGaussian


class LatentSpace:
    """What posteriors and priors share: the space that z, a vector of length d, lies in. It is R^d unless they say
    otherwise."""

    def space(self, latent: int) -> str:
        """The space in words: equal for a posterior and a prior that go together.

        Raises:
            ConfigurationError: where there is none of this length.
        """
        return f"R^{latent}"

    @property
    @abstractmethod
    def partner(self) -> str:
        """For a posterior, the name of a prior over the same space, with its settings; for a prior, of a posterior."""


class Posterior(LatentSpace, Family, family=True):
    """A family of distributions over z."""

    reparametrized: ClassVar[bool] = True  # whether draws carry gradients

    @property
    def partner(self) -> str:
        return "normal"

    def center(self, q: Distribution) -> Tensor:
        """The z of q that stands for it in reconstructions and pictures: a point of the space, by default the mean."""
        return q.mean


class Fixed(Posterior):
    """Normal with a fixed scale: the network gives the d means."""

    scale: float = Field(default=0.1, gt=0, description="standard deviation of q in every dimension")

    def parameter_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        return event_shape

    def distribution(self, parameters: Tensor, shared: Tensor | None = None, event_dims: int = 1) -> Distribution:
        scale = torch.full_like(parameters, self.scale)
        return Independent(Normal(parameters, scale, validate_args=False), 1, validate_args=False)


class Diagonal(Posterior):
    """Normal with a diagonal covariance: d means, then d logarithms of standard deviations."""

    def parameter_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (2 * math.prod(event_shape),)

    def distribution(self, parameters: Tensor, shared: Tensor | None = None, event_dims: int = 1) -> Distribution:
        return DiagonalGaussian(*parameters.chunk(2, dim=-1))


class Full(Posterior):
    """Normal with any covariance Σ = L Lᵀ: d means, the logarithms of L's diagonal, then L below it, row by row."""

    def parameter_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        d = math.prod(event_shape)
        return (2 * d + d * (d - 1) // 2,)

    def distribution(self, parameters: Tensor, shared: Tensor | None = None, event_dims: int = 1) -> Distribution:
        parameters = at_least_float32(parameters)
        numbers = parameters.shape[-1]
        d = round((math.sqrt(9 + 8 * numbers) - 3) / 2)  # 2d + d(d−1)/2 numbers in all
        mean, log_diagonal, below = parameters.split([d, d, numbers - 2 * d], dim=-1)
        rows, columns = torch.tril_indices(d, d, offset=-1, device=parameters.device)
        strictly_below = parameters.new_zeros(*below.shape[:-1], d * d)
        strictly_below = strictly_below.index_copy(-1, rows * d + columns, below).unflatten(-1, (d, d))
        factor = strictly_below + torch.diag_embed(log_diagonal.exp())
        return MultivariateNormal(mean, scale_tril=factor, validate_args=False)
