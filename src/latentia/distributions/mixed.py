"""A likelihood of tables: one family for each group of columns, independent given z."""

from __future__ import annotations

__all__ = ["Group", "Mixed"]

import math
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.distributions import Distribution

from latentia.configuration import Component, OneOf
from latentia.distributions.likelihoods import Likelihood
from latentia.distributions.standardization import Grouped
from latentia.errors import ConfigurationError, DataError


class Group(Component):
    """Columns with one likelihood.

    Attributes:
        columns: their names, or their numbers from 0.
        likelihood: of these columns.
    """

    columns: tuple[int | str, ...] = Field(min_length=1)
    likelihood: OneOf[Likelihood]


class Mixed(Likelihood):
    """One likelihood for each group of columns: log p(x|z) is the sum of theirs.

    The network emits the numbers of all groups as one vector.

    Attributes:
        groups: by default the kinds of the table's columns: gaussian-per-column for reals, negative-binomial for
            counts, bernoulli for two values, categorical for categories, ordinal for ordered ones.
    """

    prepares: ClassVar[bool] = True
    groups: tuple[Group, ...] = ()

    @property
    def discrete(self) -> bool:
        return bool(self.groups) and all(group.likelihood.discrete for group in self.groups)

    def numbered(self, names: Sequence[str]) -> Mixed:
        """The same likelihood with columns by number.

        Raises:
            ConfigurationError: for unknown columns, and columns in no group or in two.
        """
        place = {name: number for number, name in enumerate(names)}
        unknown = [c for group in self.groups for c in group.columns if isinstance(c, str) and c not in place]
        if unknown:
            text = f"there is no column {unknown[0]}; the columns are {', '.join(names)}"
            raise ConfigurationError([("likelihood.groups", text)])
        groups = tuple(
            group.model_copy(update={"columns": tuple(place.get(str(c), c) for c in group.columns)})
            for group in self.groups
        )
        given = sorted(int(column) for group in groups for column in group.columns)
        if given != list(range(len(names))):
            absent = [names[number] for number in range(len(names)) if number not in given]
            text = f"no group has {', '.join(absent[:5])}" if absent else "a column is in two groups, or does not exist"
            raise ConfigurationError([("likelihood.groups", f"{text}; put each of the {len(names)} columns in one")])
        return self.model_copy(update={"groups": groups})

    def parameter_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(event_shape) != 1 or sum(len(group.columns) for group in self.groups) != event_shape[0]:
            held = sum(len(group.columns) for group in self.groups)
            text = f"its groups hold {held} columns, and the shape of an example is {event_shape}"
            raise ConfigurationError([("likelihood.groups", f"{text}; give each column of a table to one group")])
        return (sum(math.prod(shape) for shape in self._parameter_shapes()),)

    def shared_parameters(self, event_shape: tuple[int, ...]) -> Tensor | None:
        held = [group.likelihood.shared_parameters((len(group.columns),)) for group in self.groups]
        flat = [shared.flatten() for shared in held if shared is not None]
        return torch.cat(flat) if flat else None

    def distribution(self, parameters: Tensor, shared: Tensor | None = None, event_dims: int = 1) -> Distribution:
        shapes = self._parameter_shapes()
        numbers = parameters.split([math.prod(shape) for shape in shapes], -1)
        parts, start = [], 0
        for group, own, shape in zip(self.groups, numbers, shapes, strict=True):
            initial = group.likelihood.shared_parameters((len(group.columns),))
            held = None
            if initial is not None and shared is not None:
                held = shared[start : start + initial.numel()].view(initial.shape)
                start += initial.numel()
            parts.append(group.likelihood.distribution(own.reshape(*own.shape[:-1], *shape), held, 1))
        return Grouped(parts, [columns.to(parameters.device) for _, columns in self._numbered()])

    def check(self, images: Tensor) -> None:
        for group, columns in self._numbered():
            part = images[:, columns]
            try:
                group.likelihood.check(part)
            except DataError as error:
                listed = ", ".join(map(str, group.columns[:5]))
                raise DataError(f"columns {listed}: {error}") from None

    def transform(self, x: Tensor) -> Tensor:
        parts = [(group.likelihood.transform(x[:, columns]), columns) for group, columns in self._numbered()]
        return _joined(parts)

    def unscaled_columns(self) -> Sequence[int]:
        found = [columns[_index(group.likelihood.unscaled_columns())] for group, columns in self._numbered()]
        return torch.cat(found).tolist() if found else []

    def indicator_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (sum(group.likelihood.indicator_shape((len(group.columns),))[0] for group in self.groups),)

    def indicators(self, u: Tensor, absent: Tensor | None) -> Tensor:
        parts = [
            group.likelihood.indicators(u[:, columns], None if absent is None else absent[:, columns])
            for group, columns in self._numbered()
        ]
        return torch.cat(parts, -1)

    def _parameter_shapes(self) -> list[tuple[int, ...]]:
        return [group.likelihood.parameter_shape((len(group.columns),)) for group in self.groups]

    def _numbered(self) -> Iterator[tuple[Group, Tensor]]:
        for group in self.groups:
            yield group, torch.tensor([int(column) for column in group.columns])


def _joined(parts: list[tuple[Tensor, Tensor]]) -> Tensor:
    order = torch.cat([columns for _, columns in parts]).argsort()
    return torch.cat([part for part, _ in parts], -1)[:, order]


def _index(columns: Sequence[int] | slice) -> Any:
    return columns if isinstance(columns, slice) else torch.tensor(list(columns), dtype=torch.int64)
