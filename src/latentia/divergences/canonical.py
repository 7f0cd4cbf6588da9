"""Distributions in the one form that the divergences reason about.

A distribution may come in float32, on a GPU, as a batch of one family under mixing weights, or with an argument check that
raises outside its support. `canonical` rebuilds the distributions that it knows with their parameters in float64 on the CPU;

    Bernoulli, Binomial, Categorical, one-hot distributions, independent Bernoullis     become  Finite
    MixtureSameFamily, mixtures with empty components or a single one          become  Mixture, Finite, the component

Any other distribution is taken as it is.
"""

from __future__ import annotations

__all__ = ["canonical", "canonical_pair", "gaussian_moments", "same_distribution"]

from collections.abc import Callable

import torch
from torch import Tensor
from torch import distributions as td
from torch.distributions import Distribution

from latentia.distributions.finite import Finite
from latentia.distributions.mixtures import Mixture
from latentia.errors import ConfigurationError

# The parameters that rebuild a distribution. A distribution with two ways to be written appears with the one that loses no digits.
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
_MOST_ATOMS = 2**16

_Pick = Callable[[Tensor], Tensor]


def _double(parameter: Tensor) -> Tensor:
    return parameter.detach().double().cpu()


def _rebuild(distribution: Distribution, pick: _Pick) -> Distribution | None:
    """The same distribution with `pick` applied to each parameter, unvalidated; None if the distribution is not known."""
    if isinstance(distribution, td.Independent):
        base = _rebuild(distribution.base_dist, pick)
        return base and td.Independent(base, distribution.reinterpreted_batch_ndims, validate_args=False)
    names = _PARAMETERS.get(type(distribution))
    if names is None:
        return None
    return type(distribution)(**{name: pick(getattr(distribution, name)) for name in names}, validate_args=False)  # pyright: ignore


def canonical(distribution: Distribution) -> Distribution:
    """The distribution in canonical form; see the module's docstring.

    Raises:
        ConfigurationError: the distribution is a batch of distributions.
    """
    if distribution.batch_shape:
        raise ConfigurationError(
            f"{distribution} is a batch of distributions, of shape {tuple(distribution.batch_shape)}. These functions compare two distributions; for "
            "batches there is torch.distributions.kl_divergence, and td.Independent makes one distribution of a batch"
        )
    if isinstance(distribution, Finite):
        return Finite(_double(distribution.points), _double(distribution.weights), validate_args=False)
    if isinstance(distribution, Mixture):
        return _mixture(_double(distribution.weights), [canonical(part) for part in distribution.components])
    if isinstance(distribution, td.MixtureSameFamily):
        weights = _double(distribution.mixture_distribution.probs)
        parts = [_component(distribution.component_distribution, k) for k in range(len(weights))]
        return (
            distribution
            if any(part is None for part in parts)
            else _mixture(weights, [canonical(p) for p in parts if p])
        )
    if isinstance(distribution, _ENUMERABLE) or (
        isinstance(distribution, td.Independent) and isinstance(distribution.base_dist, _ENUMERABLE)
    ):
        return _enumerated(distribution)
    return _rebuild(distribution, _double) or distribution


def _component(batch: Distribution, k: int) -> Distribution | None:
    if type(batch) in (td.Bernoulli, td.Categorical):
        return type(batch)(logits=batch.logits[k])  # pyright: ignore
    if isinstance(batch, td.Independent) and type(batch.base_dist) is td.Bernoulli:
        return td.Independent(td.Bernoulli(logits=batch.base_dist.logits[k]), batch.reinterpreted_batch_ndims)
    return _rebuild(batch, lambda parameter: parameter[k])


def _mixture(weights: Tensor, parts: list[Distribution]) -> Distribution:
    """A mixture without empty or needless components; of finite distributions, the finite distribution that it is."""
    kept = [(w, part) for w, part in zip(weights.tolist(), parts, strict=True) if w > 0]
    if len(kept) == 1:
        return kept[0][1]
    finite = [(w, part) for w, part in kept if isinstance(part, Finite)]
    if len(finite) == len(kept):
        points = torch.cat([part.points for _, part in finite])
        return Finite(points, torch.cat([w * part.weights for w, part in finite]), validate_args=False)
    return Mixture(
        torch.tensor([w for w, _ in kept], dtype=torch.float64), [part for _, part in kept], validate_args=False
    )


def _enumerated(distribution: Distribution) -> Distribution:
    """The finite distribution that a distribution on few enough points is; the distribution itself where they are too many."""
    base = distribution.base_dist if isinstance(distribution, td.Independent) else distribution
    if isinstance(base, td.Bernoulli):
        logits = base.logits if "logits" in base.__dict__ else base.probs.logit()
        on, off = (torch.stack([_double(sign * logits).flatten()]).sigmoid()[0] for sign in (1, -1))
        if 2 ** len(on) > _MOST_ATOMS or (len(on) > 1 and distribution.event_shape != (len(on),)):
            return distribution
        points = torch.cartesian_prod(*[torch.tensor([0.0, 1.0]).double()] * len(on)).reshape(-1, len(on))
        weights = torch.where(points > 0, on, off).prod(-1)
        return Finite(
            points if distribution.event_shape else points[:, 0], weights / weights.sum(), validate_args=False
        )
    if isinstance(distribution, td.Independent):
        return distribution
    if isinstance(base, td.Categorical):
        probs = _double(base.probs)
        return Finite(torch.arange(len(probs)).double(), probs / probs.sum(), validate_args=False)
    points = base.enumerate_support()
    exact = td.Binomial(_double(base.total_count), _double(base.probs)) if isinstance(base, td.Binomial) else base
    weights = exact.log_prob(points.double()).exp().double()
    return Finite(_double(points), weights / weights.sum(), validate_args=False)


def canonical_pair(p: Distribution, q: Distribution) -> tuple[Distribution, Distribution]:
    """Both distributions in canonical form, over one space.

    Vectors of length 1 are taken as numbers, so that a `Normal` and a `MultivariateNormal` on R¹ can be compared.

    Raises:
        ConfigurationError: one is a batch of distributions, or they lie over different spaces.
    """
    p, q = _on_the_line(canonical(p)), _on_the_line(canonical(q))
    if p.event_shape != q.event_shape:
        shapes = f"P over event shape {tuple(p.event_shape)}, Q over {tuple(q.event_shape)}"
        raise ConfigurationError(f"the distributions lie over different spaces: {shapes}")
    return p, q


def _on_the_line(distribution: Distribution) -> Distribution:
    """A distribution on vectors of length 1 as the distribution of their only entry; any other distribution as it is."""
    if distribution.event_shape != (1,):
        return distribution
    moments = gaussian_moments(distribution)
    if moments:
        return td.Normal(moments[0][0], moments[1][0, 0].sqrt(), validate_args=False)
    if isinstance(distribution, Finite):
        return Finite(distribution.points[:, 0], distribution.weights, validate_args=False)
    if isinstance(distribution, Mixture):
        return Mixture(
            distribution.weights, [_on_the_line(part) for part in distribution.components], validate_args=False
        )
    single = (
        _rebuild(distribution.base_dist, lambda parameter: parameter[0])
        if isinstance(distribution, td.Independent)
        else None
    )
    return single or distribution


def gaussian_moments(distribution: Distribution) -> tuple[Tensor, Tensor] | None:
    """Mean (d,) and covariance (d, d) of a Gaussian of any make, in float64; None for any other distribution."""
    if distribution.batch_shape:
        return None
    if (
        isinstance(distribution, td.Independent)
        and isinstance(distribution.base_dist, td.Normal)
        and len(distribution.event_shape) == 1
    ):
        return distribution.base_dist.loc, torch.diag(distribution.base_dist.variance)
    if isinstance(distribution, td.Normal):
        return distribution.loc.reshape(1), distribution.variance.reshape(1, 1)
    if isinstance(distribution, td.MultivariateNormal | td.LowRankMultivariateNormal):
        return distribution.loc, distribution.covariance_matrix
    return None


def same_distribution(p: Distribution, q: Distribution) -> bool:
    """Whether two canonical distributions are known to be equal: one object, equal parameters, or equal Gaussians."""
    if p is q:
        return True
    first, second = gaussian_moments(p), gaussian_moments(q)
    if first and second:
        return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    if type(p) is not type(q) or p.event_shape != q.event_shape:
        return False
    if isinstance(p, Mixture) and isinstance(q, Mixture):
        parts = zip(p.components, q.components, strict=False)
        return torch.equal(p.weights, q.weights) and all(same_distribution(a, b) for a, b in parts)
    if isinstance(p, td.Independent) and isinstance(q, td.Independent):
        return same_distribution(p.base_dist, q.base_dist)
    if isinstance(p, Finite) and isinstance(q, Finite):
        return torch.equal(p.points, q.points) and torch.equal(p.weights, q.weights)
    names = _PARAMETERS.get(type(p), ())
    return bool(names) and all(torch.equal(getattr(p, name), getattr(q, name)) for name in names)
