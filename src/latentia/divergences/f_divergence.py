r"""Relative entropy, Jensen-Shannon divergence and total variation: three values of one type, `kl`, `jensen_shannon`,
`total_variation`.

Each is D(P ‖ Q) = ∫ d(p, q) dx with a convex function d that is homogeneous of degree 1 (an f-divergence, Csiszár
1967):

    kl                 p log(p/q)                                       in [0, ∞], in nats
    jensen_shannon     ½ p log(p/m) + ½ q log(q/m),  m = (p + q)/2      in [0, log 2], in nats; its root is a metric
    total_variation    ½ |p − q| = max over A of P(A) − Q(A)            in [0, 1]; at most √(kl/2) (Pinsker)

    kl.exact(p, q)             closed form or finite sum
    kl.quadrature(p, q)        adaptive on the line, grids in the plane, with a numerical error
    kl.enclosure(p, q)         proven bounds on the line, between unimodal densities and their mixtures
    kl.monte_carlo(p, q)       a mean over draws with its standard error
    kl.of_probabilities(p, q)  between rows of probabilities, batched and differentiable

What is known without a computation is returned by every method, with its reason: 0 between equal distributions; +∞ for
`kl` where P is not absolutely continuous with respect to Q; log 2 and 1 between mutually singular distributions,
however far apart.

For batches in training there is `torch.distributions.kl_divergence`.

Sources: Kullback and Leibler 1951; Lin 1991; Endres and Schindelin 2003 (the metric).
"""

from __future__ import annotations

__all__ = ["jensen_shannon", "kl", "total_variation"]

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch import distributions as td
from torch.distributions import Distribution, kl_divergence

from latentia.distributions import ContinuousBernoulliDistribution, Mixture, gaussian_kl, log_density
from latentia.divergences._canonical import (
    Masses,
    boxes,
    canonical_pair,
    common_masses,
    dimension,
    gaussian_of,
    growth,
    heaviest_moment,
    infinite_relative_entropy,
    is_discrete,
    same_distribution,
    separation,
    uncovered,
)
from latentia.divergences._cumulative import cumulative
from latentia.divergences._integrals import exactly, integrate_pair, mean_over_draws, stratified
from latentia.errors import UnsupportedError
from latentia.estimate import Estimate
from latentia.integration import RunningMean

_LOG_2 = math.log(2)
_EPSILON = torch.finfo(torch.float64).eps


class FDivergence(ABC):
    """One f-divergence, with a method for each way to compute it; see the module."""

    name: str
    unit = "nats"
    kinked = False

    @property
    def _label(self) -> str:
        """The name of the value in Python."""
        return self.name.replace(" ", "_").replace("-", "_")

    @abstractmethod
    def terms(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """d(p, q) from log p and log q; −inf allowed."""

    @abstractmethod
    def _known(self, p: Distribution, q: Distribution) -> Estimate | None:
        """The value where it is known without a computation."""

    @abstractmethod
    def _closed_form(self, p: Distribution, q: Distribution) -> tuple[float, float] | None:
        """A closed form and a bound on its rounding; None if there is none."""

    @abstractmethod
    def _monte_carlo(self, p: Distribution, q: Distribution, n: int, seed: int) -> Estimate: ...

    def of_probabilities(self, p: Tensor, q: Tensor) -> Tensor:
        """D between probabilities on a finite set, (…, n) → (…); differentiable where p, q > 0."""
        return self.terms(p.log(), q.log()).sum(-1)

    def exact(self, p: Distribution, q: Distribution) -> Estimate:
        """D(P ‖ Q) by closed form or finite sum.

        Raises:
            UnsupportedError: there is neither; the message names a method that applies.
            ConfigurationError: a batch of distributions, or distributions over different spaces.

        Examples:
            >>> kl.exact(td.Normal(0.0, 1.0), td.Normal(2.0, 1.0)).value
            2.0
        """
        p, q = canonical_pair(p, q)
        known = self._known(p, q)
        if known:
            return known
        try:
            masses = common_masses(p, q)
        except UnsupportedError:  # too many points
            masses = None
        if masses and not self._tail(masses):
            return self._sum(masses)
        found = self._closed_form(p, q)
        if found is None:
            method = "quadrature" if dimension(p) <= 2 or is_discrete(p) else "monte_carlo"
            raise UnsupportedError(f"{self._label} has no closed form between {p} and {q}; use {self._label}.{method}")
        value, rounding = found
        if not math.isfinite(value):
            raise UnsupportedError(f"{self._label} between {p} and {q} is finite and larger than the largest float")
        settings = {"error": rounding} if rounding > 1e-13 * max(1.0, abs(value)) else {}
        return exactly(max(0.0, value), self.name, settings, unit=self.unit)

    def quadrature(self, p: Distribution, q: Distribution, *, tolerance: float = 1e-12) -> Estimate:
        """D(P ‖ Q) by adaptive quadrature on the line, by a grid in the plane, or by summing over points.

        Args:
            p: any distribution in one or two dimensions.
            q: another over the same space.
            tolerance: the error to reach; `settings["error"]` is the one reached.

        Raises:
            UnsupportedError: more dimensions, or an integral that does not converge.
        """
        p, q = canonical_pair(p, q)
        known = self._known(p, q)
        if known:
            return known
        if is_discrete(p):
            masses = common_masses(p, q)
            assert masses is not None  # two discrete distributions always have common points
            return self._sum(masses)
        kinked = self.kinked
        return integrate_pair(p, q, self.terms, name=self.name, tolerance=tolerance, unit=self.unit, kinked=kinked)

    def monte_carlo(self, p: Distribution, q: Distribution, n: int = 100_000, seed: int = 0) -> Estimate:
        """D(P ‖ Q) as a mean over n draws, with its standard error and the shape of the terms' tail.

        Raises:
            ValueError: n is below 2.
            UnsupportedError: a draw overflows.
        """
        p, q = canonical_pair(p, q)
        return self._known(p, q) or self._monte_carlo(p, q, n, seed)

    def enclosure(self, p: Distribution, q: Distribution, cells: int = 16_384) -> Estimate:
        """Proven bounds of D(P ‖ Q) on the line: the midpoint, with half the distance as `settings["error"]`.

        The line is cut into cells, whose masses P(c) and Q(c) follow from the distribution functions. As d is convex
        and homogeneous, Σ d(P(c), Q(c)) is a lower bound (Jensen). If the ratio p/q lies in [r, R] on a cell, then
        (P(c), Q(c)) = a (r, 1) + b (R, 1) with a, b ≥ 0, and a d(r, 1) + b d(R, 1) is an upper bound. The ratio is
        bounded since each density is monotone on both sides of its mode. The bounds meet like 1/cells².

        Assumes distribution functions with a relative error of at most 1e-14, and densities with one of 1e-12.

        Raises:
            UnsupportedError: densities that are not known to be unimodal, or, for `kl`, tails that are not known.
        """
        p, q = canonical_pair(p, q)
        known = self._known(p, q)
        if known:
            return known
        if is_discrete(p) or dimension(p) != 1:
            raise UnsupportedError(f"an enclosure needs densities on the line; use {self._label}.quadrature")
        self._check_tails(p, q)
        edges = _edges(p, q, cells)
        log_p, p_error = _log_masses(p, edges)
        log_q, q_error = _log_masses(q, edges)
        (p_low, p_high), (q_low, q_high) = _density_bounds(p, edges), _density_bounds(q, edges)
        lower = self.terms(log_p, log_q).sum().item()
        upper = self._chords(log_p, log_q, p_low - q_high, p_high - q_low).sum().item()
        used = torch.maximum(p_high, q_high) > -torch.inf
        slopes = _without_nan(log_p - log_q, 0.0).abs().clamp(max=750.0) + 1
        rounding = (slopes * (p_error + q_error))[used].sum().item() + 1e-12 * (1 + upper)
        if not math.isfinite(upper):
            raise UnsupportedError(f"the enclosure is infinite; use {self._label}.quadrature")
        settings = {
            "error": max(0.0, 0.5 * (upper - lower)) + rounding,
            "lower": lower - rounding,
            "upper": upper + rounding,
        }
        middle = 0.5 * (lower + max(lower, upper))
        about: dict[str, Any] = {"unit": self.unit, "kind": "proven", "method": "enclosure", "settings": settings}
        return Estimate(middle, self.name, n=len(log_p), **about)

    def _check_tails(self, p: Distribution, q: Distribution) -> None:  # noqa: B027  (only kl has unbounded terms)
        """Raise if a cell that reaches to infinity could have an unbounded term."""

    def _chords(self, log_p: Tensor, log_q: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """Upper bounds on cells with masses P, Q and ratios in [e^low, e^high]; see `enclosure`."""
        ratio = _without_nan(log_p - log_q, 0.0)
        low, high = (
            torch.minimum(_without_nan(low, -torch.inf), ratio),
            torch.maximum(_without_nan(high, torch.inf), ratio),
        )
        rise, span = torch.expm1(ratio - low), torch.expm1(high - low)
        share = torch.where(torch.isfinite(low), rise / span, (ratio - high).exp())
        share = _without_nan(share, 0.0).clamp(0, 1)
        a, b = log_q + torch.log1p(-share), log_q + share.log()
        inside = self.terms(_without_nan(a + low, -torch.inf), a) + self.terms(_without_nan(b + high, -torch.inf), b)
        at_low = _without_nan(low + log_q, -torch.inf)
        rest = (log_p.exp() - at_low.exp()).clamp_min(0).log()
        beyond = self.terms(at_low, log_q) + self.terms(rest, torch.full_like(rest, -torch.inf))
        empty = (log_p == -torch.inf) & (log_q == -torch.inf)
        return torch.where(empty, torch.zeros_like(low), torch.where(torch.isfinite(high), inside, beyond))

    def _tail(self, masses: Masses) -> float:
        """The mass that the sum leaves out."""
        return max(masses.p_tail, masses.q_tail)

    def _sum(self, masses: Masses) -> Estimate:
        """The finite sum over cells on which both densities are constant."""
        terms = self.terms(masses.log_p, masses.log_q)
        value, tail = max(0.0, terms.sum().item()), self._tail(masses)
        if not tail:
            settings = {"error": masses.rounding} if masses.rounding else {}
            return exactly(value, self.name, settings, unit=self.unit, method="finite sum", n=len(terms))
        size = terms.abs().sum().item()
        settings = {
            "error": 1e-12 * (1 + size) + masses.rounding,
            "tail mass": tail,
        }
        about: dict[str, Any] = {
            "unit": self.unit,
            "kind": "numerical",
            "method": "truncated sum",
            "settings": settings,
        }
        return Estimate(value, self.name, n=len(terms), **about)


class _KL(FDivergence):
    name = "kl"

    def terms(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        present = log_p > -torch.inf
        log_p = torch.where(present, log_p, torch.zeros_like(log_p))
        difference = log_p - torch.where(present, log_q, torch.zeros_like(log_q))
        product = log_p.exp() * difference
        # In a heavy tail p underflows where p · log(p/q) does not.
        faint = present & (log_p < -600) & (difference != 0)
        if bool(faint.any()):
            log_size = log_p + difference.abs().log()
            product = torch.where(faint, difference.sign() * log_size.exp(), product)
        return torch.where(present, product, torch.zeros_like(product))

    def _tail(self, masses: Masses) -> float:
        return masses.p_tail

    def _known(self, p: Distribution, q: Distribution) -> Estimate | None:
        if same_distribution(p, q):
            return exactly(0.0, self.name, method="equal distributions")
        reason = uncovered(p, q)
        if reason is None and dimension(p) == 1 and not is_discrete(p):
            reason = infinite_relative_entropy(p, q)
        if reason is None:
            return None
        return exactly(math.inf, self.name, {"reason": reason}, method="absolute continuity")

    def _closed_form(self, p: Distribution, q: Distribution) -> tuple[float, float] | None:
        first, second = gaussian_of(p), gaussian_of(q)
        if first and second:
            return gaussian_kl(first.mean - second.mean, first.factor, second.factor).item(), 0.0
        bernoullis = (ContinuousBernoulliDistribution, ContinuousBernoulliDistribution)
        if (type(p), type(q)) == bernoullis or (type(p), type(q)) in _TRUSTED:
            value = kl_divergence(p, q)
            return value.item(), _rounding(p, q)
        if isinstance(p, td.Independent) and isinstance(q, td.Independent) and type(p.base_dist) is type(q.base_dist):
            if (type(p.base_dist), type(q.base_dist)) not in _TRUSTED:
                return None
            return kl_divergence(p, q).item(), _rounding(p.base_dist, q.base_dist)
        if isinstance(q, td.Normal) and type(p) in _WITH_MOMENTS:
            # E_p[−log q] needs two moments of P alone.
            variance, shift = p.variance, p.mean - q.loc
            spread = (variance.sqrt() / q.scale).square() + (shift / q.scale).square()
            parts = (0.5 * (spread + math.log(2 * math.pi)), q.scale.log(), -p.entropy())
            size = sum(abs(part.item()) for part in parts)
            return sum(part.item() for part in parts), 4 * _EPSILON * size + _rounding(p, p)
        return None

    def _monte_carlo(self, p: Distribution, q: Distribution, n: int, seed: int) -> Estimate:
        def terms(x: Tensor) -> Tensor:
            return log_density(p, x) - log_density(q, x)

        return mean_over_draws(
            p, terms, n=n, seed=seed, name=self.name, estimator="log ratio", infinite_variance=_infinite_variance(p, q)
        )

    def monte_carlo_nonnegative(self, p: Distribution, q: Distribution, n: int = 100_000, seed: int = 0) -> Estimate:
        """Mean of (r − 1) − log r, r = q(x)/p(x), over n draws from P.

        Every term is at least 0, and r − 1 has mean 0 and is correlated with log r, so the variance is small where P
        and Q are near. Where Q is wider than P, r has a heavy tail: few draws see the part of Q that P hardly visits,
        and the mean is too small with a small standard error. E_P[r] = 1 is known, so the mean of r is checked and
        recorded in `settings["mean ratio"]`.

        Raises:
            UnsupportedError: Q has mass where P has none, r has a heavy tail, or the mean of r is more than 5 standard
                errors from 1.

        Source: Schulman 2020, "Approximating KL divergence".
        """
        p, q = canonical_pair(p, q)
        known = self._known(p, q)
        if known:
            return known
        if uncovered(q, p) is not None:
            raise UnsupportedError("(r − 1) − log r needs P to have mass wherever Q has; use kl.monte_carlo")
        if dimension(p) == 1 and heaviest_moment(q) < heaviest_moment(p):
            raise UnsupportedError("Q's tail is heavier than P's, so r = q/p has infinite variance; use kl.monte_carlo")
        heavy = _infinite_variance(p, q)
        if heavy:
            raise UnsupportedError(f"the terms have an infinite variance: {heavy}; use kl.quadrature")
        ratios = RunningMean()

        def terms(x: Tensor) -> Tensor:
            log_ratio = log_density(q, x) - log_density(p, x)
            excess = torch.expm1(log_ratio)
            ratios.add(excess)
            return excess - log_ratio

        estimate = mean_over_draws(p, terms, n=n, seed=seed, name=self.name, estimator="(r − 1) − log r")
        shape = estimate.settings.get("pareto_k", math.inf)  # unknown where a term overflows
        if shape > 0.5:
            raise UnsupportedError(f"r = q/p has a heavy tail (k̂ = {shape:.2f} > ½); use kl.monte_carlo")
        excess, stderr = ratios.mean.item(), ratios.stderr.item()
        if not abs(excess) <= 5 * stderr:
            raise UnsupportedError(
                f"the mean of r = q/p over {n} draws is {1 + excess:.4g} ± {stderr:.1g} where it must be 1: the draws "
                "of P miss a part of Q, and (r − 1) − log r would be off by as much; use kl.monte_carlo"
            )
        return replace(estimate, settings={**estimate.settings, "mean ratio": 1 + excess})

    def _check_tails(self, p: Distribution, q: Distribution) -> None:
        """P must have light tails and −log q must grow like a polynomial, so that nothing is left beyond the cells."""
        light = all(type(part) in _LIGHT for part in _components(p))
        polynomial = all(type(part) in _POLYNOMIAL for part in _components(q))
        if not (light and polynomial):
            raise UnsupportedError(
                "an enclosure of kl needs a P with exponential or lighter tails, and a Q whose log-density grows at "
                "most like a polynomial (Normal, Laplace, Cauchy, StudentT, Uniform); use kl.quadrature"
            )


class _JensenShannon(FDivergence):
    name = "jensen-shannon"

    def terms(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        log_m = torch.logaddexp(log_p, log_q) - _LOG_2
        total = torch.zeros_like(log_m)
        for own in (log_p, log_q):
            density = own.exp()
            total = total + torch.where(density > 0, 0.5 * density * (own - log_m), torch.zeros_like(total))
        return total

    def of_probabilities(self, p: Tensor, q: Tensor) -> Tensor:
        middle = (p + q) / 2
        parts = (torch.special.xlogy(p, p) + torch.special.xlogy(q, q)).sum(-1) / 2
        return parts - torch.special.xlogy(middle, middle).sum(-1)

    def _known(self, p: Distribution, q: Distribution) -> Estimate | None:
        if same_distribution(p, q):
            return exactly(0.0, self.name, method="equal distributions")
        reason = separation(p, q)
        return reason and exactly(_LOG_2, self.name, {"reason": reason}, method="disjoint supports")  # pyright: ignore

    def _closed_form(self, p: Distribution, q: Distribution) -> None:
        return None

    def _monte_carlo(self, p: Distribution, q: Distribution, n: int, seed: int) -> Estimate:
        def half(distribution: Distribution, other: Distribution, seed: int) -> Estimate:
            def terms(x: Tensor) -> Tensor:
                own = log_density(distribution, x)
                return _LOG_2 + own - torch.logaddexp(own, log_density(other, x))

            return mean_over_draws(
                distribution,
                terms,
                n=n // 2,
                seed=seed,
                name=self.name,
                estimator="log ratio to the mixture",
                bound=_LOG_2,
            )

        return stratified(half(p, q, seed), half(q, p, seed + 2**32))


class _TotalVariation(FDivergence):
    name = "total variation"
    unit = "1"
    kinked = True

    def terms(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        return 0.5 * (log_p.exp() - log_q.exp()).abs()

    def of_probabilities(self, p: Tensor, q: Tensor) -> Tensor:
        return (p - q).abs().sum(-1) / 2

    def _known(self, p: Distribution, q: Distribution) -> Estimate | None:
        if same_distribution(p, q):
            return exactly(0.0, self.name, unit=self.unit, method="equal distributions")
        reason = separation(p, q)
        if reason is None:
            return None
        return exactly(1.0, self.name, {"reason": reason}, unit=self.unit, method="disjoint supports")

    def _closed_form(self, p: Distribution, q: Distribution) -> tuple[float, float] | None:
        """Gaussians on the line; Gaussians of one covariance, 2Φ(δ/2) − 1 with δ their Mahalanobis distance."""
        first, second = gaussian_of(p), gaussian_of(q)
        if not first or not second:
            return None
        if torch.equal(first.factor, second.factor):
            shift = torch.linalg.solve_triangular(first.factor, (first.mean - second.mean)[:, None], upper=False)
            return torch.erf(shift.norm() / math.sqrt(8)).item(), 0.0
        if len(first.mean) > 1:
            return None
        # P(A) − Q(A) on A = {narrow > wide}, an interval whose ends solve a quadratic equation. In units of the narrow
        # distribution around its mean: (y − shift)²/s² − y² + 2 log s = 0, s > 1.
        narrow, wide = sorted((first, second), key=lambda gaussian: gaussian.factor.item())
        s, shift = (wide.factor / narrow.factor).item(), ((wide.mean - narrow.mean) / narrow.factor[0]).item()
        if not math.isfinite(s * s) or not math.isfinite(shift * shift):
            return None
        excess = (s - 1) * (s + 1)
        root = s * math.sqrt(shift * shift + 2 * excess * math.log(s))
        ends = torch.tensor([(-shift - root) / excess, (-shift + root) / excess], dtype=torch.float64)
        inside = torch.special.ndtr(ends).diff() - torch.special.ndtr((ends - shift) / s).diff()
        return inside.item(), 0.0

    def _monte_carlo(self, p: Distribution, q: Distribution, n: int, seed: int) -> Estimate:
        """E_M[|p − q| / (p + q)] under M = ½(P + Q); half of the draws are from each distribution."""

        def terms(x: Tensor) -> Tensor:
            return torch.tanh(0.5 * (log_density(p, x) - log_density(q, x)).abs())

        def half(distribution: Distribution, seed: int) -> Estimate:
            return mean_over_draws(
                distribution,
                terms,
                n=n // 2,
                seed=seed,
                name=self.name,
                estimator="|p − q| / (p + q)",
                unit="1",
                bound=1.0,
            )

        return stratified(half(p, seed), half(q, seed + 2**32))


kl = _KL()
jensen_shannon = _JensenShannon()
total_variation = _TotalVariation()


# torch's closed forms that tests/divergences/test_closed_forms.py compares with many digits at extreme parameters.
_TRUSTED = {
    (p, q)
    for p, q in [
        *((family, family) for family in (td.Beta, td.Cauchy, td.Dirichlet, td.Exponential, td.Gamma, td.Geometric)),
        *((family, family) for family in (td.Gumbel, td.HalfNormal, td.Laplace, td.LogNormal, td.Pareto, td.Poisson)),
        (td.Exponential, td.Gamma),
        (td.Gamma, td.Exponential),
        (td.Uniform, td.Exponential),
    ]
}
# Families whose mean, variance and entropy are closed forms.
_WITH_MOMENTS = (td.Exponential, td.Gamma, td.Gumbel, td.HalfNormal, td.Laplace, td.LogNormal, td.StudentT, td.Uniform)


def _infinite_variance(p: Distribution, q: Distribution) -> str | None:
    """Why log p − log q has an infinite variance under P; None if it is not known to have one."""
    if dimension(p) > 1 or 2 * growth(q) < heaviest_moment(p):
        return None
    return f"−log q grows like |x|^{growth(q):g}, and E_p|x|^{heaviest_moment(p):g} is infinite"


def _rounding(p: Distribution, q: Distribution) -> float:
    """A bound on the rounding of a closed form with log Γ: its terms cancel where the parameters are large."""
    sizes = [1.0]
    for distribution in (p, q):
        for name in ("concentration", "concentration1", "concentration0", "rate", "df"):
            if isinstance(distribution, td.Gamma | td.Beta | td.Dirichlet | td.Poisson | td.StudentT):
                parameter = getattr(distribution, name, None)
                sizes += [] if parameter is None else parameter.flatten().tolist()
    largest = max(sizes)
    return 16 * _EPSILON * largest * (math.log(largest + 2)) if largest > 1 else 0.0


# Enclosures.

# Families with one mode, and where it is. The density is monotone on both sides of it.
_MODES: dict[type[Distribution], Callable[[Any], float]] = {
    td.Beta: lambda d: ((d.concentration1 - 1) / (d.concentration1 + d.concentration0 - 2)).nan_to_num(0.5).item(),
    ContinuousBernoulliDistribution: lambda d: float(d.logits.item() > 0),
    td.Cauchy: lambda d: d.loc.item(),
    td.Exponential: lambda _: 0.0,
    td.Gamma: lambda d: ((d.concentration - 1) / d.rate).clamp_min(0).item(),
    td.Gumbel: lambda d: d.loc.item(),
    td.HalfCauchy: lambda _: 0.0,
    td.HalfNormal: lambda _: 0.0,
    td.Laplace: lambda d: d.loc.item(),
    td.LogNormal: lambda d: (d.loc - d.scale.square()).exp().item(),
    td.Normal: lambda d: d.loc.item(),
    td.StudentT: lambda d: d.loc.item(),
    td.Uniform: lambda d: d.low.item(),
}
_BOUNDED = (ContinuousBernoulliDistribution, td.Uniform)
_LIGHT = (*_BOUNDED, td.Exponential, td.Gamma, td.Gumbel, td.HalfNormal, td.Laplace, td.Normal)
_POLYNOMIAL = (*_BOUNDED, td.Cauchy, td.Exponential, td.HalfCauchy, td.HalfNormal, td.Laplace, td.Normal, td.StudentT)
_RELATIVE = 1e-14  # error of the distribution functions


def _without_nan(values: Tensor, replacement: float) -> Tensor:
    return torch.where(values.isnan(), replacement, values)


def _components(distribution: Distribution) -> tuple[Distribution, ...]:
    return distribution.components if isinstance(distribution, Mixture) else (distribution,)


def _mode(distribution: Distribution) -> float:
    known = type(distribution) in _MODES
    if isinstance(distribution, td.Beta):
        known = min(distribution.concentration1.item(), distribution.concentration0.item()) >= 1
    if not known:
        raise UnsupportedError(f"an enclosure needs densities with one known mode, and {distribution} is not one")
    return _MODES[type(distribution)](distribution)


def _edges(p: Distribution, q: Distribution, cells: int) -> Tensor:
    """Finite edges of the cells: quantiles of every component, modes, and ends of supports; increasing."""
    parts = [*_components(p), *_components(q)]
    each = max(64, cells // len(parts))
    tail = torch.logspace(-300, math.log10(0.5), each // 4, dtype=torch.float64)
    even = torch.linspace(0, 0.5, each // 4 + 1, dtype=torch.float64)[1:]
    edges = []
    for part in parts:
        functions, support = cumulative(part), boxes(part)
        assert support is not None  # unimodal families have known supports
        u = torch.cat([tail, even])
        edges += [functions.quantile(u), functions.upper_quantile(u)]
        edges.append(torch.tensor([_mode(part), *support.ravel()], dtype=torch.float64))
        # Beyond the last quantiles a light tail underflows, so that nothing is left in the infinite cells.
        middle = functions.quantile(u[-1:])
        for end in (edges[-3].min(), edges[-2].max()):
            beyond = middle + (end - middle) * torch.linspace(1.0, 2.5, 65, dtype=torch.float64)
            edges.append(beyond.clamp(support.min(), support.max()))
    joined = torch.cat(edges)
    return joined[torch.isfinite(joined)].unique()


def _log_masses(distribution: Distribution, edges: Tensor) -> tuple[Tensor, Tensor]:
    """The logarithm of the mass of each cell, the two infinite ones included, and a bound on the mass's error."""
    functions = cumulative(distribution)
    below, above = functions.below(edges), functions.above(edges)
    zero, one = below.new_zeros(1), below.new_ones(1)
    below, above = torch.cat([zero, below, one]), torch.cat([one, above, zero])
    low = below[1:] < 0.5
    mass = torch.where(low, below.diff(), -above.diff()).clamp_min(0)
    tail = torch.minimum(below, above)
    return mass.log(), _RELATIVE * (tail[1:] + tail[:-1])


def _density_bounds(distribution: Distribution, edges: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds of the log-density on each cell, the two infinite ones included; for unimodal densities and mixtures."""
    infinity = edges.new_full((1,), torch.inf)
    left, right = torch.cat([-infinity, edges]), torch.cat([edges, infinity])
    inner_left, inner_right = torch.nextafter(left, infinity), torch.nextafter(right, -infinity)
    weights = distribution.weights.log() if isinstance(distribution, Mixture) else edges.new_zeros(1)
    lows, highs = [], []
    for log_weight, part in zip(weights, _components(distribution), strict=True):
        mode = torch.tensor(_mode(part), dtype=torch.float64)
        inside = torch.minimum(torch.maximum(mode, inner_left), inner_right)
        ends = torch.stack([log_density(part, end.clamp(-1e300, 1e300)) for end in (inner_left, inner_right)])
        ends = _without_nan(ends, -torch.inf)
        ends[0, 0] = ends[1, -1] = -torch.inf
        top = _without_nan(log_density(part, inside), torch.inf)
        lows.append(log_weight + ends.amin(0))
        highs.append(log_weight + torch.maximum(top, ends.amax(0)))
    slack = 1e-12
    return torch.stack(lows).logsumexp(0) - slack, torch.stack(highs).logsumexp(0) + slack
