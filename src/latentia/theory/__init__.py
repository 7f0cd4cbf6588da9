"""The theory, as statements that run: one module for each chapter of the sheet, and one for what lies beyond them."""

from types import ModuleType

from latentia.theory.statement import (
    Relation,
    Statement,
    Verdict,
    choose,
    verify,
)

__all__ = ["Relation", "Verdict", "choose", "statements", "verify"]


def statements() -> list[Statement]:
    """Every statement, in the sheet's order: whatever the chapters' modules define."""
    return [value for chapter in _chapters() for value in vars(chapter).values() if isinstance(value, Statement)]


def _chapters() -> list[ModuleType]:
    from latentia.theory import (
        beyond,
        beyond_models,
        game,
        game_divergence,
        variational_bound,
        variational_posterior,
    )

    return [variational_bound, variational_posterior, game, game_divergence, beyond, beyond_models]
