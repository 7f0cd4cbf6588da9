"""Pairs of distributions whose densities are constant on the cells of one partition: their divergences are finite sums.

That is so for two discrete distributions (the cells are atoms) and for uniform distributions on boxes and their mixtures (the cells are
what the boxes' faces cut out).
"""

from __future__ import annotations

__all__ = ["Masses", "common_masses", "uniform_boxes"]

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch import distributions as td
from torch.distributions import Distribution

from latentia.distributions.mixtures import Mixture, log_density
from latentia.divergences.supports import atoms, boxes, is_discrete

_MOST_CELLS = 10**6


@dataclass(frozen=True)
class Masses:
    """What two distributions put on each cell of a partition.

    Attributes:
        p: masses under P, (cells,), float64.
        q: masses under Q, (cells,).
        tail: the mass that was left out of either distribution; 0 where the sum is complete.
    """

    p: Tensor
    q: Tensor
    tail: float


def uniform_boxes(distribution: Distribution) -> tuple[np.ndarray, np.ndarray] | None:
    """Boxes (k, d, 2) and weights (k,) of a uniform distribution or a mixture of them; None for any other distribution."""
    if isinstance(distribution, Mixture):
        parts = [uniform_boxes(part) for part in distribution.components]
        known = [part for part in parts if part is not None]
        if len(known) < len(parts):
            return None
        weights = [w * inner for w, (_, inner) in zip(distribution.weights.numpy(), known, strict=True)]
        return np.concatenate([box for box, _ in known]), np.concatenate(weights)
    base = distribution.base_dist if isinstance(distribution, td.Independent) else distribution
    box = boxes(distribution) if isinstance(base, td.Uniform) else None
    return None if box is None else (box, np.ones(1))


def common_masses(p: Distribution, q: Distribution) -> Masses | None:
    """The masses of two distributions on a partition over which both densities are constant; None where there is none."""
    if is_discrete(p) and is_discrete(q):
        (first, p_tail), (second, q_tail) = atoms(p), atoms(q)
        points = torch.unique(torch.cat([first.points, second.points]), dim=0)
        return Masses(log_density(p, points).exp(), log_density(q, points).exp(), max(p_tail, q_tail))
    first, second = uniform_boxes(p), uniform_boxes(q)
    if first is None or second is None:
        return None
    if len(first[0]) == len(second[0]) == 1:
        return _two_boxes(first[0][0], second[0][0])
    cuts = [np.unique(np.r_[first[0][:, i].ravel(), second[0][:, i].ravel()]) for i in range(first[0].shape[1])]
    if np.prod([float(len(cut)) for cut in cuts]) > _MOST_CELLS:
        return None
    cells = np.asarray(list(itertools.product(*(itertools.pairwise(cut) for cut in cuts))))
    return Masses(_on_cells(cells, *first), _on_cells(cells, *second), 0.0)


def _two_boxes(first: np.ndarray, second: np.ndarray) -> Masses:
    """Two boxes in any dimension make three cells: in both, in the first alone, in the second alone."""
    meet = np.minimum(first[:, 1], second[:, 1]) - np.maximum(first[:, 0], second[:, 0])
    p = float(np.prod(np.maximum(meet, 0) / (first[:, 1] - first[:, 0])))
    q = float(np.prod(np.maximum(meet, 0) / (second[:, 1] - second[:, 0])))
    masses = torch.tensor([[p, 1 - p, 0], [q, 0, 1 - q]], dtype=torch.float64)
    return Masses(masses[0], masses[1], 0.0)


def _on_cells(cells: np.ndarray, of: np.ndarray, weights: np.ndarray) -> Tensor:
    """Mass of a mixture of uniform boxes on each of the cells (n, d, 2)."""
    mass = np.zeros(len(cells))
    volume = (cells[:, :, 1] - cells[:, :, 0]).prod(-1)
    for box, weight in zip(of, weights, strict=True):
        inside = ((cells[:, :, 0] >= box[:, 0]) & (cells[:, :, 1] <= box[:, 1])).all(-1)
        mass += weight * inside * volume / (box[:, 1] - box[:, 0]).prod()
    return torch.from_numpy(mass)
