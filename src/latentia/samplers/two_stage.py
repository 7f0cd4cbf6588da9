"""A second VAE, of the codes of the first."""

from __future__ import annotations

__all__ = ["TwoStageSampler"]

import math
from typing import Any, cast

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from latentia.distributions import GaussianLearnedScale
from latentia.errors import UnsupportedError
from latentia.models import VAE
from latentia.networks import MLP
from latentia.objectives import ELBO, Progress
from latentia.samplers.sampler import Sampler, Steps, fit_by_gradient, no_progress, standardization


class TwoStageSampler(Sampler, name="two-stage"):
    """The second stage of the two-stage VAE (Dai and Wipf 2019, section 4).

    z ~ p(z|u), u ~ N(0, I) of the dimension of z, a Gaussian p(z|u) with one learned scale. Its density is an integral
    over u, so that log p̂(z) is known from below only.

    Attributes:
        hidden: widths of the hidden layers.
        steps: at most; it stops earlier where held-out codes no longer gain.
        batch_size: codes of a step.
        lr: learning rate at the start.
    """

    hidden: tuple[PositiveInt, ...] = (256, 256)
    steps: PositiveInt = 3000
    batch_size: PositiveInt = 256
    lr: float = Field(default=2e-3, gt=0, allow_inf_nan=False)

    @property
    def has_density(self) -> bool:
        return False

    def build(self, latent: int) -> nn.Module:
        return _SecondStage(latent, self.hidden)

    def fit(self, module: nn.Module, codes: Tensor, held_out: Tensor, progress: Steps = no_progress) -> None:
        second = cast(_SecondStage, module)
        for name, value in standardization(codes).items():
            second.get_buffer(name).copy_(value)
        objective = ELBO()
        fit_by_gradient(
            second,
            lambda z: objective(second.vae, second.standardize(z), Progress())["cost"],
            codes,
            held_out,
            steps=self.steps,
            batch_size=self.batch_size,
            lr=self.lr,
            progress=progress,
        )

    def held_out_log_prob(self, module: nn.Module, codes: Tensor) -> Tensor:
        second = cast(_SecondStage, module)
        return second.vae.elbo(second.standardize(codes), samples=20) - second.spread.log().sum()


class _SecondStage(nn.Module):
    """z = center + spread · v, with v from a VAE."""

    center: Tensor
    spread: Tensor

    def __init__(self, latent: int, hidden: tuple[int, ...]):
        super().__init__()
        network = MLP(hidden=hidden)
        self.vae = VAE(
            network.encoder((latent,), 2 * latent),
            network.decoder(latent, (latent,)),
            latent=latent,
            event_shape=(latent,),
            likelihood=GaussianLearnedScale(initial_scale=0.5),
        )
        self.register_buffer("center", torch.zeros(latent))
        self.register_buffer("spread", torch.ones(latent))

    def standardize(self, z: Tensor) -> Tensor:
        """(z − center)/spread."""
        return (z - self.center) / self.spread

    def forward(self, posterior: nn.Module | None = None) -> Distribution:
        return _SampledDistribution(self)


class _SampledDistribution(Distribution):
    """The distribution of the second stage's samples: it can be sampled, and has no density in closed form."""

    arg_constraints = {}  # noqa: RUF012  # pyright: ignore

    def __init__(self, stage: _SecondStage):
        self._stage = stage
        super().__init__(event_shape=stage.center.shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.real_vector

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape = torch.Size(sample_shape)
        drawn = self._stage.vae.sample(math.prod(shape))
        return (self._stage.center + self._stage.spread * drawn).reshape(*shape, *self.event_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        raise UnsupportedError(
            "the density of a two-stage sampler is an integral without a closed form; use --sampler mixture or flow "
            "for likelihoods (in Python sampler='mixture')"
        )
