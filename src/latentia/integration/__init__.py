"""Integrals with their errors: adaptive quadrature, tensor grids, and accumulators for streamed terms."""

from latentia.integration.accumulators import LogSumExp, RunningMean
from latentia.integration.adaptive import integrate, integrate_many
from latentia.integration.grid import Grid, panel_grid, regular_grid

__all__ = ["Grid", "LogSumExp", "RunningMean", "integrate", "integrate_many", "panel_grid", "regular_grid"]
