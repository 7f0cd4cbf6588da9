"""Discriminators of growing capacity, trained on the exact cost between two distributions of the line: the instance for 3c."""

from __future__ import annotations

__all__ = ["PAIR", "TrainedDiscriminator", "trained_discriminator"]

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from latentia.distributions.mixtures import Mixture
from latentia.integration import panel_grid
from latentia.objectives import Minimax
from latentia.theory.game_instances import normal

PAIR = (
    Mixture(torch.tensor([0.5, 0.5], dtype=torch.float64), [normal(-1.5, 0.6), normal(1.5, 0.6)]),
    normal(0.0, 1.2),
)
"""The data's distribution, with two modes, and the generator's, with one in between: no single unit can tell them apart."""
REACH = 4.0  # p and q have less than 1e-3 of their mass beyond ±4


@dataclass(frozen=True)
class TrainedDiscriminator:
    """Its logit, and the largest distance of D to D* over [−4, 4]."""

    logit: Callable[[Tensor], Tensor]
    largest_gap: float


@cache
def trained_discriminator(width: int, seed: int) -> TrainedDiscriminator:
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
    line = torch.linspace(-REACH, REACH, 801, dtype=torch.float64)
    with torch.no_grad():
        gap = torch.sigmoid(logit(line)) - torch.sigmoid(p.log_prob(line) - q.log_prob(line))
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    return TrainedDiscriminator(logit, gap.abs().max().item())
