"""A statement of theory as data: what it says, where it stands, and a check that runs.

A check is a generator: from a seed it yields *relations* between two estimates. The statement holds if all do. A check
that draws nothing calls its argument `_seed`. An erratum says what the notes have, what is right, and yields a
counter-example: relations that contradict the notes' version, mostly of the kind `!=`.

    @statement("1g", "The divergence of a distribution from itself is zero.", latex=r"D_{KL}(q, q) = 0", source="notes, 1g")
    def divergence_from_itself(seed: int) -> Relations:
        for distribution in some_distributions(seed):
            yield equal(kl.exact(distribution, distribution), 0)

`latentia verify`, the report and the tests all go through the same list (`latentia.theory.statements`).
"""

from __future__ import annotations

__all__ = [
    "Erratum",
    "Relation",
    "Relations",
    "Statement",
    "at_least",
    "at_most",
    "converges",
    "differ",
    "equal",
    "statement",
]

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from latentia.estimate import Estimate, exact

Sign = Literal["==", "<=", ">=", "!=", "→"]


@dataclass(frozen=True)
class Relation:
    """Two estimates and what is claimed of them.

    Attributes:
        left: the left side.
        sign: `==`, `<=`, `>=`; `!=` in a counter-example; `→` for an order of convergence.
        right: the right side.
        tolerance: absolute slack beyond the errors that both sides carry, where the statement names one.
        note: which instance this is.
    """

    left: Estimate
    sign: Sign
    right: Estimate
    tolerance: float = 0.0
    note: str = ""

    @property
    def difference(self) -> float:
        """|left − right|; 0 between equal infinities."""
        return 0.0 if self.left.value == self.right.value else abs(self.left.value - self.right.value)

    @property
    def slack(self) -> float:
        """How far the sides may differ: five joint standard errors, certified errors, rounding, and the tolerance."""
        return self.left.slack(self.right) + self.tolerance

    @property
    def holds(self) -> bool:
        """Whether the claim is true as far as the errors tell."""
        near = self.difference <= self.slack
        return {
            "==": near,
            "→": near,
            "<=": near or self.left.value <= self.right.value,
            ">=": near or self.left.value >= self.right.value,
            "!=": not near,
        }[self.sign]


Relations = Iterator[Relation]
Check = Callable[[int], Relations]


@dataclass(frozen=True)
class Erratum:
    """What the notes have wrong.

    Attributes:
        notes: the notes' version, in LaTeX.
        right: the right version, in LaTeX.
        words: the difference, for a reader with the sheet in hand.
        counter_example: yields relations that are false if the notes' version is true.
    """

    notes: str
    right: str
    words: str
    counter_example: Check


@dataclass(frozen=True)
class Statement:
    """A statement and its check.

    Attributes:
        item: the notes' own identifier, such as `1c`; `1c.finite` and the like where one item holds several.
        words: what it says, in plain words.
        latex: what it says, in LaTeX.
        source: paper and equation, or item of the notes.
        check: yields relations, from a seed.
        erratum: what the notes have wrong here, if anything.
    """

    item: str
    words: str
    latex: str
    source: str
    check: Check
    erratum: Erratum | None = None


def statement(
    item: str, words: str, *, latex: str, source: str, erratum: Erratum | None = None
) -> Callable[[Check], Statement]:
    """Turn a check into a statement; see the module's docstring."""
    return lambda check: Statement(item, words, latex, source, check, erratum)


def equal(left: Estimate | float, right: Estimate | float, tolerance: float = 0.0, note: str = "") -> Relation:
    """Left and right are the same number."""
    return Relation(*_sides(left, "==", right), tolerance, note)


def at_most(left: Estimate | float, right: Estimate | float, tolerance: float = 0.0, note: str = "") -> Relation:
    """Left is no greater than right."""
    return Relation(*_sides(left, "<=", right), tolerance, note)


def at_least(left: Estimate | float, right: Estimate | float, tolerance: float = 0.0, note: str = "") -> Relation:
    """Left is no less than right."""
    return Relation(*_sides(left, ">=", right), tolerance, note)


def differ(left: Estimate | float, right: Estimate | float, note: str = "") -> Relation:
    """Left and right are not the same number: a counter-example."""
    return Relation(*_sides(left, "!=", right), 0.0, note)


def converges(
    sizes: Sequence[float], errors: Sequence[float], order: float, tolerance: float, note: str = ""
) -> Relation:
    """The error falls like size^order: the slope of log error on log size, by least squares, is the order.

    Args:
        sizes: step sizes, or numbers of draws (with a negative order).
        errors: positive errors at these sizes.
        order: the claimed slope.
        tolerance: how far the fitted slope may lie from it, beyond the fit's own standard errors.
        note: which instance this is.
    """
    x, y = np.log(np.asarray(sizes, dtype=float)), np.log(np.asarray(errors, dtype=float))
    slope, intercept = np.polyfit(x, y, 1)
    residual = y - slope * x - intercept
    freedom = max(1, len(x) - 2)
    stderr = math.sqrt(float(residual @ residual) / freedom / float(((x - x.mean()) ** 2).sum()))
    fitted = Estimate(float(slope), "order", stderr, len(x), unit="1", method="least squares on logarithms")
    return Relation(fitted, "→", exact(order, "order", unit="1"), tolerance, note)


def _sides(left: Estimate | float, sign: Sign, right: Estimate | float) -> tuple[Estimate, Sign, Estimate]:
    """Both sides as estimates; a bare number is exact, and has the other side's unit."""
    unit = next((side.unit for side in (left, right) if isinstance(side, Estimate)), "1")
    first, second = (side if isinstance(side, Estimate) else exact(side, unit=unit) for side in (left, right))
    return first, sign, second
