"""The family of objectives: named terms with one number for each example, and whether they bound log p(x).

An objective never reduces over the batch: it returns a dictionary of tensors of shape (B,), and only the training loop
takes means. The term `cost` is minimized; all terms are recorded.
"""

from __future__ import annotations

__all__ = ["Objective", "Progress", "Terms", "log_mean_exp", "rate_of"]

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, kl_divergence

from latentia.configuration import Component
from latentia.distributions.codes import OneHotCodes
from latentia.distributions.conditional import distributions_in_float32
from latentia.distributions.mixture_posterior import Stratified
from latentia.errors import UnsupportedError
from latentia.models import VAE

CURES_WITHOUT_RSAMPLE = "objective=elbo objective.gradient=score"

Terms = dict[str, Tensor]
"""Named terms of shape (B,), in nats; `cost` is minimized."""


@dataclass(frozen=True, slots=True)
class Progress:
    """The point of the run at which a cost is computed.

    Attributes:
        step: steps finished so far.
        epoch: passes through the training data finished so far, as a fraction.
        data_size: number of training examples.
    """

    step: int = 0
    epoch: float = 0.0
    data_size: int = 1


class Objective(Component, family=True):
    """An objective of a VAE.

    Each member's `__call__` runs within `distributions_in_float32`, so that its arithmetic is in float32 under mixed
    precision.

    Attributes:
        smallest_batch: how many examples it needs at least.
        draws_key: the key of `draws_of_each`.
        bound_name: name of its term `bound`: `elbo`, or that of another lower bound of log p(x).
    """

    smallest_batch: ClassVar[int] = 1
    draws_key: ClassVar[str] = "samples"
    bound_name: ClassVar[str] = "elbo"

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if "__call__" in cls.__dict__:
            cls.__call__ = _within_float32(cls.__call__)

    @property
    @abstractmethod
    def bounds_log_likelihood(self) -> bool:
        """Whether the batch's mean of −cost is, in expectation, at most that of log p(x), for all parameters.

        It refers to the cost after any warm-up.
        """

    @property
    def draws_of_each(self) -> int:
        """Draws of z for each example in a step."""
        return 1

    @abstractmethod
    def __call__(self, vae: VAE, x: Tensor, progress: Progress) -> Terms:
        """Terms of examples x, (B, *shape): `cost`, and others that are recorded, each (B,)."""


def _within_float32(call: Callable[..., Terms]) -> Callable[..., Terms]:
    @wraps(call)
    def within(self: Objective, vae: VAE, x: Tensor, progress: Progress) -> Terms:
        if not torch.is_autocast_enabled(x.device.type):  # without autocast the context would only cost time
            return call(self, vae, x, progress)
        with distributions_in_float32(x.device):
            return call(self, vae, x, progress)

    return within


def reparametrized(q: Distribution, draws: int | None, objective: str) -> Tensor:
    """Draws of z, (draws, B, d), with a gradient to the parameters of q; a single one, (B, d), for None.

    Raises:
        UnsupportedError: if q cannot be reparametrized, naming the objective that does not need it.
    """
    if not q.has_rsample:
        others = "objective=elbo or objective=iwae" if isinstance(q, Stratified) else CURES_WITHOUT_RSAMPLE
        if isinstance(q, OneHotCodes):
            others = "objective=elbo objective.gradient=enumerated, straight-through or score"
        raise UnsupportedError(f"{objective} needs a posterior with rsample, and {_shown(q)} has none; set {others}")
    return q.rsample(torch.Size([] if draws is None else [draws]))


def reparametrized_or_strata(q: Distribution, draws: int | None, objective: str) -> tuple[Tensor, Tensor | None]:
    """The draws of `reparametrized`, or those of all strata of q with the logarithms of their weights, (S, B).

    Raises:
        UnsupportedError: if q has neither.
    """
    if isinstance(q, Stratified):
        return q.strata(draws or 1)
    return reparametrized(q, draws, objective), None


def rate_of(
    q: Distribution,
    prior: Distribution,
    z: Tensor,
    kind: Literal["exact", "monte-carlo"],
    log_weights: Tensor | None = None,
) -> Tensor:
    """KL(q, p(z)) of each example, (B,), in nats: in closed form, or estimated from the draws z, (*draws, B, d).

    Raises:
        UnsupportedError: for `exact`, if these two distributions have no closed form.
    """
    if kind == "monte-carlo":
        log_ratio = q.log_prob(z) - prior.log_prob(z)
        return mean_over_draws(log_ratio.reshape(-1, log_ratio.shape[-1]), log_weights)
    try:
        return kl_divergence(q, prior)
    except NotImplementedError:
        raise UnsupportedError(
            f"KL({_shown(q)}, {_shown(prior)}) has no closed form; set objective.kl=monte-carlo"
        ) from None


def mean_over_draws(values: Tensor, log_weights: Tensor | None = None) -> Tensor:
    """Mean over the draws of values (draws, B), weighted if weights are given; values (B,) are returned as they are."""
    if log_weights is not None:
        return (log_weights.exp() * values).sum(0)
    return values if values.dim() == 1 else values.mean(0)


def log_mean_exp(values: Tensor) -> Tensor:
    """log of the mean of exp over the first dimension."""
    return torch.logsumexp(values, dim=0) - math.log(values.shape[0])


def _shown(distribution: Distribution) -> str:
    return type(distribution.base_dist if isinstance(distribution, Independent) else distribution).__name__
