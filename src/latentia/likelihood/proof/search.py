"""The search that encloses log p(x): tiles of the prior's box are divided until the bounds of each image meet.

A pair of an image and a tile is settled when the gap between the bounds of its mass is small against what p(x) is known
to be at least; it then adds to both sums. Nothing is left out: a tile without mass that matters adds its upper bound.
"""

from __future__ import annotations

__all__: list[str] = []  # used by the proofs only

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from latentia.errors import UnsupportedError
from latentia.likelihood.proof.affine import AffineBounds
from latentia.likelihood.proof.likelihoods import Likelihoods, Products
from latentia.likelihood.proof.masses import log_masses
from latentia.likelihood.proof.priors import BoxedPrior
from latentia.likelihood.proof.restriction import Restriction
from latentia.likelihood.proof.rounding import UNIT

LARGEST_SPLIT = {1: 64, 2: 16, 3: 4}  # parts along each side that a tile is divided into at most
WIDE = 8.0  # nats between two bounds beyond which the gap does not yet fall with the square of the side
NARROW = 64.0  # nats between two bounds on a tile, up to which the rectifiers of its parts are integrated
LENIENCY = math.log(4.0)  # by which a gap may exceed its share on the parts of a tile that were to be the last
LARGEST_ROUNDING = 1e-4  # share of the tolerance that rounding may take before something is computed from the start
EXPANSION = 0.05  # share of the tolerance that may be lost to expanding the normalizer once for several tiles
FIRST_WAVE = 64  # share of all nats that may be left, that a tile of the first wave has at least
SMALL = 1 / 2000  # share of the tolerance of a mean that the gap of a pair may be to be settled at once
PAIRS_OF_A_WIDE_SPLIT = 20_000  # at most, where a tile is divided into four along a side before its gap is small
DEEPEST = 48  # level whose tiles are not divided: below 2^−53 of the box the centers of tiles would be rounded


@dataclass(frozen=True)
class Problem:
    """The parts of log p(x|z) p(z), with z = origin + scale ∘ s and s ∈ [−1, 1]ᵈ.

    Attributes:
        family: log p(x|z) of the images.
        prior: p(z) on the box.
        whole: the decoder, as a function of s.
        hints: what log p(x) is thought to be at least, (N,), or −∞: only the order of work depends on it.
    """

    family: Likelihoods
    prior: BoxedPrior
    whole: Restriction
    hints: Tensor


@dataclass(frozen=True)
class Tile:
    """A tile that some images still need divided, with what is known of their masses on it.

    Attributes:
        level: the tile's side is 2 · 2^−level in units of the box.
        center: (d,), in the box's coordinates.
        images: (n,).
        upper, lower: bounds of the log-masses, (n,).
        parts: how many to divide each side into.
        rounding: the part of the slack that is rounding, in nats.
        network: the decoder, restricted to a tile around this one.
        products: of these images with that network, where they are kept.
    """

    level: int
    center: Tensor
    images: Tensor
    upper: Tensor
    lower: Tensor
    parts: int
    rounding: float
    network: Restriction
    products: Products | None


@dataclass
class _Parts:
    """The parts of a divided tile that are not settled, for the images that are not settled on all of them.

    Attributes:
        level: of the parts.
        centers: (S, d).
        images: (n,).
        upper, lower: bounds of the log-masses, (n, S); −∞ where the pair is settled.
        gaps: about how many nats the bounds of log p(x) lie apart by each part, summed over the images, (S,).
        splits: how many to divide each side of a part into, (S,).
        rounding: the part of the slack that is rounding, in nats, (S,).
        network: the decoder, restricted to the tile.
        products: of the images with that network, where they are kept.
    """

    level: int
    centers: Tensor
    images: Tensor
    upper: Tensor
    lower: Tensor
    gaps: Tensor
    splits: Tensor
    rounding: Tensor
    network: Restriction
    products: Products | None

    @classmethod
    def of(cls, tile: Tile, known: Tensor) -> _Parts:
        """One tile that is not divided."""
        upper, lower = tile.upper[:, None], tile.lower[:, None]
        gaps, splits = _total_gaps(upper, lower, known[tile.images]), torch.tensor([tile.parts])
        rounding, network = torch.tensor([tile.rounding]), tile.network
        return cls(tile.level, tile.center[None], tile.images, upper, lower, gaps, splits, rounding, network, None)

    def tiles(self, columns: Tensor) -> list[Tile]:
        """Some of the parts, as tiles."""
        found = []
        for column in columns.tolist():
            rows = (self.upper[:, column] > -math.inf).nonzero().flatten()
            bounds = self.upper[rows, column], self.lower[rows, column]
            kept = None if self.products is None else self.products.of(rows)
            size, rounding = int(self.splits[column]), float(self.rounding[column])
            images, center = self.images[rows], self.centers[column]
            found.append(Tile(self.level, center, images, *bounds, size, rounding, self.network, kept))
        return found

    def take(self, columns: Tensor) -> list[Tile]:
        """The same, taken out."""
        found = self.tiles(columns)
        self.upper[:, columns] = self.lower[:, columns] = -math.inf
        self.gaps[columns] = 0.0
        return found


class _Sums:
    """log Σ exp for each image, in float64, of numbers that come in groups."""

    def __init__(self, count: int):
        self.values = torch.full((count,), -math.inf, dtype=torch.float64)
        self.groups = 0

    def copy(self) -> _Sums:
        """The same numbers, to be added to apart."""
        found = _Sums(0)
        found.values, found.groups = self.values.clone(), self.groups
        return found

    def add(self, images: Tensor, values: Tensor) -> None:
        """Add a group: values (n, S) or (n,), of distinct images (n,)."""
        new = values.logsumexp(-1) if values.dim() > 1 else values
        self.values[images] = torch.logaddexp(self.values[images], new)
        self.groups += 1

    @property
    def rounding(self) -> Tensor:
        """Bound on the error of the values in nats, (N,): each addition errs by a few roundings of its result."""
        size = torch.where(torch.isfinite(self.values), self.values.abs(), 0.0)
        return 16 * UNIT * (self.groups + 64) * (64 + size)


class Search:
    """Divides tiles until the bounds are near enough."""

    def __init__(
        self, problem: Problem, tolerance: float, deadline: float, report: Callable[[float, str], None] | None = None
    ):
        self.problem, self.tolerance, self.deadline = problem, tolerance, deadline
        self.report = report or _ignore
        self.tiles, self.pairs = 0, 0
        self.excluded = 0.0  # volume in boxes that was settled without a narrow bound, summed over the images
        self.whole: Products | None = None

    def statistics(self) -> dict[str, float]:
        """How much was computed."""
        excluded = self.excluded / max(1, len(self.problem.family.features))
        return {"tiles": float(self.tiles), "pairs": float(self.pairs), "excluded": excluded}

    def run(self, index: Tensor, reference: Tensor, share: float) -> tuple[Tensor, Tensor]:
        """Bounds of log p(x) for the images `index`, (n,) each.

        Args:
            index: which images.
            reference: what log p(x) is thought to be at least, for all images of `index`, or −∞.
            share: of p(x) that the gap on one tile may be.
        """
        frontier, known, lower, upper = self._start(index, reference)
        while level := frontier.next_level():
            self._learn(known, lower, [*level, *frontier.all()])
            waiting = torch.cat([tile.images for tile in (*level, *frontier.all())]).unique()
            self.report(1 - len(waiting) / len(index), "proof, images enclosed")
            while level and time.monotonic() <= self.deadline:
                parts = self._divide(level.pop(), known, share, lower, upper)
                for child in parts.tiles((parts.upper > -math.inf).any(0).nonzero().flatten()):
                    frontier.add(child)
            if time.monotonic() > self.deadline:
                for left in (*level, *frontier.all()):
                    lower.add(left.images, left.lower)
                    upper.add(left.images, left.upper)
                break
        return (lower.values - lower.rounding)[index], (upper.values + upper.rounding)[index]

    def run_for_mean(self, index: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        """Bounds of log p(x) for the images `index`, (n,) each, whose mean width is within the tolerance.

        Tiles are divided in waves: in each, those whose gaps, summed over their images, are above a threshold, from
        wave to wave a lower one. So a division is made where it narrows most.
        """
        frontier, known, lower, upper = self._start(index, reference)
        waiting = [_Parts.of(tile, known) for tile in frontier.all()]
        threshold, goal = len(index) * self.tolerance / FIRST_WAVE, math.inf
        while True:
            frontier = _Frontier()
            for parts in waiting:
                for tile in parts.take((parts.gaps > threshold).nonzero().flatten()):
                    frontier.add(tile)
            while level := frontier.next_level():
                while level:
                    tile = level.pop()
                    if time.monotonic() > self.deadline:
                        waiting.append(_Parts.of(tile, known))
                        continue
                    parts = self._divide(tile, known, self.tolerance, lower, upper, goal=goal)
                    for child in parts.take((parts.gaps > threshold).nonzero().flatten()):
                        # At first by level, so that all learn from it; later in depth, since networks take memory.
                        frontier.add(child) if goal == math.inf else level.append(child)
                    # What waits will hardly be divided soon: forget the restricted network.
                    parts.network, parts.products = self.problem.whole, None
                    if bool((parts.upper > -math.inf).any()):
                        waiting.append(parts)
                if goal == math.inf:
                    self._learn(known, lower, [*waiting, *frontier.all()])
            low, high = lower.copy(), upper.copy()
            for parts in waiting:
                low.add(parts.images, parts.lower)
                high.add(parts.images, parts.upper)
            torch.maximum(known, low.values, out=known)
            below, above = (low.values - low.rounding)[index], (high.values + high.rounding)[index]
            width = float((above - below).mean())
            self.report(min(1.0, self.tolerance / width), f"proof, bounds {width:.2g} nats apart on average")
            if not waiting or width <= self.tolerance or time.monotonic() > self.deadline:
                return below, above
            threshold *= min(0.85, max(0.2, self.tolerance / width))
            goal = len(index) * self.tolerance / max(1, sum(int((parts.gaps > 0).sum()) for parts in waiting))

    def exclude(self, index: Tensor, reference: Tensor, level: int, share: float) -> tuple[Tensor, Tensor, list[Tile]]:
        """Log-mass that was excluded at most, log p(x) at least, (n,) each, and the tiles of the level that were not.

        Raises:
            UnsupportedError: where the time ends first.
        """
        frontier, known, lower, upper = self._start(index, reference)
        kept: list[Tile] = []
        while tiles := frontier.next_level():
            self._learn(known, lower, [*tiles, *frontier.all()])
            for tile in tiles:
                if time.monotonic() > self.deadline:
                    raise UnsupportedError("the time ended before all tiles were small enough; allow more seconds")
                parts = self._divide(tile, known, share / 1000, lower, upper, level)
                for child in parts.tiles((parts.upper > -math.inf).any(0).nonzero().flatten()):
                    if child.level < level:
                        frontier.add(child)
                        continue
                    lower.add(child.images, child.lower)
                    kept.append(child)
        return (upper.values + upper.rounding)[index], (lower.values - lower.rounding)[index], kept

    def _start(self, index: Tensor, reference: Tensor) -> tuple[_Frontier, Tensor, _Sums, _Sums]:
        count = len(self.problem.family.features)
        known = torch.full((count,), -math.inf, dtype=torch.float64)
        known[index] = reference
        lower, upper = _Sums(count), _Sums(count)
        upper.add(index, self.problem.prior.log_tail + self.problem.family.supremum[index])
        return _Frontier(self._root(index)), known, lower, upper

    def _learn(self, known: Tensor, lower: _Sums, waiting: Sequence[Tile | _Parts]) -> None:
        """Raise what log p(x) is known to be to its lower bound by all tiles, done and waiting."""
        total = _Sums(len(known))
        for tile in waiting:
            total.add(tile.images, tile.lower)
        torch.maximum(known, torch.logaddexp(total.values, lower.values), out=known)

    def _root(self, index: Tensor) -> Tile:
        d = len(self.problem.prior.origin)
        nothing = torch.full((len(index),), -math.inf, dtype=torch.float64)
        most = self.problem.family.supremum[index]
        center = torch.zeros(d, dtype=torch.float64)
        return Tile(0, center, index, most, nothing, 2, math.inf, self.problem.whole, None)

    def _divide(
        self,
        tile: Tile,
        known: Tensor,
        share: float,
        lower: _Sums,
        upper: _Sums,
        deepest: int | None = None,
        goal: float | None = None,
    ) -> _Parts:
        """Bound the masses on the parts of a tile, add up those that are settled, and return the others.

        With `deepest` only the upper bound counts: a part is settled where it is small. With `goal` it is for a mean
        over images: a pair is settled where its gap is next to nothing, since others of the tile may be divided anyway,
        and parts are to be divided until their gaps, summed over the images, are about as large as the goal.
        """
        prior, d = self.problem.prior, len(tile.center)
        radius = 2.0**-tile.level
        box = AffineBounds.of_boxes(tile.center[None], torch.full((1, d), radius))
        network = tile.network.restricted(box)
        if network.change is not None and self._matters(float((self.problem.family.largest * network.error).sum())):
            network = self.problem.whole.restricted(box)  # rounding adds up from restriction to restriction
        steps = (2 * torch.arange(tile.parts, dtype=torch.float64) + 1 - tile.parts) / tile.parts * radius
        centers = tile.center + (torch.cartesian_prod(*[steps] * d) if d > 1 else steps[:, None])
        inner = radius / tile.parts
        level = tile.level + int(math.log2(tile.parts))
        density = prior.on_tiles(centers, inner)
        log_volume = float((2 * prior.scale * inner).log().sum())
        boxes = AffineBounds.of_boxes(centers, torch.full_like(centers, inner))
        found: list[tuple[Tensor, ...]] = []
        rounding, order = torch.zeros(len(centers), dtype=torch.float64), 2
        products = self._products(tile, network)
        sizes = [size for size in (4, 8) if size < tile.parts] if deepest is None else []
        choices = [_cells(tile.parts, d, size) for size in (*sizes, tile.parts)]
        limit = EXPANSION * min(self.tolerance, 1.0)
        integrate = deepest is None and not float((tile.upper - tile.lower).min()) > NARROW
        tables = self.problem.family.table(network, boxes, tile.images, products, choices, limit, integrate)
        for rows, table in tables:
            high, low = log_masses(table, density, log_volume, self.problem.family.supremum[rows])
            threshold = (known[rows] + math.log(share))[:, None]
            gap = torch.where(low > -math.inf, high + torch.log(-torch.expm1(low - high)), high)
            if deepest is None:
                stuck = torch.where(table.rounding > 0.5 * tile.rounding, 8 * table.rounding, 0.0)
                if goal is not None:
                    enough, narrow = known[rows, None] + math.log(SMALL * self.tolerance), stuck
                else:
                    enough = threshold if tile.parts == 2 else threshold + LENIENCY
                    narrow = stuck.clamp(min=0.5 * self.tolerance)
                done = (gap <= enough) | (high - low <= narrow) | (level >= DEEPEST)
                lower.add(rows, low.masked_fill(~done, -math.inf))
                order = 2 if table.average is None else 3  # of the gap in the side of a tile
                excess = ((high - low) / (0.5 * self.tolerance)).log()
                need = torch.minimum((gap - threshold) / (d + order), excess / order)
                need = need.masked_fill(~(high - low < WIDE), 0.0)
            else:
                done, need = high <= threshold, torch.zeros_like(high)
            upper.add(rows, high.masked_fill(~done, -math.inf))
            self.excluded += int((done & (high - low > self.tolerance)).sum()) * 2.0 ** -(level * d)
            rounding = table.rounding
            found.append((high, low, done, need))
        self.tiles += len(centers)
        self.pairs += len(centers) * len(tile.images)
        high, low, done, need = (torch.cat(parts) for parts in zip(*found, strict=True))
        some = (~done).any(1)
        images, done, need = tile.images[some], done[some], need[some]
        high, low = (x[some].masked_fill_(done, -math.inf) for x in (high, low))
        gaps = _total_gaps(high, low, known[images])
        counts, splits = (~done).sum(0), torch.full((len(centers),), 2)
        most = int(math.log2(LARGEST_SPLIT[d]))
        for column in counts.nonzero().flatten().tolist() if deepest is None else ():
            count = int(counts[column])
            least = 2 if d < 3 and count * 4**d <= PAIRS_OF_A_WIDE_SPLIT else 1
            if goal is None:
                wanted = float(need[~done[:, column], column].quantile(0.95, interpolation="higher")) / math.log(2)
            else:
                gap = float(gaps[column])
                wanted = math.log2(gap / goal) / (d + order) if 0 < gap < count and goal < math.inf else 0.0
            splits[column] = 2 ** math.ceil(min(max(least, wanted - 0.2), most))
        kept = None if network is self.problem.whole else products.of(some)
        return _Parts(level, centers, images, high, low, gaps, splits, rounding, network, kept)

    def _products(self, tile: Tile, network: Restriction) -> Products:
        family = self.problem.family
        if network is self.problem.whole:
            if self.whole is None:
                self.whole = family.products(network, torch.arange(len(family.features)))
            return self.whole.of(tile.images)
        if tile.products is None or network.change is None:
            return tile.products if network is tile.network and tile.products else family.products(network, tile.images)
        if network is tile.network:
            return tile.products
        found = family.restricted(tile.products, tile.network, network)
        return family.products(network, tile.images) if self._matters(found.drift) else found

    def _matters(self, rounding: float) -> bool:
        return not rounding < LARGEST_ROUNDING * min(self.tolerance, 1.0)


def _ignore(_share: float, _what: str) -> None:
    """No progress is shown."""


def _cells(parts: int, d: int, size: int) -> Tensor:
    """The cell of each part of a tile, (partsᵈ,), in the order of `torch.cartesian_prod`: `size` cells along a side."""
    index = torch.arange(parts) // (parts // size)
    axes = torch.cartesian_prod(*[index] * d) if d > 1 else index[:, None]
    return (axes * size ** torch.arange(d)).sum(-1)


def _total_gaps(upper: Tensor, lower: Tensor, known: Tensor) -> Tensor:
    """About how many nats the bounds of log p(x) lie apart by each tile, summed over its images, (n, S) → (S,)."""
    gap = upper + torch.log(-torch.expm1(lower - upper)) - known[:, None]
    return torch.logaddexp(gap, torch.zeros_like(gap)).nan_to_num(nan=0.0, posinf=1e9).sum(0)


class _Frontier:
    """Tiles that wait, by level: the coarsest are next."""

    def __init__(self, *tiles: Tile):
        self._levels: dict[int, list[Tile]] = {}
        for tile in tiles:
            self.add(tile)

    def next_level(self) -> list[Tile]:
        """All tiles of the coarsest level, taken out; none where nothing waits."""
        return self._levels.pop(min(self._levels)) if self._levels else []

    def add(self, tile: Tile) -> None:
        """Let a tile wait."""
        self._levels.setdefault(tile.level, []).append(tile)

    def all(self) -> Iterator[Tile]:
        """Every tile that waits."""
        for tiles in self._levels.values():
            yield from tiles
