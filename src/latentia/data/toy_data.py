"""Points drawn afresh from a toy distribution, in the place where images have their splits."""

from __future__ import annotations

__all__ = ["ToyData"]

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.distributions import Distribution


@dataclass(frozen=True, eq=False)
class ToyData:
    """A distribution to draw from without end: no draw comes twice, so every draw is held out from those before it.

    Attributes:
        distribution: with log_prob in nats, event shape (d,).
        content_hash: of the setting that made the distribution.
        classes: none; points have no labels.
    """

    distribution: Distribution
    content_hash: str
    classes: tuple[str, ...] = field(default=())

    @property
    def shape(self) -> tuple[int, ...]:
        """(d,)."""
        return tuple(self.distribution.event_shape)

    def sample(self, n: int) -> Tensor:
        """n points, (n, d), float32, by torch's global generator."""
        return self.distribution.sample(torch.Size([n]))
