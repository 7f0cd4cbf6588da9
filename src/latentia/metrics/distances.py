"""Euclidean distances between two sets of features, one block of rows at a time, so that memory stays bounded.

|x − y|² = |x|² + |y|² − 2 x·y is one matrix product, of [x, |x|², 1] and [−2y, 1, |y|²]; centering keeps its digits.
The block size changes rounding alone. Where rounding could decide a comparison, callers use `exact_squares`.
"""

from __future__ import annotations

__all__: list[str] = []

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

BLOCK = 500
_NUMBERS_AT_ONCE = 4_000_000


def centered(*sets: Tensor) -> tuple[Tensor, ...]:
    """The sets minus the mean of the first: distances stay equal, numbers get smaller."""
    center = sets[0].mean(0)
    return tuple(each - center for each in sets)


def squared_blocks(x: Tensor, y: Tensor, block: int = BLOCK) -> Iterator[tuple[slice, Tensor]]:
    """Squared distances of `block` rows of x to all of y at a time: (rows, (b, m)).

    In the dtype of x. Rounding can make a zero distance slightly negative. The next block overwrites the tensor.
    """
    right = torch.cat([y.T * -2, torch.ones_like(y[:, :1]).T, y.square().sum(1)[None]])
    left = torch.cat([x, x.square().sum(1)[:, None], torch.ones_like(x[:, :1])], dim=1)
    buffer = torch.empty(min(block, len(x)), len(y), dtype=x.dtype, device=x.device)
    for start in range(0, len(x), block):
        part = left[start : start + block]
        yield slice(start, start + len(part)), torch.mm(part, right, out=buffer[: len(part)])


def exact_squares(x: Tensor, y: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """Squared distances of single pairs, x[i] to y[j], from differences: (P,)."""
    pieces = (each.split(max(1, _NUMBERS_AT_ONCE // x.shape[1])) for each in (i, j))
    squares = [(x[a] - y[b]).square().sum(1) for a, b in zip(*pieces, strict=True)]
    return torch.cat(squares) if squares else x.new_zeros(0)


def nearest(x: Tensor, y: Tensor, width: Callable[[Tensor], Tensor], block: int = BLOCK) -> tuple[Tensor, Tensor]:
    """For each x, the squared distance to the nearest y and its index: (n,), (n,). Of equally near ones, the first.

    `width` gives the width of a tie, see `tie_width`.
    """
    a, b = centered(x, y)
    rounding = _product_rounding(a, b)
    first = [_first_least(squares, rounding, width) for _, squares in squared_blocks(a, b, block)]
    rows_of_y = torch.cat(first)
    return exact_squares(x, y, torch.arange(len(x), device=x.device), rows_of_y), rows_of_y


def nearest_other(x: Tensor, rows: Tensor, width: Callable[[Tensor], Tensor], block: int = BLOCK) -> Tensor:
    """The squared distance of some rows of x to their nearest other point, (len(rows),)."""
    (a,) = centered(x)
    rounding, others = _product_rounding(a, a), []
    for part, squares in squared_blocks(a[rows], a, block):
        squares[torch.arange(len(squares), device=x.device), rows[part]] = torch.inf
        others.append(_first_least(squares, rounding, width))
    return exact_squares(x, x, rows, torch.cat(others))


def tie_width(*given: Tensor) -> Callable[[Tensor], Tensor]:
    """By how much two squared distances of that size may differ and still count as equal.

    The features as given, (n, D) each, carry the rounding of their dtype, so distances that are equal for the exact
    features (binary pixels, lattices) differ by about ε·max|x|·distance; the sum over D adds the rounding of float64.
    """
    value = max((torch.finfo(g.dtype).eps for g in given if g.is_floating_point()), default=0.0)
    largest = max(g.abs().max().item() for g in given)
    total = 4 * (given[0][0].numel() + 2) * torch.finfo(torch.float64).eps
    return lambda squares: 4 * value * largest * squares.clamp(min=0).sqrt() + total * squares.abs()


def _product_rounding(a: Tensor, b: Tensor) -> Tensor:
    """A bound on the rounding of the squared distances of `squared_blocks`."""
    size = a.square().sum(1).max() + b.square().sum(1).max()
    return 4 * (a.shape[1] + 2) * torch.finfo(a.dtype).eps * size


def _first_least(squares: Tensor, rounding: Tensor, width: Callable[[Tensor], Tensor]) -> Tensor:
    """The first index in each row whose value equals the minimum, up to rounding."""
    least = squares.amin(1, keepdim=True)
    return (squares <= least + 2 * rounding + width(least)).to(torch.uint8).argmax(1)
