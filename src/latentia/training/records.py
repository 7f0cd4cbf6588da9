"""What the players' terms come to between two records: means with standard errors, and a watch for what is not finite.

The terms stay on the device until they are asked for, so that no step waits for it; in time they are folded into the
mean and the variance over the examples of each move.
"""

from __future__ import annotations

__all__ = ["MetricAccumulator"]

import itertools
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from latentia.estimate import Estimate
from latentia.objectives import Terms

FOLD_ROWS = 256


class MetricAccumulator:
    """Collects the terms of every move since the last record.

    Args:
        reduce: sums a tensor over processes.
    """

    def __init__(self, reduce: Callable[[Tensor], Tensor] = lambda table: table):
        self._reduce = reduce
        self._rows: list[tuple[int, str, str]] = []  # step, player, term
        self._settled = torch.zeros(0, 3, dtype=torch.float64)  # Σ, Σ², count of the first rows, over all processes
        self._moments: list[Tensor] = []  # (rows, 3): the same of the rows that follow, mean and variance for sums
        self._raw: list[Tensor] = []  # (B,): the rows after those, as they came

    def add(self, step: int, player: str, terms: Terms) -> None:
        """Take the terms of one move, each (B,) and without a graph, in the step of this number."""
        self._rows += [(step, player, name) for name in terms]
        self._raw += terms.values()
        if len(self._raw) >= FOLD_ROWS:
            self._fold()

    def _fold(self) -> None:
        """Means and variances of what is raw: many rows at a time cost hardly more than one."""
        for count, rows in itertools.groupby(self._raw, key=len):
            variance, mean = torch.var_mean(torch.stack(list(rows)).float(), dim=1, correction=0)
            self._moments.append(torch.stack([mean, variance, torch.full_like(mean, count)], dim=1))
        self._raw = []

    def settle(self) -> None:
        """Bring together, in every process, what all of them have added."""
        self._fold()
        if self._moments:
            mean, variance, count = torch.cat(self._moments).cpu().double().unbind(1)
            sums = torch.stack([count * mean, count * (variance + mean.square()), count], dim=1)
            self._settled = torch.cat([self._settled, self._reduce(sums)])
            self._moments = []

    def bad(self) -> tuple[int, str, list[str]] | None:
        """Step and player of the first settled move with terms that are not finite, and their names; else None."""
        bad = (~self._settled[:, 0].isfinite()).nonzero()[:, 0].tolist()
        if not bad:
            return None
        step, player, _ = self._rows[bad[0]]
        names: list[str] = []
        for s, p, name in (self._rows[row] for row in bad):
            if (s, p) != (step, player) or name in names:  # a later move
                break
            names.append(name)
        return step, player, sorted(names, key=lambda name: name == "cost")  # what it is made of first

    def close(self) -> list[Estimate]:
        """Means over all settled moves, named player/term, and a fresh start."""
        totals: dict[str, list[float]] = {}
        for (_, player, name), row in zip(self._rows, self._settled.tolist(), strict=True):
            total = totals.setdefault(f"{player}/{name}", [0.0, 0.0, 0.0])
            total[:] = [a + b for a, b in zip(total, row, strict=True)]
        self.restore([], self._settled[:0])
        return [_estimate(name, *total) for name, total in totals.items()]

    def state(self) -> tuple[list[tuple[int, str, str]], Tensor]:
        """What is settled and not yet recorded, for a checkpoint."""
        return self._rows, self._settled

    def restore(self, rows: Iterable[Any], settled: Tensor) -> None:
        """Inverse of `state`."""
        self._rows = [(step, player, name) for step, player, name in rows]
        self._settled, self._moments, self._raw = settled, [], []


def _estimate(name: str, total: float, squares: float, count: float) -> Estimate:
    mean = total / count
    variance = max(0.0, squares / count - mean**2)
    stderr = math.sqrt(variance / (count - 1)) if count > 1 else None
    return Estimate(mean, name, stderr, int(count), method="mean over training examples")
