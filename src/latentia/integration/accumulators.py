"""Sums and means of terms that arrive in blocks, for more terms than memory holds."""

from __future__ import annotations

__all__ = ["LogSumExp", "RunningMean"]

import math
from typing import Any

import torch
from torch import Tensor

from latentia.estimate import Estimate


class LogSumExp:
    """log Σ exp(terms) for a batch of sums, such as log p(x) for many images x over blocks of z.

    The running maximum is kept with the sum of exp(term − maximum), and the sum is rescaled when the maximum rises. No
    exponential overflows, and the error is that of float64 alone.

    Examples:
        >>> total = LogSumExp((2,))
        >>> total.add(torch.zeros(2, 3)).add(torch.zeros(2, 5)).value.exp().round()
        tensor([8., 8.], dtype=torch.float64)
    """

    def __init__(self, shape: tuple[int, ...] = (), device: torch.device | str = "cpu"):
        self.maximum = torch.full(shape, -torch.inf, dtype=torch.float64, device=device)
        self.sum = torch.zeros(shape, dtype=torch.float64, device=device)

    def add(self, terms: Tensor) -> LogSumExp:
        """Add a block of terms, (*shape, N) in any float type; −inf adds nothing.

        Raises:
            ValueError: a term is NaN or +inf.
        """
        terms = terms.to(self.sum.dtype)
        maximum = torch.maximum(self.maximum, terms.amax(-1))
        if bool(torch.isnan(maximum).any()) or bool((maximum == torch.inf).any()):
            raise ValueError("log-sum-exp: a term is NaN or +inf")
        safe = torch.where(maximum == -torch.inf, torch.zeros_like(maximum), maximum)
        self.sum = self.sum * (self.maximum - safe).exp() + (terms - safe[..., None]).exp().sum(-1)
        self.maximum = maximum
        return self

    @property
    def value(self) -> Tensor:
        """log Σ exp(terms) so far, (*shape), float64; −inf where nothing was added."""
        return self.maximum + self.sum.log()


class RunningMean:
    """Mean and variance of numbers, or of arrays of one shape, that arrive in blocks.

    Blocks are merged by their counts, means and sums of squared deviations (Chan, Golub and LeVeque 1983), which avoids
    cancellation.

    Attributes:
        n: how many values were added.
        mean: their mean, (*shape), float64.
    """

    def __init__(self, shape: tuple[int, ...] = (), device: torch.device | str = "cpu"):
        self.n = 0
        self.mean = torch.zeros(shape, dtype=torch.float64, device=device)
        self._squares = torch.zeros_like(self.mean)

    def add(self, values: Tensor) -> RunningMean:
        """Add a block of values, (N, *shape), detached."""
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
