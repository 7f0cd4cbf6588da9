"""A VAE with z ∈ R² small enough to train in a second and to integrate on a grid: the instance for 1c, 1e and 1f.

Everything is in float64: what is compared are integrals, and their errors should be the grid's and not the floats'.
"""

from __future__ import annotations

__all__ = ["Reached", "SmallVAE", "reached_by_bound", "reached_directly"]

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from latentia.distributions import Bernoulli
from latentia.integration import Grid, LogSumExp, regular_grid
from latentia.models import VAE
from latentia.theory.instances import binary_digits

SHAPE = (1, 8, 8)
STEPS = 250
IMAGES = 200
TRAINING_SPACING = 0.45
REACH = 6.0  # the prior's mass beyond a box of this half-width is below 4e-9


class SmallVAE:
    """A VAE on 8×8 images with one hidden layer each way, in float64."""

    def __init__(self, seed: int, hidden: int = 24):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.Tanh(), nn.Linear(hidden, 4))
            decoder = nn.Sequential(nn.Linear(2, hidden), nn.Tanh(), nn.Linear(hidden, 64), nn.Unflatten(1, SHAPE))
        self.vae = VAE(encoder, decoder, latent=2, image_shape=SHAPE, likelihood=Bernoulli()).double()

    def log_joint_table(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x, z) of every image with every point: x (B, 64), z (n, 2) → (B, n), by one matrix product."""
        logits = self.vae.likelihood.emit(z).flatten(1)
        return x @ logits.T - nn.functional.softplus(logits).sum(-1) + self.prior.log_prob(z)

    @property
    def prior(self) -> Distribution:
        """N(0, I) over R², in float64."""
        zero = torch.zeros(2, dtype=torch.float64)
        return Independent(Normal(zero, torch.ones_like(zero)), 1)

    def log_evidence(self, x: Tensor, spacing: float) -> Tensor:
        """log p(x) by the trapezoid rule on a regular grid, (B,)."""
        total = LogSumExp((len(x),))
        with torch.no_grad():
            for z, log_weight in _grid(spacing).blocks():
                total.add(self.log_joint_table(x, z) + log_weight)
        return total.value

    def bound_and_slack(self, x: Tensor, spacing: float) -> tuple[Tensor, Tensor]:
        """The bound of each image, and KL(q, p(z|x)), each by integrals against q of their own: (B,) and (B,)."""
        log_evidence = self.log_evidence(x, spacing)
        with torch.no_grad():
            q = self.vae.encode(x.view(-1, *SHAPE))
            standard = regular_grid((-9.0, -9.0), (9.0, 9.0), spacing)
            bound, slack = torch.zeros(len(x), dtype=torch.float64), torch.zeros(len(x), dtype=torch.float64)
            for u, log_weight in standard.blocks():
                for i in range(len(x)):
                    z = q.mean[i] + q.stddev[i] * u
                    # q's own density times the area that a cell of u has in z
                    mass = (-0.5 * u.square().sum(-1) - math.log(2 * math.pi) + log_weight).exp()
                    log_q = -0.5 * u.square().sum(-1) - math.log(2 * math.pi) - q.stddev[i].log().sum()
                    log_joint = self.log_joint_table(x[i : i + 1], z)[0]
                    bound[i] += (mass * (log_joint - log_q)).sum()
                    slack[i] += (mass * (log_q - (log_joint - log_evidence[i]))).sum()
        return bound, slack


@dataclass(frozen=True)
class Reached:
    """What a way of training came to: the model, and how often it asked its decoder for one z."""

    model: SmallVAE
    decoder_evaluations: int


@cache
def reached_by_bound(seed: int, steps: int = STEPS) -> Reached:
    """Train by the evidence lower bound, one draw of z for each image."""
    model, x = SmallVAE(seed), binary_digits(IMAGES)
    optimiser = torch.optim.Adam(model.vae.parameters(), lr=2e-2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in range(steps):
            optimiser.zero_grad()
            q = model.vae.encode(x.view(-1, *SHAPE))
            z = q.rsample()
            logits = model.vae.likelihood.emit(z).flatten(1)
            distortion = nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(-1)
            (distortion + torch.distributions.kl_divergence(q, model.prior)).mean().backward()
            optimiser.step()
    return Reached(model, steps * len(x))


@cache
def reached_directly(seed: int, steps: int = STEPS) -> Reached:
    """Train the decoder alone, with no encoder: maximise log p(x) by quadrature on a randomly shifted grid."""
    model, x = SmallVAE(seed), binary_digits(IMAGES)
    optimiser = torch.optim.Adam(model.vae.likelihood.parameters(), lr=2e-2)
    z, log_weight = _grid(TRAINING_SPACING, 4.0).points(), _grid(TRAINING_SPACING, 4.0).log_weights()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in range(steps):
            optimiser.zero_grad()
            shift = TRAINING_SPACING * (torch.rand(2, dtype=torch.float64) - 0.5)
            (-(model.log_joint_table(x, z + shift) + log_weight).logsumexp(-1).mean()).backward()
            optimiser.step()
    return Reached(model, steps * len(z))


def _grid(spacing: float, reach: float = REACH) -> Grid:
    return regular_grid((-reach, -reach), (reach, reach), spacing)
