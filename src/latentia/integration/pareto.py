r"""The Pareto shape k̂ of importance weights: how heavy their tail is.

The largest weights are fitted by a generalized Pareto distribution with shape k. Moments of order ≥ 1/k do not exist:
for k > ½ the weights have no variance, and above 0.7 no practical number of draws gives a usable estimate (Vehtari et
al. 2024, section 3). The shape is found by the empirical Bayes rule of Zhang and Stephens (2009): the profile
likelihood in θ = −k/σ is averaged over a prior grid, which needs no optimizer and works for every k.
"""

from __future__ import annotations

__all__ = ["K_HAT_LIMIT", "pareto_k"]

import math

import torch
from torch import Tensor

K_HAT_LIMIT = 0.7
SMALLEST_TAIL = 5


def fit_generalized_pareto(excess: Tensor) -> tuple[Tensor, Tensor]:
    """Shape k and scale σ of generalized Pareto distributions, density (1 + k y/σ)^(−1/k − 1)/σ.

    Args:
        excess: positive samples, (…, M), in rising order.

    Returns:
        k and σ, (…), float64; k without the weak prior that `pareto_k` adds.
    """
    y = excess.double()
    m = y.shape[-1]
    grid = 30 + math.isqrt(m)
    quartile = y[..., max(0, math.floor(m / 4 + 0.5) - 1)].clamp_min(torch.finfo(torch.float64).tiny)
    j = torch.arange(1, grid + 1, dtype=torch.float64, device=y.device)
    theta = 1 / y[..., -1:] + (1 - torch.sqrt(grid / (j - 0.5))) / (3 * quartile[..., None])
    shape = torch.log1p(-theta[..., None] * y[..., None, :]).mean(-1)  # k(θ), (…, grid)
    log_likelihood = m * ((-theta / shape).log() - shape - 1)
    weight = log_likelihood.softmax(-1)
    best = (weight * theta).sum(-1)
    k = torch.log1p(-best[..., None] * y).mean(-1)
    return k, -k / best


def pareto_k(log_weights: Tensor, tail: int | None = None) -> Tensor:
    """k̂ of importance weights, for each row.

    Args:
        log_weights: (…, K), in nats, not normalized.
        tail: how many of the largest to fit; min(K/5, 3√K) if not given.

    Returns:
        k̂, (…), float64, shrunk toward ½ by ten pseudo-observations, as Vehtari et al. do. A tail of equal weights has
        k̂ = −∞. With fewer than 25 draws there is no tail to fit, and k̂ is +∞.
    """
    count = log_weights.shape[-1]
    tail = min(count // 5, math.ceil(3 * math.sqrt(count))) if tail is None else tail
    if tail < SMALLEST_TAIL:
        return torch.full(log_weights.shape[:-1], torch.inf, dtype=torch.float64, device=log_weights.device)
    top = log_weights.double().topk(tail + 1, dim=-1).values.flip(-1)  # rising; the first is the threshold
    scaled = (top - top[..., -1:]).exp()
    excess = scaled[..., 1:] - scaled[..., :1]
    flat = excess[..., -1] <= 1e-12
    k, _ = fit_generalized_pareto(
        torch.where(flat[..., None], torch.ones_like(excess).cumsum(-1), excess.clamp_min(1e-300))
    )
    k = (tail * k + 10 * 0.5) / (tail + 10)
    return torch.where(flat, torch.full_like(k, -torch.inf), k)
