"""Optimizers, the schedules of their learning rate, and averages of the weights that they train.

A schedule is a function of the fraction of the run that is done, so that it needs no state in a checkpoint.
"""

from __future__ import annotations

__all__ = ["SGD", "Adam", "AdamW", "Constant", "Cosine", "OneCycle", "Optimizer"]

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from latentia.configuration import Component, OneOf


class Schedule(Component, family=True):
    """The learning rate over a run, as a factor of `lr`."""

    @abstractmethod
    def factor(self, done: float) -> float:
        """The factor of `lr` when the fraction `done` ∈ [0, 1) of all steps is done."""


class Constant(Schedule):
    """A constant rate, after a linear warm-up over the first fraction `warm_up` of the run."""

    warm_up: float = Field(default=0.0, ge=0, lt=1, description="share of the run over which the rate rises from 0")

    def factor(self, done: float) -> float:
        return _ramp(done, self.warm_up)


class Cosine(Schedule):
    """A linear warm-up, then half a cosine down to `final` times the rate."""

    warm_up: float = Field(default=0.0, ge=0, lt=1, description="share of the run over which the rate rises from 0")
    final: float = Field(default=0.0, ge=0, le=1, description="rate at the end, as a share of lr")

    def factor(self, done: float) -> float:
        fallen = max(0.0, (done - self.warm_up) / (1 - self.warm_up))
        return _ramp(done, self.warm_up) * (self.final + (1 - self.final) * (1 + math.cos(math.pi * fallen)) / 2)


class OneCycle(Schedule, name="one-cycle"):
    """Half a cosine up over the first fraction `warm_up` of the run, half a cosine down over the rest (Smith 2018)."""

    warm_up: float = Field(default=0.3, gt=0, lt=1, description="share of the run over which the rate rises")
    start: float = Field(default=0.04, ge=0, le=1, description="rate at the start, as a share of lr")
    final: float = Field(default=1e-4, ge=0, le=1, description="rate at the end, as a share of lr")

    def factor(self, done: float) -> float:
        if done < self.warm_up:
            return self.start + (1 - self.start) * (1 - math.cos(math.pi * done / self.warm_up)) / 2
        fallen = (done - self.warm_up) / (1 - self.warm_up)
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * fallen)) / 2


class Stages(Schedule):
    """Stages of growing length and falling rate: stage i lasts `growth`^i units at 10^(−i/(count−1)) of the rate.

    With the defaults, eight stages of 3^i epochs at 10^(−i/7): Burda et al. 2016, section 5.
    """

    count: int = Field(default=8, ge=2, description="number of stages")
    growth: float = Field(default=3.0, gt=1, description="length of a stage, in lengths of the one before")

    def factor(self, done: float) -> float:
        total = (self.growth**self.count - 1) / (self.growth - 1)
        stage = int(math.log(1 + done * total * (self.growth - 1)) / math.log(self.growth) + 1e-9)
        return 10 ** (-min(stage, self.count - 1) / (self.count - 1))


class Optimizer(Component, family=True):
    """A rule for steps, with a learning rate and its schedule."""

    lr: float = Field(default=1e-3, gt=0, allow_inf_nan=False, description="learning rate")
    schedule: OneOf[Schedule] = Field(default=Constant(), description="how the rate changes over the run")

    @abstractmethod
    def build(self, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        """torch's optimizer over these parameters, fused where torch has it."""

    def set_lr(self, optimizer: torch.optim.Optimizer, done: float) -> None:
        """Set the learning rate when the fraction `done` of all steps is done."""
        lr = self.lr * self.schedule.factor(done)
        for group in optimizer.param_groups:
            group["lr"] = lr


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015)."""

    beta1: float = Field(default=0.9, ge=0, lt=1, description="decay of the mean of the gradients")
    beta2: float = Field(default=0.999, ge=0, lt=1, description="decay of the mean of their squares")
    epsilon: float = Field(default=1e-8, gt=0, description="added to the root of the mean square")

    def build(self, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        fused = _can_fuse(parameters)
        return torch.optim.Adam(parameters, lr=self.lr, betas=(self.beta1, self.beta2), eps=self.epsilon, fused=fused)


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    weight_decay: float = Field(default=0.01, ge=0, description="decay of the weights, times the rate, in each step")

    def build(self, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        fused = _can_fuse(parameters)
        return torch.optim.AdamW(
            parameters,
            lr=self.lr,
            betas=(self.beta1, self.beta2),
            eps=self.epsilon,
            weight_decay=self.weight_decay,
            fused=fused,
        )


class SGD(Optimizer):
    """Stochastic gradient descent with momentum."""

    momentum: float = Field(default=0.0, ge=0, lt=1, description="share of the last step that is kept")

    def build(self, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=self.lr, momentum=self.momentum)


def _ramp(done: float, length: float) -> float:
    return min(1.0, done / length) if length else 1.0


def _can_fuse(parameters: Sequence[nn.Parameter]) -> bool:
    return all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in parameters)


class AveragedWeights:
    """Exponential moving average of a model's floating-point state: θ̄ ← d θ̄ + (1 − d) θ; other buffers are copied.

    The decay of step t = 1, 2, … is min(d, (1 + t)/(10 + t)), so that the average forgets the random start. It refers
    to the model's tensors, which training changes in place: a model whose tensors are replaced (moved to another
    device) needs a new average.

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
        """Include the weights after `step` steps."""
        if self._averages:
            get_ema_multi_avg_fn(min(self.decay, (1 + step) / (10 + step)))(self._averages, self._weights, step)
        for name in self._others:
            self.state[name].copy_(self._current[name])

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Restore a saved average."""
        for name, value in self.state.items():
            value.copy_(state[name])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the average into the model inside the block."""
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
