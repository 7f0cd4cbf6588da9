"""Diagnostics of GANs: the game's value and optimum, the bound of a fresh discriminator, mode coverage."""

from latentia.diagnostics.game import (
    collapse_alarm,
    discriminator_estimates,
    fresh_bound,
    gap_to_optimum,
    jensen_shannon_bound,
    jensen_shannon_of_densities,
    jensen_shannon_on_grid,
)
from latentia.diagnostics.mode_coverage import mode_coverage, stacked_coverage

__all__ = [
    "collapse_alarm",
    "discriminator_estimates",
    "fresh_bound",
    "gap_to_optimum",
    "jensen_shannon_bound",
    "jensen_shannon_of_densities",
    "jensen_shannon_on_grid",
    "mode_coverage",
    "stacked_coverage",
]
