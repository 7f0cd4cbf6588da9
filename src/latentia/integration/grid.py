r"""Tensor-product grids in R¹, R² and R³, read in blocks.

A grid has one list of nodes and one of weights for each axis; the weight of a point is the product. Two rules:

* `regular_grid`: equal spacing h, the trapezoid rule. On a smooth integrand that has decayed at the edge of the box it
  converges faster than any power of h (Trefethen and Weideman 2014). Halving h and widening the box until the value
  stops changing gives both the value and an estimate of its error.
* `panel_grid`: Gauss-Legendre on panels between breakpoints, for integrands that jump there or do not decay.
"""

from __future__ import annotations

__all__ = ["Grid", "panel_grid", "regular_grid"]

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Grid:
    """Points in Rᵈ and their quadrature weights; `blocks` avoids holding all points at once.

    Attributes:
        nodes: for each axis, its nodes in increasing order, (n_axis,), float64.
        weights: for each axis, the positive weights of its nodes, (n_axis,), float64.
    """

    nodes: tuple[Tensor, ...]
    weights: tuple[Tensor, ...]

    @property
    def dimension(self) -> int:
        """Number of axes d."""
        return len(self.nodes)

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of nodes along each axis."""
        return tuple(len(nodes) for nodes in self.nodes)

    def __len__(self) -> int:
        return math.prod(self.shape)

    def blocks(self, size: int = 65_536) -> Iterator[tuple[Tensor, Tensor]]:
        """The grid in blocks of at most `size` points; the last axis varies fastest.

        Yields:
            points (n, d) and the logarithms of their weights (n,), on the device of the nodes.
        """
        device = self.nodes[0].device
        log_weights = [weights.log() for weights in self.weights]
        for start in range(0, len(self), size):
            flat = torch.arange(start, min(start + size, len(self)), device=device)
            index = []  # torch.unravel_index would import sympy
            for count in reversed(self.shape):
                index.insert(0, flat % count)
                flat = flat // count
            points = torch.stack([nodes[i] for nodes, i in zip(self.nodes, index, strict=True)], dim=-1)
            log_weight = torch.stack([w[i] for w, i in zip(log_weights, index, strict=True)]).sum(0)
            yield points, log_weight

    def points(self) -> Tensor:
        """Every point, (N, d)."""
        return torch.cartesian_prod(*self.nodes).reshape(len(self), self.dimension)

    def log_weights(self) -> Tensor:
        """The logarithm of every point's weight, (N,): log ∫ exp f ≈ logsumexp(f + log_weights)."""
        return torch.cartesian_prod(*(w.log() for w in self.weights)).reshape(len(self), self.dimension).sum(-1)


def regular_grid(
    lower: Sequence[float], upper: Sequence[float], spacing: float | Sequence[float], device: torch.device | str = "cpu"
) -> Grid:
    """A grid of equal spacing over a box, with the weights of the trapezoid rule.

    Args:
        lower: lower corner of the box, one number for each of 1 to 3 axes.
        upper: upper corner; both corners are nodes.
        spacing: the largest spacing h allowed, one for all axes or one for each; the spacing used divides the length.
        device: of the nodes.
    """
    nodes, weights = [], []
    steps = [spacing] * len(lower) if isinstance(spacing, int | float) else spacing
    for low, high, step in zip(lower, upper, steps, strict=True):
        if not (high > low and step > 0 and math.isfinite(high - low)):
            raise ValueError(f"a grid needs finite lower < upper and spacing > 0; given {low}, {high}, {step}")
        intervals = math.ceil((high - low) / step - 1e-9)
        axis = torch.linspace(low, high, intervals + 1, dtype=torch.float64, device=device)
        weight = torch.full_like(axis, (high - low) / intervals)
        weight[0] = weight[-1] = 0.5 * weight[0]
        nodes.append(axis)
        weights.append(weight)
    return Grid(tuple(nodes), tuple(weights))


def panel_grid(breakpoints: Sequence[Sequence[float]], panels: int, order: int = 16) -> Grid:
    """A grid of Gauss-Legendre panels, with breakpoints at panel edges.

    Args:
        breakpoints: for each axis, finite numbers in increasing order, ends included.
        panels: number of equal panels between two neighboring breakpoints.
        order: number of nodes in each panel.
    """
    base_nodes, base_weights = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(order))
    nodes, weights = [], []
    for axis in breakpoints:
        points = torch.tensor(list(axis), dtype=torch.float64)
        inner = torch.arange(panels, dtype=torch.float64) / panels
        edges = torch.cat([(points[:-1, None] + (points[1:] - points[:-1])[:, None] * inner).flatten(), points[-1:]])
        half, middle = 0.5 * (edges[1:] - edges[:-1]), 0.5 * (edges[1:] + edges[:-1])
        nodes.append((middle[:, None] + half[:, None] * base_nodes).flatten())
        weights.append((half[:, None] * base_weights).flatten())
    return Grid(tuple(nodes), tuple(weights))
