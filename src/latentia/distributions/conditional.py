"""A conditional is a network followed by a family: x ↦ q(z|x), or z ↦ p(x|z).

The network turns a tensor into numbers; the family turns the numbers into a distribution. Any `nn.Module` that takes a tensor
and gives a tensor serves as the network, so a user's own becomes a posterior or a likelihood without a change.

Under mixed precision the networks compute in bfloat16 and the distributions must not: their densities, draws and divergences are
arithmetic on the numbers emitted, in float32 at least. `distributions_in_float32` opens a block where that holds.
"""

from __future__ import annotations

__all__ = ["Conditional", "Family", "distributions_in_float32"]

import math
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from latentia.configuration import Component
from latentia.errors import ConfigurationError, DataError

# The mixed precision around each open `distributions_in_float32`: device, dtype. A list, since compilers can follow one, and
# not a ContextVar: two threads of a process must not train under mixed precision at once.
_networks_in: list[tuple[str, torch.dtype]] = []


@contextmanager
def distributions_in_float32(device: torch.device) -> Iterator[None]:
    """Switch autocast off inside the block, except where a `Conditional` calls its network."""
    if not torch.is_autocast_enabled(device.type):
        yield
        return
    _networks_in.append((device.type, torch.get_autocast_dtype(device.type)))
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        _networks_in.pop()


class Family(Component):
    """A parametric family of distributions over events of a given shape."""

    @abstractmethod
    def parameter_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the numbers that the network must emit for one example."""

    @abstractmethod
    def distribution(self, parameters: Tensor, shared: Tensor | None = None, event_dims: int = 1) -> Distribution:
        """The distributions with these parameters.

        Args:
            parameters: what the network emitted, (*batch, *parameter_shape), in float32 or float64.
            shared: the parameters of `shared_parameters`, where the family has any.
            event_dims: how many of the last dimensions form one event; the posteriors, over vectors, ignore it.

        Returns:
            A distribution of batch shape (*batch) and event shape `event_shape`.
        """

    def shared_parameters(self, event_shape: tuple[int, ...]) -> Tensor | None:
        """Starting values of learned parameters that do not depend on the condition; None where there are none."""
        return None


class Conditional(nn.Module):
    """`family.distribution(network(condition))`.

    Args:
        network: tensor in, tensor out: (B, *condition) → (B, *family.parameter_shape(event_shape)).
        family: what the numbers mean.
        event_shape: shape of one event, such as (2,) for z ∈ R² or (1, 28, 28) for an image.
        condition_shape: shape of one condition.
    """

    def __init__(
        self, network: nn.Module, family: Family, *, event_shape: tuple[int, ...], condition_shape: tuple[int, ...]
    ):
        super().__init__()
        self.network = network
        self.family = family
        self.event_shape = tuple(event_shape)
        self.condition_shape = tuple(condition_shape)
        self.parameter_shape = family.parameter_shape(self.event_shape)
        shared = family.shared_parameters(self.event_shape)
        self.shared = None if shared is None else nn.Parameter(shared)

    def emit(self, condition: Tensor) -> Tensor:
        """The network's numbers for conditions (*batch, *condition_shape), in float32 at least.

        Raises:
            ConfigurationError: if the network gives another number of numbers than the family needs.
            DataError: for conditions of another shape.
        """
        batch = condition.shape[: max(0, condition.dim() - len(self.condition_shape))]
        if tuple(condition.shape[len(batch) :]) != self.condition_shape:
            raise DataError(
                f"{type(self.network).__name__} was given a batch of shape {tuple(condition.shape)}; "
                f"examples must have shape {self.condition_shape}, so the batch must have (B, *{self.condition_shape})"
            )
        if len(batch) != 1:  # networks see one batch dimension
            condition = condition.reshape(math.prod(batch), *self.condition_shape)
        if _networks_in:
            device, dtype = _networks_in[-1]
            with torch.autocast(device, dtype=dtype):
                numbers = self.network(condition)
        else:
            numbers = self.network(condition)
        if numbers.dtype in (torch.bfloat16, torch.float16):
            numbers = numbers.float()
        expected = (*batch, *self.parameter_shape)
        if numbers.shape == expected:
            return numbers
        if numbers.numel() != math.prod(expected):
            raise ConfigurationError(
                f"the network {type(self.network).__name__} gives {tuple(numbers.shape[1:])} numbers for one example, "
                f"and {type(self.family).__name__} over {self.event_shape} needs {self.parameter_shape}"
            )
        return numbers.reshape(expected)

    def forward(self, condition: Tensor) -> Distribution:
        """The distributions for conditions of shape (*batch, *condition_shape)."""
        return self.distribution(self.emit(condition))

    def distribution(self, numbers: Tensor) -> Distribution:
        """The distributions of numbers that `emit` returned."""
        return self.family.distribution(numbers, self.shared, len(self.event_shape))

    def stopped(self, numbers: Tensor) -> Distribution:
        """The same distributions with no gradient to their parameters: q with φ held fixed."""
        shared = None if self.shared is None else self.shared.detach()
        return self.family.distribution(numbers.detach(), shared, len(self.event_shape))
