"""Run statements and say which hold."""

from __future__ import annotations

__all__ = ["Verdict", "choose", "verify"]

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from latentia.errors import ConfigurationError, nearest
from latentia.estimate import Estimate
from latentia.theory.statement import Relation, Statement


@dataclass(frozen=True)
class Verdict:
    """A statement, the relations that its check yielded, and those of its erratum's counter-example."""

    statement: Statement
    relations: Sequence[Relation]
    counter_examples: Sequence[Relation]
    seconds: float

    @property
    def holds(self) -> bool:
        """Whether there is at least one relation, and all of them hold, the counter-examples among them."""
        return bool(self.relations) and all(relation.holds for relation in [*self.relations, *self.counter_examples])

    @property
    def tightest(self) -> Relation:
        """The relation to show: one that fails if any does, else the one nearest to failing."""
        equalities = [r for r in self.relations if r.sign in ("==", "→")] or list(self.relations)
        return min(equalities, key=lambda r: (r.holds, -r.difference / r.slack if r.slack else 0.0))

    def estimates(self) -> list[Estimate]:
        """Each relation's left side, with the claim, the right side and the verdict among its settings."""
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


def choose(statements: Sequence[Statement], items: Sequence[str]) -> list[Statement]:
    """The statements asked for: `1c` takes `1c` and every `1c.…`; a chapter, `1` or `beyond`, takes all of it.

    Raises:
        ConfigurationError: for an unknown item, with the list.
    """
    if not items:
        return list(statements)
    chosen: list[Statement] = []
    for item in items:
        found = [s for s in statements if _matches(s.item, item)]
        if not found:
            raise ConfigurationError(f"there is no item {item!r}. {nearest(item, (s.item for s in statements))}")
        chosen += [s for s in found if s not in chosen]
    return chosen


def verify(statements: Sequence[Statement], seed: int = 0) -> Iterator[Verdict]:
    """Check statements one by one, from a seed."""
    for statement in statements:
        started = time.perf_counter()
        relations = list(statement.check(seed))
        counter_examples = list(statement.erratum.counter_example(seed)) if statement.erratum else []
        yield Verdict(statement, relations, counter_examples, time.perf_counter() - started)


def _matches(item: str, asked: str) -> bool:
    return item == asked or item.startswith(asked + ".") or (item.startswith(asked) and asked.isdigit())
