r"""Jensen-Shannon divergence ½ KL(P ‖ M) + ½ KL(Q ‖ M), M = ½(P + Q), in nats.

It is symmetric, lies between 0 (equal distributions only) and log 2 (mutually singular distributions only), and its square root is a
metric. However far disjoint distributions move apart it stays at log 2, where a Wasserstein distance goes on growing (notes 3e).

Source: Lin 1991; Endres and Schindelin 2003 (the metric); notes 3d.
"""

from __future__ import annotations

__all__ = ["exact", "monte_carlo", "quadrature"]

import math

import torch
from torch import Tensor
from torch.distributions import Distribution

from latentia.distributions.mixtures import log_density
from latentia.divergences import partitions
from latentia.divergences.canonical import canonical_pair, same_distribution
from latentia.divergences.draws import mean_over_draws, stratified
from latentia.divergences.quadrature import integrate_pair
from latentia.divergences.supports import dimension, is_discrete, separation
from latentia.errors import UnsupportedError
from latentia.estimate import Estimate
from latentia.estimate import exact as exactly

NAME = "jensen-shannon"
_LOG_2 = math.log(2)


def _known(p: Distribution, q: Distribution) -> Estimate | None:
    if same_distribution(p, q):
        return exactly(0.0, NAME, method="equal distributions")
    reason = separation(p, q)
    return None if reason is None else exactly(_LOG_2, NAME, method="disjoint supports", settings={"reason": reason})


def _terms(log_p: Tensor, log_q: Tensor) -> Tensor:
    """½ p log(p/m) + ½ q log(q/m) where the logarithms of p and q are given; 0 where both are 0."""
    log_m = torch.logaddexp(log_p, log_q) - _LOG_2
    total = torch.zeros_like(log_m)
    for log_density_ in (log_p, log_q):
        density = log_density_.exp()
        total = total + torch.where(density > 0, 0.5 * density * (log_density_ - log_m), torch.zeros_like(total))
    return total


def _sum(masses: partitions.Masses) -> Estimate:
    value = _terms(masses.p.log(), masses.q.log()).sum().clamp(0.0, _LOG_2).item()
    if not masses.tail:
        return exactly(value, NAME, method="finite sum", n=len(masses.p))
    settings = {"error": 1e-13 + masses.tail, "tail mass": masses.tail}
    return Estimate(value, NAME, n=len(masses.p), method="truncated sum", settings=settings)


def exact(p: Distribution, q: Distribution) -> Estimate:
    """JSD by finite sum, or where it is known without one (equal or mutually singular distributions).

    Raises:
        UnsupportedError: there is no closed form, as between two Gaussians.
        ConfigurationError: a batch of distributions, or distributions over different spaces.
    """
    p, q = canonical_pair(p, q)
    known = _known(p, q)
    if known:
        return known
    masses = partitions.common_masses(p, q)
    if masses and not masses.tail:
        return _sum(masses)
    serving = "quadrature" if dimension(p) <= 2 or is_discrete(p) else "monte_carlo"
    raise UnsupportedError(f"jensen_shannon has no closed form between {p} and {q}; use jensen_shannon.{serving}")


def quadrature(p: Distribution, q: Distribution, *, tolerance: float = 1e-12) -> Estimate:
    """JSD by adaptive quadrature on the line, by a grid in the plane, or by summing over atoms.

    Raises:
        UnsupportedError: distributions in more than two dimensions.
    """
    p, q = canonical_pair(p, q)
    known = _known(p, q)
    if known:
        return known
    if is_discrete(p):
        masses = partitions.common_masses(p, q)
        assert masses is not None  # two discrete distributions always have common atoms
        return _sum(masses)
    return integrate_pair(p, q, _terms, name=NAME, tolerance=tolerance)


def monte_carlo(p: Distribution, q: Distribution, n: int = 100_000, seed: int = 0) -> Estimate:
    """½ E_P[log p/m] + ½ E_Q[log q/m] over n draws, half of them from each distribution."""
    p, q = canonical_pair(p, q)
    known = _known(p, q)
    if known:
        return known

    def half(distribution: Distribution, other: Distribution, seed: int) -> Estimate:
        def terms(x: Tensor) -> Tensor:
            own = log_density(distribution, x)
            return _LOG_2 + own - torch.logaddexp(own, log_density(other, x))

        return mean_over_draws(
            distribution, terms, n=n // 2, seed=seed, name=NAME, estimator="log ratio to the mixture"
        )

    return stratified(half(p, q, seed), half(q, p, seed + 2**32))
