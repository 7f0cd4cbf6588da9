"""Bounds of what float64 arithmetic loses (Higham 2002, sections 3.1 and 4.2)."""

from __future__ import annotations

__all__: list[str] = []  # used by the proofs only

UNIT = 2.0**-53  # unit roundoff of float64
TINY = 1e-290  # more than any sum of underflown products here can lose
ELEMENTARY = 16 * UNIT  # relative error of an elementary function and the few operations around it


def gamma_of(terms: int) -> float:
    """γₙ for a sum of so many products, with room for the additions around it."""
    return (terms + 4) * UNIT / (1 - (terms + 4) * UNIT)
