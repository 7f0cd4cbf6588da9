"""A distribution on finitely many points of the line or of Rᵈ: an empirical distribution or a finite latent space."""

from __future__ import annotations

__all__ = ["Finite"]

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from latentia.errors import ConfigurationError


class _Points(constraints.Constraint):
    """Points that equal one of the given ones exactly."""

    is_discrete = True

    def __init__(self, distribution: Finite):
        self.distribution = distribution
        self.event_dim = len(distribution.event_shape)
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        return self.distribution._matches(value).any(-1)


class Finite(Distribution):
    """The distribution with weight wᵢ on the point xᵢ. Equal points are merged into the first of them.

    Args:
        points: (n,) on the line, or (n, d).
        weights: (n,), at least 0, summing to 1; equal if not given. Log-probabilities are differentiable in them.
        log_weights: instead of `weights`, for weights that underflow; normalized here.

    Attributes:
        points: the distinct points, (m,) or (m, d).
        weights: their weights, (m,).
        log_weights: the logarithms of the weights, (m,).

    Raises:
        ConfigurationError: no points, points that are not finite, or weights that are not probabilities.
    """

    arg_constraints = {"weights": constraints.simplex}  # noqa: RUF012  # pyright: ignore
    has_enumerate_support = True

    def __init__(
        self,
        points: Tensor,
        weights: Tensor | None = None,
        validate_args: bool | None = None,
        *,
        log_weights: Tensor | None = None,
    ):
        points = points if points.is_floating_point() else points.double()
        if points.dim() not in (1, 2) or len(points) == 0 or not bool(torch.isfinite(points).all()):
            raise ConfigurationError(
                f"a finite distribution needs points (n,) or (n, d), n >= 1, all finite; given shape "
                f"{tuple(points.shape)}"
            )
        if log_weights is not None:
            log_weights = log_weights - log_weights.logsumexp(0)
            weights = log_weights.exp()
        if weights is None:
            weights = torch.full((len(points),), 1 / len(points), dtype=points.dtype, device=points.device)
        total = weights.sum().item()
        if weights.shape != points.shape[:1] or bool((weights < 0).any()) or not abs(total - 1) < 1e-6:
            raise ConfigurationError(
                f"a finite distribution needs one weight for each of its {len(points)} points, at least 0, summing "
                f"to 1; given {len(weights)} that sum to {total:.6g}"
            )
        rows = 0 if points.dim() == 2 else None  # comparing rows takes 40 times as long as comparing numbers
        distinct, group = torch.unique(points, dim=rows, return_inverse=True)
        first = torch.full((len(distinct),), len(points), device=points.device)
        first = first.scatter_reduce(0, group, torch.arange(len(points), device=points.device), "amin")
        order = first.argsort()
        merged = torch.zeros(len(distinct), dtype=weights.dtype, device=weights.device).index_add(0, group, weights)
        self.points = points[first[order]]
        self.weights = merged[order] / merged.sum()
        if log_weights is None or len(distinct) < len(points):
            self.log_weights = self.weights.log()
        else:
            self.log_weights = log_weights[first[order]]
        super().__init__(event_shape=points.shape[1:], validate_args=validate_args)

    @property
    def support(self) -> constraints.Constraint:
        """The points themselves."""
        return _Points(self)

    @property
    def mean(self) -> Tensor:
        """Σ wᵢ xᵢ, (*event_shape)."""
        return torch.einsum("n,n...->...", self.weights, self.points)

    @property
    def variance(self) -> Tensor:
        """Σ wᵢ (xᵢ − mean)², (*event_shape)."""
        return torch.einsum("n,n...->...", self.weights, (self.points - self.mean).square())

    def entropy(self) -> Tensor:
        """−Σ wᵢ log wᵢ in nats, ()."""
        return torch.special.entr(self.weights).sum()

    def log_prob(self, value: Tensor) -> Tensor:
        """log wᵢ where x equals xᵢ exactly, (...); −inf elsewhere, unless arguments are validated, which raises."""
        if self._validate_args:
            self._validate_sample(value)
        matches = self._matches(value)
        # Indexing comes first, so that the gradient at a weight of zero does not reach the other weights.
        scores = self.log_weights[matches.to(torch.uint8).argmax(-1)]
        return torch.where(matches.any(-1), scores, torch.full_like(scores, -torch.inf))

    def cdf(self, value: Tensor) -> Tensor:
        """P(X ≤ x), (...); on the line only."""
        if self.event_shape:
            raise NotImplementedError("a distribution in more than one dimension has no cdf on the line")
        order = self.points.argsort()
        steps = torch.cat([self.weights.new_zeros(1), self.weights[order].cumsum(0)])
        return steps[torch.searchsorted(self.points[order].contiguous(), value.to(self.points.dtype), right=True)]

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size | Sequence[int] = torch.Size()) -> Tensor:
        """Draws of shape (*sample_shape, *event_shape)."""
        shape = torch.Size(sample_shape)
        index = torch.multinomial(self.weights, max(1, shape.numel()), replacement=True)
        return self.points[index].reshape(shape + self.event_shape)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """Every point, (m, *event_shape)."""
        return self.points

    def _matches(self, value: Tensor) -> Tensor:
        """Which point equals each value, (..., m)."""
        dims = len(self.event_shape)
        equal = value.unsqueeze(-1 - dims) == self.points
        return equal.all(-1) if dims else equal

    def __repr__(self) -> str:
        return f"Finite({len(self.points)} points of shape {tuple(self.event_shape)})"
