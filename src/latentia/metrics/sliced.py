r"""The sliced Wasserstein distance: the mean of one-dimensional W₂² over random directions, and its root.

    SW₂² = E_u W₂²(u·x, u·y),  u uniform on the unit sphere            (Rabin et al. 2011; Bonneel et al. 2015)

*Its bias*: from finite samples it comes out too large, the more so the nearer the distributions; compare with the floor of real
samples against real ones at the same n. *Its interval* joins the spread over directions with that over 16 disjoint
pairs of groups of the samples, whose variance over 16 is that of the whole (Politis and Romano 1994).
"""

from __future__ import annotations

__all__ = ["sliced_wasserstein"]

import math

import torch
from torch import Tensor

from latentia.divergences.samples import samples
from latentia.errors import ConfigurationError
from latentia.estimate import Estimate
from latentia.metrics.checks import feature_pair

GROUPS = 16
NUMBERS_AT_ONCE = 4_000_000


def sliced_wasserstein(
    real: Tensor, fake: Tensor, *, directions: int = 256, seed: int = 0, name: str = "sliced_wasserstein"
) -> Estimate:
    """SW₂ of two sets of features, in their own unit, with its standard error; see the module.

    Args:
        real: features (n, D), n ≥ 32.
        fake: (m, D), m ≥ 32.
        directions: how many.
        seed: of the directions.
        name: of the estimate.

    Raises:
        DataError: for too few samples, features that are not finite, of different dimensions, or constant.
        ConfigurationError: for fewer than two directions.
    """
    if directions < 2:
        raise ConfigurationError([("directions", f"{directions} directions have no spread; give at least 2")])
    x, y = feature_pair(real, fake, 2 * GROUPS, "sliced Wasserstein distance")
    generator = torch.Generator().manual_seed(seed)
    u = torch.randn(x.shape[1], directions, generator=generator, dtype=torch.float64)
    u = (u / u.norm(dim=0)).to(x.device)
    squares = _squares(x, y, u)
    by_group = torch.stack([_squares(x[g::GROUPS], y[g::GROUPS], u).mean() for g in range(GROUPS)])
    square = squares.mean().item()
    variance = squares.var().item() / directions + by_group.var().item() / GROUPS
    value = math.sqrt(square)
    error = math.sqrt(variance) / (2 * value) if value > 0 else 0.0
    settings = {"interval": "subsampling", "bias": "upwards", "directions": directions, "seed": seed, "order": 2}
    return Estimate(value, name, error, min(len(x), len(y)), "1", method="random directions", settings=settings)


def _squares(x: Tensor, y: Tensor, u: Tensor) -> Tensor:
    """W₂² along each direction, (D, L) → (L,)."""
    step = max(1, NUMBERS_AT_ONCE // (len(x) + len(y)))
    return torch.cat(
        [samples((x @ some).T.contiguous(), (y @ some).T.contiguous(), 2).square() for some in u.split(step, dim=1)]
    )
