"""Monte Carlo means with their standard errors, streamed in blocks.

Blocks are merged by their counts, means and sums of squared deviations, which loses no digits to cancellation.

Source: Chan, Golub and LeVeque 1983 (the merging rule).
"""

from __future__ import annotations

__all__ = ["RunningMean", "monte_carlo"]

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from latentia.estimate import Estimate


class RunningMean:
    """Mean and variance of numbers, or of arrays of one shape, that arrive in blocks.

    Attributes:
        n: how many have arrived.
        mean: their mean, (*shape), float64.
    """

    def __init__(self, shape: tuple[int, ...] = (), device: torch.device | str = "cpu"):
        self.n = 0
        self.mean = torch.zeros(shape, dtype=torch.float64, device=device)
        self._squares = torch.zeros_like(self.mean)

    def add(self, values: Tensor) -> RunningMean:
        """Take in a block of values, (N, *shape), detached."""
        values = values.detach().to(self.mean.dtype)
        count = len(values)
        mean = values.mean(0)
        step = mean - self.mean
        total = self.n + count
        self._squares = self._squares + (values - mean).square().sum(0) + step.square() * (self.n * count / total)
        self.mean = self.mean + step * (count / total)
        self.n = total
        return self

    @property
    def stderr(self) -> Tensor:
        """Standard error of the mean, s/√n, (*shape); NaN where a value was not finite or n < 2."""
        return (self._squares / (self.n - 1) / self.n).sqrt() if self.n > 1 else torch.full_like(self.mean, torch.nan)

    def estimate(self, **fields: Any) -> Estimate:
        """The mean as an estimate, for an accumulator of shape ()."""
        error = self.stderr.item()
        stderr = error if math.isfinite(error) else None
        return Estimate(self.mean.item(), stderr=stderr, n=self.n, **{"method": "monte carlo", **fields})


def monte_carlo(
    draw: Callable[[int], Tensor], n: int, *, seed: int, block: int = 65_536, name: str = "", unit: str = "nats"
) -> Estimate:
    """Mean of n independent draws.

    Args:
        draw: makes that many independent values, (count,), from torch's global generator. The generator is seeded here
            and put back as it was afterwards; `block` is thus part of what fixes the result.
        n: how many values, at least 2.
        seed: of the generator.
        block: how many to draw at a time.
        name: what the mean is an estimate of.
        unit: of the values.

    Raises:
        ValueError: n is below 2.
    """
    if n < 2:
        raise ValueError(f"monte carlo needs n >= 2 for a standard error; given n = {n}")
    mean = RunningMean()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        while mean.n < n:
            mean.add(draw(min(block, n - mean.n)))
    return mean.estimate(name=name, unit=unit, settings={"seed": seed})
