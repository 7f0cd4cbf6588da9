"""A statement of theory as data: words, formula, source and a check that runs; and the verdicts of checks.

A check is a generator: from a seed it yields *relations* between two estimates. The statement holds if all do. A check
that draws nothing calls its argument `_seed`. An erratum says what the sheet have, what is right, and yields a
counter-example: relations that contradict the sheet's version, mostly of the kind `!=`.

    @statement("1g", "The divergence of a distribution from itself is zero.", latex=r"D_{KL}(q, q) = 0", source="sheet,
    1g") def divergence_from_itself(seed: int) -> Relations:
        for distribution in some_distributions(seed):
            yield equal(kl.exact(distribution, distribution), 0)

`latentia verify`, the report and the tests use the same list (`latentia.theory.statements`).
"""

from __future__ import annotations

__all__ = ["Relation", "Verdict", "choose", "verify"]

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from latentia.errors import ConfigurationError, nearest
from latentia.estimate import Estimate, exact

Sign = Literal["==", "<=", ">=", "!=", "→"]


@dataclass(frozen=True)
class Relation:
    """Two estimates and the claimed relation between them.

    Attributes:
        left: the left side.
        sign: `==`, `<=`, `>=`; `!=` in a counter-example; `→` for an order of convergence.
        right: the right side.
        tolerance: absolute tolerance beyond the errors of both sides, where the statement names one.
        note: the instance.
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
        """The allowed difference: five joint standard errors, error bounds, rounding, and the tolerance."""
        return self.left.slack(self.right) + self.tolerance

    @property
    def holds(self) -> bool:
        """Whether the claim is true within the errors."""
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
    """What the sheet states wrongly.

    Attributes:
        stated: the sheet's version, in LaTeX.
        right: the correct version, in LaTeX.
        words: the difference, in words.
        counter_example: yields relations that are false if the sheet's version is true.
    """

    stated: str
    right: str
    words: str
    counter_example: Check


@dataclass(frozen=True)
class Statement:
    """A statement and its check.

    Attributes:
        item: the item of the sheet, such as `1c`; `1c.finite` and the like where one item holds several.
        words: the statement in words.
        latex: the statement in LaTeX.
        source: paper and equation, or item of the sheet.
        check: yields relations, from a seed.
        erratum: what the sheet states wrongly here, if anything.
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
    """Left equals right."""
    return Relation(*_sides(left, "==", right), tolerance, note)


def at_most(left: Estimate | float, right: Estimate | float, tolerance: float = 0.0, note: str = "") -> Relation:
    """Left is at most right."""
    return Relation(*_sides(left, "<=", right), tolerance, note)


def at_least(left: Estimate | float, right: Estimate | float, tolerance: float = 0.0, note: str = "") -> Relation:
    """Left is at least right."""
    return Relation(*_sides(left, ">=", right), tolerance, note)


def differ(left: Estimate | float, right: Estimate | float, note: str = "") -> Relation:
    """Left differs from right: a counter-example."""
    return Relation(*_sides(left, "!=", right), 0.0, note)


def converges(
    sizes: Sequence[float], errors: Sequence[float], order: float, tolerance: float, note: str = ""
) -> Relation:
    """The error falls like size^order: the least-squares slope of log error against log size is the order.

    Args:
        sizes: step sizes, or numbers of draws (with a negative order).
        errors: positive errors at these sizes.
        order: the claimed slope.
        tolerance: allowed distance of the fitted slope, beyond its standard errors.
        note: the instance.
    """
    x, y = np.log(np.asarray(sizes, dtype=float)), np.log(np.asarray(errors, dtype=float))
    slope, intercept = np.polyfit(x, y, 1)
    residual = y - slope * x - intercept
    freedom = max(1, len(x) - 2)
    stderr = math.sqrt(float(residual @ residual) / freedom / float(((x - x.mean()) ** 2).sum()))
    fitted = Estimate(float(slope), "order", stderr, len(x), unit="1", method="least squares on logarithms")
    return Relation(fitted, "→", exact(order, "order", unit="1"), tolerance, note)


def _sides(left: Estimate | float, sign: Sign, right: Estimate | float) -> tuple[Estimate, Sign, Estimate]:
    """Both sides as estimates; a plain number is exact and takes the unit of the other side."""
    unit = next((side.unit for side in (left, right) if isinstance(side, Estimate)), "1")
    first, second = (side if isinstance(side, Estimate) else exact(side, unit=unit) for side in (left, right))
    return first, sign, second


@dataclass(frozen=True)
class Verdict:
    """The result of checking a statement.

    Attributes:
        statement: the statement.
        relations: yielded by its check.
        counter_examples: yielded by the counter-example of its erratum.
        seconds: wall time.
        failure: the error that ended the check, if one did.
    """

    statement: Statement
    relations: Sequence[Relation]
    counter_examples: Sequence[Relation]
    seconds: float
    failure: str = ""

    @property
    def holds(self) -> bool:
        """Whether the check finished with at least one relation, and all hold, counter-examples included."""
        complete = bool(self.relations) and bool(self.counter_examples or not self.statement.erratum)
        every = all(relation.holds for relation in [*self.relations, *self.counter_examples])
        return complete and every and not self.failure

    @property
    def tightest(self) -> Relation | None:
        """The relation to show: a failing one, else the equality nearest to failing, else the first."""
        failing = [relation for relation in [*self.relations, *self.counter_examples] if not relation.holds]
        if failing or not self.relations:
            return failing[0] if failing else None
        equalities = [relation for relation in self.relations if relation.sign in ("==", "→")]
        return max(equalities or self.relations[:1], key=lambda relation: relation.difference / relation.slack)

    def estimates(self) -> list[Estimate]:
        """The left side of each relation, with the sign, the right side and the verdict in its settings."""
        return [
            replace(
                relation.left,
                name=f"{self.statement.item}: {relation.left.name or 'left'}",
                settings={
                    **relation.left.settings,
                    "relation": relation.sign,
                    "right": relation.right.to_json(),
                    "tolerance": relation.tolerance,
                    "holds": relation.holds,
                    "note": relation.note,
                },
            )
            for relation in [*self.relations, *self.counter_examples]
        ]


_EXPERIMENTS = {"2": "latentia train vae", "4": "latentia train gan"}  # the sheet's chapters without statements


def choose(statements: Sequence[Statement], items: Sequence[str]) -> list[Statement]:
    """The requested statements: `1c` selects `1c` and every `1c.…`; a chapter, `1` or `beyond`, selects all of it.

    Raises:
        ConfigurationError: an unknown item; the message lists all.
    """
    if not items:
        return list(statements)
    chosen: list[Statement] = []
    for item in items:
        found = [s for s in statements if _matches(s.item, item)]
        if not found:
            experiment = _EXPERIMENTS.get(item[:1])
            if experiment is not None:
                raise ConfigurationError(
                    f"item {item} of the sheet is an experiment, not a statement: run `{experiment}`"
                )
            known = [s.item for s in statements]
            hint = nearest(item, known)
            everything = "" if hint.startswith("Known") else f" Known: {', '.join(known)}."
            raise ConfigurationError(f"there is no item {item!r}. {hint}{everything}")
        chosen += [s for s in found if s not in chosen]
    return chosen


def verify(statements: Sequence[Statement], seed: int = 0) -> Iterator[Verdict]:
    """Check statements one by one, from a seed. An error in a check makes that statement fail; the others go on."""
    for statement in statements:
        started = time.perf_counter()
        relations: list[Relation] = []
        counter_examples: list[Relation] = []
        failure = ""
        try:
            relations.extend(statement.check(seed))
            if statement.erratum:
                counter_examples.extend(statement.erratum.counter_example(seed))
        except Exception as error:  # any error of the checked code means that the statement does not hold
            failure = f"{type(error).__name__}: {error}"
        yield Verdict(statement, relations, counter_examples, time.perf_counter() - started, failure)


def _matches(item: str, asked: str) -> bool:
    return item == asked or item.startswith(asked + ".") or (item.startswith(asked) and asked.isdigit())
