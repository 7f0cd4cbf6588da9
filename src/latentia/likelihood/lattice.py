r"""Nested lattices, their tiles, and what is kept of a table of log-densities over tiles.

Level ℓ is the lattice of spacing h_ℓ = h₀ 2⁻ˡ. Its nodes form tiles, cubes of 64 nodes; a tile of level ℓ splits into
2ᵈ tiles of level ℓ+1. `latentia.likelihood.refinement` uses them and explains the bound u of f.
"""

from __future__ import annotations

__all__: list[str] = []

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.nn.functional import pad as pad_last

SAFETY = 0.75  # of the rise to a neighbor; ½ is exact for convex and for concave functions along an axis
JUMP = 3.0  # times the larger step on either side is more than a slope
NODES_PER_SIDE = {1: 64, 2: 8, 3: 4}
NODES = 64
RUN_AT_ONCE = 2**18  # values of a run of tiles that are evaluated together
BLOCK = 4  # tiles along the side of a block whose tiles follow each other
CLIFF = 60.0  # nats by which f falls at the edge of a support, for the differences


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

    def coarse(self) -> Tensor:
        """Which of a tile's nodes are nodes of the level before as well, (64,)."""
        return (self.offsets(torch.device("cpu")) % 2 == 0).all(-1)

    def split(self, table: Tensor) -> Tensor:
        """Values at the nodes of tiles (P, 64), by the part that each node is in: (P, 2ᵈ, 64/2ᵈ).

        A part's values are, in this order, those at the `coarse` nodes of the tile that it becomes.
        """
        return _parts(table.view(-1, *[self.side] * self.dimension), self.dimension)

    def tile_of(self, points: Tensor, level: int) -> Tensor:
        """The tile that each point (N, d) belongs to, (N, d)."""
        index = torch.round((points.double() - self.origin) / self.spacing * 2.0**level).long()
        return torch.div(index, self.side, rounding_mode="floor")


@dataclass
class Pairs:
    """Which functions are evaluated on which tiles, sorted by tile.

    Attributes:
        tiles: (T, d).
        start: (T + 1,); the pairs start[t]:start[t+1] are those of tile t.
        function: of each pair, (P,).
        bound: the largest u of its part of the parent tile, (P,).
        known: f at the `coarse` nodes of its tile, (P, 64/2ᵈ), NaN where not known; None where none are.
    """

    tiles: Tensor
    start: Tensor
    function: Tensor
    bound: Tensor
    known: Tensor | None = None

    def __len__(self) -> int:
        return len(self.function)

    @property
    def tile_of_pair(self) -> Tensor:
        """Row of `tiles` of each pair, (P,)."""
        return torch.repeat_interleave(torch.arange(len(self.tiles)), self.start.diff())

    def runs(self, first: int, last: int, flags: Tensor) -> Iterator[tuple[int, int]]:
        """Runs t:u of the tiles first:last whose functions are the same, and whose flags (T,) are."""
        counts = self.start.diff()[first:last]
        begin, end = int(self.start[first]), int(self.start[last - 1])
        tile = torch.repeat_interleave(torch.arange(last - 1 - first), counts[:-1])
        following = (torch.arange(begin, end) + counts[tile]).clamp(max=len(self) - 1)
        same = (self.function[begin:end] == self.function[following]).long()
        alike = (counts.diff() == 0) & (flags[first : last - 1] == flags[first + 1 : last])
        alike &= alike.long().scatter_reduce(0, tile, same, "amin").bool()
        edges = [first, *((~alike).nonzero().squeeze(1) + first + 1).tolist(), last]
        for t, u in itertools.pairwise(edges):
            step = max(1, RUN_AT_ONCE // (NODES * int(counts[t - first])))
            yield from ((part, min(part + step, u)) for part in range(t, u, step))

    def where(self, keep: Tensor) -> Pairs:
        """The pairs that a mask (P,) keeps."""
        if bool(keep.all()):
            return self
        known = None if self.known is None else self.known[keep.to(self.known.device)]
        return Pairs.of(self.tiles[self.tile_of_pair[keep]], self.function[keep], self.bound[keep], known)

    @classmethod
    def loose(cls, tiles: Tensor, function: Tensor) -> Pairs:
        """One tile for each pair, (P, d), not shared: enough to split, not to evaluate."""
        return cls(tiles, torch.arange(len(tiles) + 1), function, torch.full((len(tiles),), torch.inf))

    @classmethod
    def of(cls, tiles: Tensor, function: Tensor, bound: Tensor, known: Tensor | None = None) -> Pairs:
        """From one tile for each pair, (P, d), in any order; of equal pairs the first is kept.

        `known` is of the first pairs alone.
        """
        if len(function) == 0:
            return cls(tiles, torch.zeros(1, dtype=torch.long), function, bound)
        # One whole number for each pair, so that a single sort brings equal tiles together, functions in rising order.
        low, count = tiles.amin(0), int(function.max()) + 1
        key, order = torch.sort(_keys(tiles, function, low, tiles.amax(0) - low + 1, count), stable=True)
        new = _changes(key)
        key, order = key[new].div(count, rounding_mode="floor"), order[new]
        first = _changes(key).nonzero().squeeze(1)
        start = torch.cat([first, torch.tensor([len(key)])])
        if known is not None:
            have = order < len(known)
            given = known[order[have].to(known.device)]
            known = known.new_full((len(order), known.shape[1]), torch.nan)
            known[have.to(known.device)] = given
        return cls(tiles[order[first]], start, function[order], bound[order], known)

    def holds(self, tiles: Tensor, function: Tensor) -> Tensor:
        """Whether each of these pairs of a tile (Q, d) and a function (Q,) is among these."""
        low, high = self.tiles.amin(0), self.tiles.amax(0)
        extent, count = high - low + 1, int(self.function.max()) + 1
        mine = _keys(self.tiles[self.tile_of_pair], self.function, low, extent, count)  # in rising order
        theirs = _keys(tiles, function, low, extent, count)
        inside = ((tiles >= low) & (tiles <= high)).all(-1) & (function < count)
        place = torch.searchsorted(mine, theirs).clamp(max=len(mine) - 1)
        return inside & (mine[place] == theirs)


def _keys(tiles: Tensor, function: Tensor, low: Tensor, extent: Tensor, count: int) -> Tensor:
    """A whole number for each pair, that sorts by tile and then by function; tiles near each other come together."""
    key = torch.zeros(len(tiles), dtype=torch.long)
    for part, size in (("block", (extent - 1) // BLOCK + 1), ("tile", torch.full_like(extent, BLOCK))):
        for axis in range(tiles.shape[1]):
            place = tiles[:, axis] - low[axis]
            key = key * size[axis] + (place // BLOCK if part == "block" else place % BLOCK)
    return key * count + function


def _changes(key: Tensor) -> Tensor:
    """Where a sorted array has a new value."""
    return torch.cat([torch.ones(1, dtype=torch.bool), key[1:] != key[:-1]])


@dataclass
class Summary:
    """What is kept of a table f (P, 64), for each pair of a function and a tile.

    Attributes:
        cosets: log Σ exp f over each of the 2ᵈ shifted lattices, (P, 2ᵈ).
        bound: log Σ exp u over each of the 2ᵈ parts that the tile splits into, (P, 2ᵈ).
        most_bound: the largest u of each part, (P, 2ᵈ).
        most: the largest f, (P,).
        where: its node, (P,).
        faces: log Σ exp u over the first nodes outside the tile, beyond the face of each part across each axis,
            (P, 2ᵈ, d).
        roughness: log Σ exp f |Δ³f| over axes and nodes, (P,): of order h³ where f is smooth, h² at kinks, h at jumps.
        steep: log Σ exp f over the nodes whose u exceeds f by more than 2d nats, (P,).
    """

    cosets: Tensor
    bound: Tensor
    most_bound: Tensor
    most: Tensor
    where: Tensor
    faces: Tensor
    roughness: Tensor
    steep: Tensor

    @classmethod
    def join(cls, parts: list[Summary]) -> Summary:
        """One summary of the pairs of several, in order; the parts are emptied, so that memory holds them once."""
        joined = {}
        for name in cls.__dataclass_fields__:
            joined[name] = torch.cat([vars(part).pop(name) for part in parts])
        return cls(**joined)


def summarize(table: Tensor, lattice: Lattice) -> tuple[Summary, Tensor]:
    """Reduce tables (P, 64) to what is kept of each pair.

    Returns:
        The summary; and Σ exp(f − most) over each of the 4ᵈ shifted lattices of four times the spacing, (P, 4ᵈ).
    """
    d, side = lattice.dimension, lattice.side
    most, where = table.max(-1)
    floor = torch.where(torch.isfinite(most), most, torch.zeros_like(most))
    cube = table.reshape(-1, *[side] * d)
    steps = [cube.diff(dim=axis) for axis in range(1, d + 1)]
    hollow = bool((table == -torch.inf).any())
    if hollow:  # no slope can be taken at the edge of a support
        steps = [step.nan_to_num(0.0, 0.0, 0.0) for step in steps]
    sizes = [_slope(step.abs(), axis + 1) for axis, step in enumerate(steps)]
    rises = [_rise(size, axis + 1) for axis, size in enumerate(sizes)]
    upper = cube + torch.stack(rises).sum(0) if d > 1 else cube + rises[0]
    parts = _parts(upper, d)
    faces = []
    for axis in range(d):
        # Beyond the face f is taken to go on rising as it did toward the face, and not to fall.
        ends = torch.tensor([0, side - 1], device=table.device)
        on_face = (upper - rises[axis]).index_select(axis + 1, ends)
        ends = torch.tensor([0, side - 2], device=table.device)
        out = steps[axis].index_select(axis + 1, ends)
        out.narrow(axis + 1, 0, 1).neg_()
        out = torch.minimum(out.clamp_min_(0), sizes[axis].index_select(axis + 1, ends)).mul_(2 * SAFETY)
        faces.append(_log_sum(_parts(on_face + out, d)).cpu())
    weight = (table - floor[:, None]).exp_()
    steep = ((upper - cube).flatten(1) > 2 * d).to(weight.dtype).mul_(weight).sum(-1)
    fours, pairs_of_fours = _shifts(lattice, table)
    sums = weight @ fours
    cosets = (sums @ pairs_of_fours).double().log_().add_(floor[:, None])
    if hollow:  # the edge of a support is a jump
        lifted = cube.clamp_min(-1e30).sub_(floor.view(-1, *[1] * d)).clamp_min_(-CLIFF)
        steps = [lifted.diff(dim=axis) for axis in range(1, d + 1)]
    rough = sum(_third_difference(step, weight.view_as(cube), axis + 1) for axis, step in enumerate(steps))
    summary = Summary(
        cosets.cpu(),
        _log_sum(parts).cpu(),
        parts.amax(-1).cpu(),
        most.double().cpu(),
        where.cpu(),
        torch.stack(faces, -1),
        (cast(Tensor, rough).double().log_() + floor).cpu(),
        (steep.double().log_() + floor).cpu(),
    )
    return summary, sums.cpu()


def _third_difference(step: Tensor, weight: Tensor, axis: int) -> Tensor:
    """Σ w |Δ³f| along an axis from the first differences of f, with the weights of both inner nodes: (P,).

    No Δ³f counts for more than 4, the value of a step that halves the density on either side many times over.
    """
    third = step.diff(n=2, dim=axis).abs_().clamp_max_(4.0)
    count = third.shape[axis]
    inner = weight.narrow(axis, 1, count) + weight.narrow(axis, 2, count)
    return third.mul_(inner).flatten(1).sum(-1)


def mass_upper_bound(table: Tensor, lattice: Lattice) -> Tensor:
    """An upper bound of log Σ u over tiles, (…, 64) → (…), looser than that of `summarize` and ten times cheaper."""
    d, side = lattice.dimension, lattice.side
    cube = table.unflatten(-1, [side] * d)
    total = table.amax(-1) + math.log(NODES)
    for axis in range(-d, 0):
        total += SAFETY * cube.diff(dim=axis).abs_().amax(list(range(-d, 0)))
    return total.nan_to_num_(torch.inf, torch.inf, -torch.inf)  # NaN where a step goes off a support


def _slope(size: Tensor, axis: int) -> Tensor:
    """The sizes of steps along an axis, but for a jump's: a step much larger than both neighbors is not a slope."""
    pad = [0, 0] * (size.dim() - 1 - axis)
    padded = pad_last(size, [*pad, 1, 1])
    count = size.shape[axis]
    around = torch.maximum(padded.narrow(axis, 0, count), padded.narrow(axis, 2, count))
    return torch.minimum(size, around.mul_(JUMP).add_(1.0))


def _rise(size: Tensor, axis: int) -> Tensor:
    """What f may rise by within half a spacing along an axis, from the sizes of its steps there."""
    pad = [0, 0] * (size.dim() - 1 - axis)
    return torch.maximum(pad_last(size, [*pad, 1, 0]), pad_last(size, [*pad, 0, 1])).mul_(SAFETY)


def _log_sum(parts: Tensor) -> Tensor:
    """log Σ exp over the last axis, float64."""
    top = parts.amax(-1)
    safe = torch.where(torch.isfinite(top), top, torch.zeros_like(top))
    return (parts - safe[..., None]).exp_().sum(-1).double().log_().add_(safe)


def _parts(cube: Tensor, d: int) -> Tensor:
    """The 2ᵈ halves-along-each-axis of cubes (P, …), in the order of `itertools.product`: (P, 2ᵈ, nodes)."""
    split = cube.reshape(-1, *[size for axis in range(1, d + 1) for size in (2, cube.shape[axis] // 2)])
    corners, inner = range(1, 2 * d, 2), range(2, 2 * d + 1, 2)
    return split.permute(0, *corners, *inner).flatten(d + 1).flatten(1, d)


def _shifts(lattice: Lattice, like: Tensor) -> tuple[Tensor, Tensor]:
    """Which of the 4ᵈ lattices of spacing 4h each node of a tile lies on, (64, 4ᵈ), and which of the 2ᵈ of spacing 2h
    each of these, (4ᵈ, 2ᵈ), as zeros and ones.
    """
    d = lattice.dimension
    axes = torch.arange(d, device=like.device)
    place = lattice.offsets(like.device) % 4
    corners = torch.cartesian_prod(*[torch.arange(4, device=like.device)] * d).reshape(-1, d).flip(-1)
    one_hot = torch.nn.functional.one_hot
    fours = one_hot((place * 4**axes).sum(-1), 4**d).to(like.dtype)
    return fours, one_hot((corners % 2 * 2**axes).sum(-1), 2**d).to(like.dtype)


def segment(values: Tensor, group: Tensor, count: int) -> Tensor:
    """log Σ exp over the values of each group, (count,), float64; −inf for an empty one."""
    top = torch.full((count,), -torch.inf, dtype=torch.float64).scatter_reduce(0, group, values.double(), "amax")
    safe = torch.where(torch.isfinite(top), top, torch.zeros_like(top))
    total = torch.zeros(count, dtype=torch.float64).index_add(0, group, (values.double() - safe[group]).exp())
    return safe + total.log()
