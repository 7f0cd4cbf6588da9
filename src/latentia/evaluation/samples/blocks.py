"""Euclidean distances of two sets of features, a block of rows at a time, so that no whole matrix is ever in memory.

|x − y|² = |x|² + |y|² − 2 x·y in float64, about the common mean: the products are one matrix product, and centring
keeps their digits. Which block a row is in changes rounding alone.
"""

from __future__ import annotations

__all__ = ["BLOCK", "centred", "nearest", "squared_blocks"]

from collections.abc import Iterator

import torch
from torch import Tensor

BLOCK = 500


def centred(*sets: Tensor) -> tuple[Tensor, ...]:
    """The sets less the mean of the first; distances stay, numbers get smaller."""
    centre = sets[0].mean(0)
    return tuple(each - centre for each in sets)


def squared_blocks(x: Tensor, y: Tensor, block: int = BLOCK) -> Iterator[tuple[slice, Tensor]]:
    """Squared distances of `block` rows of x to all of y at a time: (which rows, (b, m)).

    The tensor is overwritten by the next one.
    """
    lengths = y.square().sum(1)
    transposed = y.T * -2
    buffer = torch.empty(min(block, len(x)), len(y), dtype=x.dtype, device=x.device)
    for start in range(0, len(x), block):
        part = x[start : start + block]
        squares = torch.addmm(lengths, part, transposed, out=buffer[: len(part)])
        squares += part.square().sum(1, keepdim=True)
        yield slice(start, start + len(part)), squares.clamp_(min=0)


def nearest(x: Tensor, y: Tensor, block: int = BLOCK) -> tuple[Tensor, Tensor]:
    """For each x, the squared distance to the nearest y and which it is: (n,), (n,)."""
    distances, rows_of_y = [], []
    for _, squares in squared_blocks(x, y, block):
        distance, row = squares.min(1)
        distances.append(distance)
        rows_of_y.append(row)
    return torch.cat(distances), torch.cat(rows_of_y)
