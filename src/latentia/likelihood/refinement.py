r"""Integrals ∫ exp f(z) dz for many f at once, on nested lattices that grow finer only where their mass lies.

**Lattices.** Level ℓ is the lattice of spacing h_ℓ = h₀ 2⁻ˡ. Its nodes form *tiles*, cubes of bᵈ nodes; a tile of
level ℓ splits into 2ᵈ tiles of level ℓ+1. Each f has a list of tiles. All f share the nodes: the nodes of a tile are
evaluated once, for the f that have mass there.

**Value.** The trapezoid rule on a lattice, hᵈ Σ exp f, converges faster than any power of h on smooth decaying
integrands (Trefethen and Weideman 2014).

**Numerical error.** Level ℓ is the union of 2ᵈ shifted lattices of spacing 2h. Each is a rule by itself. The
distance between one of them and their union bounds the error of the union: on a Gaussian that
error is about the fourth power of the error of one. At kinks (a ReLU decoder) the rules converge like h² with changing
signs, and the few shifted rules can agree by chance. The 4ᵈ rules of spacing 4h do not, and at kinks the error of their
union is less than a sixteenth of theirs. So the error counts a part of both root mean squares. At jumps the rules
converge like h, which the roughness of f shows (`_Run.jumps`).

**Mass between nodes.** The density of a narrow posterior changes by many nats from node to node, but its *logarithm* is
as smooth as the decoder. Within half a spacing of a node, f is bounded from its steps to the neighbors,
u = f + ¾ Σ_axes max |Δf|: a factor ½ is enough for convex and for concave f, the rest is a margin. Tiles are dropped by
u, never by f; what was dropped, hᵈ Σ exp u, is part of the error. An f counts as resolved only where hᵈ Σ exp u
exceeds the integral by little, so that two coarse rules that miss a narrow ridge by the same distance do not count
as agreement.

**Mass across the side of a tile.** The bound u of a tile uses steps between its nodes, and the f of its neighbor can
rise beyond them: if a ridge runs along the common face, the neighbor looks empty from inside. So the bound just
*outside* each face is computed too. A tile behind a face through which mass can run is added, whatever its u, and an f
is not finished while it has such a face without a tile behind it. So regions grow as well as shrink, and a wrong drop
is corrected.
"""

from __future__ import annotations

__all__: list[str] = []

import itertools
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor

from latentia.likelihood.lattice import NODES, Lattice, Pairs, Summary, mass_upper_bound, segment, summarize
from latentia.threads import Map, sharing

RESOLVED = 0.95  # nats for each dimension that ∫ u may exceed ∫ f by; a Gaussian of scale h gives 1.06
TABLE_AT_ONCE = 2**18  # numbers of the table f(image, node) that a thread has in work at a time
ROWS = 2048  # of a table that are summarized together
BATCH = 4_000_000  # numbers of the table of one batch of tiles at most
PAIRS_AT_ONCE = 20_000  # pairs of a function and a tile in work at a time, where each needs some kilobytes
LEVELS = 16
CANCELED = 4.0  # root mean squares of the spreads of three levels that the error at jumps is taken to be at most
FOURS = 0.1  # of the deviations of rules of spacing 4h: a kink's error is 1/12 of them at worst, and 1/30 in the median
SLOW = 0.43  # a fall of the roughness between a quarter, at kinks, and a half, at jumps
RINGS = 16
FARTHEST = -700.0  # log of the prior's mass in a ring, beyond which an unknown supremum is not searched for
MOST_TILES = 40_000  # of one function at one level: 2.6 million nodes


class Integrand(ABC):
    """Functions f₁ … f_N of z ∈ Rᵈ, evaluated in blocks of nodes.

    Attributes:
        count: N.
        nodes_at_once: how many nodes to hand out together.
        has_kinks: whether f has many kinks, as that of a rectifier network, and is not expected to have jumps.
        threads: how many threads may call `prepare` and `table` at the same time.
    """

    count: int
    threads: int = 1
    has_kinks: bool = False
    nodes_at_once: int = 64 * NODES

    @abstractmethod
    def prepare(self, points: Tensor) -> object:
        """Whatever is needed to evaluate at the nodes `points`, (M, d), float64."""

    @abstractmethod
    def table(self, prepared: object, rows: Tensor | slice, columns: slice) -> Tensor:
        """f for the functions `rows` at the nodes `columns`, (n, m); −inf is allowed, NaN is not."""

    def supremum(self) -> tuple[Tensor | None, bool]:
        """Upper bounds of f less the log-density of the prior, (N,), None where unknown; whether they are proven.

        One that is not proven is what the nodes prepared so far show.
        """
        return None, False


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


class Stop(IntEnum):
    """Why a function was not integrated to the tolerance."""

    NONE = 0
    TIME = 1
    SIZE = 2
    LEVELS = 3
    TAILS = 4
    NAN = 5
    PRECISION = 6
    DISAGREE = 7
    UNEXPLAINED = 8


@dataclass
class Refined:
    """The integrals, and what is known of them.

    Attributes:
        log_integral: log ∫ exp f, (N,), float64.
        rule_error: estimate of the error of the rule, relative to the integral, (N,); ∞ for one that is not resolved.
        log_left_out: log of the mass that was left out, (N,).
        deviations: of each shifted lattice from their union, (N, 2ᵈ). Their means over the functions estimate the
            remaining error of the mean of log_integral.
        level: where each f ended, (N,).
        done: whether it reached the tolerance, (N,).
        stop: why not, (N,), values of `Stop`.
        best: the highest node met, (N, d).
        best_value: f there, (N,).
        tables: the values at the final nodes, if asked for.
        nodes: how many nodes were evaluated.
        products: how many values f(node) were taken.
        bound_violations: of the tiles that were refined, the part in which f rose above its bound u.
    """

    log_integral: Tensor
    rule_error: Tensor
    log_left_out: Tensor
    deviations: Tensor
    level: Tensor
    done: Tensor
    stop: Tensor
    best: Tensor
    best_value: Tensor
    tables: list[Tables] = field(default_factory=list)
    nodes: int = 0
    products: int = 0
    bound_violations: float = 0.0

    @property
    def error(self) -> Tensor:
        """Estimate of the error of log_integral in nats, (N,)."""
        return self.rule_error + _nan_to_inf((self.log_left_out - self.log_integral).exp())


def _nan_to_inf(error: Tensor) -> Tensor:
    return torch.where(error.isnan(), torch.inf, error)


class _OutOfTime(Exception):
    """The time allowed has passed within a level, which is then discarded."""


class _Budget:
    """Time and memory allowed, and how much of the work is done."""

    def __init__(self, seconds: float, memory: float, progress: Callable[[float], None] | None):
        self.end, self.memory, self.progress = time.monotonic() + seconds, memory, progress
        self.done = self.part = 0.0

    def begin(self, share: float) -> None:
        """Begin a part that is this share of what remains."""
        self.done += self.part
        self.part = share * (1 - self.done)

    def spent(self, share: float) -> bool:
        """Whether the time is up; `share` of the present part is done."""
        if self.progress is not None:
            self.progress(self.done + self.part * share)
        return time.monotonic() > self.end


def refine(
    integrand: Integrand,
    lattice: Lattice,
    core: int,
    *,
    tolerance: float,
    log_prior: Integrand | None = None,
    floor: Tensor | None = None,
    reach: float = 0.0,
    hints: tuple[Tensor, Tensor] | None = None,
    keep: bool = False,
    seconds: float = math.inf,
    memory: float = 4e9,
    progress: Callable[[float], None] | None = None,
) -> Refined:
    """Integrate exp f for every f of the integrand to a tolerance in nats.

    Args:
        integrand: the functions.
        lattice: of the nodes; level 0 should be fine enough for log-densities, not for densities.
        core: a multiple of 4; the first box has `core` tiles of level 0 along each axis, around the origin. Rings of
            double width around it are searched on lattices of double spacing until nothing there can matter.
        tolerance: for each f.
        log_prior: a single function, for the rings: where the integrand has a supremum of f − log_prior, rings are left
            out by it; without one they go on until the prior falls below exp(−700).
        floor: (N,) log of what is known to be in the total besides this integral: what is small against it is dropped.
        reach: distance from the origin within which the prior may rise again after a gap.
        hints: points (N, d) where f is expected to be high, and f there (N,), −∞ for none.
        keep: whether to keep the final tables.
        seconds: time allowed.
        memory: bytes allowed for tables.
        progress: is called with the share of the work that is done, by the usual cost of each part.
    """
    with sharing(integrand.threads) as in_order:
        run = _Run(integrand, lattice, tolerance, floor, hints, keep, _Budget(seconds, memory, progress), in_order)
        _carry_out(run, core, log_prior, reach)
    return run.result()


def _carry_out(run: _Run, core: int, log_prior: Integrand | None, reach: float) -> None:
    """The box, the rings around it, and level after level."""
    try:
        run.budget.begin(0.1)
        pairs = run.core(core)
        run.budget.begin(0.25)
        pairs = run.rings(core, pairs, log_prior, reach)
        for level in range(1, LEVELS):
            pairs = run.within_size(pairs)
            if len(pairs) == 0:
                break
            run.budget.begin(0.75)
            pairs = run.step(pairs, level)
        run.give_up(pairs.function, Stop.LEVELS)
    except _OutOfTime:
        run.give_up(torch.arange(run.integrand.count), Stop.TIME)


class _Run:
    """The state of one refinement."""

    def __init__(
        self,
        integrand: Integrand,
        lattice: Lattice,
        tolerance: float,
        floor: Tensor | None,
        hints: tuple[Tensor, Tensor] | None,
        keep: bool,
        budget: _Budget,
        in_order: Map,
    ):
        n, d = integrand.count, lattice.dimension
        self.integrand, self.lattice, self.tolerance = integrand, lattice, tolerance
        self.hints, self.keep, self.budget = hints, keep, budget
        # What lies this far below the integral is dropped: a hundred such parts cost a tenth of the tolerance.
        self.depth = max(11.0, 7.0 - math.log(tolerance)) + (3 if d == 1 else 0)  # on the line tiles cost little
        low, high = (torch.full((n,), sign * torch.inf, dtype=torch.float64) for sign in (-1, 1))
        self.floor = low.clone() if floor is None else floor
        self.value, self.dropped, self.unbounded, self.best_value = (low.clone() for _ in range(4))
        self.spread, self.spread_before, self.spread_first = high.clone(), high.clone(), high.clone()
        # Root mean squares of the deviations of the shifted lattices of spacing 2h and 4h from their union.
        self.twos, self.fours = high.clone(), high.clone()
        self.roughness = torch.full((n, 3), torch.inf, dtype=torch.float64)  # of the last levels, the latest first
        self.deviations = torch.full((n, 2**d), torch.inf, dtype=torch.float64)
        self.level, self.stop = (torch.zeros(n, dtype=torch.long) for _ in range(2))
        self.is_resolved, self.is_done, self.active = (torch.zeros(n, dtype=torch.bool) for _ in range(3))
        self.best = torch.zeros(n, d, dtype=torch.float64)
        self.tables: list[Tables] = []
        self.in_order = in_order
        self.nodes = self.products = self.checked = self.violated = 0
        self.eps = torch.finfo(torch.float64).eps

    @property
    def reference(self) -> Tensor:
        """log of the total that a mass is compared to, (N,)."""
        return torch.maximum(self.value, self.floor)

    @property
    def rule_error(self) -> Tensor:
        """Of the rule, relative to the integral."""
        chance = (2**self.lattice.dimension - 1) ** -0.5  # the fewer rules, the more often they agree by chance
        return chance * self.twos + FOURS * self.fours + self.jumps

    @property
    def jumps(self) -> Tensor:
        """Error of the rule at jumps of f, relative to the integral, (N,).

        The roughness W = Σ exp f |Δ³f| / Σ exp f has no signs that cancel. Where f is smooth it falls to an eighth from
        level to level, at kinks to a quarter, at jumps to a half, and a jump's error is at most W/8. Where kinks are
        many, W must fall as slowly twice in a row. In the plane and in space, the spreads of the last three levels,
        taken to halve from level to level, show what is left of it once errors cancel.
        """
        now, before, first = self.roughness.T
        before, first = (torch.where(w.isinf(), 0.0, w) for w in (before, first))
        if self.lattice.dimension == 1 or not self.integrand.has_kinks:
            most = 0.25 * (now - 0.25 * before).clamp_min(0)
            if self.lattice.dimension == 1:
                return most
            # Along a curve or surface the errors of the nodes next to it cancel like those of random draws.
            spreads = torch.stack([self.spread, 0.5 * self.spread_before, 0.25 * self.spread_first])
            return torch.minimum(most, CANCELED * spreads.square().mean(0).sqrt())
        share = 0.125 / (1 - 2 * SLOW)
        return share * torch.minimum((now - SLOW * before).clamp_min(0), 0.5 * (before - SLOW * first).clamp_min(0))

    @property
    def error(self) -> Tensor:
        """Of the rule and of what was left out, relative to the total."""
        own = self.rule_error * (self.value - self.reference).exp()
        return own + (torch.logaddexp(self.dropped, self.unbounded) - self.reference).clamp(max=50).exp()

    def give_up(self, functions: Tensor, reason: Stop) -> None:
        """Note why these functions, of which some may be done, are not followed further."""
        mine = torch.zeros_like(self.is_done)
        mine[functions] = True
        self.stop[mine & ~self.is_done & (self.stop == Stop.NONE)] = int(reason)

    def core(self, core: int) -> Pairs:
        """Level 0 over the first box, for every function; returns what is kept, split to level 1."""
        d = self.lattice.dimension
        axis = torch.arange(-(core // 2), core // 2)
        tiles = torch.cartesian_prod(*[axis] * d).reshape(-1, d)
        tiles = tiles[(tiles + 0.5).norm(dim=-1).argsort()]  # the middle first: it sets what the rest is compared to
        pairs, summary, _ = self._search(tiles, 0, torch.arange(self.integrand.count))
        self._total(pairs, summary, 0)
        return self._children(pairs, summary, 0)

    def rings(self, core: int, pairs: Pairs, log_prior: Integrand | None, reach: float) -> Pairs:
        """Search around the first box, ring by ring outwards; what may matter joins the pairs of level 1."""
        found = [pairs]
        d = self.lattice.dimension
        who = some = torch.arange(self.integrand.count)
        for ring in range(1, RINGS):
            axis = torch.arange(-(core // 2), core // 2)
            tiles = torch.cartesian_prod(*[axis] * d).reshape(-1, d)
            inner = ((tiles >= -(core // 4)) & (tiles < core // 4)).all(-1)
            tiles, level = tiles[~inner], -ring
            prior = None if log_prior is None else self._prior_bound(tiles, level, log_prior)
            inside = float(self.lattice.spacing.min()) * self.lattice.side * core / 2 * 2.0 ** (ring - 1) < reach
            remote = not inside and (prior is None or bool(prior.logsumexp(0) < FARTHEST))
            supremum, proven = (None, False) if prior is None else self._supremum(tiles, level)
            above, some = None, who
            if supremum is not None and prior is not None:
                beyond = supremum[who] + prior.logsumexp(0) + math.log(2)  # and further out, as the tails fall off
                matters = beyond > self.reference[who] - self.depth
                self._drop(who[~matters], beyond[~matters])
                some = who[matters]
                who = some if proven and not inside else who
                if len(some) == 0 and ((proven and not inside) or remote):
                    break
                order = prior.argsort(descending=True)
                tiles, above = tiles[order], (prior[order], supremum)
            if len(some) == 0:
                continue
            search, summary, most = self._search(tiles, level, some, above)
            self._remember_best(search, summary, level)
            for below in range(level, 1):
                self._raise_value(search, summary, below)
                search = self.within_size(self._children(search, summary, below))
                if len(search) == 0 or below == 0:
                    break
                summary, _, _ = self._evaluate(search, below + 1)
                most = most.scatter_reduce(0, search.function, summary.most, "amax")
            if len(search):
                found.append(search)
            # Without a supremum the search ends at a ring whose highest f, as if it stood all over the ring, does not
            # matter, and beyond which the prior is so small that no density seen in practice makes up for it.
            mass = most + math.log(len(tiles) * NODES) + self.lattice.log_cell(level)
            small = mass < self.reference - self.depth
            if supremum is None and remote and bool(small.all()):
                self.dropped = torch.logaddexp(self.dropped, mass)
                break
            some = (~small).nonzero().squeeze(1) if supremum is None else some
        else:
            self.dropped[some] = torch.inf
            self.give_up(some, Stop.TAILS)
        tiles = torch.cat([p.tiles[p.tile_of_pair] for p in found])
        return Pairs.of(tiles, torch.cat([p.function for p in found]), torch.cat([p.bound for p in found]))

    def _supremum(self, tiles: Tensor, level: int) -> tuple[Tensor | None, bool]:
        """The integrand's supremum, and whether it is proven: else it must hold on the nodes of these tiles too."""
        supremum, proven = self.integrand.supremum()
        if supremum is not None and not proven:
            for some in tiles.split(max(1, self.integrand.nodes_at_once // NODES)):
                self.integrand.prepare(self.lattice.nodes(some, level))
                self.nodes += NODES * len(some)
            supremum, proven = self.integrand.supremum()
        return supremum, proven

    def within_size(self, pairs: Pairs) -> Pairs:
        """Leave out functions that have failed, that have too many tiles, or whose tiles do not fit in the memory."""
        going = self.stop == Stop.NONE
        counts = torch.bincount(pairs.function, minlength=self.integrand.count)
        item = torch.finfo(torch.float64).bits // 8
        per_pair = item * (3 * 2**self.lattice.dimension + 7 + NODES)
        order = counts.argsort()
        fits = torch.empty_like(going)
        fits[order] = counts[order].cumsum(0) * per_pair <= self.budget.memory
        large = ~fits | (counts > MOST_TILES)
        if bool(large.any()):
            self.give_up(large.nonzero().squeeze(1), Stop.SIZE)
        return pairs.where((going & ~large)[pairs.function])

    def step(self, pairs: Pairs, level: int) -> Pairs:
        """Evaluate one level, finish the functions that reached their tolerance, split the tiles of the rest."""
        summary, table, fours = self._evaluate(pairs, level)
        self._total(pairs, summary, level)
        deviations = _nan_to_inf(fours / fours.mean(-1, keepdim=True) - 1)
        self.fours = torch.where(self.active, deviations.square().mean(-1).sqrt(), self.fours)
        active = self.active
        bound = segment(summary.bound.logsumexp(-1), pairs.function, self.integrand.count)
        bound = bound + self.lattice.log_cell(level)
        steep = segment(summary.steep, pairs.function, self.integrand.count) + self.lattice.log_cell(level) - self.value
        # Next to a jump u is far above f at any spacing: all but a little of the mass must lie elsewhere.
        jumps = self._has_jumps() & (steep < math.log(0.1))
        resolved = (bound - self.value <= RESOLVED * self.lattice.dimension) | (bound < self.floor - self.depth) | jumps
        if self.hints is not None:
            resolved &= self.best_value >= self.hints[1] - 1
        resolved &= self._enclosed(pairs, summary, level) | jumps
        self.is_resolved = torch.where(active, resolved, self.is_resolved)
        self.is_done |= active & resolved & (self.error <= self.tolerance) & (self.stop == Stop.NONE)
        self.level[active] = level
        floor = 16 * self.eps * self.best_value.abs()
        stalled = active & resolved & (self.spread <= floor) & (self.spread > 0.5 * self.spread_before)
        self.give_up(stalled.nonzero().squeeze(1), Stop.PRECISION)
        if self.keep:
            final = self.is_done | (self.stop != Stop.NONE)
            mine = final[pairs.function]
            self.tables.append(
                Tables(
                    level,
                    pairs.function[mine],
                    pairs.tiles[pairs.tile_of_pair[mine]],
                    table[mine.to(table.device)].cpu(),
                )
            )
        return self._children(pairs, summary, level, table)

    def _has_jumps(self) -> Tensor:
        """Whether the roughness has halved twice in a row, (N,)."""
        return ((self.roughness[:, :2] / self.roughness[:, 1:] - 0.5).abs() < 0.08).all(-1)

    def result(self) -> Refined:
        """What there is."""
        # A function whose tiles were all dropped against the floor: `dropped` bounds all of it.
        absent = ~self.is_done & (self.stop == Stop.NONE)
        value = torch.where(absent, -torch.inf, self.value)
        rule = torch.where(self.is_resolved, _nan_to_inf(self.rule_error), torch.inf)
        rule = torch.where(self.is_done, rule, 2 * rule)  # the order was seen on fewer levels than the tolerance needs
        # Rules on a lattice that mass may hide in, or extend beyond, may agree by accident.
        return Refined(
            value,
            torch.where(absent, 0.0, rule),
            _nan_to_inf(torch.logaddexp(self.dropped, self.unbounded)),
            _nan_to_inf(self.deviations),
            self.level,
            self.is_done | absent,
            torch.where(self.is_done | absent, int(Stop.NONE), self.stop),
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
        parts, kept = [summarize(torch.empty(0, NODES), self.lattice)], []
        blocks, members = [], []
        for some in torch.arange(len(tiles)).split(max(1, self.integrand.nodes_at_once // NODES)):
            matters = torch.ones_like(who, dtype=torch.bool)
            if above is not None:
                beyond = above[1][who] + above[0][some].logsumexp(0)
                matters = beyond > self.reference[who] - self.depth
                self._drop(who[~matters], beyond[~matters])
            if bool(matters.any()):
                blocks.append(some)
                members.append(matters)
        ready = self.in_order(lambda b: self.integrand.prepare(self.lattice.nodes(tiles[b], level)), blocks)
        for some, matters, prepared in zip(blocks, members, ready, strict=True):
            self.nodes += NODES * len(some)

            def screen(rows: Tensor, some: Tensor = some, prepared: object = prepared) -> tuple[Any, ...]:
                # Indexing copies: a slice where it can be one
                run = slice(int(rows[0]), int(rows[-1]) + 1)
                chosen = run if run.stop - run.start == len(rows) else rows
                table = self.integrand.table(prepared, chosen, slice(0, NODES * len(some))).unflatten(-1, [-1, NODES])
                highest = torch.maximum(most[rows], table.amax((-1, -2)).double().cpu())
                mass = mass_upper_bound(table, self.lattice).double().cpu() + cell
                if above is not None:
                    mass = torch.minimum(mass, above[1][rows, None] + above[0][some])
                least = torch.maximum(self.reference[rows], highest + cell) - self.depth
                stays = mass > least[:, None]
                one, other = stays.nonzero(as_tuple=True)
                dropped = torch.where(stays, -torch.inf, mass).logsumexp(-1)
                kept = table[one.to(table.device), other.to(table.device)]
                return highest, dropped, rows[one], some[other], kept

            rows_at_once = who[matters].split(max(1, TABLE_AT_ONCE // (NODES * len(some))))
            for rows, found in zip(rows_at_once, self.in_order(screen, rows_at_once), strict=True):
                self.products += NODES * len(some) * len(rows)
                most[rows], dropped = found[:2]
                self._drop(rows, dropped)
                functions.append(found[2])
                places.append(found[3])
                kept.append(found[4])
            if sum(map(len, kept)) >= PAIRS_AT_ONCE:
                parts += self._summaries(torch.cat(kept))
                kept.clear()
            if self.budget.spent((int(some[-1]) + 1) / len(tiles)):
                raise _OutOfTime
        parts += self._summaries(torch.cat(kept)) if kept else []
        self._fail((~(most < torch.inf)).nonzero().squeeze(1))
        summary = Summary.join([part for part, _ in parts])
        return Pairs.loose(tiles[torch.cat(places)], torch.cat(functions)), summary, most

    def _evaluate(self, pairs: Pairs, level: int) -> tuple[Summary, Tensor, Tensor]:
        """Evaluate each function on its own tiles.

        Returns:
            The summary; the table (P, 64); Σ exp f over each shifted lattice of four times the spacing, (N, 4ᵈ), each
            row times a constant.
        """
        fine = ~self.lattice.coarse()
        order = torch.cat([fine.nonzero().squeeze(1), (~fine).nonzero().squeeze(1)])  # the coarse nodes last
        fresh = int(fine.sum())
        new = torch.ones(len(pairs.tiles), dtype=torch.bool)  # tiles whose coarse nodes some function does not know
        if pairs.known is not None:
            lacks = pairs.known.isnan().any(-1).cpu()
            new = torch.zeros(len(new), dtype=torch.bool).index_fill(0, pairs.tile_of_pair[lacks], True)
        start = pairs.start.tolist()

        def evaluate(batch: tuple[int, int]) -> tuple[Any, ...]:
            first, last = batch
            nodes = self.lattice.nodes(pairs.tiles[first:last], level).view(last - first, NODES, -1)[:, order]
            take = new[first:last, None] | (torch.arange(NODES) < fresh)
            prepared = self.integrand.prepare(nodes[take])
            edges = [0, *take.sum(-1).cumsum(0).tolist()]
            table, products = torch.empty(0), 0
            for t, stop in pairs.runs(first, last, new):
                mine = slice(start[t] - start[first], start[stop] - start[first])
                columns = slice(edges[t - first], edges[stop - first])
                found = self.integrand.table(prepared, pairs.function[start[t] : start[t + 1]], columns)
                if len(table) == 0:
                    table = found.new_empty(start[last] - start[first], NODES)
                products += found.numel()
                found = found.unflatten(1, (stop - t, -1)).transpose(0, 1).flatten(0, 1)
                table[mine, : found.shape[1]] = found
            if pairs.known is not None:
                counts = pairs.start[first : last + 1].diff()
                old = (~new[first:last]).repeat_interleave(counts).to(table.device)
                table[old, fresh:] = pairs.known[start[first] : start[last]][old]
            return table[:, order.argsort().to(table.device)], int(take.sum()), products

        batches, table = list(self._batches(pairs)), torch.empty(0, NODES)
        for (first, last), found in zip(batches, self.in_order(evaluate, batches), strict=True):
            if first == 0:  # one array for all, since many small ones would leave the memory in pieces
                table = found[0].new_empty(len(pairs), NODES)
            table[start[first] : start[last]] = found[0]
            self.nodes, self.products = self.nodes + found[1], self.products + found[2]
            if self.budget.spent(start[last] / max(1, len(pairs))):
                raise _OutOfTime
        parts, at = [], 0
        fours = torch.zeros(self.integrand.count, 4**self.lattice.dimension, dtype=torch.float64)
        offset = torch.where(torch.isfinite(self.best_value), self.best_value, 0.0)
        for summary, sums in self._summaries(table):
            function = pairs.function[at : at + len(sums)]
            fours.index_add_(0, function, sums.double() * (summary.most - offset[function]).exp()[:, None])
            parts.append(summary)
            at += len(sums)
        self.eps = torch.finfo(table.dtype).eps
        summary = Summary.join(parts)
        self._fail(pairs.function[~(summary.most < torch.inf)])
        checked = torch.isfinite(pairs.bound)
        self.checked += int(checked.sum())
        self.violated += int((summary.most[checked] > pairs.bound[checked]).sum())
        return summary, table, fours

    def _summaries(self, table: Tensor) -> Iterator[tuple[Summary, Tensor]]:
        """The summaries of a table (P, 64), some rows at a time."""
        return self.in_order(lambda some: summarize(some, self.lattice), table.split(ROWS))

    def _fail(self, functions: Tensor) -> None:
        """Leave out functions whose f is NaN or +∞ somewhere."""
        self.dropped[functions] = torch.inf
        self.is_done[functions] = False
        self.stop[functions] = int(Stop.NAN)

    def _drop(self, functions: Tensor, mass: Tensor) -> None:
        """Count a mass, at most so large, as left out of each of these functions, (n,) and (n,), none twice."""
        self.dropped[functions] = torch.logaddexp(self.dropped[functions], mass)

    def _batches(self, pairs: Pairs) -> Iterator[tuple[int, int]]:
        """Runs of tiles whose nodes and whose tables fit into what is handled at once."""
        counts = pairs.start.diff().tolist()
        most_tiles = max(1, self.integrand.nodes_at_once // NODES)
        first = size = 0
        for t, count in enumerate(counts):
            if t > first and (t - first >= most_tiles or size + count * NODES > BATCH):
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
        self.active = here
        rough = segment(summary.roughness, pairs.function, n) + self.lattice.log_cell(level) - value
        rough = _nan_to_inf(rough.clamp(max=50).exp())
        self.roughness = torch.where(here[:, None], torch.stack([rough, *self.roughness.T[:2]], -1), self.roughness)
        self.value = torch.where(here, value, self.value)
        deviations = cosets - value[:, None]
        spread = _nan_to_inf(deviations.abs().amax(-1))
        self.spread_first = torch.where(here, self.spread_before, self.spread_first)
        twos = _nan_to_inf(deviations.clamp(max=50).expm1().square().mean(-1).sqrt())
        self.twos = torch.where(here, twos, self.twos)
        self.spread_before = torch.where(here, self.spread, self.spread_before)
        self.spread = torch.where(here, spread, self.spread)
        self.deviations = torch.where(here[:, None], deviations, self.deviations)
        self._remember_best(pairs, summary, level)

    def _raise_value(self, pairs: Pairs, summary: Summary, level: int) -> None:
        """Compare what is dropped in the rings to the mass seen there, until level 1 gives a value."""
        total = segment(summary.cosets.logsumexp(-1), pairs.function, self.integrand.count)
        self.value = torch.maximum(self.value, total + self.lattice.log_cell(level))

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
        return self.reference - (parts / (0.05 * self.tolerance)).log().clamp_min(self.depth)

    def _outward(self) -> Tensor:
        """On which side of a tile each of its 2ᵈ parts lies along each axis, −1 or 1, (2ᵈ, d)."""
        return 2 * torch.tensor(list(itertools.product((0, 1), repeat=self.lattice.dimension))) - 1

    def _split(self, tiles: Tensor) -> Tensor:
        """The parts that tiles (P, d) split into, (P, 2ᵈ, d)."""
        return 2 * tiles[:, None] + (self._outward() + 1) // 2

    def _enclosed(self, pairs: Pairs, summary: Summary, level: int) -> Tensor:
        """Whether no mass runs out of the tiles of a function to where it has none, (N,); notes what may."""
        n, tile_of_pair = self.integrand.count, pairs.tile_of_pair
        functions, masses = [], []
        for some in torch.arange(len(pairs)).split(PAIRS_AT_ONCE):
            # Beyond each face of a part, the part there.
            beyond = self._split(pairs.tiles[tile_of_pair[some]])[:, :, None] + torch.diag_embed(self._outward())
            mass = summary.faces[some] + self.lattice.log_cell(level)
            function = pairs.function[some, None, None].expand_as(mass)
            there = pairs.holds(beyond.flatten(0, 2).div(2, rounding_mode="floor"), function.flatten()).view(mass.shape)
            functions.append(function[~there])
            masses.append(mass[~there])
        function, mass = torch.cat(functions), torch.cat(masses)
        # What is smaller counts as left out, and so as error: were it asked to be as small as `_least`, which falls as
        # parts are added, the tiles would have to grow by more than the one ring that a level adds.
        matters = mass > self.reference[function] - self.depth
        unbounded = segment(mass[~matters], function[~matters], n)
        here = torch.zeros(n, dtype=torch.bool)
        here[pairs.function] = True
        self.unbounded = torch.where(here, unbounded, self.unbounded)
        enclosed = torch.ones(n, dtype=torch.bool)
        enclosed[function[matters]] = False
        return enclosed

    def _children(self, pairs: Pairs, summary: Summary, level: int, table: Tensor | None = None) -> Pairs:
        """Split the tiles that may hold mass, add what mass runs out to; count the rest as dropped.

        A table of f (P, 64) saves the evaluation at its nodes on the next level.
        """
        cell = self.lattice.log_cell(level)
        log_mass = summary.bound + cell  # (P, 2ᵈ)
        split = self._split(pairs.tiles[pairs.tile_of_pair])
        if self.hints is not None:
            where = self.lattice.tile_of(self.hints[0], level + 1)[pairs.function]
            holds = (where[:, None] == split).all(-1)
            hint = self.hints[1][pairs.function, None]
            log_mass = torch.where(holds, torch.maximum(log_mass, hint), log_mass)
        waiting = ~self.is_done[pairs.function, None] & (self.stop == Stop.NONE)[pairs.function, None]
        least = self._least(pairs)[pairs.function]
        stays = log_mass > least[:, None]
        lost = waiting & ~stays
        group = pairs.function[:, None].expand_as(lost)
        mass = segment(log_mass[lost], group[lost], self.integrand.count)
        self.dropped = torch.logaddexp(self.dropped, mass)
        stays &= waiting
        # A tile knows how f rises toward its own nodes, and its neighbor how f rises toward it.
        out = waiting[..., None] & (summary.faces + cell > least[:, None, None])
        pair, part, axis = out.nonzero(as_tuple=True)
        beyond = split[pair, part]
        beyond[torch.arange(len(pair)), axis] += self._outward()[part, axis]
        known = None
        if table is not None:
            kept = stays.to(table.device).split(PAIRS_AT_ONCE)
            rows = zip(table.split(PAIRS_AT_ONCE), kept, strict=True)
            known = torch.cat([self.lattice.split(some)[mine] for some, mine in rows])
        return Pairs.of(
            torch.cat([split[stays], beyond]),
            torch.cat([group[stays], pairs.function[pair]]),
            torch.cat([summary.most_bound[stays], summary.faces.new_full((len(pair),), torch.inf)]),
            known,
        )

    def _prior_bound(self, tiles: Tensor, level: int, log_prior: Integrand) -> Tensor:
        """log of an upper bound of the prior's mass in each tile, (T,)."""
        points = self.lattice.nodes(tiles, level)
        table = log_prior.table(log_prior.prepare(points), slice(None), slice(0, len(points)))
        table = table.reshape(len(tiles), NODES)
        return summarize(table, self.lattice)[0].bound.logsumexp(-1) + self.lattice.log_cell(level)
