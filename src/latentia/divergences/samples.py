r"""Wasserstein distances between weighted samples on the line: exact, batched, differentiable, on any device.

Both samples are sorted, and W_p^p = Σ Δu |x_i − y_j|^p runs over the stretches of u on which neither empirical quantile
function jumps. Without weights those stretches and the indices i, j are the same for every row of a batch, so nothing
but the two sorts depends on the data. Gradients flow through the sorted values (and weights); where the order is not
unique, they are one subgradient.

Source: notes 3e; Peyré and Cuturi 2019, remark 2.30.
"""

from __future__ import annotations

__all__ = ["samples"]

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentia.errors import DataError

_BLOCK = 2**15  # numbers, 256 KiB in float64


def samples(
    x: Tensor, y: Tensor, order: int = 1, x_weights: Tensor | None = None, y_weights: Tensor | None = None
) -> Tensor:
    """W_order between empirical distributions on the line.

    Args:
        x: one sample in each row, (..., n), floating point.
        y: (..., m), with leading dimensions that broadcast with those of `x`; m need not be n.
        order: 1 or 2.
        x_weights: weights that broadcast to `x`, at least 0, normalized here; equal if not given.
        y_weights: likewise for `y`.

    Returns:
        Distances (...), in the dtype of `x`; the gradient at distance 0 is 0.

    Raises:
        DataError: empty samples, values or weights that are not finite, negative weights, or weights that are all 0.
    """
    if order not in (1, 2):
        raise ValueError(f"order is {order}; it must be 1 or 2")
    if x.dim() == 0 or y.dim() == 0 or x.shape[-1] == 0 or y.shape[-1] == 0:
        raise DataError(f"samples must not be empty; given shapes {tuple(x.shape)} and {tuple(y.shape)}")
    if x_weights is None and y_weights is None:
        cost = _unweighted(x, y, order)
    else:
        cost = _weighted(x, y, order, x_weights, y_weights)
    return cost if order == 1 else _root(cost)


def _root(cost: Tensor) -> Tensor:
    """√cost, whose gradient is 0, and not infinite, at 0."""
    positive = cost > 0
    return torch.where(positive, torch.where(positive, cost, torch.ones_like(cost)).sqrt(), torch.zeros_like(cost))


def _power(difference: Any, order: int) -> Any:
    return abs(difference) if order == 1 else difference * difference


def _unweighted(x: Tensor, y: Tensor, order: int) -> Tensor:
    y = y.to(x.dtype)
    tracked = torch.is_grad_enabled() and (x.requires_grad or y.requires_grad)
    if x.device.type == "cpu" and not tracked:
        return torch.as_tensor(_in_arrays(x.detach().numpy(), y.detach().numpy(), order))
    xs, ys = x.sort(-1).values, y.sort(-1).values
    _check_ends(xs, ys, torch.isfinite)
    return _between_sorted(xs, ys, order, lambda lengths: torch.from_numpy(lengths).to(xs))


def _in_arrays(x: np.ndarray, y: np.ndarray, order: int) -> np.ndarray:
    """The same without gradients: numpy sorts values alone, in a third of the time of torch, which sorts indices along.

    Rows go through in blocks that stay in the cache; half the time of one large pass goes to fresh pages of memory.
    """
    lead = np.broadcast_shapes(x.shape[:-1], y.shape[:-1])
    rows = x.shape[:-1] == y.shape[:-1] == lead and len(lead) > 0
    step = max(1, _BLOCK // (x.shape[-1] + y.shape[-1])) if rows else 1
    x_rows, y_rows = (values.reshape(-1, values.shape[-1]) if rows else values[None] for values in (x, y))
    costs = []
    for start in range(0, max(1, len(x_rows)), step):
        xs, ys = (np.sort(values[start : start + step], axis=-1) for values in (x_rows, y_rows))
        _check_ends(xs, ys, np.isfinite)
        costs.append(_between_sorted(xs, ys, order, lambda lengths: lengths.astype(x.dtype)))
    return np.concatenate(costs).reshape(lead)


def _check_ends(xs: Any, ys: Any, is_finite: Callable[[Any], Any]) -> None:
    """After sorting, anything that is not finite stands at an end (NaN at the last)."""
    for name, values in (("x", xs), ("y", ys)):
        if not bool((is_finite(values[..., 0]) & is_finite(values[..., -1])).all()):
            raise DataError(f"the sample {name} has values that are not finite (NaN or infinite)")


def _between_sorted(xs: Any, ys: Any, order: int, as_weights: Callable[[np.ndarray], Any]) -> Any:
    """W_order^order between sorted samples: one expression, for arrays and for tensors."""
    n, m = xs.shape[-1], ys.shape[-1]
    if n % m == 0 or m % n == 0:
        # Each point of the smaller sample meets the same number of neighbors in the larger one.
        small = min(n, m)
        rows, columns = ((*values.shape[:-1], small, values.shape[-1] // small) for values in (xs, ys))
        return _power(xs.reshape(rows) - ys.reshape(columns), order).mean((-2, -1))
    i, j, lengths = _stretches(n, m)
    return (_power(xs[..., i] - ys[..., j], order) * as_weights(lengths)).sum(-1)


@lru_cache(maxsize=16)
def _stretches(n: int, m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Indices into samples of n and m points, and lengths, of the stretches of u without a jump of either."""
    common = math.gcd(n, m)
    # In units of 1/lcm(n, m) the knots are whole numbers, so no knot is missed or doubled by rounding.
    knots = np.union1d(np.arange(n + 1) * (m // common), np.arange(m + 1) * (n // common))
    return knots[:-1] // (m // common), knots[:-1] // (n // common), np.diff(knots) / knots[-1]


def _sorted_with_weights(values: Tensor, weights: Tensor | None, name: str) -> tuple[Tensor, Tensor]:
    """Sorted values and the cumulative weights along them, ending in 1."""
    if not bool(torch.isfinite(values).all()):
        raise DataError(f"the sample {name} has values that are not finite (NaN or infinite)")
    ordered, order = values.sort(-1)
    weights = torch.ones_like(values) if weights is None else weights.to(values).expand_as(values)
    total = weights.sum(-1, keepdim=True)
    if not bool((torch.isfinite(weights) & (weights >= 0)).all() and (total > 0).all()):
        raise DataError(f"the weights of the sample {name} must be finite, at least 0 and not all 0")
    return ordered, (weights / total).gather(-1, order).cumsum(-1)


def _weighted(x: Tensor, y: Tensor, order: int, x_weights: Tensor | None, y_weights: Tensor | None) -> Tensor:
    lead = torch.broadcast_shapes(x.shape[:-1], y.shape[:-1])
    xs, x_knots = _sorted_with_weights(x.expand(*lead, -1), x_weights, "x")
    ys, y_knots = _sorted_with_weights(y.expand(*lead, -1).to(x.dtype), y_weights, "y")
    inner = torch.cat([x_knots[..., :-1], y_knots[..., :-1]], -1).sort(-1).values.clamp(0, 1)
    ends = inner.new_zeros(*lead, 1)
    knots = torch.cat([ends, inner, ends + 1], -1)
    lengths = knots.diff(dim=-1)
    middle = (knots[..., 1:] + knots[..., :-1]).detach() / 2
    i, j = (
        torch.searchsorted(cumulative.detach().contiguous(), middle).clamp(max=cumulative.shape[-1] - 1)
        for cumulative in (x_knots, y_knots)
    )
    return (_power(xs.gather(-1, i) - ys.gather(-1, j), order) * lengths).sum(-1)
