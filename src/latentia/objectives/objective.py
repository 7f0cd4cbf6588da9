"""What an objective is: named terms, one number for each example, and whether they bound log p(x).

An objective never reduces over the batch: it returns a dictionary of tensors of shape (B,), and the engine alone takes
means. The term `cost` is what is minimised; all terms are recorded.
"""

from __future__ import annotations

__all__ = ["Clock", "Objective", "Terms", "log_mean_exp", "rate_of"]

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.distributions import Distribution, kl_divergence

from latentia.configuration import Component
from latentia.errors import CannotServe
from latentia.models import VAE

Terms = dict[str, Tensor]
"""Named terms of shape (B,), in nats; `cost` is the one to minimise."""


@dataclass(frozen=True, slots=True)
class Clock:
    """When a cost is computed.

    Attributes:
        step: steps finished so far.
        epoch: passes through the training data finished so far, as a fraction.
        data_size: number of training examples.
    """

    step: int = 0
    epoch: float = 0.0
    data_size: int = 1


class Objective(Component, family=True):
    """What a VAE is trained on."""

    @property
    @abstractmethod
    def bounds_log_likelihood(self) -> bool:
        """Whether −cost is a lower bound of log p(x) in expectation, whatever the model's parameters."""

    @abstractmethod
    def __call__(self, vae: VAE, x: Tensor, clock: Clock) -> Terms:
        """Terms of images x, (B, C, H, W): `cost`, and others that are recorded, each (B,)."""


def rate_of(q: Distribution, prior: Distribution, z: Tensor, kind: Literal["exact", "monte-carlo"]) -> Tensor:
    """KL(q, p(z)) of each example, in nats, (B,): in closed form, or by the draws z, (*draws, B, d), if asked by name.

    Raises:
        CannotServe: if it is asked for exactly and these two laws have no closed form.
    """
    if kind == "monte-carlo":
        difference = q.log_prob(z) - prior.log_prob(z)
        return difference.flatten(0, -2).mean(0) if difference.dim() > 1 else difference
    try:
        return kl_divergence(q, prior)
    except NotImplementedError:
        raise CannotServe(
            f"KL({_shown(q)}, {_shown(prior)}) has no closed form; set objective.kl=monte-carlo"
        ) from None


def log_mean_exp(values: Tensor) -> Tensor:
    """log of the mean of exp over the first dimension."""
    return torch.logsumexp(values, dim=0) - math.log(values.shape[0])


def _shown(law: Distribution) -> str:
    base = getattr(law, "base_dist", None)
    return type(base if base is not None else law).__name__
