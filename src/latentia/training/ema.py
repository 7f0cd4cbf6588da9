"""Averaged weights: θ̄ ← d θ̄ + (1 − d) θ after each step, with the usual correction for a young average.

The decay of step t is min(d, (1 + t)/(10 + t)), so that the average forgets the random start.
"""

from __future__ import annotations

__all__ = ["AveragedWeights"]

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class AveragedWeights:
    """The running average of a model's floating-point state; other buffers are copied."""

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.model = model
        self.state = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take the weights after `step` steps into the average."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        averaged, current = [], []
        for name, value in self.model.state_dict().items():
            if value.is_floating_point():
                averaged.append(self.state[name])
                current.append(value)
            else:
                self.state[name].copy_(value)
        torch._foreach_lerp_(averaged, current, weight)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the average into the model for the length of the block."""
        own: dict[str, Tensor] = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self.model.load_state_dict(self.state)
        try:
            yield
        finally:
            self.model.load_state_dict(own)
