r"""Relative entropy KL(P ‖ Q) = E_P[log p(x) − log q(x)], in nats.

It is at least 0, is 0 only between equal distributions, and is not symmetric. It is +∞ where P is not absolutely continuous with
respect to Q: an answer, given exactly and with its reason by every method here, before anything is computed.

For batches in training there is `torch.distributions.kl_divergence`; importing this module teaches it the pairs of a
diagonal Gaussian (`Independent` of `Normal`) with a full one, which torch lacks.

Source: notes 1d, 1g, 1h; Kullback and Leibler 1951.
"""

from __future__ import annotations

__all__ = ["exact", "gaussian", "monte_carlo", "monte_carlo_nonnegative", "quadrature"]

import math
from dataclasses import replace

import torch
from torch import Tensor
from torch import distributions as td
from torch.distributions import Distribution, kl_divergence, register_kl

from latentia.distributions.mixtures import log_density
from latentia.divergences import partitions
from latentia.divergences.canonical import canonical_pair, gaussian_moments, same_distribution
from latentia.divergences.draws import mean_over_draws
from latentia.divergences.quadrature import integrate_pair
from latentia.divergences.supports import dimension, escape, heaviest_moment, infinite_relative_entropy, is_discrete
from latentia.errors import UnsupportedError
from latentia.estimate import Estimate
from latentia.estimate import exact as exactly
from latentia.integration import RunningMean

NAME = "kl"


def gaussian(mean_p: Tensor, covariance_p: Tensor, mean_q: Tensor, covariance_q: Tensor) -> Tensor:
    """KL between Gaussians with full covariances, ½ (tr Σq⁻¹Σp − d + δᵀΣq⁻¹δ + log det Σq / det Σp).

    Args:
        mean_p: (..., d).
        covariance_p: (..., d, d), positive definite.
        mean_q: (..., d).
        covariance_q: (..., d, d), positive definite.

    Returns:
        (...) in nats.
    """
    factor_p, factor_q = torch.linalg.cholesky(covariance_p), torch.linalg.cholesky(covariance_q)
    return _between_factors(mean_p - mean_q, factor_p, factor_q)


def _between_factors(shift: Tensor, factor_p: Tensor, factor_q: Tensor) -> Tensor:
    """The same from the difference of means (..., d) and the Cholesky factors (..., d, d), Σ = L Lᵀ."""
    ratio = torch.linalg.solve_triangular(factor_q, factor_p, upper=False)
    shift = torch.linalg.solve_triangular(factor_q, shift[..., None], upper=False)
    return _from_ratio(ratio, shift.squeeze(-1))


def _from_ratio(ratio: Tensor, shift: Tensor) -> Tensor:
    """The same from Lq⁻¹Lp, lower triangular, and Lq⁻¹δ."""
    # tr − d − log det, entry by entry on the diagonal, so that equal distributions give 0 and near ones lose no digits
    diagonal = ratio.diagonal(dim1=-2, dim2=-1)
    own = (diagonal.square() - 1 - 2 * diagonal.log()).sum(-1)
    return 0.5 * (own + ratio.tril(-1).square().sum((-2, -1)) + shift.square().sum(-1))


def _diagonal_normal(distribution: td.Independent) -> td.Normal:
    if not isinstance(distribution.base_dist, td.Normal) or len(distribution.event_shape) != 1:
        raise NotImplementedError("KL with a MultivariateNormal is known for Independent(Normal, 1) alone")
    return distribution.base_dist


@register_kl(td.Independent, td.MultivariateNormal)
def _kl_diagonal_full(p: td.Independent, q: td.MultivariateNormal) -> Tensor:
    base = _diagonal_normal(p)
    return _between_factors(base.loc - q.loc, torch.diag_embed(base.scale), q.scale_tril)


@register_kl(td.MultivariateNormal, td.Independent)
def _kl_full_diagonal(p: td.MultivariateNormal, q: td.Independent) -> Tensor:
    base = _diagonal_normal(q)
    return _from_ratio(p.scale_tril / base.scale[..., None], (p.loc - base.loc) / base.scale)


def _known(p: Distribution, q: Distribution) -> Estimate | None:
    """The answers that every method gives: 0 between distributions known to be equal, and +∞."""
    if same_distribution(p, q):
        return exactly(0.0, NAME, method="equal distributions")
    reason = escape(p, q)
    if reason is None and dimension(p) == 1 and not is_discrete(p):
        reason = infinite_relative_entropy(p, q)
    return (
        None if reason is None else exactly(math.inf, NAME, method="absolute continuity", settings={"reason": reason})
    )


def _sum(masses: partitions.Masses) -> Estimate:
    terms = torch.where(masses.p > 0, masses.p * (masses.p.log() - masses.q.log()), torch.zeros_like(masses.p))
    value = max(0.0, terms.sum().item())
    if not masses.tail:
        return exactly(value, NAME, method="finite sum", n=len(terms))
    settings = {"error": 1e-12 * (1 + terms.abs().sum().item()), "tail mass": masses.tail}
    return Estimate(value, NAME, n=len(terms), method="truncated sum", settings=settings)


def exact(p: Distribution, q: Distribution) -> Estimate:
    """KL(P ‖ Q) by closed form or finite sum.

    Raises:
        UnsupportedError: there is neither; the message names a method that serves.
        ConfigurationError: a batch of distributions, or distributions over different spaces.

    Examples:
        >>> exact(td.Normal(0.0, 1.0), td.Normal(2.0, 1.0)).value
        2.0
    """
    p, q = canonical_pair(p, q)
    known = _known(p, q)
    if known:
        return known
    masses = partitions.common_masses(p, q)
    if masses and not masses.tail:
        return _sum(masses)
    first, second = gaussian_moments(p), gaussian_moments(q)
    if first and second:
        return exactly(gaussian(*first, *second).item(), NAME)
    try:
        return exactly(max(0.0, kl_divergence(p, q).item()), NAME)
    except NotImplementedError:
        pass
    if isinstance(q, td.Normal):
        try:
            # E_p[−log q] needs two moments of P alone.
            spread = (p.variance + (p.mean - q.loc).square()) / q.variance
            return exactly((0.5 * (spread + math.log(2 * math.pi)) + q.scale.log() - p.entropy()).item(), NAME)
        except NotImplementedError:
            pass
    raise UnsupportedError(f"kl has no closed form between {p} and {q}; use {_serving(p)}")


def quadrature(p: Distribution, q: Distribution, *, tolerance: float = 1e-12) -> Estimate:
    """KL(P ‖ Q) by adaptive quadrature on the line, by a grid in the plane, or by summing over atoms.

    Args:
        p: any distribution in one or two dimensions.
        q: another over the same space.
        tolerance: the certified error to try for; `settings["error"]` is the one reached.

    Raises:
        UnsupportedError: more dimensions, or an integral that does not converge.
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
        density = log_p.exp()
        return torch.where(density > 0, density * (log_p - log_q), torch.zeros_like(density))

    return integrate_pair(p, q, integrand, name=NAME, tolerance=tolerance)


def monte_carlo(p: Distribution, q: Distribution, n: int = 100_000, seed: int = 0) -> Estimate:
    """Mean of log p(x) − log q(x) over n draws from P, with its standard error."""
    p, q = canonical_pair(p, q)
    return _known(p, q) or mean_over_draws(
        p, lambda x: log_density(p, x) - log_density(q, x), n=n, seed=seed, name=NAME, estimator="log ratio"
    )


def monte_carlo_nonnegative(p: Distribution, q: Distribution, n: int = 100_000, seed: int = 0) -> Estimate:
    """Mean of (r − 1) − log r, r = q(x)/p(x), over n draws from P.

    Every term is at least 0, and r − 1 has mean 0 and pulls against −log r, so the variance is low where P and Q are
    near. Where Q is wider than P, r is heavy-tailed: few draws or none see the part of Q that P hardly visits, and the
    mean comes out too small with a small standard error. As E_P[r] = 1 is known, that is checked, and recorded in
    `settings["mean ratio"]`.

    Raises:
        UnsupportedError: Q puts mass where P puts none, has the heavier power tail, or the draws' mean of r is more than 5
            standard errors from 1.

    Source: Schulman 2020, "Approximating KL divergence".
    """
    p, q = canonical_pair(p, q)
    known = _known(p, q)
    if known:
        return known
    if escape(q, p) is not None:
        raise UnsupportedError("the estimator (r − 1) − log r needs P to have mass wherever Q has; use kl.monte_carlo")
    if dimension(p) == 1 and heaviest_moment(q) < heaviest_moment(p):
        raise UnsupportedError("Q's tail is heavier than P's, so r = q/p has infinite variance; use kl.monte_carlo")
    ratios = RunningMean()

    def terms(x: Tensor) -> Tensor:
        log_ratio = log_density(q, x) - log_density(p, x)
        excess = torch.expm1(log_ratio)
        ratios.add(excess)
        return excess - log_ratio

    estimate = mean_over_draws(p, terms, n=n, seed=seed, name=NAME, estimator="(r − 1) − log r")
    excess, stderr = ratios.mean.item(), ratios.stderr.item()
    if not abs(excess) <= 5 * stderr:
        raise UnsupportedError(
            f"the mean of r = q/p over {n} draws is {1 + excess:.4g} ± {stderr:.1g} where it must be 1: P's draws "
            "do not see all of Q, and (r − 1) − log r would be off by as much; use kl.monte_carlo"
        )
    return replace(estimate, settings={**estimate.settings, "mean ratio": 1 + excess})


def _serving(p: Distribution) -> str:
    return "kl.quadrature" if dimension(p) <= 2 or is_discrete(p) else "kl.monte_carlo"
