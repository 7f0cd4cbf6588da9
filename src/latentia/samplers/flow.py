"""A normalizing flow fitted to codes by maximum likelihood."""

from __future__ import annotations

__all__ = ["FlowSampler"]

from typing import Any

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.distributions import AffineTransform, Distribution, IndependentTransform

from latentia.distributions import zuko_flows
from latentia.distributions.priors import FlowDistribution
from latentia.samplers.sampler import Sampler, Steps, fit_by_gradient, no_progress, standardization


class FlowSampler(Sampler, name="flow"):
    """A neural spline flow from zuko over standardized codes (Durkan et al. 2019).

    Attributes:
        transforms: layers of the flow.
        hidden: widths of the network in each layer.
        steps: at most; it stops earlier where held-out codes no longer gain.
        batch_size: codes of a step.
        lr: learning rate at the start.
    """

    transforms: PositiveInt = 3
    hidden: tuple[PositiveInt, ...] = (64, 64)
    steps: PositiveInt = 2000
    batch_size: PositiveInt = 256
    lr: float = Field(default=5e-3, gt=0, allow_inf_nan=False)

    def build(self, latent: int) -> nn.Module:
        return _StandardizedFlow(latent, self.transforms, self.hidden)

    def fit(self, module: nn.Module, codes: Tensor, held_out: Tensor, progress: Steps = no_progress) -> None:
        for name, value in standardization(codes).items():
            module.get_buffer(name).copy_(value)
        fit_by_gradient(
            module,
            lambda z: -module().log_prob(z),
            codes,
            held_out,
            steps=self.steps,
            batch_size=self.batch_size,
            lr=self.lr,
            progress=progress,
        )


class _StandardizedFlow(nn.Module):
    """A spline flow of (z − center)/spread, as one flow."""

    center: Tensor
    spread: Tensor

    def __init__(self, latent: int, transforms: int, hidden: tuple[int, ...]):
        super().__init__()
        self.register_buffer("center", torch.zeros(latent))
        self.register_buffer("spread", torch.ones(latent))
        flows = zuko_flows()
        passes = 2 if latent > 1 else 1  # couplings: both directions cost one pass of each network
        splines = flows.NSF(latent, transforms=transforms, hidden_features=hidden, passes=passes)
        first = flows.UnconditionalTransform(self._standardize)
        self.flow: Any = flows.Flow([first, *splines.transform.transforms], splines.base)

    def _standardize(self) -> IndependentTransform:
        return IndependentTransform(AffineTransform(-self.center / self.spread, 1 / self.spread), 1)

    def forward(self, posterior: nn.Module | None = None) -> Distribution:
        return FlowDistribution(self.flow())
