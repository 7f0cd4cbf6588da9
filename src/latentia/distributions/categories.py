"""Likelihoods of categories 0 … K − 1: without an order, and with one.

The encoder sees indicators, of which all are zero where a value is missing. The `mean` of these distributions is the
most probable category, since categories have no mean.
"""

from __future__ import annotations

__all__ = ["Categorical", "Ordinal"]

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Distribution, Independent
from torch.nn.functional import logsigmoid, softplus
from torch.types import _size

from latentia.distributions.likelihoods import Likelihood
from latentia.errors import ConfigurationError, DataError


class Categorical(Likelihood):
    """Categories 0 … K − 1 with a logit each."""

    prepares: ClassVar[bool] = True

    categories: int | None = Field(default=None, ge=2, description="K; null takes it from the data")

    @property
    def discrete(self) -> bool:
        return True

    @property
    def count(self) -> int:
        """K.

        Raises:
            ConfigurationError: where it is not known.
        """
        if self.categories is None:
            raise ConfigurationError([("likelihood.categories", "give the number of categories, such as 4")])
        return self.categories

    def parameter_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*event_shape, self.count)

    def distribution(self, parameters: Tensor, shared: Tensor | None = None, event_dims: int = 1) -> Distribution:
        return Independent(_Categories(parameters.log_softmax(-1)), event_dims, validate_args=False)

    def check(self, images: Tensor) -> None:
        bad = (images != images.round()) | (images < 0) | (images >= self.count)
        if bool(bad.any()):
            raise DataError(
                f"likelihood={self.type_name} scores whole numbers from 0 to {self.count - 1}, and {int(bad.sum())} of "
                f"these are others, such as {images[bad][0]:g}; set likelihood.categories={int(images.max()) + 1}, or "
                "negative-binomial for counts, gaussian-per-column for reals"
            )

    def unscaled_columns(self) -> slice:
        return slice(None)

    def indicator_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (event_shape[0] * self.count, *event_shape[1:])

    def indicators(self, u: Tensor, absent: Tensor | None) -> Tensor:
        levels = torch.arange(self.count, device=u.device, dtype=u.dtype).view(-1, *[1] * (u.dim() - 2))
        found = (u.unsqueeze(2) == levels).to(u.dtype)  # (B, columns, K, …)
        if absent is not None:
            found = torch.where(absent.unsqueeze(2), 0.0, found)
        return found.flatten(1, 2)


class Ordinal(Categorical):
    """Ordered categories: P(x ≤ k) = σ(θₖ − η), with the network's η and learned thresholds θ₀ < θ₁ < … for each.

    Source: McCullagh 1980, "Regression models for ordinal data", eq. 2.1 (the proportional-odds model).
    """

    def parameter_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        return event_shape

    def shared_parameters(self, event_shape: tuple[int, ...]) -> Tensor:
        # the first threshold, then the inverse softplus of the steps: equally probable categories at η = 0
        share = torch.arange(1, self.count) / self.count
        thresholds = (share / (1 - share)).log()
        steps = torch.expm1(thresholds.diff()).log()
        return torch.cat([thresholds[:1], steps]).expand(*event_shape, -1).clone()

    def distribution(self, parameters: Tensor, shared: Tensor | None = None, event_dims: int = 1) -> Distribution:
        if shared is None:
            raise ValueError("an ordinal likelihood needs its shared thresholds")
        thresholds = torch.cat([shared[..., :1], shared[..., :1] + softplus(shared[..., 1:]).cumsum(-1)], -1)
        above = parameters.unsqueeze(-1) - thresholds.to(parameters.dtype)  # η − θₖ, decreasing in k
        first, last = logsigmoid(-above[..., :1]), logsigmoid(above[..., -1:])
        # σ(b) − σ(a) = σ(b) σ(−a) (1 − e^{a − b}), where nothing cancels
        low, high = above[..., 1:], above[..., :-1]
        between = logsigmoid(high) + logsigmoid(-low) + torch.log(-torch.expm1(low - high))
        return Independent(_Categories(torch.cat([first, between, last], -1)), event_dims, validate_args=False)


class _Categories(TorchCategorical):
    """Of normalized log-probabilities; values are floats."""

    def __init__(self, log_probabilities: Tensor):
        super().__init__(logits=log_probabilities, validate_args=False)

    def expand(self, batch_shape: _size, _instance: Any = None) -> _Categories:
        return _Categories(self.logits.expand(*batch_shape, -1))

    def log_prob(self, value: Tensor) -> Tensor:
        index = value.long().unsqueeze(-1)
        index, logits = torch.broadcast_tensors(index, self.logits)
        return logits.gather(-1, index[..., :1]).squeeze(-1)

    def sample(self, sample_shape: _size = torch.Size()) -> Tensor:
        return super().sample(torch.Size(sample_shape)).to(self.logits.dtype)

    @property
    def mean(self) -> Tensor:
        """The most probable category."""
        return self.logits.argmax(-1).to(self.logits.dtype)

    @property
    def variance(self) -> Tensor:
        """Not a number: categories have no variance."""
        return torch.full_like(self.mean, torch.nan)
