"""Streamed log-sum-exp: log Σ exp(terms) over more terms than memory holds.

The running maximum is kept beside the sum of exp(term − maximum), and the sum is rescaled when the maximum rises, so
no exponential overflows and nothing is lost but what float64 rounds away.
"""

from __future__ import annotations

__all__ = ["LogSumExp"]

import torch
from torch import Tensor


class LogSumExp:
    """An accumulator for a batch of sums, such as log p(x) for many images x over blocks of z.

    Examples:
        >>> total = LogSumExp((2,))
        >>> total.add(torch.zeros(2, 3)).add(torch.zeros(2, 5)).value.exp().round()
        tensor([8., 8.], dtype=torch.float64)
    """

    def __init__(self, shape: tuple[int, ...] = (), device: torch.device | str = "cpu"):
        self.maximum = torch.full(shape, -torch.inf, dtype=torch.float64, device=device)
        self.sum = torch.zeros(shape, dtype=torch.float64, device=device)

    def add(self, terms: Tensor) -> LogSumExp:
        """Take in a block of terms, (*shape, N) in any float type; −inf adds nothing.

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
        """log Σ exp(terms) so far, of the accumulator's shape, float64; −inf where nothing was added."""
        return self.maximum + self.sum.log()
