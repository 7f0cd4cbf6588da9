r"""The sliced Wasserstein distance: the mean of one-dimensional W₂² over random directions, and its root.

    SW₂² = E_u W₂²(u·x, u·y),  u uniform on the unit sphere            (Rabin et al. 2011; Bonneel et al. 2015)

*Bias*: finite samples make it too large, most of all for nearly equal distributions; compare it with the value of real
against real images at the same n. *Standard error*: the variance over directions plus the variance over 16 disjoint
pairs of groups of samples, divided by 16 (subsampling: Politis and Romano 1994).
"""

from __future__ import annotations

__all__ = ["SlicedWasserstein", "sliced_wasserstein"]

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from latentia.divergences.empirical import costs_along
from latentia.errors import ConfigurationError
from latentia.estimate import Estimate
from latentia.metrics.metric import BOTH, Metric, MetricInputs, checked_pair

_GROUPS = 16


class SlicedWasserstein(Metric):
    """The sliced Wasserstein distance of order 2."""

    directions: int = Field(default=256, ge=2, description="random directions of projection")
    higher_is_better: ClassVar[dict[str, int]] = {"sliced_wasserstein": -1}
    measures: ClassVar[dict[str, str]] = {"sliced_wasserstein": BOTH}

    def __call__(self, inputs: MetricInputs) -> list[Estimate]:
        return [sliced_wasserstein(inputs.real, inputs.fake, directions=self.directions, seed=inputs.seed)]


def sliced_wasserstein(
    real: Tensor, fake: Tensor, *, directions: int = 256, seed: int = 0, name: str = "sliced_wasserstein"
) -> Estimate:
    """SW₂ between two sets of features, in the unit of the features, with its standard error; see the module.

    Args:
        real: features (n, D), n ≥ 32.
        fake: (m, D), m ≥ 32.
        directions: number of random directions.
        seed: of the directions.
        name: of the estimate.

    Raises:
        DataError: for too few samples, features that are not finite, of different dimensions, or constant.
        ConfigurationError: for fewer than two directions.
    """
    if directions < 2:
        raise ConfigurationError([("directions", f"{directions} directions have no spread; give at least 2")])
    x, y = checked_pair(real, fake, 2 * _GROUPS, "sliced Wasserstein distance")
    generator = torch.Generator().manual_seed(seed)
    u = torch.randn(x.shape[1], directions, generator=generator, dtype=torch.float64)
    u = (u / u.norm(dim=0)).T.to(x.device)
    squares = costs_along(x, y, u, 2)
    by_group = torch.stack([costs_along(x[g::_GROUPS], y[g::_GROUPS], u, 2).mean() for g in range(_GROUPS)])
    square = squares.mean().item()
    variance = squares.var().item() / directions + by_group.var().item() / _GROUPS
    value = math.sqrt(square)
    error = math.sqrt(variance) / (2 * value) if value > 0 else 0.0
    settings = {"interval": "subsampling", "bias": "upwards", "directions": directions, "seed": seed, "order": 2}
    return Estimate(value, name, error, min(len(x), len(y)), "1", method="random directions", settings=settings)
