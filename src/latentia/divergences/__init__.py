"""Divergences between distributions and between samples; `wasserstein` and `empirical` are modules of this package.

from latentia.divergences import distances, jensen_shannon, kl, wasserstein

kl.exact(p, q)                      # also quadrature, enclosure (proven bounds) and monte_carlo
jensen_shannon.quadrature(p, q)
wasserstein.exact(p, q, order=2)
wasserstein.samples(x, y)
distances("Normal(0, 1)", "Laplace(0, 1)").estimates
"""

from latentia.divergences._integrals import breakpoints
from latentia.divergences.f_divergence import jensen_shannon, kl, total_variation
from latentia.divergences.report import distances

__all__ = ["breakpoints", "distances", "jensen_shannon", "kl", "total_variation"]
