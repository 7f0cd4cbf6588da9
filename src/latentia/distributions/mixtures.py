r"""Mixtures Σₖ wₖ pₖ of distributions of different families.

torch's `MixtureSameFamily` holds batches of one family and is faster. `Mixture` takes any distributions over one space,
such as a Normal and a Uniform, and scores each point under those components alone whose support contains it.
"""

from __future__ import annotations

__all__ = ["Mixture", "log_density"]

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.distributions import Distribution, MixtureSameFamily, constraints

from latentia.errors import ConfigurationError


def log_density(distribution: Distribution, x: Tensor) -> Tensor:
    """log p(x) at any point: −inf outside the support, where torch raises or returns a meaningless number.

    Args:
        distribution: unbatched.
        x: points, (..., *event_shape).

    Returns:
        (...); the gradients at points outside the support are zero. A distribution without a support is taken as it is.
    """
    try:
        support = distribution.support
    except NotImplementedError:  # a user's distribution may leave it out
        support = None
    if support is None:
        return distribution.log_prob(x)
    if isinstance(distribution, MixtureSameFamily):  # its support is the union of its components', such as boxes
        parts: Any = distribution.component_distribution
        inside = cast(Tensor, parts.support.check(x.unsqueeze(-1 - len(distribution.event_shape)))).any(-1)
    else:
        inside = support.check(x)
    if bool(inside.all()):
        return distribution.log_prob(x)
    result = torch.full(inside.shape, -torch.inf, dtype=x.dtype, device=x.device)
    if bool(inside.any()):
        scores = distribution.log_prob(x[inside])
        result = result.to(scores.dtype).masked_scatter(inside, scores)
    return result


def _cumulative(distribution: Distribution, x: Tensor) -> Tensor:
    """P(X ≤ x) at any point of the line, (...): 0 or 1 outside a continuous support, where torch raises."""
    inside = distribution.support.check(x)  # pyright: ignore
    if distribution.support.is_discrete or bool(inside.all()):  # pyright: ignore
        return distribution.cdf(x)
    result = (x > distribution.mean).to(x.dtype)  # the support is an interval that contains the mean
    return result.masked_scatter(inside, distribution.cdf(x[inside]).to(x.dtype)) if bool(inside.any()) else result


class _Union(constraints.Constraint):
    """Points that lie in the support of at least one component."""

    def __init__(self, components: Sequence[Distribution]):
        self.parts = [distribution.support for distribution in components]
        self.is_discrete = self.parts[0].is_discrete  # pyright: ignore[reportOptionalMemberAccess]
        self.event_dim = self.parts[0].event_dim  # pyright: ignore[reportOptionalMemberAccess]
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        return torch.stack([part.check(value) for part in self.parts]).any(0)  # pyright: ignore


class Mixture(Distribution):
    """Σₖ wₖ pₖ over components of any families on one space.

    Args:
        weights: (K,), positive or zero, summing to 1.
        components: K unbatched distributions of one event shape, all discrete or all continuous.

    Raises:
        ConfigurationError: weights that are not probabilities, or components over different spaces.
    """

    arg_constraints = {"weights": constraints.simplex}  # noqa: RUF012  # pyright: ignore

    def __init__(self, weights: Tensor, components: Sequence[Distribution], validate_args: bool | None = None):
        self.components = tuple(components)
        if weights.shape != (len(self.components),) or not self.components:
            raise ConfigurationError(
                f"a mixture needs one weight for each component: {len(self.components)} components, "
                f"weights of shape {tuple(weights.shape)}"
            )
        total = weights.sum().item()
        if bool((weights < 0).any()) or not abs(total - 1) < 1e-6:
            raise ConfigurationError(f"a mixture's weights must be at least 0 and sum to 1; they sum to {total:.6g}")
        if any(distribution.batch_shape for distribution in self.components):
            raise ConfigurationError("Mixture takes unbatched components; MixtureSameFamily takes a batch")
        if len({distribution.event_shape for distribution in self.components}) > 1:
            shapes = ", ".join(str(tuple(distribution.event_shape)) for distribution in self.components)
            raise ConfigurationError(f"the components of a mixture are over different spaces: event shapes {shapes}")
        if len({distribution.support.is_discrete for distribution in self.components}) > 1:  # pyright: ignore
            raise ConfigurationError("the components of a mixture are all discrete or all continuous")
        self.weights = weights / weights.sum()
        super().__init__(event_shape=self.components[0].event_shape, validate_args=validate_args)

    @property
    def support(self) -> constraints.Constraint:
        """The union of the components' supports."""
        return _Union(self.components)

    @property
    def mean(self) -> Tensor:
        """Σₖ wₖ E_k[x], (*event_shape)."""
        return torch.einsum(
            "k,k...->...", self.weights, torch.stack([distribution.mean for distribution in self.components])
        )

    @property
    def variance(self) -> Tensor:
        """Σₖ wₖ (Var_k + (E_k − E)²), (*event_shape)."""
        centers = torch.stack([distribution.mean for distribution in self.components])
        spread = (
            torch.stack([distribution.variance for distribution in self.components]) + (centers - self.mean).square()
        )
        return torch.einsum("k,k...->...", self.weights, spread)

    def log_prob(self, value: Tensor) -> Tensor:
        """log Σₖ wₖ pₖ(x), (...) in nats; a component counts only where x is in its support."""
        if self._validate_args:
            self._validate_sample(value)
        scores = torch.stack([log_density(distribution, value) for distribution in self.components])
        log_weights = self.weights.log().reshape(-1, *[1] * (scores.dim() - 1))
        return (scores + log_weights).logsumexp(0)

    def cdf(self, value: Tensor) -> Tensor:
        """Σₖ wₖ Fₖ(x), (...); where every component has a cdf."""
        if self._validate_args:
            self._validate_sample(value)
        parts = torch.stack([_cumulative(distribution, value) for distribution in self.components], -1)
        return (parts * self.weights).sum(-1)

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size | Sequence[int] = torch.Size()) -> Tensor:
        """Draws of shape (*sample_shape, *event_shape), of the type of the weights."""
        shape = torch.Size(sample_shape)
        index = torch.multinomial(self.weights, max(1, shape.numel()), replacement=True)
        draws: Tensor | None = None
        for k in index.unique().tolist():
            mine = index == k
            drawn = self.components[k].sample(torch.Size((int(mine.sum()),)))
            if draws is None:
                draws = torch.empty((len(index), *drawn.shape[1:]), dtype=self.weights.dtype, device=drawn.device)
            draws[mine] = drawn.to(draws.dtype)
        assert draws is not None  # at least one index was drawn
        return draws[: shape.numel()].reshape(shape + self.event_shape)

    def __repr__(self) -> str:
        terms = (
            f"{w:.4g}*{distribution}" for w, distribution in zip(self.weights.tolist(), self.components, strict=True)
        )
        return f"Mixture({' + '.join(terms)})"
