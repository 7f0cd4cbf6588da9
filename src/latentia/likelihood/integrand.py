"""What the quadrature takes and what it gives: functions to integrate, and their integrals with what is known of them.

How one becomes the other: `latentia.likelihood.refinement`.
"""

from __future__ import annotations

__all__ = ["Integrand", "Refined", "Tables"]

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from torch import Tensor

from latentia.likelihood.lattice import NODES


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
        surprises: of the tiles that were refined, the part in which f rose above its bound u: 0 where the bound holds.
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
    surprises: float = 0.0
