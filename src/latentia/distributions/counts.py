"""Likelihoods of counts 0, 1, 2, …: Poisson, negative binomial, and both with additional zeros.

The network emits log-means, so that no mean is zero or negative. The encoder sees log(1 + x).
"""

from __future__ import annotations

__all__ = ["NegativeBinomial", "Poisson", "ZeroInflated"]

import math
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.distributions import Distribution, Independent, constraints
from torch.distributions import NegativeBinomial as TorchNegativeBinomial
from torch.distributions import Poisson as TorchPoisson
from torch.nn.functional import logsigmoid
from torch.types import _size

from latentia.distributions.likelihoods import Likelihood, require_finite
from latentia.distributions.standardization import rescaled
from latentia.errors import DataError


class Poisson(Likelihood):
    """Poisson counts: log p(x|z) = x l − eˡ − log x!, with the network's l; mean and variance are equal."""

    prepares: ClassVar[bool] = True

    @property
    def discrete(self) -> bool:
        return True

    def distribution(self, parameters: Tensor, shared: Tensor | None = None, event_dims: int = 1) -> Distribution:
        return Independent(_LogPoisson(parameters), event_dims, validate_args=False)

    def transform(self, x: Tensor) -> Tensor:
        return x.log1p()

    def check(self, images: Tensor) -> None:
        require_finite(images)
        if bool((images < 0).any()):
            raise DataError(
                f"likelihood={self.type_name} scores counts, and {int((images < 0).sum())} of these numbers are "
                "negative; give floats and set likelihood=gaussian-per-column or student-t"
            )
        if bool((images != images.round()).any()):
            raise DataError(
                f"likelihood={self.type_name} scores whole numbers, and {int((images != images.round()).sum())} of "
                "these are not; set likelihood=log-normal for positive measurements, gaussian-per-column for others"
            )


class NegativeBinomial(Poisson, name="negative-binomial"):
    """Counts with more variance than Poisson ones: μ + μ²/r, with the mean μ of the network and a learned r for each.

    It is a Poisson distribution whose rate is gamma distributed with shape r; r → ∞ is the Poisson distribution.
    """

    initial_shape: float = Field(default=1.0, gt=0, description="r at the start")

    def shared_parameters(self, event_shape: tuple[int, ...]) -> Tensor:
        return torch.full(event_shape, math.log(self.initial_shape))

    def distribution(self, parameters: Tensor, shared: Tensor | None = None, event_dims: int = 1) -> Distribution:
        return Independent(_negative_binomial(parameters, shared), event_dims, validate_args=False)


class ZeroInflated(Poisson, name="zero-inflated"):
    """Counts that are zero with an additional probability π(z): p(0) = π + (1 − π) p₀(0).

    The network emits 2C channels, or 2d columns: log-means first, then the logits of π.
    """

    base: Literal["poisson", "negative-binomial"] = Field(
        default="negative-binomial", description="the distribution p₀ of counts"
    )
    initial_shape: float = Field(default=1.0, gt=0, description="r at the start, of negative-binomial")

    def parameter_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (2 * event_shape[0], *event_shape[1:])

    def shared_parameters(self, event_shape: tuple[int, ...]) -> Tensor | None:
        return None if self.base == "poisson" else torch.full(event_shape, math.log(self.initial_shape))

    def distribution(self, parameters: Tensor, shared: Tensor | None = None, event_dims: int = 1) -> Distribution:
        log_mean, zero = parameters.chunk(2, dim=-event_dims)
        base = _LogPoisson(log_mean) if self.base == "poisson" else _negative_binomial(log_mean, shared)
        return Independent(_ZeroInflated(base, zero), event_dims, validate_args=False)


class _LogPoisson(TorchPoisson):
    """Poisson distributions of a log-rate: exact where the rate underflows."""

    def __init__(self, log_rate: Tensor, validate_args: bool | None = None):
        self.log_rate = log_rate
        super().__init__(log_rate.exp(), validate_args=False)

    def expand(self, batch_shape: _size, _instance: Any = None) -> _LogPoisson:
        return _LogPoisson(self.log_rate.expand(batch_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        return value * self.log_rate - self.log_rate.exp() - (value + 1).lgamma()


class _NegativeBinomial(TorchNegativeBinomial):
    """torch's, without its check that values are in the support, and with draws as floats."""

    def log_prob(self, value: Tensor) -> Tensor:
        r = self.total_count
        beyond = (value + r).lgamma() - (value + 1).lgamma() - r.lgamma()
        return beyond + r * logsigmoid(-self.logits) + value * logsigmoid(self.logits)


def _negative_binomial(log_mean: Tensor, shared: Tensor | None) -> _NegativeBinomial:
    if shared is None:
        raise ValueError("a negative binomial likelihood needs its shared log-shapes")
    log_shape = shared.to(log_mean.dtype).expand_as(log_mean)
    return _NegativeBinomial(log_shape.exp(), logits=log_mean - log_shape, validate_args=False)


class _ZeroInflated(Distribution):
    """A mixture of zero, with probability σ(logit), and counts."""

    support: ClassVar[constraints.Constraint] = constraints.nonnegative_integer  # pyright: ignore

    def __init__(self, base: Distribution, logit: Tensor):
        self.base, self.logit = base, logit
        super().__init__(base.batch_shape, validate_args=False)

    @property
    def arg_constraints(self) -> dict[str, constraints.Constraint]:
        return {}

    def expand(self, batch_shape: _size, _instance: Any = None) -> _ZeroInflated:
        return _ZeroInflated(self.base.expand(batch_shape), self.logit.expand(batch_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        counts = self.base.log_prob(value) + logsigmoid(-self.logit)
        return torch.where(value == 0, torch.logaddexp(logsigmoid(self.logit), counts), counts)

    def sample(self, sample_shape: _size = torch.Size()) -> Tensor:
        with torch.no_grad():
            counts = self.base.sample(sample_shape)
            return torch.where(torch.rand_like(counts) < self.logit.sigmoid(), 0.0, counts)

    @property
    def mean(self) -> Tensor:
        return self.base.mean * torch.sigmoid(-self.logit)

    @property
    def variance(self) -> Tensor:
        kept = torch.sigmoid(-self.logit)
        return kept * self.base.variance + kept * (1 - kept) * self.base.mean.square()


@rescaled.register
def _(distribution: _LogPoisson, center: Tensor, spread: Tensor) -> Distribution:
    return _LogPoisson(center + spread * distribution.log_rate)


@rescaled.register
def _(distribution: _NegativeBinomial, center: Tensor, spread: Tensor) -> Distribution:
    r = distribution.total_count
    log_mean = center + spread * (distribution.logits + r.log())
    return _NegativeBinomial(r, logits=log_mean - r.log(), validate_args=False)


@rescaled.register
def _(distribution: _ZeroInflated, center: Tensor, spread: Tensor) -> Distribution:
    return _ZeroInflated(rescaled(distribution.base, center, spread), distribution.logit)
