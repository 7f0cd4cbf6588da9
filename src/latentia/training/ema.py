"""Averaged weights: θ̄ ← d θ̄ + (1 − d) θ after each step, with the usual correction for a young average.

The decay of step t = 1, 2, … is min(d, (1 + t)/(10 + t)), so that the average forgets the random start.
"""

from __future__ import annotations

__all__ = ["AveragedWeights"]

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class AveragedWeights:
    """The running average of a model's floating-point state; other buffers are copied.

    It holds on to the model's tensors, which training changes in place: a model whose tensors are replaced (moved to
    another device) needs a new average.

    Args:
        model: whose weights.
        decay: d above.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self._current = {name: value.detach() for name, value in model.state_dict().items()}
        self.state = {name: value.clone() for name, value in self._current.items()}
        moving = [name for name, value in self._current.items() if value.is_floating_point()]
        self._averages, self._weights = ([part[name] for name in moving] for part in (self.state, self._current))
        self._others = [name for name in self._current if name not in set(moving)]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take the weights after `step` steps into the average."""
        torch._foreach_lerp_(self._averages, self._weights, 1 - min(self.decay, (1 + step) / (10 + step)))
        for name in self._others:
            self.state[name].copy_(self._current[name])

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from an average that was saved."""
        for name, value in self.state.items():
            value.copy_(state[name])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the average into the model for the length of the block."""
        own = {name: value.clone() for name, value in self._current.items()}
        self._put(self.state)
        try:
            yield
        finally:
            self._put(own)

    @torch.no_grad()
    def _put(self, state: Mapping[str, Tensor]) -> None:
        for name, value in self._current.items():
            value.copy_(state[name])
