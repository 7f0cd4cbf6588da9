"""Divergences between distributions and between samples; each distribution's by `exact`, `quadrature` and `monte_carlo`.

from latentia.divergences import jensen_shannon, kl, wasserstein
kl.exact(p, q)
jensen_shannon.quadrature(p, q)
wasserstein.samples(x, y)
"""

from latentia.divergences import jensen_shannon, kl, total_variation, transport, wasserstein
from latentia.divergences.table import (
    Table,
    all_divergences,
    divergence_table,
    optimal_map,
    sample_divergences,
    sample_table,
)

__all__ = [
    "Table",
    "all_divergences",
    "divergence_table",
    "jensen_shannon",
    "kl",
    "optimal_map",
    "sample_divergences",
    "sample_table",
    "total_variation",
    "transport",
    "wasserstein",
]
