"""Relations, verdicts and the choice of statements, on made-up statements."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from latentia.errors import ConfigurationError
from latentia.estimate import Estimate, estimates_to_json, exact
from latentia.theory import Relation, Statement, choose, statements, verify
from latentia.theory.statement import Erratum, Relations, at_least, at_most, converges, differ, equal, statement

RANDOM = Estimate(1.0, stderr=0.1)
CERTIFIED = Estimate(1.0, settings={"error": 0.1})


@pytest.mark.parametrize(
    ("relation", "holds"),
    [
        (equal(1.0, 1.0), True),
        (equal(1.0, 1.0 + 1e-9), False),
        (equal(1.0, 1.1, tolerance=0.2), True),
        (equal(RANDOM, 1.49), True),
        (equal(RANDOM, 1.51), False),
        (equal(CERTIFIED, 1.09), True),
        (equal(CERTIFIED, 1.11), False),
        (equal(math.inf, math.inf), True),
        (equal(math.inf, 1.0), False),
        (equal(math.inf, -math.inf), False),
        (at_most(1.0, 2.0), True),
        (at_most(2.0, 1.0), False),
        (at_most(1.0, math.inf), True),
        (at_most(math.inf, 1.0), False),
        (at_most(RANDOM, 0.6), True),
        (at_least(2.0, 1.0), True),
        (at_least(1.0, 2.0), False),
        (at_least(math.inf, 1.0), True),
        (differ(1.0, 2.0), True),
        (differ(1.0, 1.0), False),
        (differ(RANDOM, 1.3), False),
        (differ(math.inf, 1.0), True),
    ],
)
def test_relations(relation: Relation, holds: bool) -> None:
    assert relation.holds is holds


def test_a_bare_number_takes_the_other_sides_unit() -> None:
    relation = equal(exact(1.0, unit="1"), 1)
    assert relation.right.unit == "1"
    assert equal(2.0, exact(2.0)).left.unit == "nats"


@pytest.mark.parametrize(("order", "holds"), [(-1, True), (-2, False), (-0.5, False)])
def test_an_order_is_fitted(order: float, holds: bool) -> None:
    sizes = [4, 8, 16, 32]
    noise = 1 + 0.01 * np.random.default_rng(0).standard_normal(4)
    relation = converges(sizes, [3 / k * e for k, e in zip(sizes, noise, strict=True)], order, tolerance=0.02)
    assert relation.holds is holds
    assert relation.left.stderr is not None


def made(check, erratum: Erratum | None = None) -> Statement:
    return statement("9z", "Words.", latex="x", source="here", erratum=erratum)(check)


def test_a_check_that_yields_nothing_does_not_hold() -> None:
    def nothing(seed: int) -> Relations:
        yield from ()

    (verdict,) = verify([made(nothing)])
    assert not verdict.holds
    assert verdict.tightest is None
    assert verdict.estimates() == []


def test_an_error_fails_that_statement_alone_and_is_reported() -> None:
    def breaks(seed: int) -> Relations:
        yield equal(1, 1)
        raise ZeroDivisionError("by zero")

    def holds(seed: int) -> Relations:
        yield equal(1, 1)

    first, second = verify([made(breaks), made(holds)])
    assert not first.holds
    assert first.failure == "ZeroDivisionError: by zero"
    assert len(first.relations) == 1
    assert second.holds


def test_an_interrupt_is_no_verdict() -> None:
    def stops(seed: int) -> Relations:
        raise KeyboardInterrupt
        yield

    with pytest.raises(KeyboardInterrupt):
        list(verify([made(stops)]))


def test_a_counter_example_that_does_not_contradict_the_notes_fails_the_statement() -> None:
    def holds(seed: int) -> Relations:
        yield equal(1, 1)

    def same(seed: int) -> Relations:
        yield differ(1, 1)

    (verdict,) = verify([made(holds, Erratum("n", "r", "w", same))])
    assert not verdict.holds
    assert verdict.tightest is verdict.counter_examples[0]
    (verdict,) = verify([made(holds, Erratum("n", "r", "w", lambda _: iter(())))])
    assert not verdict.holds, "an erratum must have a counter-example that runs"


def test_a_verdict_shows_failures_or_else_the_tightest_equality() -> None:
    near, far = equal(RANDOM, 1.45), equal(RANDOM, 1.01)
    (verdict,) = verify([made(lambda _: iter([far, near, at_most(0, 1)]))])
    assert verdict.tightest is near
    failing = at_most(2, 1)
    (verdict,) = verify([made(lambda _: iter([near, failing]))])
    assert verdict.tightest is failing


def test_estimates_carry_the_claim_and_the_verdict() -> None:
    (verdict,) = verify([made(lambda _: iter([equal(math.inf, math.inf, note="n"), equal(1, 2)]))])
    first, second = json.loads(estimates_to_json(verdict.estimates()))
    assert first["value"] == "inf"
    assert first["settings"]["holds"] is True
    assert first["settings"]["relation"] == "=="
    assert first["settings"]["right"]["value"] == "inf"
    assert second["settings"]["holds"] is False


def test_choice() -> None:
    known = statements()

    def items(*asked: str) -> list[str]:
        return [s.item for s in choose(known, asked)]

    assert items() == [s.item for s in known]
    assert items("1c") == ["1c.linear", "1c.finite", "1c.trained"]
    assert items("3c") == ["3c", "3c.trained"]
    assert items("3c.trained", "3c") == ["3c.trained", "3c"], "each once"
    assert {item[0] for item in items("3")} == {"3"}
    assert all(item.startswith("beyond.") for item in items("beyond"))


@pytest.mark.parametrize(("asked", "hint"), [("1c.finit", "Did you mean 1c.finite?"), ("7q", "3e.sliding"), ("", "1a")])
def test_an_unknown_item_is_refused_with_the_nearest_and_the_list(asked: str, hint: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        choose(statements(), [asked])
    assert hint in str(refused.value)
    assert "beyond.rate" in str(refused.value)
    assert "\n" not in str(refused.value)
