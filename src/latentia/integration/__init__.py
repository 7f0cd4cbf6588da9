"""Integrals with their errors: adaptive quadrature, grids, streamed log-sum-exp, Monte Carlo."""

from latentia.integration.adaptive import integrate, integrate_many
from latentia.integration.grid import Grid, panel_grid, regular_grid
from latentia.integration.log_sum_exp import LogSumExp
from latentia.integration.monte_carlo import RunningMean, monte_carlo

__all__ = [
    "Grid",
    "LogSumExp",
    "RunningMean",
    "integrate",
    "integrate_many",
    "monte_carlo",
    "panel_grid",
    "regular_grid",
]
