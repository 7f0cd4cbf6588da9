"""Optimizers and the schedules of their rate, as components.

A schedule is a pure function of the part of the run that is done, so that it needs no state in a checkpoint.
"""

from __future__ import annotations

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Constant",
    "Cosine",
    "OneCycle",
    "Optimizer",
    "Schedule",
    "Stages",
]

import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
from pydantic import Field
from torch import nn

from latentia.configuration import Component, OneOf


class Schedule(Component, family=True):
    """How the rate goes over a run."""

    @abstractmethod
    def factor(self, done: float) -> float:
        """What the rate is multiplied by when the part `done` ∈ [0, 1) of all steps is done."""


class Constant(Schedule):
    """The rate as it is, after a linear warm-up over the first part `warm_up` of the run."""

    warm_up: float = Field(default=0.0, ge=0, lt=1)

    def factor(self, done: float) -> float:
        return _ramp(done, self.warm_up)


class Cosine(Schedule):
    """A linear warm-up, then half a cosine down to `final` times the rate."""

    warm_up: float = Field(default=0.0, ge=0, lt=1)
    final: float = Field(default=0.0, ge=0, le=1)

    def factor(self, done: float) -> float:
        fallen = max(0.0, (done - self.warm_up) / (1 - self.warm_up))
        return _ramp(done, self.warm_up) * (self.final + (1 - self.final) * (1 + math.cos(math.pi * fallen)) / 2)


class OneCycle(Schedule, name="one-cycle"):
    """Half a cosine up over the first part `warm_up` of the run, half a cosine down over the rest (Smith 2018)."""

    warm_up: float = Field(default=0.3, gt=0, lt=1)
    start: float = Field(default=0.04, ge=0, le=1)
    final: float = Field(default=1e-4, ge=0, le=1)

    def factor(self, done: float) -> float:
        if done < self.warm_up:
            return self.start + (1 - self.start) * (1 - math.cos(math.pi * done / self.warm_up)) / 2
        fallen = (done - self.warm_up) / (1 - self.warm_up)
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * fallen)) / 2


class Stages(Schedule):
    """Stages of growing length and falling rate: stage i lasts `growth`^i units at 10^(−i/(count−1)) of the rate.

    With the defaults, eight stages of 3^i epochs at 10^(−i/7): the schedule of Burda et al. 2016, section 5.
    """

    count: int = Field(default=8, ge=2)
    growth: float = Field(default=3.0, gt=1)

    def factor(self, done: float) -> float:
        total = (self.growth**self.count - 1) / (self.growth - 1)
        stage = int(math.log(1 + done * total * (self.growth - 1)) / math.log(self.growth) + 1e-9)
        return 10 ** (-min(stage, self.count - 1) / (self.count - 1))


class Optimizer(Component, family=True):
    """A rule for steps, with a rate and its schedule."""

    lr: float = Field(default=1e-3, gt=0)
    schedule: OneOf[Schedule] = Constant()

    @abstractmethod
    def build(self, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        """torch's optimizer over these parameters, fused where torch has it."""

    def set_lr(self, optimizer: torch.optim.Optimizer, done: float) -> None:
        """Give torch's optimizer the rate of this moment."""
        rate = self.lr * self.schedule.factor(done)
        for group in optimizer.param_groups:
            group["lr"] = rate


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015)."""

    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.999, ge=0, lt=1)
    epsilon: float = Field(default=1e-8, gt=0)

    def build(self, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        fused = _can_fuse(parameters)
        return torch.optim.Adam(parameters, lr=self.lr, betas=(self.beta1, self.beta2), eps=self.epsilon, fused=fused)


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    weight_decay: float = Field(default=0.01, ge=0)

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

    momentum: float = Field(default=0.0, ge=0, lt=1)

    def build(self, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=self.lr, momentum=self.momentum)


def _ramp(done: float, length: float) -> float:
    return min(1.0, done / length) if length else 1.0


def _can_fuse(parameters: Sequence[nn.Parameter]) -> bool:
    return all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in parameters)
