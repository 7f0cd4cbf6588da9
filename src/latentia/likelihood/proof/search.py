"""The search that encloses log p(x): tiles of the prior's box are divided until the bounds of each image meet.

A pair of an image and a tile is settled when the gap between the bounds of its mass is small against what p(x) is known
to be at least; it then adds to both sums. Nothing is left out: a tile without mass that matters adds its upper bound.
"""

from __future__ import annotations

__all__: list[str] = []  # used by the proofs only

import heapq
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
from latentia.threads import Map

LARGEST_SPLIT = {1: 64, 2: 16, 3: 4}  # parts along each side that a tile is divided into at most
WIDE = 8.0  # nats between two bounds beyond which the gap does not yet fall with the square of the side
NARROW = 64.0  # nats between two bounds on a tile, up to which the rectifiers of its parts are integrated
LENIENCY = math.log(4.0)  # by which a gap may exceed its share on the parts of a tile that were to be the last
LARGEST_ROUNDING = 1e-4  # share of the tolerance that rounding may take before something is computed from the start
EXPANSION = 0.05  # share of the tolerance that may be lost to expanding the normalizer once for several tiles
FIRST_WAVE = 128  # share of all nats that may be left, that a tile of the first wave has at least
SMALL = 1 / 2000  # share of the tolerance of a mean that the gap of a pair may be to be settled at once
PAIRS_OF_A_WIDE_SPLIT = 20_000  # at most, where a tile is divided into four along a side before its gap is small
PARTS_AT_ONCE = 256  # of several tiles that are divided together
WASTE = 4000  # pairs for each tile that may be bounded without need, since others of their image are not settled
LEARN_AGAIN = 1.3  # by which more tiles must have been bounded before all are asked for what they show of p(x)
BATCHES_AT_ONCE = 16  # between two looks at what is left
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


@dataclass
class Siblings:
    """Parts of a divided tile, for the images that are not settled on all of them.

    Attributes:
        level: the side of a part is 2 · 2^−level in units of the box.
        centers: (S, d), in the box's coordinates.
        images: (n,).
        upper, lower: bounds of the log-masses, (n, S); −∞ where the pair is settled.
        gaps: about how many nats the bounds of log p(x) lie apart by each part, summed over the images, (S,).
        splits: how many to divide each side of a part into, (S,).
        rounding: the part of the slack that is rounding, in nats, (S,).
        network: the decoder, restricted to a box around the parts.
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

    @property
    def open(self) -> Tensor:
        """Which pairs of an image and a part are not settled, (n, S)."""
        return self.upper > -math.inf

    def some(self, columns: Tensor) -> Siblings:
        """Some of the parts, with the images that are not settled on all of these."""
        rows = self.open[:, columns].any(1).nonzero().flatten()
        upper, lower = self.upper[rows][:, columns], self.lower[rows][:, columns]
        kept = None if self.products is None else self.products.of(rows)
        parts = (self.gaps[columns], self.splits[columns], self.rounding[columns])
        return Siblings(self.level, self.centers[columns], self.images[rows], upper, lower, *parts, self.network, kept)

    def take(self, columns: Tensor) -> Siblings:
        """The same, taken out."""
        found = self.some(columns)
        self.upper[:, columns] = self.lower[:, columns] = -math.inf
        self.gaps[columns] = 0.0
        return found

    @property
    def total(self) -> float:
        """Of the gaps."""
        return float(self.gaps.sum())

    def batches(self) -> list[Siblings]:
        """All parts, in groups that are divided together: as many as share most of their images, at one size."""
        found, d = [], self.centers.shape[1]
        for size in self.splits.unique().tolist():
            columns = (self.splits == size).nonzero().flatten()
            waiting = list(reversed(columns.split(max(1, PARTS_AT_ONCE // size**d))))
            while waiting:
                columns = waiting.pop()
                open_ = self.open[:, columns]
                unneeded = (int(open_.any(1).sum()) * len(columns) - int(open_.sum())) * size**d
                if len(columns) > 1 and unneeded > WASTE * len(columns):
                    waiting += reversed(columns.chunk(2))
                else:
                    found.append(self if len(columns) == len(self.splits) else self.some(columns))
        return found


@dataclass(frozen=True)
class _Division:
    """What dividing some siblings gave.

    Attributes:
        siblings: the parts that are not settled, those of one tile together.
        settled: images, (n,), with log-sums of lower and of upper bounds of their settled masses, (n,).
        tiles, pairs: how many were bounded.
        excluded: volume in boxes that was settled without a narrow bound, summed over the images.
    """

    siblings: list[Siblings]
    settled: list[tuple[Tensor, Tensor, Tensor]]
    tiles: int
    pairs: int
    excluded: float


class _Sums:
    """log Σ exp for each image, in float64, of numbers that come in groups."""

    def __init__(self, count: int):
        self.values = torch.full((count,), -math.inf, dtype=torch.float64)
        self.groups = 0

    def add(self, images: Tensor, values: Tensor) -> None:
        """Add a group: values (n, S) or (n,), of distinct images (n,)."""
        new = values.logsumexp(-1) if values.dim() > 1 else values
        self.values[images] = torch.logaddexp(self.values[images], new)
        self.groups += 1

    def and_more(self, waiting: Sequence[Siblings], side: str) -> _Sums:
        """The same with the bounds of tiles that wait."""
        found = _Sums(0)
        found.values, found.groups = self.values.clone(), self.groups
        for tiles in waiting:
            found.add(tiles.images, getattr(tiles, side))
        return found

    @property
    def rounding(self) -> Tensor:
        """Bound on the error of the values in nats, (N,): each addition errs by a few roundings of its result."""
        size = torch.where(torch.isfinite(self.values), self.values.abs(), 0.0)
        return 16 * UNIT * (self.groups + 64) * (64 + size)


class _Bounds:
    """Log-sums of the lower and of the upper bounds of all settled masses, for each image."""

    def __init__(self, count: int):
        self.lower, self.upper = _Sums(count), _Sums(count)

    def shares(self, known: Tensor) -> Tensor:
        """Both as shares of what p(x) is known to be at least, (2, N)."""
        return torch.stack([_share(sums.values, known) for sums in (self.upper, self.lower)])

    def bounds(self, waiting: Sequence[Siblings], index: Tensor) -> tuple[Tensor, Tensor]:
        """Bounds of log p(x) for the images `index`, from what is settled and what waits, rounding included."""
        low, high = self.lower.and_more(waiting, "lower"), self.upper.and_more(waiting, "upper")
        return (low.values - low.rounding)[index], (high.values + high.rounding)[index]


class Search:
    """Divides tiles until the bounds are near enough.

    Args:
        problem: what is integrated.
        tolerance: in nats.
        deadline: by `time.monotonic`.
        report: is called with the share that is done, and with what is being done.
        apply: `map`, or the same by several threads. The result does not depend on how many: a few batches are divided
            independently of each other, and what they give is added up in their order.
    """

    def __init__(
        self,
        problem: Problem,
        tolerance: float,
        deadline: float,
        report: Callable[[float, str], None] | None = None,
        apply: Map = map,
    ):
        self.problem, self.tolerance, self.deadline = problem, tolerance, deadline
        self.report, self.apply = report or _ignore, apply
        self.tiles, self.pairs = 0, 0
        self.excluded = 0.0  # volume in boxes that was settled without a narrow bound, summed over the images
        self.whole = problem.family.products(problem.whole, torch.arange(len(problem.family.features)))

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
        queue, known, sums = self._start(index, reference, _Queue())
        late: list[Siblings] = []
        while queue and not late:
            if queue.at_new_level():
                waiting = [*queue]
                self._learn(known, sums, waiting)
                left = torch.cat([tiles.images for tiles in waiting]).unique()
                self.report(1 - len(left) / len(index), "proof, images enclosed")
            found, late = self._divided(queue.next(), known, share, sums)
            for tiles in found:
                queue.add(tiles)
        return sums.bounds([*late, *queue], index)

    def run_for_mean(self, index: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        """Bounds of log p(x) for the images `index`, (n,) each, whose mean width is within the tolerance.

        Tiles are divided in waves: in each, those whose gaps, summed over their images, are above a threshold, from
        wave to wave a lower one. So a division is made where it narrows most. The first wave takes the largest gaps
        first, so that all tiles learn from it and it may end at any time. Later ones go in depth, since networks take
        memory.
        """
        queue, known, sums = self._start(index, reference, _Queue(lambda tiles: -tiles.total / len(tiles.centers)))
        waiting: list[Siblings] = []
        threshold, goal, learn_at = len(index) * self.tolerance / FIRST_WAVE, math.inf, 0.0
        while True:
            late: list[Siblings] = []
            shares = self._shares(known, [*waiting, *queue])
            while queue and not late:
                if goal == math.inf and self.tiles >= learn_at:
                    self._learn(known, sums, [*waiting, *queue])
                    shares, learn_at = self._shares(known, [*waiting, *queue]), LEARN_AGAIN * self.tiles
                batches = queue.next()
                found, late = self._divided(batches, known, self.tolerance, sums, goal=goal)
                shares += self._shares(known, [*found, *late]) - self._shares(known, batches)
                for tiles in found:
                    ready = (tiles.gaps > threshold).nonzero().flatten()
                    if len(ready):
                        queue.add(tiles.take(ready))
                    # What waits will hardly be divided soon: forget the restricted network.
                    tiles.network, tiles.products = self.problem.whole, None
                    if bool(tiles.open.any()):
                        waiting.append(tiles)
                high, low = (shares + sums.shares(known))[:, index].clamp(min=1e-300).log()
                if float((high - low).mean()) <= self.tolerance:
                    break
            waiting += [*late, *queue]
            below, above = sums.bounds(waiting, index)
            known[index] = torch.maximum(known[index], below)
            width = float((above - below).mean())
            self.report(min(1.0, self.tolerance / width), f"proof, bounds {width:.2g} nats apart on average")
            if not waiting or width <= self.tolerance or time.monotonic() > self.deadline:
                return below, above
            queue = _Queue(lambda tiles: -tiles.level)
            threshold *= min(0.85, max(0.2, self.tolerance / width))
            goal = len(index) * self.tolerance / max(1, sum(int((tiles.gaps > 0).sum()) for tiles in waiting))
            for tiles in waiting:
                ready = (tiles.gaps > threshold).nonzero().flatten()
                if len(ready):
                    queue.add(tiles.take(ready))
            waiting = [tiles for tiles in waiting if bool(tiles.open.any())]

    def exclude(
        self, index: Tensor, reference: Tensor, level: int, share: float
    ) -> tuple[Tensor, Tensor, list[Siblings]]:
        """Log-mass that was excluded at most, log p(x) at least, (n,) each, and the tiles of the level that were not.

        Raises:
            UnsupportedError: where the time ends first.
        """
        queue, known, sums = self._start(index, reference, _Queue())
        kept: list[Siblings] = []
        while queue:
            if queue.at_new_level():
                self._learn(known, sums, [*queue])
            found, late = self._divided(queue.next(), known, share / 1000, sums, deepest=level)
            if late:
                raise UnsupportedError("the time ended before all tiles were small enough; allow more seconds")
            for tiles in found:
                if tiles.level < level:
                    queue.add(tiles)
                    continue
                sums.lower.add(tiles.images, tiles.lower)
                kept.append(tiles)
        below, above = sums.bounds([], index)
        return above, below, kept

    def _start(self, index: Tensor, reference: Tensor, queue: _Queue) -> tuple[_Queue, Tensor, _Bounds]:
        count, d = len(self.problem.family.features), len(self.problem.prior.origin)
        known = torch.full((count,), -math.inf, dtype=torch.float64)
        known[index] = reference
        sums = _Bounds(count)
        most = self.problem.family.supremum[index]
        sums.upper.add(index, self.problem.prior.log_tail + most)
        nothing = torch.full((len(index), 1), -math.inf, dtype=torch.float64)
        whole, one = self.problem.whole, torch.ones(1, dtype=torch.float64)
        gaps = _total_gaps(most[:, None], nothing, known[index])
        box = Siblings(
            0,
            torch.zeros(1, d).double(),
            index,
            most[:, None],
            nothing,
            gaps,
            2 * one.long(),
            math.inf * one,
            whole,
            None,
        )
        queue.add(box)
        return queue, known, sums

    def _learn(self, known: Tensor, sums: _Bounds, waiting: Sequence[Siblings]) -> None:
        """Raise what log p(x) is known to be to its lower bound by all tiles, done and waiting."""
        total = _Sums(len(known))
        for tiles in waiting:
            total.add(tiles.images, tiles.lower)
        torch.maximum(known, torch.logaddexp(total.values, sums.lower.values), out=known)

    def _shares(self, known: Tensor, waiting: Sequence[Siblings]) -> Tensor:
        """Sums of upper and of lower bounds of tiles, as shares of what p(x) is known to be at least, (2, N)."""
        found = torch.zeros(2, len(known), dtype=torch.float64)
        for tiles in waiting:
            here = known[tiles.images, None]
            found[:, tiles.images] += torch.stack([_share(x, here).sum(1) for x in (tiles.upper, tiles.lower)])
        return found

    def _divided(
        self,
        batches: list[Siblings],
        known: Tensor,
        share: float,
        sums: _Bounds,
        deepest: int | None = None,
        goal: float | None = None,
    ) -> tuple[list[Siblings], list[Siblings]]:
        """Divide batches and add up what is settled: the parts that are not, and the batches that no time was left for.

        With `deepest` only the upper bound counts: a part is settled where it is small. With `goal` it is for a mean
        over images: a pair is settled where its gap is next to nothing, since others of the tile may be divided anyway,
        and parts are to be divided until their gaps, summed over the images, are about as large as the goal.
        """

        def divide(batch: Siblings) -> _Division | None:
            if time.monotonic() > self.deadline:
                return None
            return self._divide(batch, known, share, deepest, goal)

        found: list[Siblings] = []
        late: list[Siblings] = []
        for batch, division in zip(batches, self.apply(divide, batches), strict=True):
            if division is None:
                late.append(batch)
                continue
            self.tiles, self.pairs = self.tiles + division.tiles, self.pairs + division.pairs
            self.excluded += division.excluded
            for images, low, high in division.settled:
                sums.lower.add(images, low)
                sums.upper.add(images, high)
            found += division.siblings
        return found, late

    def _divide(
        self, tiles: Siblings, known: Tensor, share: float, deepest: int | None, goal: float | None
    ) -> _Division:
        """Bound the masses on the parts of tiles that are divided into equally many."""
        prior, (count, d) = self.problem.prior, tiles.centers.shape
        size, radius = int(tiles.splits[0]), 2.0**-tiles.level
        network = self._network(tiles, radius)
        products = self._products(tiles, network)
        steps = (2 * torch.arange(size, dtype=torch.float64) + 1 - size) / size * radius
        offsets = torch.cartesian_prod(*[steps] * d) if d > 1 else steps[:, None]
        centers, parts = (tiles.centers.unsqueeze(1) + offsets).flatten(0, 1), len(offsets)
        inner, level = radius / size, tiles.level + int(math.log2(size))
        density = prior.on_tiles(centers, inner)
        log_volume = float((2 * prior.scale * inner).log().sum())
        boxes = AffineBounds.of_boxes(centers, torch.full_like(centers, inner))
        sizes = [cells for cells in (4, 8) if cells < size] if deepest is None else []
        choices = [_cells(count, size, d, cells) for cells in (*sizes, size)]
        limit = EXPANSION * min(self.tolerance, 1.0)
        open_ = tiles.open
        integrate = deepest is None and not float((tiles.upper - tiles.lower)[open_].min()) > NARROW
        tables = self.problem.family.table(network, boxes, tiles.images, products, parts, choices, limit, integrate)
        found, settled, excluded, begin = [], [], 0.0, 0
        rounding, order = torch.zeros(len(centers), dtype=torch.float64), 2
        for rows, table in tables:
            high, low = log_masses(table, density, log_volume, self.problem.family.supremum[rows])
            here = open_[begin : begin + len(rows)].repeat_interleave(parts, 1)
            begin += len(rows)
            threshold = (known[rows] + math.log(share))[:, None]
            gap = torch.where(low > -math.inf, high + torch.log(-torch.expm1(low - high)), high)
            if deepest is None:
                before = 0.5 * tiles.rounding.repeat_interleave(parts)
                stuck = torch.where(table.rounding > before, 8 * table.rounding, 0.0)
                if goal is not None:
                    enough, narrow = known[rows, None] + math.log(SMALL * self.tolerance), stuck
                else:
                    enough = threshold if size == 2 else threshold + LENIENCY
                    narrow = stuck.clamp(min=0.5 * self.tolerance)
                done = (gap <= enough) | (high - low <= narrow) | (level >= DEEPEST)
                order = 2 if table.average is None else 3  # of the gap in the side of a tile
                excess = ((high - low) / (0.5 * self.tolerance)).log()
                need = torch.minimum((gap - threshold) / (d + order), excess / order)
                need = need.masked_fill(~(high - low < WIDE), 0.0)
            else:
                done, need = high <= threshold, torch.zeros_like(high)
            done &= here
            # With `deepest` the lower bounds count where a tile is kept, or not at all.
            least = low.masked_fill(~done, -math.inf) if deepest is None else torch.full_like(low, -math.inf)
            settled.append((rows, least.logsumexp(-1), high.masked_fill(~done, -math.inf).logsumexp(-1)))
            excluded += int((done & (high - low > self.tolerance)).sum()) * 2.0 ** -(level * d)
            rounding = table.rounding
            found.append((high, low, here & ~done, need))
        high, low, left, need = (torch.cat(each).unflatten(1, (count, parts)) for each in zip(*found, strict=True))
        siblings = []
        for i in left.any(0).any(-1).nonzero().flatten().tolist():
            rows, columns = (left[:, i].any(axis).nonzero().flatten() for axis in (1, 0))
            at = rows[:, None], torch.tensor(i), columns
            waits = left[at]
            upper, lower = (x[at].masked_fill_(~waits, -math.inf) for x in (high, low))
            images, kept = tiles.images[rows], None if network is self.problem.whole else products.of(rows)
            gaps = _total_gaps(upper, lower, known[images])
            splits = self._splits(gaps, need[at], waits, d, d + order, goal) if deepest is None else 2 + 0 * columns
            places = columns + i * parts
            siblings.append(
                Siblings(level, centers[places], images, upper, lower, gaps, splits, rounding[places], network, kept)
            )
        return _Division(siblings, settled, len(centers), int(open_.sum()) * parts, excluded)

    def _splits(self, gaps: Tensor, need: Tensor, waits: Tensor, d: int, order: int, goal: float | None) -> Tensor:
        """How many to divide each side of parts into, (S,), by what is needed for the pairs that wait, (n, S)."""
        counts, most = waits.sum(0), int(math.log2(LARGEST_SPLIT[d]))
        least = torch.where(counts * 4**d <= PAIRS_OF_A_WIDE_SPLIT, 2, 1) if d < 3 else torch.ones_like(counts)
        if goal is None:
            need = need.masked_fill(~waits, -math.inf)
            # The largest but for one in twenty.
            place = ((counts - 1) * 0.95).ceil().long() + len(need) - counts
            wanted = need.sort(0).values.gather(0, place.clamp(max=len(need) - 1)[None])[0] / math.log(2)
        elif goal < math.inf:
            wanted = torch.where((gaps > 0) & (gaps < counts), (gaps / goal).log2() / order, 0.0)
        else:
            wanted = torch.zeros_like(gaps)
        return 2 ** torch.maximum(least, wanted.nan_to_num(nan=0.0) - 0.2).clamp(max=most).ceil().long()

    def _network(self, tiles: Siblings, radius: float) -> Restriction:
        """The decoder, restricted to the smallest box that holds the tiles."""
        low, high = tiles.centers.amin(0, keepdim=True), tiles.centers.amax(0, keepdim=True)
        box = AffineBounds.of_boxes((low + high) / 2, (high - low) / 2 + radius)
        network = tiles.network.restricted(box)
        if network.change is not None and self._matters(float((self.problem.family.largest * network.error).sum())):
            network = self.problem.whole.restricted(box)  # rounding adds up from restriction to restriction
        return network

    def _products(self, tiles: Siblings, network: Restriction) -> Products:
        family = self.problem.family
        if network is self.problem.whole:
            return self.whole.of(tiles.images)
        if tiles.products is not None and network is tiles.network:
            return tiles.products
        if tiles.products is None or network.change is None:
            return family.products(network, tiles.images)
        found = family.restricted(tiles.products, tiles.network, network)
        return family.products(network, tiles.images) if self._matters(found.drift) else found

    def _matters(self, rounding: float) -> bool:
        return not rounding < LARGEST_ROUNDING * min(self.tolerance, 1.0)


def _ignore(_share: float, _what: str) -> None:
    """No progress is shown."""


def _cells(count: int, parts: int, d: int, size: int) -> Tensor:
    """The cell of each part of so many tiles, (count · partsᵈ,): `size` cells along each side of a tile.

    The parts of a tile are in the order of `torch.cartesian_prod`.
    """
    index = torch.arange(parts) // (parts // size)
    axes = torch.cartesian_prod(*[index] * d) if d > 1 else index[:, None]
    within = (axes * size ** torch.arange(d)).sum(-1)
    return (torch.arange(count)[:, None] * size**d + within).flatten()


def _share(bound: Tensor, known: Tensor) -> Tensor:
    """e^(bound − known), or e^25 where it is more, so that sums and differences of it keep some digits."""
    return (bound - known).nan_to_num(nan=-math.inf, neginf=-math.inf).clamp(max=25).exp()


def _total_gaps(upper: Tensor, lower: Tensor, known: Tensor) -> Tensor:
    """About how many nats the bounds of log p(x) lie apart by each tile, summed over its images, (n, S) → (S,)."""
    gap = upper + torch.log(-torch.expm1(lower - upper)) - known[:, None]
    return torch.logaddexp(gap, torch.zeros_like(gap)).nan_to_num(nan=0.0, posinf=1e9).sum(0)


def _level(tiles: Siblings) -> float:
    return tiles.level


class _Queue:
    """Batches of tiles that wait to be divided.

    Args:
        order: what is least for the next batch; batches of the same are taken by their gaps.
    """

    def __init__(self, order: Callable[[Siblings], float] = _level):
        self._order = order
        self._heap: list[tuple[float, float, int, Siblings]] = []
        self._added, self._level = 0, -1

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[Siblings]:
        return (tiles for *_, tiles in self._heap)

    def add(self, tiles: Siblings) -> None:
        """Let tiles wait."""
        for batch in tiles.batches():
            heapq.heappush(self._heap, (self._order(batch), -batch.total, self._added, batch))
            self._added += 1

    def at_new_level(self) -> bool:
        """Whether the next batches are of another level than the last."""
        return bool(self._heap) and self._heap[0][-1].level != self._level

    def next(self) -> list[Siblings]:
        """The next few batches, taken out; by levels, all of one."""
        found = [heapq.heappop(self._heap)[-1]]
        self._level = found[0].level
        while self._heap and len(found) < BATCHES_AT_ONCE and not (self._order is _level and self.at_new_level()):
            found.append(heapq.heappop(self._heap)[-1])
        return found
