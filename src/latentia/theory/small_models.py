"""Small trained models: a VAE with z ∈ R² for items 1c, 1e and 1f, and discriminators on the line for item 3c.

They train in about a second and are integrated on grids, in float64, so that rounding is below the error of the grid.
"""

from __future__ import annotations

__all__ = ["reached_by_bound", "reached_directly"]

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from latentia.distributions import Bernoulli
from latentia.distributions.mixtures import Mixture
from latentia.integration import Grid, LogSumExp, panel_grid, regular_grid
from latentia.models import VAE
from latentia.objectives import Minimax
from latentia.theory.instances import binary_digits, normal

SHAPE = (1, 8, 8)
STEPS = 250
IMAGES = 200
TRAINING_SPACING = 0.45
LOOKED_AT = (10, 30, 80)  # steps at which log p(x) is taken on the way
SPACING = 0.1  # of the grid for log p(x): moving to 0.05 moves no image by more than 1e-3 nats
REACH = 6.0  # the prior's mass beyond a box of this half-width is below 4e-9


class SmallVAE:
    """A VAE on 8×8 images with one hidden layer each way, in float64."""

    def __init__(self, seed: int, hidden: int = 24):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.Tanh(), nn.Linear(hidden, 4))
            decoder = nn.Sequential(nn.Linear(2, hidden), nn.Tanh(), nn.Linear(hidden, 64), nn.Unflatten(1, SHAPE))
        self.vae = VAE(encoder, decoder, latent=2, event_shape=SHAPE, likelihood=Bernoulli()).double()

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

    @torch.no_grad()
    def bound(self, x: Tensor, spacing: float) -> Tensor:
        """E_q[log p(x|z)] − KL(q, p(z)) of each image, (B,): by a grid laid by q, and in closed form."""
        q = self.vae.encode(x.view(-1, *SHAPE))
        expected = torch.zeros(len(x), dtype=torch.float64)
        for u, log_weight in regular_grid((-9.0, -9.0), (9.0, 9.0), spacing).blocks():
            mass = (-0.5 * u.square().sum(-1) - math.log(2 * math.pi) + log_weight).exp()
            for i in range(len(x)):
                z = q.mean[i] + q.stddev[i] * u
                expected[i] += mass @ (self.log_joint_table(x[i : i + 1], z)[0] - self.prior.log_prob(z))
        return expected - torch.distributions.kl_divergence(q, self.prior)

    @torch.no_grad()
    def divergence_from_posterior(self, x: Tensor, spacing: float) -> Tensor:
        """KL(q, p(z|x)) of each image, (B,), with the posterior and the integral both on one grid over the plane."""
        q = self.vae.encode(x.view(-1, *SHAPE))
        log_evidence = self.log_evidence(x, spacing)
        total = torch.zeros(len(x), dtype=torch.float64)
        for z, log_weight in _grid(spacing).blocks():
            log_q = q.log_prob(z.unsqueeze(1)).T
            log_posterior = self.log_joint_table(x, z) - log_evidence[:, None]
            total += ((log_q + log_weight).exp() * (log_q - log_posterior)).sum(-1)
        return total


@dataclass(frozen=True)
class Reached:
    """What a way of training came to.

    Attributes:
        model: at the end.
        decoder_evaluations: how often the decoder was asked for one z, in all.
        path: at some steps on the way, the evaluations spent and the mean exact log p(x) in nats.
    """

    model: SmallVAE
    decoder_evaluations: int
    path: list[tuple[int, float]]


@cache
def reached_by_bound(seed: int, steps: int = STEPS) -> Reached:
    """Train by the evidence lower bound, one draw of z for each image."""
    model, x = SmallVAE(seed), binary_digits(IMAGES)

    def cost() -> Tensor:
        q = model.vae.encode(x.view(-1, *SHAPE))
        logits = model.vae.likelihood.emit(q.rsample()).flatten(1)
        distortion = nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(-1)
        return (distortion + torch.distributions.kl_divergence(q, model.prior)).mean()

    return _trained(model, x, cost, seed, steps, evaluations=len(x))


@cache
def reached_directly(seed: int, steps: int = STEPS) -> Reached:
    """Train the decoder alone, with no encoder: maximize log p(x) by quadrature on a randomly shifted grid."""
    model, x = SmallVAE(seed), binary_digits(IMAGES)
    grid = _grid(TRAINING_SPACING, 4.0)
    z, log_weight = grid.points(), grid.log_weights()

    def cost() -> Tensor:
        shift = TRAINING_SPACING * (torch.rand(2, dtype=torch.float64) - 0.5)
        return -(model.log_joint_table(x, z + shift) + log_weight).logsumexp(-1).mean()

    return _trained(model, x, cost, seed, steps, evaluations=len(z))


def _trained(
    model: SmallVAE, x: Tensor, cost: Callable[[], Tensor], seed: int, steps: int, evaluations: int
) -> Reached:
    """Adam on a cost that asks the decoder for that many z at each step."""
    optimizer = torch.optim.Adam(model.vae.parameters(), lr=2e-2)
    path: list[tuple[int, float]] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for step in range(1, steps + 1):
            optimizer.zero_grad()
            cost().backward()
            optimizer.step()
            if step in LOOKED_AT or step == steps:
                path.append((step * evaluations, model.log_evidence(x, SPACING).mean().item()))
    return Reached(model, steps * evaluations, path)


def _grid(spacing: float, reach: float = REACH) -> Grid:
    return regular_grid((-reach, -reach), (reach, reach), spacing)


PAIR = (
    Mixture(torch.tensor([0.5, 0.5], dtype=torch.float64), [normal(-1.5, 0.6), normal(1.5, 0.6)]),
    normal(0.0, 1.2),
)
"""The data have two modes, the generator one between them, so that a single hidden unit cannot separate them."""
LINE = 4.0  # p and q have less than 1e-3 of their mass beyond ±4


@dataclass(frozen=True)
class _TrainedDiscriminator:
    """Its logit, and the largest distance of D to D* over [−4, 4]."""

    logit: Callable[[Tensor], Tensor]
    largest_gap: float


@cache
def trained_discriminator(width: int, seed: int) -> _TrainedDiscriminator:
    """Train a network of one hidden layer by L-BFGS on the cost of item 3a, as an integral by Gauss's rule.

    Args:
        width: units of the hidden layer.
        seed: of the start.
    """
    p, q = PAIR
    grid = panel_grid([[-8.0, 8.0]], panels=20, order=8)
    x, weight = grid.points()[:, 0], grid.weights[0]
    mass_p, mass_q = weight * p.log_prob(x).exp(), weight * q.log_prob(x).exp()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        hidden = nn.Linear(1, width)
        with torch.no_grad():  # spread the units over the range, so that none starts idle
            hidden.weight.mul_(2)
            hidden.bias.uniform_(-3, 3)
        network = nn.Sequential(hidden, nn.Tanh(), nn.Linear(width, 1)).double()
    optimizer = torch.optim.LBFGS(
        network.parameters(), max_iter=300, tolerance_grad=1e-9, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )
    silent = torch.zeros(1, dtype=torch.float64)

    def logit(points: Tensor) -> Tensor:
        return network(points.unsqueeze(-1)).squeeze(-1)

    def closure() -> Tensor:
        optimizer.zero_grad()
        t = logit(x)
        cost = mass_p @ Minimax().discriminator(t, silent) + mass_q @ Minimax().discriminator(silent, t)
        cost.backward()
        return cost

    optimizer.step(closure)
    line = torch.linspace(-LINE, LINE, 801, dtype=torch.float64)
    with torch.no_grad():
        gap = torch.sigmoid(logit(line)) - torch.sigmoid(p.log_prob(line) - q.log_prob(line))
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    return _TrainedDiscriminator(logit, gap.abs().max().item())
