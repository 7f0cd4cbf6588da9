"""Euclidean distances of two sets of features, a block of rows at a time: no whole matrix is ever in memory.

|x − y|² = |x|² + |y|² − 2 x·y is one matrix product, of [x, |x|², 1] and [−2y, 1, |y|²]; centering keeps its digits.
Which block a row is in changes rounding alone.
"""

from __future__ import annotations

__all__ = ["BLOCK", "centered", "exact_squares", "nearest", "squared_blocks"]

from collections.abc import Iterator

import torch
from torch import Tensor

BLOCK = 500
NUMBERS_AT_ONCE = 4_000_000


def centered(*sets: Tensor) -> tuple[Tensor, ...]:
    """The sets less the mean of the first; distances stay, numbers get smaller."""
    center = sets[0].mean(0)
    return tuple(each - center for each in sets)


def squared_blocks(x: Tensor, y: Tensor, block: int = BLOCK) -> Iterator[tuple[slice, Tensor]]:
    """Squared distances of `block` rows of x to all of y at a time: (which rows, (b, m)).

    In the float type of x; where it should be 0 it may be a rounding below. The tensor is overwritten by the next one.
    """
    right = torch.cat([y.T * -2, torch.ones_like(y[:, :1]).T, y.square().sum(1)[None]])
    left = torch.cat([x, x.square().sum(1)[:, None], torch.ones_like(x[:, :1])], dim=1)
    buffer = torch.empty(min(block, len(x)), len(y), dtype=x.dtype, device=x.device)
    for start in range(0, len(x), block):
        part = left[start : start + block]
        yield slice(start, start + len(part)), torch.mm(part, right, out=buffer[: len(part)])


def exact_squares(x: Tensor, y: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """Squared distances of single pairs, x[i] to y[j], by differences: (P,)."""
    pieces = (each.split(max(1, NUMBERS_AT_ONCE // x.shape[1])) for each in (i, j))
    squares = [(x[a] - y[b]).square().sum(1) for a, b in zip(*pieces, strict=True)]
    return torch.cat(squares) if squares else x.new_zeros(0)


def nearest(x: Tensor, y: Tensor, block: int = BLOCK) -> tuple[Tensor, Tensor]:
    """For each x, the squared distance to the nearest y and which it is: (n,), (n,)."""
    rows_of_y = torch.cat([squares.argmin(1) for _, squares in squared_blocks(x, y, block)])
    return exact_squares(x, y, torch.arange(len(x), device=x.device), rows_of_y), rows_of_y
