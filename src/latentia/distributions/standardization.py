"""Data in the user's units, and networks that see numbers around 0 of size 1.

A `Standardization` holds a center c and a spread s of each number of x. The encoder sees u = (x − c)/s; a likelihood of
a location and a scale is that of u, carried to x, so that log p(x) = log p(u) − Σ log s is in nats of the user's units.

Missing values are NaN. A distribution whose numbers are independent given z gives the marginal of the observed ones
exactly: the sum of their log-probabilities (`Marginal`). The encoder sees 0 where a value is missing, and, of vectors,
also which ones are.
"""

from __future__ import annotations

__all__ = ["Standardization"]

from collections.abc import Iterable, Sequence
from functools import singledispatch
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Laplace, LogNormal, Normal, StudentT, constraints
from torch.types import _size

from latentia.distributions.conditional import Conditional
from latentia.errors import DataError

if TYPE_CHECKING:
    from latentia.distributions.likelihoods import Likelihood

_SPREADS = (1e-15, 1e15)
_LEAST_SPREAD = 1e-6  # of the size of the values: float32 does not resolve less


class Standardization(nn.Module):
    """Center and spread of each number of an example, in the space in which the likelihood standardizes.

    Args:
        event_shape: of one example.

    Attributes:
        center: (*event_shape).
        spread: (*event_shape), positive.
    """

    center: Tensor
    spread: Tensor

    def __init__(self, event_shape: tuple[int, ...]):
        super().__init__()
        self.register_buffer("center", torch.zeros(event_shape))
        self.register_buffer("spread", torch.ones(event_shape))

    def forward(self, x: Tensor) -> Tensor:
        """(x − center)/spread, (B, *event_shape)."""
        return (x - self.center) / self.spread

    def fit(self, chunks: Iterable[Tensor], likelihood: Likelihood, names: Sequence[str] = ()) -> None:
        """Take mean and standard deviation of the training examples: of each column of vectors, or each channel.

        Args:
            chunks: all training examples, (n, *event_shape) at a time; NaN is left out.
            likelihood: says in which space, and which numbers are not standardized.
            names: of the columns, for messages.

        Raises:
            DataError: for a column without a spread, or one whose spread float32 does not resolve.
        """
        shape = tuple(self.center.shape)
        kept = (0, *range(2, 1 + len(shape)))  # all dimensions but columns or channels
        count = total = square = torch.zeros(shape[0], dtype=torch.float64)
        first: Tensor | None = None
        for chunk in chunks:
            x = likelihood.transform(chunk.double().cpu())
            if first is None:  # sums around a typical value lose no digits
                first = x.nanmean(kept).nan_to_num(0.0)
            seen = ~x.isnan()
            around = torch.where(seen, x - first.view(1, -1, *[1] * (len(shape) - 1)), 0.0)
            count = count + seen.sum(kept)
            total, square = total + around.sum(kept), square + around.square().sum(kept)
        if first is None:
            return
        mean = total / count.clamp(min=1)
        spread = (square / count.clamp(min=1) - mean.square()).clamp(min=0).sqrt()
        center = first + mean
        unscaled = likelihood.unscaled_columns()
        plain = unscaled if isinstance(unscaled, slice) else torch.tensor(list(unscaled), dtype=torch.int64)
        center[plain], spread[plain] = 0.0, 1.0
        _require_spread(center, spread, count, names)
        view = (-1, *[1] * (len(shape) - 1))
        self.center.copy_(center.view(view).expand(shape))
        self.spread.copy_(spread.view(view).expand(shape))


def _require_spread(center: Tensor, spread: Tensor, count: Tensor, names: Sequence[str]) -> None:
    """Refuse columns that cannot be standardized.

    Raises:
        DataError: naming the columns and the cure.
    """

    def named(rows: Tensor) -> str:
        listed = [str(names[row]) if row < len(names) else f"column {row}" for row in rows.nonzero().flatten().tolist()]
        return ", ".join(listed[:5]) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "")

    if bool((count == 0).any()):
        raise DataError(f"{named(count == 0)}: all training values are missing; leave the column out (data.drop=[…])")
    if bool((spread == 0).any()):
        raise DataError(
            f"{named(spread == 0)}: all training values are equal ({center[spread == 0][0]:g}), so there is no "
            "spread to divide by; leave the column out (data.drop=[…], in Python x[:, keep]), or set "
            "data.standardize=false"
        )
    extreme = (spread < _SPREADS[0]) | (spread > _SPREADS[1])
    if bool(extreme.any()):
        raise DataError(
            f"{named(extreme)}: the standard deviation is {spread[extreme][0]:.2g}, whose square float32 does "
            "not hold; give the column in another unit"
        )
    narrow = spread < _LEAST_SPREAD * center.abs()
    if bool(narrow.any()):
        raise DataError(
            f"{named(narrow)}: values around {center[narrow][0]:g} differ by {spread[narrow][0]:.2g}, which float32 "
            "does not resolve; subtract their mean first"
        )


class StandardizedConditional(Conditional):
    """p(x|z) in the user's units, of a network that works in standardized ones, with missing values.

    Args:
        network: as for `Conditional`.
        family: of u, or of x where it is not one of a location and a scale.
        standardization: None leaves the numbers as they are.
        missing: whether values may be missing.
        event_shape: as for `Conditional`.
        condition_shape: as for `Conditional`.
    """

    def __init__(
        self,
        network: nn.Module,
        family: Likelihood,
        standardization: Standardization | None,
        missing: bool,
        *,
        event_shape: tuple[int, ...],
        condition_shape: tuple[int, ...],
    ):
        super().__init__(network, family, event_shape=event_shape, condition_shape=condition_shape)
        self._shared, self.missing = (standardization,), missing

    @property
    def standardization(self) -> Standardization | None:
        """The module of the whole model; held in a tuple, so that its buffers are saved once."""
        return self._shared[0]

    def distribution(self, numbers: Tensor) -> Distribution:
        found = super().distribution(numbers)
        if self.standardization is not None:
            found = rescaled(found, self.standardization.center, self.standardization.spread)
        return marginal(found) if self.missing else found

    def stopped(self, numbers: Tensor) -> Distribution:
        raise NotImplementedError("only posteriors are needed without a gradient to their parameters")


class EncoderInput(nn.Module):
    """The encoder of standardized values: x → transform, standardize, zeros where values are missing → network.

    Args:
        network: of the encoder; it takes `likelihood.input_shape(event_shape, missing)`.
        likelihood: of the data; categories become indicators.
        standardization: None leaves the numbers as they are.
        missing: whether values may be missing.
    """

    def __init__(
        self, network: nn.Module, likelihood: Likelihood, standardization: Standardization | None, missing: bool
    ):
        super().__init__()
        self.network, self.likelihood, self.missing = network, likelihood, missing
        self._shared = (standardization,)

    @property
    def standardization(self) -> Standardization | None:
        """The module of the whole model; held in a tuple, so that its buffers are saved once."""
        return self._shared[0]

    def forward(self, x: Tensor, *conditions: Tensor) -> Tensor:
        """x (B, *event_shape), with what else the network takes."""
        return self.network(self.prepared(x), *conditions)

    def prepared(self, x: Tensor) -> Tensor:
        """What the network sees of x."""
        u = self.likelihood.transform(x)
        if self.standardization is not None:
            u = self.standardization(u)
        absent = x.isnan() if self.missing else None
        u = self.likelihood.indicators(u if absent is None else torch.where(absent, 0.0, u), absent)
        return torch.cat([u, absent.to(u.dtype)], -1) if absent is not None and x.dim() == 2 else u


def input_shape(likelihood: Likelihood, event_shape: tuple[int, ...], missing: bool) -> tuple[int, ...]:
    """The shape that the encoder's network takes; see `EncoderInput`."""
    shape = likelihood.indicator_shape(event_shape)
    return (shape[0] + event_shape[0],) if missing and len(event_shape) == 1 else shape


@singledispatch
def rescaled(distribution: Distribution, center: Tensor, spread: Tensor) -> Distribution:  # noqa: ARG001
    """The distribution of x = c + s u for u of a location-scale distribution.

    Of log-normal ones it is that of log x = c + s log u; of counts, that with the log-mean c + s l in place of l, with
    c and s of log(1 + x). Other distributions, such as those of categories, are returned as they are.
    """
    return distribution


@rescaled.register
def _(distribution: Independent, center: Tensor, spread: Tensor) -> Distribution:
    base = rescaled(distribution.base_dist, center, spread)
    return Independent(base, distribution.reinterpreted_batch_ndims, validate_args=False)


@rescaled.register(Normal)
@rescaled.register(Laplace)
@rescaled.register(LogNormal)
def _(distribution: Normal | Laplace | LogNormal, center: Tensor, spread: Tensor) -> Distribution:
    loc, scale = center + spread * distribution.loc, spread * distribution.scale
    return type(distribution)(loc, scale, validate_args=False)


@rescaled.register
def _(distribution: StudentT, center: Tensor, spread: Tensor) -> Distribution:
    loc, scale = center + spread * distribution.loc, spread * distribution.scale
    return StudentT(distribution.df, loc, scale, validate_args=False)


class Grouped(Distribution):
    """A vector whose columns are in groups, each with its own distribution; the groups are independent given z.

    Args:
        parts: of the groups, each over the vectors of its columns.
        columns: of each group, int64; together every column once.
    """

    def __init__(self, parts: list[Distribution], columns: list[Tensor]):
        self.parts, self.columns = parts, columns
        width = sum(len(group) for group in columns)
        super().__init__(parts[0].batch_shape, torch.Size([width]), validate_args=False)

    @property
    def arg_constraints(self) -> dict[str, constraints.Constraint]:
        return {}

    @property
    def support(self) -> constraints.Constraint:
        discrete = all(part.support is not None and part.support.is_discrete for part in self.parts)
        return constraints.independent(constraints.nonnegative_integer if discrete else constraints.real, 1)

    def groups(self) -> Iterable[tuple[Distribution, Tensor]]:
        """The distribution and the columns of each group."""
        return zip(self.parts, self.columns, strict=True)

    def expand(self, batch_shape: _size, _instance: Distribution | None = None) -> Grouped:
        return Grouped([part.expand(batch_shape) for part in self.parts], self.columns)

    def log_prob(self, value: Tensor) -> Tensor:
        """Sum of the log-probabilities and log-densities of the groups."""
        total = torch.zeros((), device=value.device)
        for part, columns in self.groups():
            total = total + part.log_prob(value[..., columns])
        return total

    def sample(self, sample_shape: _size = torch.Size()) -> Tensor:
        return self._joined([part.sample(sample_shape) for part in self.parts])

    @property
    def mean(self) -> Tensor:
        """Means of numbers; of categories, the most probable one."""
        return self._joined([part.mean for part in self.parts])

    @property
    def variance(self) -> Tensor:
        return self._joined([part.variance for part in self.parts])

    def _joined(self, parts: list[Tensor]) -> Tensor:
        order = torch.cat(self.columns).argsort().to(parts[0].device)
        return torch.cat([part.to(parts[0].dtype) for part in parts], -1)[..., order]


class Marginal(Distribution):
    """The observed numbers of x, where NaN marks the others: log_prob is exact, since they are independent given z.

    Args:
        base: over single numbers, of batch shape (*batch, *event).
        event_dims: how many of the last dimensions form one event.
    """

    def __init__(self, base: Distribution, event_dims: int):
        self.base, self.event_dims = base, event_dims
        rank = len(base.batch_shape) - event_dims
        super().__init__(base.batch_shape[:rank], base.batch_shape[rank:], validate_args=False)

    @property
    def arg_constraints(self) -> dict[str, constraints.Constraint]:
        return {}

    @property
    def support(self) -> constraints.Constraint:
        support = self.base.support
        assert support is not None
        return constraints.independent(support, self.event_dims)

    def expand(self, batch_shape: _size, _instance: Distribution | None = None) -> Marginal:
        return Marginal(self.base.expand(torch.Size([*batch_shape, *self.event_shape])), self.event_dims)

    def log_prob(self, value: Tensor) -> Tensor:
        absent = value.isnan()
        filled = torch.where(absent, _within(self.base), value)
        scores = self.base.log_prob(filled)
        return torch.where(absent, 0.0, scores).sum(tuple(range(-self.event_dims, 0)))

    def sample(self, sample_shape: _size = torch.Size()) -> Tensor:
        """A whole x: nothing is missing in it."""
        return self.base.sample(sample_shape)

    @property
    def mean(self) -> Tensor:
        return self.base.mean

    @property
    def variance(self) -> Tensor:
        return self.base.variance


@rescaled.register
def _(distribution: Grouped, center: Tensor, spread: Tensor) -> Distribution:
    parts = [rescaled(part, center[columns], spread[columns]) for part, columns in distribution.groups()]
    return Grouped(parts, distribution.columns)


def marginal(distribution: Distribution) -> Distribution:
    """The same distribution, which takes NaN for what is not observed."""
    if isinstance(distribution, Grouped):
        return Grouped([marginal(part) for part in distribution.parts], distribution.columns)
    if isinstance(distribution, Independent):
        return Marginal(distribution.base_dist, distribution.reinterpreted_batch_ndims)
    return distribution


def _within(base: Distribution) -> Tensor:
    """A number in the support of each distribution, in place of one that is missing."""
    return torch.ones((), dtype=base.mean.dtype, device=base.mean.device)
