r"""Total variation ½ ∫ |p(x) − q(x)| dx = max over events A of P(A) − Q(A): a pure number between 0 and 1.

Pinsker's inequality bounds it by relative entropy: TV ≤ √(KL / 2).
"""

from __future__ import annotations

__all__ = ["exact", "monte_carlo", "quadrature"]

import math

import torch
from torch import Tensor
from torch import distributions as td
from torch.distributions import Distribution

from latentia.distributions.mixtures import log_density
from latentia.divergences import partitions
from latentia.divergences.canonical import canonical_pair, gaussian_moments, same_distribution
from latentia.divergences.draws import mean_over_draws, stratified
from latentia.divergences.quadrature import integrate_pair
from latentia.divergences.supports import dimension, is_discrete, separation
from latentia.errors import UnsupportedError
from latentia.estimate import Estimate
from latentia.estimate import exact as exactly

NAME = "total variation"


def _known(p: Distribution, q: Distribution) -> Estimate | None:
    if same_distribution(p, q):
        return exactly(0.0, NAME, unit="1", method="equal distributions")
    reason = separation(p, q)
    if reason is None:
        return None
    return exactly(1.0, NAME, unit="1", method="disjoint supports", settings={"reason": reason})


def _sum(masses: partitions.Masses) -> Estimate:
    value = 0.5 * (masses.p - masses.q).abs().sum().item()
    if not masses.tail:
        return exactly(value, NAME, unit="1", method="finite sum", n=len(masses.p))
    settings = {"error": 1e-13 + masses.tail, "tail mass": masses.tail}
    return Estimate(value, NAME, n=len(masses.p), unit="1", method="truncated sum", settings=settings)


def _between_normals(p: td.Normal, q: td.Normal) -> float:
    """P(A) − Q(A) on A = {p > q}, an interval or its complement, whose ends solve a quadratic equation."""
    wide, narrow = (p, q) if p.scale >= q.scale else (q, p)
    if p.scale == q.scale:
        return torch.erf((p.loc - q.loc).abs() / (math.sqrt(8) * p.scale)).item()
    # In units of the narrow distribution around its center: (y − shift)²/s² − y² + 2 log s = 0, s > 1.
    s, shift = (wide.scale / narrow.scale).item(), ((wide.loc - narrow.loc) / narrow.scale).item()
    excess = (s - 1) * (s + 1)
    root = s * math.sqrt(shift * shift + 2 * excess * math.log(s))
    ends = torch.tensor([(-shift - root) / excess, (-shift + root) / excess], dtype=torch.float64)
    inside = torch.special.ndtr(ends).diff() - torch.special.ndtr((ends - shift) / s).diff()
    return inside.item()


def exact(p: Distribution, q: Distribution) -> Estimate:
    """Total variation by closed form or finite sum.

    Closed forms: Gaussians on the line, and Gaussians of one covariance in any dimension, 2Φ(δ/2) − 1 with δ their
    Mahalanobis distance.

    Raises:
        UnsupportedError: there is neither.
        ConfigurationError: a batch of distributions, or distributions over different spaces.
    """
    p, q = canonical_pair(p, q)
    known = _known(p, q)
    if known:
        return known
    masses = partitions.common_masses(p, q)
    if masses and not masses.tail:
        return _sum(masses)
    if isinstance(p, td.Normal) and isinstance(q, td.Normal):
        return exactly(_between_normals(p, q), NAME, unit="1")
    first, second = gaussian_moments(p), gaussian_moments(q)
    if first and second and torch.equal(first[1], second[1]):
        factor = torch.linalg.cholesky(first[1])
        shift = torch.linalg.solve_triangular(factor, (first[0] - second[0])[:, None], upper=False)
        return exactly(torch.erf(shift.norm() / math.sqrt(8)).item(), NAME, unit="1")
    serving = "quadrature" if dimension(p) <= 2 or is_discrete(p) else "monte_carlo"
    raise UnsupportedError(f"total_variation has no closed form between {p} and {q}; use total_variation.{serving}")


def quadrature(p: Distribution, q: Distribution, *, tolerance: float = 1e-12) -> Estimate:
    """Total variation by adaptive quadrature on the line, by a grid in the plane, or by summing over atoms.

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

    def integrand(log_p: Tensor, log_q: Tensor) -> Tensor:
        return 0.5 * (log_p.exp() - log_q.exp()).abs()

    return integrate_pair(p, q, integrand, name=NAME, tolerance=tolerance, unit="1", kinked=True)


def monte_carlo(p: Distribution, q: Distribution, n: int = 100_000, seed: int = 0) -> Estimate:
    """E_M[|p − q| / (p + q)] under M = ½(P + Q), over n draws, half of them from each distribution."""
    p, q = canonical_pair(p, q)
    known = _known(p, q)
    if known:
        return known

    def terms(x: Tensor) -> Tensor:
        return torch.tanh(0.5 * (log_density(p, x) - log_density(q, x)).abs())

    def half(distribution: Distribution, seed: int) -> Estimate:
        return mean_over_draws(
            distribution, terms, n=n // 2, seed=seed, name=NAME, estimator="|p − q| / (p + q)", unit="1"
        )

    return stratified(half(p, seed), half(q, seed + 2**32))
