"""Diagnostics of training: the game's value and optimum, the bound of a fresh discriminator, mode coverage."""

from latentia.diagnostics.discriminator_bound import fresh_bound
from latentia.diagnostics.game import (
    accuracy,
    collapse_alarm,
    gap_to_optimum,
    jensen_shannon_bound,
    jensen_shannon_of_densities,
    jensen_shannon_on_grid,
    players_value,
)
from latentia.diagnostics.mode_coverage import mode_coverage, perfect_coverage

__all__ = [
    "accuracy",
    "collapse_alarm",
    "fresh_bound",
    "gap_to_optimum",
    "jensen_shannon_bound",
    "jensen_shannon_of_densities",
    "jensen_shannon_on_grid",
    "mode_coverage",
    "perfect_coverage",
    "players_value",
]
