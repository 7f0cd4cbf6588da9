"""Distributions in one form: parameters in float64 on the CPU, over one space, with their supports as boxes or points.

A distribution may come in float32, on a GPU, as a batch of one family under mixing weights, or with an argument check
that raises outside its support. `canonical_pair` rebuilds the distributions that it knows:

    Bernoulli, Binomial, Categorical, one-hot distributions, independent Bernoullis     become  Finite
    Poisson, Geometric and NegativeBinomial at the limit of their parameters            become  Finite, on 0 alone
    torch's ContinuousBernoulli, which is wrong by nats for large logits                becomes latentia's
    MixtureSameFamily, mixtures with empty components or with one                       become  Mixture or simpler

Other distributions stay as they are. The functions below `canonical_pair` take canonical distributions. They answer
where a distribution has mass: KL(P ‖ Q) is finite only if P has no mass where Q has none (absolute continuity). A
support is a union of closed boxes (products of intervals, infinite ones included) or a set of points.
"""

from __future__ import annotations

__all__: list[str] = []

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch import distributions as td
from torch.distributions import Distribution, constraints
from torch.nn.functional import logsigmoid

from latentia.distributions import ContinuousBernoulliDistribution, Finite, Mixture, log_density
from latentia.errors import ConfigurationError, UnsupportedError

# The parameters that rebuild a distribution. Of two parametrizations, the one that loses no digits.
_PARAMETERS: dict[type[Distribution], tuple[str, ...]] = {
    td.Beta: ("concentration1", "concentration0"),
    td.Cauchy: ("loc", "scale"),
    td.Chi2: ("df",),
    td.Dirichlet: ("concentration",),
    td.Exponential: ("rate",),
    td.Gamma: ("concentration", "rate"),
    td.Geometric: ("probs",),
    td.Gumbel: ("loc", "scale"),
    td.HalfCauchy: ("scale",),
    td.HalfNormal: ("scale",),
    td.InverseGamma: ("concentration", "rate"),
    td.Laplace: ("loc", "scale"),
    td.LogNormal: ("loc", "scale"),
    td.LowRankMultivariateNormal: ("loc", "cov_factor", "cov_diag"),
    td.MultivariateNormal: ("loc", "scale_tril"),
    td.NegativeBinomial: ("total_count", "logits"),
    td.Normal: ("loc", "scale"),
    td.Pareto: ("scale", "alpha"),
    td.Poisson: ("rate",),
    td.StudentT: ("df", "loc", "scale"),
    td.Uniform: ("low", "high"),
    td.Weibull: ("scale", "concentration"),
}
_ENUMERABLE = (td.Bernoulli, td.Binomial, td.Categorical, td.OneHotCategorical)
_MOST_ENUMERATED = 2**16
_MOST_ATOMS = 2**22
_MOST_CELLS = 10**6


def _double(parameter: Tensor) -> Tensor:
    return parameter.detach().double().cpu()


def rebuild(distribution: Distribution, pick: Callable[[Tensor], Tensor]) -> Distribution | None:
    """The distribution with `pick` applied to each parameter, without validation; None if it is not known."""
    if isinstance(distribution, td.Independent):
        base = rebuild(distribution.base_dist, pick)
        return base and td.Independent(base, distribution.reinterpreted_batch_ndims, validate_args=False)
    if isinstance(distribution, td.ContinuousBernoulli | ContinuousBernoulliDistribution):
        return ContinuousBernoulliDistribution(pick(_logits(distribution)))
    names = _PARAMETERS.get(type(distribution))
    if names is None:
        return None
    return type(distribution)(**{name: pick(getattr(distribution, name)) for name in names}, validate_args=False)  # pyright: ignore


def _logits(
    distribution: td.Bernoulli | td.Binomial | td.ContinuousBernoulli | ContinuousBernoulliDistribution,
) -> Tensor:
    """Logits in float64, from the parameter that the distribution was made of: torch clamps the other one."""
    if isinstance(distribution, ContinuousBernoulliDistribution) or "logits" in distribution.__dict__:
        return _double(distribution.logits)
    return _double(distribution.probs).logit()


def _canonical(distribution: Distribution) -> Distribution:
    if distribution.batch_shape:
        raise ConfigurationError(
            f"{distribution} is a batch of distributions, of shape {tuple(distribution.batch_shape)}. These functions "
            "compare two distributions. torch.distributions.kl_divergence compares batches, and td.Independent makes "
            "one distribution of a batch"
        )
    if isinstance(distribution, Finite):
        points = _double(distribution.points)
        return Finite(points, log_weights=_double(distribution.log_weights), validate_args=False)
    if isinstance(distribution, Mixture):
        return _mixture(_double(distribution.weights), [_canonical(part) for part in distribution.components])
    if isinstance(distribution, td.MixtureSameFamily):
        weights = _double(distribution.mixture_distribution.probs)
        parts = [_component(distribution.component_distribution, k) for k in range(len(weights))]
        known = [part for part in parts if part is not None]
        return distribution if len(known) < len(parts) else _mixture(weights, [_canonical(part) for part in known])
    base = distribution.base_dist if isinstance(distribution, td.Independent) else distribution
    if isinstance(base, _ENUMERABLE):
        return _enumerated(distribution)
    if _is_zero(distribution):
        return Finite(torch.zeros(1, dtype=torch.float64), validate_args=False)
    return rebuild(distribution, _double) or distribution


def _is_zero(distribution: Distribution) -> bool:
    """Whether a distribution on the whole numbers is at the limit of its parameters where all its mass is on 0."""
    if isinstance(distribution, td.Poisson):
        return distribution.rate.item() == 0
    if isinstance(distribution, td.Geometric):
        return distribution.probs.item() == 1
    if isinstance(distribution, td.NegativeBinomial):
        return distribution.total_count.item() == 0 or distribution.logits.item() == -math.inf
    return False


def _component(batch: Distribution, k: int) -> Distribution | None:
    if isinstance(batch, td.Bernoulli | td.Categorical):
        return type(batch)(logits=batch.logits[k])  # pyright: ignore
    if isinstance(batch, td.Independent) and isinstance(batch.base_dist, td.Bernoulli):
        return td.Independent(td.Bernoulli(logits=batch.base_dist.logits[k]), batch.reinterpreted_batch_ndims)
    return rebuild(batch, lambda parameter: parameter[k])


def _mixture(weights: Tensor, parts: list[Distribution]) -> Distribution:
    """A mixture without empty components; the component, if there is one; a finite distribution, if all are finite."""
    kept = [(w, part) for w, part in zip(weights.tolist(), parts, strict=True) if w > 0]
    if len(kept) == 1:
        return kept[0][1]
    finite = [(w, part) for w, part in kept if isinstance(part, Finite)]
    if len(finite) == len(kept):
        points = torch.cat([part.points for _, part in finite])
        log_weights = torch.cat([math.log(w) + part.log_weights for w, part in finite])
        return Finite(points, log_weights=log_weights, validate_args=False)
    shares = torch.tensor([w for w, _ in kept], dtype=torch.float64)
    return Mixture(shares, [part for _, part in kept], validate_args=False)


def _enumerated(distribution: Distribution) -> Distribution:
    """A distribution on few points as a finite one; the distribution itself where the points are too many."""
    base = distribution.base_dist if isinstance(distribution, td.Independent) else distribution
    if isinstance(base, td.Bernoulli):
        logits = _logits(base).flatten()
        if 2 ** len(logits) > _MOST_ENUMERATED or (len(logits) > 1 and distribution.event_shape != (len(logits),)):
            return distribution
        points = torch.cartesian_prod(*[torch.tensor([0.0, 1.0]).double()] * len(logits)).reshape(-1, len(logits))
        log_weights = torch.where(points > 0, logsigmoid(logits), logsigmoid(-logits)).sum(-1)
        return Finite(
            points if distribution.event_shape else points[:, 0], log_weights=log_weights, validate_args=False
        )
    if isinstance(distribution, td.Independent):
        return distribution
    if isinstance(base, td.Binomial):
        n, logits = int(base.total_count.item()), _logits(base)
        points = torch.arange(n + 1, dtype=torch.float64)
        ways = math.lgamma(n + 1) - torch.lgamma(points + 1) - torch.lgamma(n - points + 1)
        # At probability 0 or 1 the term 0 · log 0 is 0.
        successes, failures = (
            torch.where(count > 0, count * log, torch.zeros_like(points))
            for count, log in ((points, logsigmoid(logits)), (n - points, logsigmoid(-logits)))
        )
        return Finite(points, log_weights=ways + successes + failures, validate_args=False)
    categorical: td.Categorical = base if isinstance(base, td.Categorical) else base._categorical  # pyright: ignore
    given_logits = "logits" in categorical.__dict__
    log_weights = _double(categorical.logits).log_softmax(-1) if given_logits else _double(categorical.probs).log()
    points = torch.arange(len(log_weights)) if base is categorical else base.enumerate_support()
    return Finite(_double(points), log_weights=log_weights, validate_args=False)


def canonical_pair(p: Distribution, q: Distribution) -> tuple[Distribution, Distribution]:
    """Both distributions in canonical form, over one space.

    A vector of length 1 becomes a number, so that a `Normal` and a `MultivariateNormal` on R¹ can be compared.

    Raises:
        ConfigurationError: one is a batch of distributions, or they are over different spaces.
    """
    p, q = _on_the_line(_canonical(p)), _on_the_line(_canonical(q))
    if p.event_shape != q.event_shape:
        shapes = f"P over event shape {tuple(p.event_shape)}, Q over {tuple(q.event_shape)}"
        raise ConfigurationError(f"the distributions are over different spaces: {shapes}")
    return p, q


def _on_the_line(distribution: Distribution) -> Distribution:
    """A distribution on vectors of length 1 as that of their only entry; any other distribution as it is."""
    if distribution.event_shape != (1,):
        return distribution
    gaussian = gaussian_of(distribution)
    if gaussian:
        return td.Normal(gaussian.mean[0], gaussian.factor[0, 0], validate_args=False)
    if isinstance(distribution, Finite):
        return Finite(distribution.points[:, 0], log_weights=distribution.log_weights, validate_args=False)
    if isinstance(distribution, Mixture):
        parts = [_on_the_line(part) for part in distribution.components]
        return Mixture(distribution.weights, parts, validate_args=False)
    if not isinstance(distribution, td.Independent):
        return distribution
    return rebuild(distribution.base_dist, lambda parameter: parameter[0]) or distribution


@dataclass(frozen=True)
class Gaussian:
    """A Gaussian by its mean (d,) and the Cholesky factor (d, d) of its covariance, in float64."""

    mean: Tensor
    factor: Tensor

    @property
    def deviation(self) -> Tensor:
        """Standard deviation of each coordinate, (d,)."""
        return self.factor.norm(dim=-1)


def gaussian_of(distribution: Distribution) -> Gaussian | None:
    """Mean and factor of a Gaussian, whatever its class; None for any other distribution."""
    if distribution.batch_shape:
        return None
    if isinstance(distribution, td.Independent):
        base = distribution.base_dist
        known = isinstance(base, td.Normal) and len(distribution.event_shape) == 1
        return Gaussian(base.loc, torch.diag(base.scale)) if known else None
    if isinstance(distribution, td.Normal):
        return Gaussian(distribution.loc.reshape(1), distribution.scale.reshape(1, 1))
    if isinstance(distribution, td.MultivariateNormal):
        return Gaussian(distribution.loc, distribution.scale_tril)
    if isinstance(distribution, td.LowRankMultivariateNormal):
        return Gaussian(distribution.loc, distribution.scale_tril)
    return None


def same_distribution(p: Distribution, q: Distribution) -> bool:
    """Whether two distributions are known to be equal: one object, equal parameters, or equal Gaussians."""
    if p is q:
        return True
    first, second = gaussian_of(p), gaussian_of(q)
    if first and second:
        return torch.equal(first.mean, second.mean) and torch.equal(first.factor, second.factor)
    if type(p) is not type(q) or p.event_shape != q.event_shape:
        return False
    if isinstance(p, Mixture) and isinstance(q, Mixture):
        parts = zip(p.components, q.components, strict=False)
        return torch.equal(p.weights, q.weights) and all(same_distribution(a, b) for a, b in parts)
    if isinstance(p, td.Independent) and isinstance(q, td.Independent):
        return same_distribution(p.base_dist, q.base_dist)
    if isinstance(p, Finite) and isinstance(q, Finite):
        return torch.equal(p.points, q.points) and torch.equal(p.log_weights, q.log_weights)
    if isinstance(p, ContinuousBernoulliDistribution) and isinstance(q, ContinuousBernoulliDistribution):
        return torch.equal(p.logits, q.logits)
    names = _PARAMETERS.get(type(p), ())
    return bool(names) and all(torch.equal(getattr(p, name), getattr(q, name)) for name in names)


# Supports.


def dimension(distribution: Distribution) -> int:
    """Dimension of the space: 1 for the line."""
    return math.prod(distribution.event_shape)


def is_discrete(distribution: Distribution) -> bool:
    """Whether the distribution has its mass on points, and not a density."""
    return bool(distribution.support.is_discrete)  # pyright: ignore


def atoms(distribution: Distribution) -> tuple[Finite, float]:
    """A discrete distribution as a finite one, and a bound on the mass (0 if it was finite) of the points left out.

    A distribution on the whole numbers is cut where its tails are lost in rounding: 40 standard deviations from its
    mean.

    Raises:
        UnsupportedError: the points cannot be listed.
    """
    if isinstance(distribution, Finite):
        return distribution, 0.0
    if distribution.event_shape or not is_discrete(distribution):
        raise UnsupportedError(f"the points of {distribution} cannot be listed; use monte_carlo")
    parts = distribution.components if isinstance(distribution, Mixture) else (distribution,)
    top = max(float(part.mean + 40 * part.variance.sqrt()) for part in parts) + 50
    bottom = max(0.0, min(float(part.mean - 40 * part.variance.sqrt()) for part in parts) - 50)
    if not top < _MOST_ATOMS:
        raise UnsupportedError(f"{distribution} has more than {_MOST_ATOMS} points that matter; use monte_carlo")
    points = torch.arange(math.floor(bottom), math.ceil(top), dtype=torch.float64)
    log_weights = log_density(distribution, points)
    tail = max(1e-15, abs(math.expm1(log_weights.logsumexp(0).item())))
    return Finite(points, log_weights=log_weights, validate_args=False), tail


def boxes(distribution: Distribution) -> np.ndarray | None:
    """The support of a continuous distribution as boxes, (k, d, 2) of lower and upper ends; None if it is not known.

    A set that is not a union of boxes, such as a simplex, is not known.
    """
    if isinstance(distribution, Mixture):
        parts = [boxes(part) for part in distribution.components]
        return None if any(part is None for part in parts) else np.concatenate([p for p in parts if p is not None])
    support = distribution.support
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    low, high = -math.inf, math.inf
    if isinstance(support, constraints.interval | constraints.half_open_interval):
        low, high = support.lower_bound, support.upper_bound
    elif isinstance(support, constraints.greater_than | constraints.greater_than_eq):
        low = support.lower_bound
    elif isinstance(support, constraints.less_than):
        high = support.upper_bound
    elif not isinstance(support, type(constraints.real)):
        return None
    ends = [np.broadcast_to(np.asarray(end, dtype=float).reshape(-1), dimension(distribution)) for end in (low, high)]
    return np.stack(ends, axis=-1)[None]


def _on_all_whole_numbers(distribution: Distribution) -> bool:
    return isinstance(distribution, td.Poisson | td.Geometric | td.NegativeBinomial)


_SINGULAR = "one distribution has its mass on points and the other has a density, so they are mutually singular"


def uncovered(p: Distribution, q: Distribution) -> str | None:
    """Why P is not absolutely continuous with respect to Q; None if it is, or if a support is not known.

    Raises:
        UnsupportedError: the supports are many boxes in more than three dimensions.
    """
    if is_discrete(p) != is_discrete(q):
        return _SINGULAR
    if _on_all_whole_numbers(p) and _on_all_whole_numbers(q):
        return None
    if is_discrete(p):
        distribution, tail = atoms(p)
        lost = (log_density(q, distribution.points) == -torch.inf) & (distribution.log_weights > -torch.inf)
        if bool(lost.any()):
            mass, point = distribution.weights[lost].sum().item(), distribution.points[lost][0]
            return f"P has mass {mass:.6g} where Q has none, such as on {np.round(point.numpy(), 6).tolist()}"
        return "P has infinitely many points and Q finitely many" if tail and isinstance(q, Finite) else None
    first, second = boxes(p), boxes(q)
    if first is None or second is None:
        return None
    hole = _hole(first, second)
    if hole is None:
        return None
    return f"P has mass on {' × '.join(f'[{low:.6g}, {high:.6g}]' for low, high in hole)}, where Q has none"


def separation(p: Distribution, q: Distribution) -> str | None:
    """Why P and Q are mutually singular (no point has mass or density under both); None if they are not."""
    if is_discrete(p) != is_discrete(q):
        return _SINGULAR
    if _on_all_whole_numbers(p) and _on_all_whole_numbers(q):
        return None
    if is_discrete(p):
        distribution, tail = atoms(p)
        common = (log_density(q, distribution.points) > -torch.inf) & (distribution.log_weights > -torch.inf)
        return None if tail or bool(common.any()) else "the distributions have no point in common"
    first, second = boxes(p), boxes(q)
    if first is None or second is None:
        return None
    low = np.maximum(first[:, None, :, 0], second[None, :, :, 0])
    high = np.minimum(first[:, None, :, 1], second[None, :, :, 1])
    return None if (low < high).all(-1).any() else "the supports are disjoint, up to sets without mass"


def _hole(first: np.ndarray, second: np.ndarray) -> np.ndarray | None:
    """A box of positive volume, (d, 2), in the union of the first boxes and outside the union of the second."""
    d = first.shape[1]
    for box in first:
        inside = (second[:, :, 0] <= box[:, 0]) & (second[:, :, 1] >= box[:, 1])
        if inside.all(-1).any():
            continue
        if len(second) == 1:  # the part of the box beyond one face of the other
            axis = int(np.argmin(inside[0]))
            hole, (low, high) = box.copy(), second[0, axis]
            below = box[axis, 0] < low
            hole[axis] = (box[axis, 0], min(low, box[axis, 1])) if below else (max(high, box[axis, 0]), box[axis, 1])
            return hole
        if d > 3:
            raise UnsupportedError(
                "absolute continuity of unions of boxes is decided in up to 3 dimensions; use monte_carlo"
            )
        cuts = [np.unique(np.clip(np.r_[box[i], second[:, i].ravel()], *box[i])) for i in range(d)]
        for cell in itertools.product(*(itertools.pairwise(cut) for cut in cuts)):
            hole = np.asarray(cell)
            if not ((second[:, :, 0] <= hole[:, 0]) & (second[:, :, 1] >= hole[:, 1])).all(-1).any():
                return hole
    return None


# Tails.

# E|x|^a is finite for a below this, and infinite from it on. Families that are not named have every moment.
_MOMENTS: dict[type[Distribution], Callable[..., float]] = {
    td.Cauchy: lambda _: 1.0,
    td.HalfCauchy: lambda _: 1.0,
    td.StudentT: lambda distribution: distribution.df.item(),
    td.Pareto: lambda distribution: distribution.alpha.item(),
    td.InverseGamma: lambda distribution: distribution.concentration.item(),
}
# −log q(x) grows at least like |x|^g along each tail.
_GROWTH: dict[type[Distribution], Callable[..., float]] = {
    td.Normal: lambda _: 2.0,
    td.MultivariateNormal: lambda _: 2.0,
    td.HalfNormal: lambda _: 2.0,
    td.Laplace: lambda _: 1.0,
    td.Exponential: lambda _: 1.0,
    td.Gamma: lambda _: 1.0,
    td.Chi2: lambda _: 1.0,
    td.Gumbel: lambda _: 1.0,
    td.Weibull: lambda distribution: distribution.concentration.item(),
}


def heaviest_moment(distribution: Distribution) -> float:
    """The smallest a for which E|x|^a is infinite; +inf where every moment is finite. For distributions on the line."""
    if isinstance(distribution, Mixture):
        return min(heaviest_moment(part) for part in distribution.components)
    return _MOMENTS.get(type(distribution), lambda _: math.inf)(distribution)


def growth(distribution: Distribution) -> float:
    """A g such that −log q(x) grows at least like |x|^g along each tail; 0 if none is known."""
    parts = distribution.components if isinstance(distribution, Mixture) else (distribution,)
    return min(_GROWTH.get(type(part), lambda _: 0.0)(part) for part in parts)


def infinite_relative_entropy(p: Distribution, q: Distribution) -> str | None:
    """Why E_p[−log q] is infinite although the supports allow a finite value; None if it is not known to be."""
    power, moment = growth(q), heaviest_moment(p)
    if power >= moment:
        return f"−log q grows like |x|^{power:g} or faster, and E_p|x|^{moment:g} is infinite"
    parts = p.components if isinstance(p, Mixture) else (p,)
    if isinstance(q, td.Gumbel) and any(isinstance(part, td.Laplace) and part.scale >= q.scale for part in parts):
        return "−log q grows like exp(−x / scale) towards −∞, and its mean under P is infinite"
    return None


# Densities that are constant on the cells of one partition.


@dataclass(frozen=True)
class Masses:
    """The logarithms of what two distributions put on each cell of a partition.

    Attributes:
        log_p: under P, (cells,), float64; −inf allowed.
        log_q: under Q, (cells,).
        p_tail: a bound on the mass of P that was left out; 0 where the cells are complete.
        q_tail: the same for Q.
        rounding: a bound on the rounding of each logarithm.
    """

    log_p: Tensor
    log_q: Tensor
    p_tail: float = 0.0
    q_tail: float = 0.0
    rounding: float = 0.0


def uniform_boxes(distribution: Distribution) -> tuple[np.ndarray, np.ndarray] | None:
    """Boxes (k, d, 2) and weights (k,) of a uniform distribution or a mixture of them; None for any other."""
    if isinstance(distribution, Mixture):
        parts = [uniform_boxes(part) for part in distribution.components]
        known = [part for part in parts if part is not None]
        if len(known) < len(parts):
            return None
        weights = [w * inner for w, (_, inner) in zip(distribution.weights.numpy(), known, strict=True)]
        return np.concatenate([box for box, _ in known]), np.concatenate(weights)
    base = distribution.base_dist if isinstance(distribution, td.Independent) else distribution
    box = boxes(distribution) if isinstance(base, td.Uniform) else None
    return None if box is None else (box, np.ones(1))


def common_masses(p: Distribution, q: Distribution) -> Masses | None:
    """The masses of two distributions on cells over which both densities are constant; None where there are none.

    The cells are the points of two discrete distributions, or what the faces of the boxes of uniform distributions cut
    out.
    """
    if is_discrete(p) and is_discrete(q):
        (first, p_tail), (second, q_tail) = atoms(p), atoms(q)
        points = torch.cat([first.points, second.points])
        points = points.unique(dim=0 if points.dim() == 2 else None)
        rounding = rounding_of_masses(points) if p_tail or q_tail else 0.0
        return Masses(log_density(p, points), log_density(q, points), p_tail, q_tail, rounding)
    first, second = uniform_boxes(p), uniform_boxes(q)
    if first is None or second is None:
        return None
    if len(first[0]) == len(second[0]) == 1:
        return _two_boxes(first[0][0], second[0][0])
    cuts = [np.unique(np.r_[first[0][:, i].ravel(), second[0][:, i].ravel()]) for i in range(first[0].shape[1])]
    if np.prod([float(len(cut)) for cut in cuts]) > _MOST_CELLS:
        return None
    cells = np.asarray(list(itertools.product(*(itertools.pairwise(cut) for cut in cuts))))
    return Masses(_on_cells(cells, *first).log(), _on_cells(cells, *second).log())


def rounding_of_masses(points: Tensor) -> float:
    """A bound on the rounding of the logarithms of masses on whole numbers, which is that of log Γ."""
    top = points.abs().max().item()
    return 4 * torch.finfo(torch.float64).eps * top * math.log(top + 2)


def _two_boxes(first: np.ndarray, second: np.ndarray) -> Masses:
    """Two boxes in any dimension make three cells: in both, in the first alone, in the second alone."""
    meet = np.maximum(np.minimum(first[:, 1], second[:, 1]) - np.maximum(first[:, 0], second[:, 0]), 0)
    p, q = (float(np.prod(meet / (box[:, 1] - box[:, 0]))) for box in (first, second))
    masses = torch.tensor([[p, 1 - p, 0], [q, 0, 1 - q]], dtype=torch.float64).log()
    return Masses(masses[0], masses[1])


def _on_cells(cells: np.ndarray, of: np.ndarray, weights: np.ndarray) -> Tensor:
    """Mass of a mixture of uniform boxes on each of the cells (n, d, 2)."""
    mass = np.zeros(len(cells))
    volume = (cells[:, :, 1] - cells[:, :, 0]).prod(-1)
    for box, weight in zip(of, weights, strict=True):
        inside = ((cells[:, :, 0] >= box[:, 0]) & (cells[:, :, 1] <= box[:, 1])).all(-1)
        mass += weight * inside * volume / (box[:, 1] - box[:, 0]).prod()
    return torch.from_numpy(mass)
