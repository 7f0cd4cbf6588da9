r"""Integrals ∫ exp f(z) dz for many f at once, on nested lattices that grow finer only where their mass lies.

**Lattices.** Level ℓ is the lattice of spacing h_ℓ = h₀ 2⁻ˡ. Its nodes come in *tiles*, cubes of bᵈ nodes; a tile of
level ℓ splits into 2ᵈ tiles of level ℓ+1. For each f a list of tiles is kept. All f share the nodes: those of a tile
are handed out once, for the f that have mass there.

**Value.** The trapezoid rule on a lattice, hᵈ Σ exp f, converges faster than any power of h on smooth decaying
integrands (Trefethen and Weideman 2014).

**Certificate.** Level ℓ is the union of 2ᵈ shifted lattices of spacing 2h. Each is a rule of its own, and the largest
distance between one of them and their union, the *spread*, bounds the union's error: on a Gaussian that is about the
fourth power of theirs. Where f has kinks (a ReLU decoder) rules converge like h² with signs that come and go, the
union's error is about a quarter of the spread, and shifted rules may agree by accident; so a quarter of the last
level's spread counts as well.

**Nothing hides between nodes.** A posterior far narrower than h has a density that changes by many nats from node to
node, but its *logarithm* is as smooth as the decoder. So f within half a spacing of a node is bounded from what it
rises by to its neighbors, u = f + ¾ Σ_axes max |Δf|: half the rise would do for a convex or a concave f, and the
rest is for what is neither. Tiles are dropped by u, never by f; what was dropped, hᵈ Σ exp u, is part of the
certificate; and an f counts as resolved only where hᵈ Σ exp u exceeds the integral by little, so that two coarse
rules that miss a narrow ridge by the same distance are not taken for agreement.

**Nothing is cut off at the side of a tile.** A tile's u knows how f rises toward its own nodes, and its neighbor's f
may rise beyond them: where a ridge runs along the common face, the neighbor looks empty from the inside. So what f
promises just *outside* each face is followed too. A tile over a face through which mass may run is taken in, whether
or not its own u would have kept it, and an f is not finished while it has such a face with no tile beyond. Regions thus
grow as well as shrink on the way down, and a drop that was wrong is made good.
"""

from __future__ import annotations

__all__ = ["Integrand", "Refined", "Tables", "refine"]

import contextlib
import itertools
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from latentia.errors import UnsupportedError
from latentia.likelihood.lattice import NODES, Lattice, Pairs, Summary, mass_upper_bound, segment, summarize

RESOLVED = 0.95  # nats for each dimension that ∫ u may exceed ∫ f by; a Gaussian of scale h gives 1.06
TABLE_AT_ONCE = 4_000_000  # numbers of the table f(image, node) in work at a time
LEVELS = 16
NOT_A_NUMBER = "quadrature: the model gives log-densities that are not a number (NaN)"


class Integrand(ABC):
    """Functions f₁ … f_N of z ∈ Rᵈ, evaluated in blocks of nodes.

    Attributes:
        count: N.
        nodes_at_once: how many nodes to hand out together.
    """

    count: int
    nodes_at_once: int = 64 * NODES

    @abstractmethod
    def prepare(self, points: Tensor) -> object:
        """Whatever is needed to evaluate at the nodes `points`, (M, d), float64."""

    @abstractmethod
    def table(self, prepared: object, rows: Tensor | slice, columns: slice) -> Tensor:
        """f for the functions `rows` at the nodes `columns`, (n, m); −inf is allowed, NaN is not."""


@dataclass
class Tables:
    """Values f at the nodes of the tiles that some functions ended on, all at one level.

    Attributes:
        level: the level.
        function: which f, (P,).
        tiles: its tile, (P, d).
        values: f at the tile's nodes, (P, 64).
    """

    level: int
    function: Tensor
    tiles: Tensor
    values: Tensor


@dataclass
class Refined:
    """The integrals, and what is known of them.

    Attributes:
        log_integral: log ∫ exp f, (N,), float64.
        error: bound on its error, (N,): of the rule, and of what was dropped; ∞ for one that was not resolved.
        deviations: of each shifted lattice from their union, (N, 2ᵈ): their means over the functions are the shifted
            lattices' opinions of the mean of log_integral, whose spread is its certificate.
        left_out: the part of the error that is mass left out, (N,).
        level: where each f ended, (N,).
        done: whether it reached the tolerance, (N,).
        best: the highest node met, (N, d).
        best_value: f there, (N,).
        tables: the values at the final nodes, if asked for.
        nodes: how many nodes were handed out.
        products: how many values f(node) were taken.
        bound_violations: of the tiles that were refined, the part in which f rose above its bound u: 0 where the bound holds.
    """

    log_integral: Tensor
    error: Tensor
    deviations: Tensor
    left_out: Tensor
    level: Tensor
    done: Tensor
    best: Tensor
    best_value: Tensor
    tables: list[Tables] = field(default_factory=list)
    nodes: int = 0
    products: int = 0
    bound_violations: float = 0.0


class _OutOfTime(Exception):
    """The time allowed has passed in the middle of a level, which is then forgotten."""


class _Budget:
    def __init__(self, seconds: float, memory: float):
        self.end, self.seconds, self.memory = time.monotonic() + seconds, seconds, memory

    def spent(self) -> bool:
        return time.monotonic() > self.end


def refine(
    integrand: Integrand,
    lattice: Lattice,
    core: int,
    *,
    tolerance: float,
    supremum: Tensor | None = None,
    log_prior: Integrand | None = None,
    hints: tuple[Tensor, Tensor] | None = None,
    keep: bool = False,
    seconds: float = math.inf,
    memory: float = 4e9,
) -> Refined:
    """Integrate exp f for every f of the integrand to a tolerance in nats.

    Args:
        integrand: the functions.
        lattice: of the nodes; level 0 should be fine enough for log-densities, not for densities.
        core: a multiple of 4; the first box has `core` tiles of level 0 along each axis, around the origin. Rings of
            double width around it are searched on coarser and coarser lattices until nothing there can matter.
        tolerance: for each f.
        supremum: (N,) upper bounds of f less log_prior, where known: rings are left out by it with certainty.
        log_prior: a single function, for the rings.
        hints: points (N, d) that f is expected to be high at, and f there (N,).
        keep: whether to keep the final tables.
        seconds: time allowed. What is not done by then is returned as not done.
        memory: bytes allowed for tables.
    """
    run = _Run(integrand, lattice, tolerance, hints, keep, _Budget(seconds, memory))
    with contextlib.suppress(_OutOfTime):
        pairs = run.rings(core, run.core(core), supremum, log_prior)
        for level in range(1, LEVELS):
            if len(pairs) == 0 or run.too_large(pairs):
                break
            pairs = run.step(pairs, level)
    return run.result()


class _Run:
    """The state of one refinement."""

    def __init__(
        self,
        integrand: Integrand,
        lattice: Lattice,
        tolerance: float,
        hints: tuple[Tensor, Tensor] | None,
        keep: bool,
        budget: _Budget,
    ):
        n, d = integrand.count, lattice.dimension
        self.integrand, self.lattice, self.tolerance = integrand, lattice, tolerance
        self.hints, self.keep, self.budget = hints, keep, budget
        # What lies this far below the integral is dropped: a hundred such parts cost a tenth of the tolerance.
        self.depth = max(11.0, 7.0 - math.log(tolerance))
        self.value = torch.full((n,), -torch.inf, dtype=torch.float64)
        self.spread = torch.full((n,), torch.inf, dtype=torch.float64)
        self.spread_before = self.spread.clone()
        self.deviations = torch.full((n, 2**d), torch.inf, dtype=torch.float64)
        self.dropped = torch.full((n,), -torch.inf, dtype=torch.float64)
        self.unbounded = torch.full((n,), -torch.inf, dtype=torch.float64)
        self.level = torch.zeros(n, dtype=torch.long)
        self.is_resolved = torch.zeros(n, dtype=torch.bool)
        self.is_done = torch.zeros(n, dtype=torch.bool)
        self.best = torch.zeros(n, d, dtype=torch.float64)
        self.best_value = torch.full((n,), -torch.inf, dtype=torch.float64)
        self.tables: list[Tables] = []
        self.nodes = self.products = self.checked = self.violated = 0

    @property
    def error(self) -> Tensor:
        """Of the rule, and of what was dropped."""
        return torch.maximum(self.spread, 0.25 * self.spread_before) + self.left_out

    @property
    def left_out(self) -> Tensor:
        """Mass that was left out, as a part of the integral: what log_integral would rise by, at most."""
        return (torch.logaddexp(self.dropped, self.unbounded) - self.value).clamp(max=50).exp()

    def core(self, core: int) -> Pairs:
        """Level 0 over the first box, for every function; returns what survives, split to level 1."""
        d = self.lattice.dimension
        axis = torch.arange(-(core // 2), core // 2)
        tiles = torch.cartesian_prod(*[axis] * d).reshape(-1, d)
        tiles = tiles[(tiles + 0.5).norm(dim=-1).argsort()]  # the middle first: then the rest knows what it must beat
        pairs, summary, _ = self._search(tiles, 0, torch.arange(self.integrand.count))
        self._total(pairs, summary, 0)
        return self._children(pairs, summary, 0)

    def rings(self, core: int, pairs: Pairs, supremum: Tensor | None, log_prior: Integrand | None) -> Pairs:
        """Search around the first box, ring by ring outwards; what may matter joins the pairs of level 1."""
        found = [pairs]
        d = self.lattice.dimension
        who = torch.arange(self.integrand.count)
        for ring in range(1, 12):
            axis = torch.arange(-(core // 2), core // 2)
            tiles = torch.cartesian_prod(*[axis] * d).reshape(-1, d)
            inner = ((tiles >= -(core // 4)) & (tiles < core // 4)).all(-1)
            tiles, level = tiles[~inner], -ring
            above = None
            if supremum is not None and log_prior is not None:
                prior = self._prior_bound(tiles, level, log_prior)
                beyond = supremum[who] + prior.logsumexp(0) + math.log(2)  # and further out, as the tails fall off
                matters = beyond > self.value[who] - self.depth
                left = who[~matters]
                self.dropped[left] = torch.logaddexp(self.dropped[left], beyond[~matters])
                who = who[matters]
                order = prior.argsort(descending=True)
                tiles, above = tiles[order], (prior[order], supremum)
            if len(who) == 0:
                break
            search, summary, most = self._search(tiles, level, who, above)
            self._remember_best(search, summary, level)
            for below in range(level, 1):
                search = self._children(search, summary, below)
                if len(search) == 0 or below == 0:
                    break
                summary, _ = self._evaluate(search, below + 1, keep=False)
                most = most.scatter_reduce(0, search.function, summary.most, "amax")
            if len(search):
                found.append(search)
            # With no supremum known, the search ends at the first ring whose highest f, as if it stood all over the
            # ring, does not matter: what lies beyond is taken to weigh less still.
            mass = most + math.log(len(tiles) * NODES) + self.lattice.log_cell(level)
            if supremum is None and bool((mass < self.value - self.depth).all()):
                self.dropped = torch.logaddexp(self.dropped, mass)
                break
        else:
            raise UnsupportedError(
                "quadrature: the tails of exp f do not end within "
                f"{2**11 * core * self.lattice.side / 2 * self.lattice.spacing.max().item():.3g} of the center; the "
                "distribution of z is improper or has tails too heavy for a grid. Use method='importance' or 'annealed'"
            )
        tiles = torch.cat([p.tiles[p.tile_of_pair] for p in found])
        return Pairs.of(tiles, torch.cat([p.function for p in found]), torch.cat([p.bound for p in found]))

    def too_large(self, pairs: Pairs) -> bool:
        """Whether the next level would not fit in the memory allowed."""
        item = torch.finfo(torch.float64).bits // 8
        per_pair = item * (3 * 2**self.lattice.dimension + 6 + (NODES if self.keep else 0))
        return len(pairs) * per_pair > self.budget.memory

    def step(self, pairs: Pairs, level: int) -> Pairs:
        """Evaluate one level, finish the functions that reached their tolerance, split the tiles of the rest."""
        summary, values = self._evaluate(pairs, level, keep=self.keep)
        self._total(pairs, summary, level)
        active = torch.zeros(self.integrand.count, dtype=torch.bool)
        active[pairs.function] = True
        bound = segment(summary.bound.logsumexp(-1), pairs.function, self.integrand.count)
        bound = bound + self.lattice.log_cell(level)
        resolved = bound - self.value <= RESOLVED * self.lattice.dimension
        if self.hints is not None:
            resolved &= self.best_value >= self.hints[1] - 1
        resolved &= self._enclosed(pairs, summary, level)
        self.is_resolved = torch.where(active, resolved, self.is_resolved)
        self.is_done |= active & resolved & (self.error <= self.tolerance)
        self.level[active] = level
        if values is not None:
            mine = self.is_done[pairs.function]
            self.tables.append(Tables(level, pairs.function[mine], pairs.tiles[pairs.tile_of_pair[mine]], values[mine]))
        return self._children(pairs, summary, level)

    def result(self) -> Refined:
        """What there is."""
        return Refined(
            self.value,
            # Rules on a lattice that mass may hide in, or run out of, may agree by accident.
            torch.where(self.is_resolved, self.error.nan_to_num(torch.inf), torch.inf),
            self.deviations,
            self.left_out.nan_to_num(torch.inf),
            self.level,
            self.is_done,
            self.best,
            self.best_value,
            self.tables,
            self.nodes,
            self.products,
            self.violated / max(1, self.checked),
        )

    def _search(
        self, tiles: Tensor, level: int, who: Tensor, above: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Pairs, Summary, Tensor]:
        """Evaluate many functions on the same tiles, and keep of all the pairs those that may matter.

        Args:
            tiles: (T, d).
            level: of the tiles.
            who: which functions.
            above: bounds of the prior's mass in each tile, falling, and suprema of the rest: they say who may be left
                out.

        Returns:
            The pairs, their summaries, and the highest f of each function (N,), −inf for one that is not among `who`.
        """
        cell = self.lattice.log_cell(level)
        most = torch.full_like(self.value, -torch.inf)
        functions, places = [who[:0]], [who[:0]]
        parts = [summarize(torch.empty(0, NODES), self.lattice)]
        for some in torch.arange(len(tiles)).split(max(1, min(self.integrand.nodes_at_once, 2048) // NODES)):
            members = who
            if above is not None:
                prior, supremum = above[0][some], above[1]
                matters = supremum[who] + prior.logsumexp(0) > self.value[who] - self.depth
                self._drop(who[~matters], supremum[who[~matters]] + prior.logsumexp(0))
                members = who[matters]
            if len(members) == 0:
                continue
            prepared = self.integrand.prepare(self.lattice.nodes(tiles[some], level))
            self.nodes += NODES * len(some)
            for rows in members.split(max(1, TABLE_AT_ONCE // (NODES * len(some)))):
                # Indexing copies: a slice where it can be one
                run = slice(int(rows[0]), int(rows[-1]) + 1)
                chosen = run if run.stop - run.start == len(rows) else rows
                table = self.integrand.table(prepared, chosen, slice(0, NODES * len(some))).unflatten(-1, [-1, NODES])
                self.products += table.numel()
                most[rows] = torch.maximum(most[rows], table.amax((-1, -2)).double().cpu())
                mass = mass_upper_bound(table, self.lattice).double().cpu() + cell
                least = torch.maximum(self.value[rows], most[rows] + cell) - self.depth
                stays = mass > least[:, None]
                self._drop(rows, torch.where(stays, -torch.inf, mass).logsumexp(-1))
                one, other = stays.nonzero(as_tuple=True)
                functions.append(rows[one])
                places.append(some[other])
                parts.append(summarize(table[one.to(table.device), other.to(table.device)], self.lattice))
            if self.budget.spent():
                raise _OutOfTime
        if bool(torch.isnan(most).any()):
            raise UnsupportedError(NOT_A_NUMBER)
        return Pairs.loose(tiles[torch.cat(places)], torch.cat(functions)), Summary.join(parts), most

    def _evaluate(self, pairs: Pairs, level: int, *, keep: bool) -> tuple[Summary, Tensor | None]:
        """Evaluate each function on its own tiles."""
        parts, kept = [], []
        for first, last in self._batches(pairs):
            prepared = self.integrand.prepare(self.lattice.nodes(pairs.tiles[first:last], level))
            self.nodes += NODES * (last - first)
            tables = []
            for t in range(first, last):
                rows = pairs.function[int(pairs.start[t]) : int(pairs.start[t + 1])]
                column = (t - first) * NODES
                tables.append(self.integrand.table(prepared, rows, slice(column, column + NODES)))
            table = torch.cat(tables)
            self.products += table.numel()
            for some in table.split(max(1, TABLE_AT_ONCE // (8 * NODES))):
                parts.append(summarize(some, self.lattice))
            if keep:
                kept.append(table.cpu())
            if self.budget.spent():
                raise _OutOfTime
        summary = Summary.join(parts)
        if bool(torch.isnan(summary.most).any()):
            raise UnsupportedError(NOT_A_NUMBER)
        checked = torch.isfinite(pairs.bound)
        self.checked += int(checked.sum())
        self.violated += int((summary.most[checked] > pairs.bound[checked]).sum())
        return summary, torch.cat(kept) if kept else None

    def _drop(self, functions: Tensor, mass: Tensor) -> None:
        """Count a mass, at most so large, as left out of each of these functions, (n,) and (n,), none twice."""
        self.dropped[functions] = torch.logaddexp(self.dropped[functions], mass)

    def _batches(self, pairs: Pairs) -> Iterator[tuple[int, int]]:
        """Runs of tiles whose nodes and whose tables fit into what is handled at once."""
        counts = pairs.start.diff().tolist()
        most_tiles = max(1, self.integrand.nodes_at_once // NODES)
        first = size = 0
        for t, count in enumerate(counts):
            if t > first and (t - first >= most_tiles or size + count * NODES > TABLE_AT_ONCE):
                yield first, t
                first, size = t, 0
            size += count * NODES
        if first < len(counts):
            yield first, len(counts)

    def _total(self, pairs: Pairs, summary: Summary, level: int) -> None:
        """New values of the functions that have pairs at this level."""
        n, d = self.integrand.count, self.lattice.dimension
        cosets = torch.stack([segment(part, pairs.function, n) for part in summary.cosets.T], -1)
        cosets = cosets + (self.lattice.log_cell(level) + d * math.log(2))
        value = cosets.logsumexp(-1) - d * math.log(2)
        here = torch.zeros(n, dtype=torch.bool)
        here[pairs.function] = True
        self.value = torch.where(here, value, self.value)
        deviations = cosets - value[:, None]
        spread = deviations.abs().amax(-1).nan_to_num(torch.inf)
        self.spread_before = torch.where(here, self.spread, self.spread_before)
        self.spread = torch.where(here, spread, self.spread)
        self.deviations = torch.where(here[:, None], deviations, self.deviations)
        self._remember_best(pairs, summary, level)

    def _remember_best(self, pairs: Pairs, summary: Summary, level: int) -> None:
        most = torch.full_like(self.best_value, -torch.inf)
        most = most.scatter_reduce(0, pairs.function, summary.most, "amax")
        tops = (summary.most == most[pairs.function]) & (summary.most > self.best_value[pairs.function])
        index = tops.nonzero().squeeze(1)
        tile = pairs.tiles[pairs.tile_of_pair[index]] * self.lattice.side
        place = tile + self.lattice.offsets(tile.device)[summary.where[index]]
        self.best[pairs.function[index]] = self.lattice.origin + self.lattice.spacing * 2.0**-level * place
        self.best_value = torch.maximum(self.best_value, most)

    def _least(self, pairs: Pairs) -> Tensor:
        """The log-mass below which parts of tiles are dropped, (N,): all those of a function together matter little."""
        parts = torch.bincount(pairs.function, minlength=self.integrand.count) * 2**self.lattice.dimension
        return self.value - (parts / (0.05 * self.tolerance)).log().clamp_min(self.depth)

    def _across(self, tiles: Tensor) -> tuple[Tensor, Tensor]:
        """The parts that tiles (P, d) split into, (P, 2ᵈ, d), and beyond each face of a part, the part there:
        (P, 2ᵈ, d, d)."""
        d = self.lattice.dimension
        corners = torch.tensor(list(itertools.product((0, 1), repeat=d)))
        split = 2 * tiles[:, None] + corners
        return split, split[:, :, None] + torch.diag_embed(2 * corners - 1)

    def _enclosed(self, pairs: Pairs, summary: Summary, level: int) -> Tensor:
        """Whether no mass runs out of the tiles of a function to where it has none, (N,); notes what may."""
        n = self.integrand.count
        _, beyond = self._across(pairs.tiles[pairs.tile_of_pair])
        mass = summary.faces + self.lattice.log_cell(level)
        function = pairs.function[:, None, None].expand_as(mass)
        there = pairs.holds(beyond.flatten(0, 2).div(2, rounding_mode="floor"), function.flatten()).view(mass.shape)
        function, mass = function[~there], mass[~there]
        # What is smaller counts as left out, and so as error: were it asked to be as small as `_least`, which falls as
        # parts are added, the tiles would have to grow by more than the one ring that a level adds.
        matters = mass > self.value[function] - self.depth
        unbounded = segment(mass[~matters], function[~matters], n)
        here = torch.zeros(n, dtype=torch.bool)
        here[pairs.function] = True
        self.unbounded = torch.where(here, unbounded, self.unbounded)
        enclosed = torch.ones(n, dtype=torch.bool)
        enclosed[function[matters]] = False
        return enclosed

    def _children(self, pairs: Pairs, summary: Summary, level: int) -> Pairs:
        """Split the tiles that may hold mass, add what mass runs out to; count the rest as dropped."""
        cell = self.lattice.log_cell(level)
        log_mass = summary.bound + cell  # (P, 2ᵈ)
        split, beyond = self._across(pairs.tiles[pairs.tile_of_pair])
        if self.hints is not None:
            where = self.lattice.tile_of(self.hints[0], level + 1)[pairs.function]
            holds = (where[:, None] == split).all(-1)
            hint = self.hints[1][pairs.function, None]
            log_mass = torch.where(holds, torch.maximum(log_mass, hint), log_mass)
        waiting = ~self.is_done[pairs.function, None]
        least = self._least(pairs)[pairs.function]
        stays = log_mass > least[:, None]
        lost = waiting & ~stays
        group = pairs.function[:, None].expand_as(lost)
        mass = segment(log_mass[lost], group[lost], self.integrand.count)
        self.dropped = torch.logaddexp(self.dropped, mass)
        stays &= waiting
        # A tile knows how f rises toward its own nodes, and its neighbor how f rises toward it.
        out = waiting[..., None] & (summary.faces + cell > least[:, None, None])
        return Pairs.of(
            torch.cat([split[stays], beyond[out]]),
            torch.cat([group[stays], pairs.function[:, None, None].expand_as(out)[out]]),
            torch.cat([summary.most_bound[stays], summary.faces[out].new_full((int(out.sum()),), torch.inf)]),
        )

    def _prior_bound(self, tiles: Tensor, level: int, log_prior: Integrand) -> Tensor:
        """log of an upper bound of the prior's mass in each tile, (T,)."""
        points = self.lattice.nodes(tiles, level)
        table = log_prior.table(log_prior.prepare(points), slice(None), slice(0, len(points)))
        table = table.reshape(len(tiles), NODES)
        return summarize(table, self.lattice).bound.logsumexp(-1) + self.lattice.log_cell(level)
