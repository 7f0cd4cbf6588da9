"""What a player's terms come to between two records: means with standard errors, and a watch for what is not finite."""

from __future__ import annotations

__all__ = ["Tally"]

import math
from collections.abc import Callable

import torch
from torch import Tensor

from latentia.errors import RunError
from latentia.estimate import Estimate
from latentia.objectives import Terms


class Tally:
    """Collects a player's terms without waiting for the device, until asked.

    Args:
        player: the player's name, which begins the names of its estimates.
    """

    def __init__(self, player: str):
        self.player = player
        self.names: list[str] = []
        self.steps: list[int] = []
        self.sums: list[Tensor] = []  # (terms, 3) of each move: Σ, Σ², count

    def add(self, step: int, terms: Terms) -> None:
        """Take the terms of one move, each (B,)."""
        self.names = list(terms)
        values = torch.stack([term.detach().float() for term in terms.values()])
        count = torch.full_like(values[:, 0], values.shape[1])
        self.steps.append(step)
        self.sums.append(torch.stack([values.sum(1), values.square().sum(1), count], dim=1))

    def close(self, reduce: Callable[[Tensor], Tensor], where: Callable[[], str]) -> list[Estimate]:
        """Means over all moves since the last call, and a fresh start.

        Args:
            reduce: sums a tensor over processes.
            where: says which checkpoint is the last good one.

        Raises:
            RunError: if any term was not finite, with the step and the term.
        """
        if not self.sums:
            return []
        table = reduce(torch.stack(self.sums).double().cpu())  # (moves, terms, 3)
        bad = ~table[:, :, 0].isfinite()
        if bool(bad.any()):
            move, term = bad.nonzero()[0].tolist()
            raise RunError(
                f"step {self.steps[move]}: the {self.player}'s term {self.names[term]!r} is not finite. {where()} "
                "Try a lower optimiser.rate, clip=1, or precision=32-true"
            )
        totals = table.sum(0)
        estimates = []
        for name, (total, squares, count) in zip(self.names, totals.tolist(), strict=True):
            mean = total / count
            variance = max(0.0, squares / count - mean**2)
            stderr = math.sqrt(variance / (count - 1)) if count > 1 else None
            estimates.append(
                Estimate(mean, f"{self.player}/{name}", stderr, int(count), method="mean over training examples")
            )
        self.steps, self.sums = [], []
        return estimates
