"""A conditional is a network followed by a family: x ↦ q(z|x), or z ↦ p(x|z).

The network maps a tensor to numbers, and the family maps the numbers to a distribution. Any `nn.Module` from tensors to
tensors can be the network, so a user's network becomes a posterior or a likelihood without a change.

Under mixed precision the networks compute in bfloat16. The densities, draws and divergences of the distributions
compute in float32 at least; `distributions_in_float32` opens a block where that holds.
"""

from __future__ import annotations

__all__ = ["Conditional", "Family", "distributions_in_float32"]

import copy
import math
import re
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import ContinuousBernoulli as TorchContinuousBernoulli
from torch.distributions import Distribution, Independent

from latentia.configuration import Component
from latentia.errors import ConfigurationError, DataError

# The mixed precision around each open `distributions_in_float32`: device, dtype. A list and not a ContextVar, since
# compilers can trace a list; so two threads of a process must not train under mixed precision at the same time.
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


def at_least_float32(numbers: Tensor) -> Tensor:
    """The numbers in float32 if they are in half precision, in which torch lacks Cholesky factors and more."""
    return numbers.float() if numbers.dtype in (torch.bfloat16, torch.float16) else numbers


class Family(Component):
    """A parametric family of distributions over events of a given shape."""

    @abstractmethod
    def parameter_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the numbers that the network must give for one example."""

    @abstractmethod
    def distribution(self, parameters: Tensor, shared: Any = None, event_dims: int = 1) -> Distribution:
        """The distributions with these parameters.

        Args:
            parameters: the numbers of the network, (*batch, *parameter_shape), in float32 or float64.
            shared: the parameters of `shared_parameters`, or the module of `shared_module`, where the family has one.
            event_dims: how many of the last dimensions form one event; the posteriors, over vectors, ignore it.

        Returns:
            A distribution of batch shape (*batch) and event shape `event_shape`.
        """

    def shared_parameters(self, event_shape: tuple[int, ...]) -> Tensor | None:
        """Initial values of learned parameters that do not depend on the condition; None where there are none."""
        return None

    def shared_module(self, event_shape: tuple[int, ...]) -> nn.Module | None:
        """A module with such parameters, where one tensor is not enough, as for a flow; None where there is none."""
        return None


class Conditional(nn.Module):
    """`family.distribution(network(condition))`.

    Args:
        network: tensor in, tensor out: (B, *condition) → (B, *family.parameter_shape(event_shape)).
        family: the distributions that the numbers parametrize.
        event_shape: shape of one event, such as (2,) for z ∈ R² or (1, 28, 28) for an image.
        condition_shape: shape of one condition.
    """

    def __init__(
        self, network: nn.Module, family: Family, *, event_shape: tuple[int, ...], condition_shape: tuple[int, ...]
    ):
        super().__init__()
        if not isinstance(network, nn.Module):
            raise ConfigurationError(
                f"a network is an nn.Module, and this one is a {type(network).__name__}; call it in the forward of one"
            )
        self.network = network
        self.family = family
        self.event_shape = tuple(event_shape)
        self.condition_shape = tuple(condition_shape)
        self.parameter_shape = family.parameter_shape(self.event_shape)
        shared = family.shared_parameters(self.event_shape)
        self.shared = family.shared_module(self.event_shape) if shared is None else nn.Parameter(shared)

    def emit(self, condition: Tensor) -> Tensor:
        """The network's numbers for conditions (*batch, *condition_shape), in float32 at least.

        Raises:
            ConfigurationError: the network gives fewer or more numbers than the family needs.
            DataError: conditions of another shape, or that are not a tensor.
        """
        if not isinstance(condition, Tensor):
            raise DataError(f"examples must be a tensor, and these are a {type(condition).__name__}; use torch.tensor")
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
                numbers = self._call(condition)
        else:
            numbers = self._call(condition)
        numbers = at_least_float32(numbers)
        expected = (*batch, *self.parameter_shape)
        if numbers.shape == expected:
            return numbers
        if numbers.numel() != math.prod(expected):
            raise ConfigurationError(
                f"the network {type(self.network).__name__} gives {tuple(numbers.shape[1:])} numbers for one example, "
                f"and {type(self.family).__name__} over {self.event_shape} needs {self.parameter_shape}"
            )
        return numbers.reshape(expected)

    def _call(self, condition: Tensor) -> Tensor:
        """The network's output; integers and booleans are converted to floats.

        Raises:
            ConfigurationError: a network that does not take batches of this shape.
        """
        if torch.compiler.is_compiling():
            return self.network(condition)
        if not condition.is_floating_point():
            condition = condition.to(torch.get_default_dtype())
        try:
            return self.network(condition)
        except RuntimeError as error:
            if not re.search(r"\b(shapes?|sizes?|channels|dimensions?)\b", str(error)):
                raise
            raise ConfigurationError(
                f"the network {type(self.network).__name__} does not take a batch of shape {tuple(condition.shape)} "
                f"({str(error).splitlines()[0]}); give one that takes examples of shape {self.condition_shape}"
            ) from error

    def forward(self, condition: Tensor) -> Distribution:
        """The distributions for conditions of shape (*batch, *condition_shape)."""
        return self.distribution(self.emit(condition))

    def distribution(self, numbers: Tensor) -> Distribution:
        """The distributions of numbers that `emit` returned.

        Raises:
            ConfigurationError: the family returns torch's ContinuousBernoulli, whose density is wrong.
        """
        distribution = self.family.distribution(numbers, self.shared, len(self.event_shape))
        plain = type(distribution) is Independent  # a subclass may build its base_dist only when asked for it
        if isinstance(distribution.base_dist if plain else distribution, TorchContinuousBernoulli):
            raise ConfigurationError(
                "torch's ContinuousBernoulli is wrong by nats for |logits| above 16 in float32; use "
                "latentia.distributions.ContinuousBernoulliDistribution(logits)"
            )
        return distribution

    def stopped(self, numbers: Tensor) -> Distribution:
        """The same distributions with no gradient to their parameters: q with φ held fixed."""
        if isinstance(self.shared, nn.Module):
            shared = copy.deepcopy(self.shared).requires_grad_(False)
        else:
            shared = None if self.shared is None else self.shared.detach()
        return self.family.distribution(numbers.detach(), shared, len(self.event_shape))
