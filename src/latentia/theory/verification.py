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
    """What checking a statement came to.

    Attributes:
        statement: what was checked.
        relations: those that its check yielded.
        counter_examples: those that its erratum's counter-example yielded.
        seconds: how long it took.
        failure: the error that ended the check, if one did.
    """

    statement: Statement
    relations: Sequence[Relation]
    counter_examples: Sequence[Relation]
    seconds: float
    failure: str = ""

    @property
    def holds(self) -> bool:
        """Whether the check ran to its end, yielded at least one relation, and all hold, counter-examples included."""
        complete = bool(self.relations) and bool(self.counter_examples or not self.statement.erratum)
        every = all(relation.holds for relation in [*self.relations, *self.counter_examples])
        return complete and every and not self.failure

    @property
    def tightest(self) -> Relation | None:
        """The relation to show: one that fails if any does, else the equality nearest to failing, else the first."""
        failing = [relation for relation in [*self.relations, *self.counter_examples] if not relation.holds]
        if failing or not self.relations:
            return failing[0] if failing else None
        equalities = [relation for relation in self.relations if relation.sign in ("==", "→")]
        return max(equalities or self.relations[:1], key=lambda relation: relation.difference / relation.slack)

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
            known = [s.item for s in statements]
            hint = nearest(item, known)
            everything = "" if hint.startswith("Known") else f" Known: {', '.join(known)}."
            raise ConfigurationError(f"there is no item {item!r}. {hint}{everything}")
        chosen += [s for s in found if s not in chosen]
    return chosen


def verify(statements: Sequence[Statement], seed: int = 0) -> Iterator[Verdict]:
    """Check statements one by one, from a seed. An error in a check is that statement's failure, and the rest go on."""
    for statement in statements:
        started = time.perf_counter()
        relations: list[Relation] = []
        counter_examples: list[Relation] = []
        failure = ""
        try:
            relations.extend(statement.check(seed))
            if statement.erratum:
                counter_examples.extend(statement.erratum.counter_example(seed))
        except (
            Exception
        ) as error:  # whatever code under test may raise, the verdict is that the statement does not hold
            failure = f"{type(error).__name__}: {error}"
        yield Verdict(statement, relations, counter_examples, time.perf_counter() - started, failure)


def _matches(item: str, asked: str) -> bool:
    return item == asked or item.startswith(asked + ".") or (item.startswith(asked) and asked.isdigit())
