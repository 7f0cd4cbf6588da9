r"""Nested lattices, their tiles, and what is kept of a table of log-densities over tiles.

Level ℓ is the lattice of spacing h_ℓ = h₀ 2⁻ˡ. Its nodes come in tiles, cubes of 64 nodes; a tile of level ℓ splits
into 2ᵈ tiles of level ℓ+1. How these are used, and why f is bounded as it is here: `latentia.evaluation.refinement`.
"""

from __future__ import annotations

__all__ = ["NODES", "Lattice", "Pairs", "Summary", "segment", "summarise"]

import math
from dataclasses import dataclass

import torch
from torch import Tensor

SAFETY = 0.75  # of the rise to a neighbour; ½ is exact for convex and for concave functions along an axis
NODES_PER_SIDE = {1: 64, 2: 8, 3: 4}
NODES = 64


@dataclass(frozen=True)
class Lattice:
    """Nested lattices z = origin + spacing · 2⁻ˡ k, k ∈ Zᵈ.

    Attributes:
        origin: (d,), float64.
        spacing: of level 0 along each axis, (d,), float64.
    """

    origin: Tensor
    spacing: Tensor

    @property
    def dimension(self) -> int:
        """d."""
        return len(self.origin)

    @property
    def side(self) -> int:
        """Nodes along the side of a tile."""
        return NODES_PER_SIDE[self.dimension]

    def log_cell(self, level: int) -> float:
        """log hᵈ, the logarithm of the volume that belongs to one node."""
        return (self.spacing.log().sum() - level * self.dimension * math.log(2)).item()

    def nodes(self, tiles: Tensor, level: int) -> Tensor:
        """Every node of some tiles, (T, d) whole numbers → (T · 64, d), float64; the last axis runs fastest."""
        return (self.origin + self.spacing * 2.0**-level * self.indices(tiles)).reshape(-1, self.dimension)

    def indices(self, tiles: Tensor) -> Tensor:
        """Lattice coordinates k of every node of some tiles, (T, 64, d)."""
        return tiles[:, None] * self.side + self.offsets(tiles.device)

    def offsets(self, device: torch.device) -> Tensor:
        """Lattice coordinates of a tile's nodes from its first, (64, d)."""
        axis = torch.arange(self.side, device=device)
        return torch.cartesian_prod(*[axis] * self.dimension).reshape(NODES, self.dimension)

    def tile_of(self, points: Tensor, level: int) -> Tensor:
        """The tile that each point (N, d) belongs to, (N, d)."""
        index = torch.round((points.double() - self.origin) / self.spacing * 2.0**level).long()
        return torch.div(index, self.side, rounding_mode="floor")


@dataclass
class Pairs:
    """Which functions visit which tiles: sorted by tile; `start[t]:start[t+1]` are those of tile t."""

    tiles: Tensor
    start: Tensor
    function: Tensor
    bound: Tensor  # the largest u that the parent tile promised

    def __len__(self) -> int:
        return len(self.function)

    @property
    def tile_of_pair(self) -> Tensor:
        return torch.repeat_interleave(torch.arange(len(self.tiles)), self.start.diff())

    @classmethod
    def all(cls, tiles: Tensor, functions: Tensor) -> Pairs:
        count, n = len(tiles), len(functions)
        start = torch.arange(count + 1) * n
        return cls(tiles, start, functions.repeat(count), torch.full((count * n,), torch.inf))

    @classmethod
    def of(cls, tiles: Tensor, function: Tensor, bound: Tensor) -> Pairs:
        """From one tile for each pair, (P, d), in any order."""
        if len(function) == 0:
            return cls(tiles, torch.zeros(1, dtype=torch.long), function, bound)
        # One whole number for each pair, so that a single sort brings equal tiles together, functions in rising order.
        low = tiles.amin(0)
        extent = tiles.amax(0) - low + 1
        key = torch.zeros(len(tiles), dtype=torch.long)
        for axis in range(tiles.shape[1]):
            key = key * extent[axis] + (tiles[:, axis] - low[axis])
        order = torch.argsort(key * (function.max() + 1) + function)
        key = key[order]
        first = torch.cat([torch.ones(1, dtype=torch.bool), key[1:] != key[:-1]]).nonzero().squeeze(1)
        start = torch.cat([first, torch.tensor([len(key)])])
        return cls(tiles[order[first]], start, function[order], bound[order])


@dataclass
class Summary:
    """What is kept of each pair: log-sums of f over the 2ᵈ shifted lattices, of u over the 2ᵈ parts that a tile splits
    into, the largest u of each part, the largest f and where."""

    cosets: Tensor  # (P, 2ᵈ)
    bound: Tensor  # (P, 2ᵈ)
    most_bound: Tensor  # (P, 2ᵈ)
    most: Tensor  # (P,)
    where: Tensor  # (P,)


def summarise(table: Tensor, lattice: Lattice) -> Summary:
    """Reduce tables (P, 64) to what is kept of each pair."""
    d, side = lattice.dimension, lattice.side
    most, where = table.max(-1)
    floor = torch.where(torch.isfinite(most), most, torch.zeros_like(most))
    empty = bool((table == -torch.inf).any())
    cube = table.reshape(-1, *[side] * d)
    upper = cube.clone()
    for axis in range(1, d + 1):
        rise = cube.diff(dim=axis).abs_()
        if empty:  # beside the edge of a support there is no slope to speak of
            rise = rise.nan_to_num(0.0, 0.0, 0.0)
        inner = torch.maximum(rise.narrow(axis, 0, side - 2), rise.narrow(axis, 1, side - 2)).mul_(SAFETY)
        upper.narrow(axis, 1, side - 2).add_(inner)
        upper.narrow(axis, 0, 1).add_(rise.narrow(axis, 0, 1), alpha=SAFETY)
        upper.narrow(axis, side - 1, 1).add_(rise.narrow(axis, side - 2, 1), alpha=SAFETY)
    parts = _parts(upper, d, side)
    most_bound = parts.amax(-1)
    top = torch.where(torch.isfinite(most_bound), most_bound, torch.zeros_like(most_bound))
    bound = (parts - top[..., None]).exp_().sum(-1).double().log_().add_(top)
    sums = (table - floor[:, None]).exp_() @ _parities(lattice, table)
    cosets = sums.double().log_().add_(floor[:, None])
    return Summary(cosets.cpu(), bound.cpu(), most_bound.cpu(), most.double().cpu(), where.cpu())


def _parts(cube: Tensor, d: int, side: int) -> Tensor:
    """The 2ᵈ halves-along-each-axis of cubes (P, side, …), in the order of `itertools.product`: (P, 2ᵈ, nodes)."""
    split = cube.reshape(-1, *[2, side // 2] * d)
    corners, inner = range(1, 2 * d, 2), range(2, 2 * d + 1, 2)
    return split.permute(0, *corners, *inner).reshape(len(split), 2**d, -1)


def _parities(lattice: Lattice, like: Tensor) -> Tensor:
    """Which of the 2ᵈ shifted lattices each node of a tile lies on, (64, 2ᵈ), as zeros and ones."""
    d = lattice.dimension
    powers = 2 ** torch.arange(d, device=like.device)
    kind = (lattice.offsets(like.device) % 2 * powers).sum(-1)
    return torch.nn.functional.one_hot(kind, 2**d).to(like.dtype)


def segment(values: Tensor, group: Tensor, count: int) -> Tensor:
    """log Σ exp over the values of each group, (count,), float64; −inf for an empty one."""
    top = torch.full((count,), -torch.inf, dtype=torch.float64).scatter_reduce(0, group, values.double(), "amax")
    safe = torch.where(torch.isfinite(top), top, torch.zeros_like(top))
    total = torch.zeros(count, dtype=torch.float64).index_add(0, group, (values.double() - safe[group]).exp())
    return safe + total.log()
