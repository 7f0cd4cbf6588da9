"""Pairs of distributions that the statements of chapter 3 are checked on, and the cost of a discriminator between them."""

from __future__ import annotations

__all__ = ["LOG_2", "LOG_4", "Logit", "cost_of", "normal", "pairs", "uniform"]

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.distributions import Distribution, Laplace, Normal, Uniform

from latentia.distributions.mixtures import Mixture
from latentia.divergences.quadrature import breakpoints
from latentia.estimate import Estimate
from latentia.integration import integrate
from latentia.objectives import Minimax
from latentia.theory.instances import generator_of

LOG_2, LOG_4 = math.log(2), math.log(4)
Logit = Callable[[Tensor], Tensor]


def normal(mean: float, scale: float) -> Normal:
    """N(mean, scale²), in float64."""
    numbers = torch.tensor([mean, scale], dtype=torch.float64)
    return Normal(numbers[0], numbers[1])


def uniform(low: float, high: float | None = None) -> Uniform:
    """U[low, high], high being low + 1 unless given, in float64."""
    ends = torch.tensor([low, low + 1 if high is None else high], dtype=torch.float64)
    return Uniform(ends[0], ends[1])


def cost_of(logit: Logit, p: Distribution, q: Distribution, name: str = "C(D)") -> Estimate:
    """The cost E_p[softplus(−t)] + E_q[softplus(t)] of distributions on the line, by quadrature of the library's loss."""

    def density_times_cost(x: Tensor) -> Tensor:
        t, silent = logit(x), torch.zeros(1, dtype=x.dtype)
        on_data = Minimax().discriminator(t, silent) - LOG_2  # the part of the real example alone
        on_generated = Minimax().discriminator(silent, t) - LOG_2
        return p.log_prob(x).exp() * on_data + q.log_prob(x).exp() * on_generated

    return integrate(density_times_cost, breakpoints(p, q), name=name, tolerance=1e-11)


def pairs(seed: int) -> Iterator[tuple[str, Distribution, Distribution]]:
    """Pairs of distributions of the line, with their names."""
    generator = generator_of(seed)
    a, b, r, s = (torch.rand(4, dtype=torch.float64, generator=generator) + 0.5).unbind()
    both = Mixture(torch.tensor([0.3, 0.7], dtype=torch.float64), [Normal(-2 * a, r), Normal(2 * b, s)])
    yield "normals", Normal(a, r), Normal(-b, s)
    yield "Laplace, normal", Laplace(a, r), Normal(b, s)
    yield "mixture, normal", both, Normal(a, 1 + r)
