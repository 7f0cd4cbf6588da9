r"""Diversity: the mean distance between two samples, relative to that between two real images.

    ratio = E|y − y′| / E|x − x′|,      1 for equal distributions, below 1 where samples are less varied.

It uses all pairs. It detects a lack of variety as a whole; it cannot detect dropped modes when other modes spread out.
*Standard error*: each mean is a U-statistic with variance 4 Var(E[|y − y′| | y])/n; the delta method gives that of the
ratio. The means are unbiased, the ratio up to 1/n.
"""

from __future__ import annotations

__all__ = ["Diversity", "diversity"]

import math
from typing import ClassVar

import torch
from torch import Tensor

from latentia.estimate import Estimate
from latentia.metrics.distances import BLOCK, centered, squared_blocks
from latentia.metrics.metric import COVERAGE, Metric, MetricInputs, checked_pair


class Diversity(Metric):
    """The ratio of mean pairwise distances."""

    higher_is_better: ClassVar[dict[str, int]] = {"diversity": 0}
    measures: ClassVar[dict[str, str]] = {"diversity": COVERAGE}

    def __call__(self, inputs: MetricInputs) -> list[Estimate]:
        return [diversity(inputs.real, inputs.fake)]


def diversity(real: Tensor, fake: Tensor, *, block: int = BLOCK, name: str = "diversity") -> Estimate:
    """Ratio of the mean pairwise distance of fake samples to that of real ones.

    Args:
        real: features (n, D), n ≥ 3.
        fake: (m, D), m ≥ 3.
        block: rows of the distance matrix in memory at a time.
        name: of the estimate.

    Raises:
        DataError: for too few samples, features that are not finite, of different dimensions, or constant.
    """
    x, y = checked_pair(real, fake, 3, "diversity")
    (real_mean, real_error), (fake_mean, fake_error) = (_mean_distance(z, block) for z in (x, y))
    ratio = fake_mean / real_mean
    error = math.hypot(fake_error / real_mean, ratio * real_error / real_mean)
    settings = {"interval": "U-statistic", "bias": "none", "real": real_mean, "fake": fake_mean}
    return Estimate(ratio, name, error, min(len(x), len(y)), "1", method="mean pairwise distances", settings=settings)


def _mean_distance(x: Tensor, block: int) -> tuple[float, float]:
    """Mean distance between two different samples, and its standard error."""
    (x,) = centered(x)
    n, means = len(x), []
    for rows, squares in squared_blocks(x, x, block):
        index = torch.arange(len(squares), device=x.device)
        squares[index, index + rows.start] = 0.0
        means.append(squares.clamp_(min=0).sqrt().sum(1) / (n - 1))
    each = torch.cat(means)
    return each.mean().item(), 2 * each.std().item() / math.sqrt(n)
