"""Priors p(z): modules whose call returns a distribution over z.

A prior is called with the posterior, `prior(posterior)`, since the VampPrior is a mixture of posteriors; the others
ignore it.
"""

from __future__ import annotations

__all__ = ["FlowPrior", "MixturePrior", "Prior", "StandardNormal", "VampPrior", "require_same_space", "zuko_flows"]

from abc import abstractmethod
from collections.abc import Callable
from types import ModuleType
from typing import Any, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily, Normal, constraints

from latentia.configuration import Component
from latentia.distributions.conditional import Conditional, at_least_float32
from latentia.distributions.gaussians import StandardGaussian
from latentia.distributions.posteriors import LatentSpace, Posterior
from latentia.errors import ConfigurationError, UnsupportedError


class Prior(LatentSpace, Component, family=True):
    """A distribution over z, with or without parameters."""

    @property
    def partner(self) -> str:
        return "diagonal"

    @abstractmethod
    def build(self, latent: int, event_shape: tuple[int, ...]) -> nn.Module:
        """A module that maps the posterior, a `Conditional`, to a distribution with event shape (latent,)."""


def require_same_space(posterior: Posterior, prior: Prior, latent: int) -> None:
    """Refuse a posterior and a prior over different spaces.

    Raises:
        ConfigurationError: naming the prior and the posterior that match.
    """
    spaces = posterior.space(latent), prior.space(latent)
    if spaces[0] != spaces[1]:
        raise ConfigurationError(
            [
                (
                    "prior",
                    f"posterior={posterior.type_name} has z in {spaces[0]}, prior={prior.type_name} in {spaces[1]}; "
                    f"set prior={posterior.partner}, or posterior={prior.partner}",
                )
            ]
        )


class StandardNormal(Prior, name="normal"):
    """N(0, I)."""

    def build(self, latent: int, event_shape: tuple[int, ...]) -> nn.Module:
        return _StandardNormal(latent)


class MixturePrior(Prior, name="mixture"):
    """A mixture of diagonal Gaussians, weights, means and scales learned."""

    components: int = Field(default=10, ge=1, description="Gaussians of the mixture")
    spread: float = Field(default=1.0, gt=0, description="standard deviation of the means at the start")

    def build(self, latent: int, event_shape: tuple[int, ...]) -> nn.Module:
        return _Mixture(self.components, latent, self.spread)


class VampPrior(Prior, name="vamp"):
    """A mixture of the posteriors of learned pseudo-images (Tomczak and Welling 2018, eq. 9), with learned weights."""

    components: int = Field(default=50, ge=1, description="pseudo-images, each with its posterior")

    def build(self, latent: int, event_shape: tuple[int, ...]) -> nn.Module:
        if len(event_shape) != 3:
            text = f"vamp learns images in [0, 1], and the shape of these examples is {event_shape}"
            raise ConfigurationError([("prior", f"{text}. Use prior=mixture or flow")])
        return _Vamp(self.components, event_shape)


class FlowPrior(Prior, name="flow"):
    """A normalizing flow from zuko over N(0, I). torch.compile cannot trace zuko's transforms as one graph."""

    kind: Literal["maf", "nsf"] = Field(default="nsf", description="affine (maf) or spline (nsf) transforms")
    transforms: int = Field(default=3, ge=1, description="layers of the flow")
    hidden: tuple[int, ...] = Field(default=(64, 64), description="hidden layers of each transform's network")

    def build(self, latent: int, event_shape: tuple[int, ...]) -> nn.Module:
        flows = zuko_flows()
        flow = {"maf": flows.MAF, "nsf": flows.NSF}[self.kind]
        return _Flow(flow(features=latent, transforms=self.transforms, hidden_features=self.hidden))


class _StandardNormal(nn.Module):
    mean: Tensor

    def __init__(self, latent: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(latent), persistent=False)
        self._distribution = StandardGaussian(self.mean)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        self._distribution = StandardGaussian(self.mean)  # `to`, `double` and the like call this method
        return self

    def forward(self, posterior: Conditional | None = None) -> Distribution:
        return self._distribution


class _Mixture(nn.Module):
    def __init__(self, components: int, latent: int, spread: float):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(components))
        self.means = nn.Parameter(spread * torch.randn(components, latent))
        self.log_scales = nn.Parameter(torch.zeros(components, latent))

    def forward(self, posterior: Conditional | None = None) -> Distribution:
        normal = Normal(self.means, self.log_scales.exp(), validate_args=False)
        return _mixture(self.logits, Independent(normal, 1, validate_args=False))


class _Vamp(nn.Module):
    def __init__(self, components: int, event_shape: tuple[int, ...]):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(components))
        # Images start dark with a little noise: a sigmoid keeps them within [0, 1].
        self.pseudo_inputs = nn.Parameter(torch.randn(components, *event_shape) - 2)

    def forward(self, posterior: Conditional | None = None) -> Distribution:
        if posterior is None:
            raise ValueError(
                "a VampPrior is a mixture of posteriors: call it with the posterior, prior(model.posterior)"
            )
        return _mixture(self.logits, posterior(self.pseudo_inputs.sigmoid()))


class _Flow(nn.Module):
    def __init__(self, flow: Any):
        super().__init__()
        self.flow = flow

    def forward(self, posterior: Conditional | None = None) -> Distribution:
        return FlowDistribution(self.flow())


_NO_MOMENTS = "the moments of a flow have no closed form; average over draws, prior().sample((n,))"


class FlowDistribution(Distribution):
    """zuko's distribution, with what it lacks: a support, and an error that says why there are no moments.

    Attributes:
        transform: from z to the normal variable.
        base: the distribution of the normal variable.
    """

    arg_constraints = {}  # noqa: RUF012  # pyright: ignore
    has_rsample = True

    def __init__(self, flow: Any):
        self.flow = flow
        self.transform, self.base = flow.transform, flow.base
        super().__init__(flow.batch_shape, flow.event_shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.real_vector

    def log_prob(self, value: Tensor) -> Tensor:
        return self.flow.log_prob(value)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self.flow.rsample(torch.Size(sample_shape))

    def expand(self, batch_shape: Any, _instance: Any = None) -> Distribution:
        return FlowDistribution(self.flow.expand(batch_shape))

    @property
    def mean(self) -> Tensor:
        raise UnsupportedError(_NO_MOMENTS)

    @property
    def variance(self) -> Tensor:
        raise UnsupportedError(_NO_MOMENTS)


def zuko_flows() -> ModuleType:
    """The module `zuko.flows`. Its import turns off the validation of torch's distributions, which is restored here."""
    validates = Distribution._validate_args
    try:
        from zuko import flows
    finally:
        Distribution.set_default_validate_args(validates)
    return flows


def _mixture(logits: Tensor, components: Distribution) -> Distribution:
    weights = Categorical(logits=at_least_float32(logits), validate_args=False)
    return MixtureSameFamily(weights, components, validate_args=False)
