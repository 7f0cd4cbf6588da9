"""A posterior by a normalizing flow, conditioned on the image.

    z = m + s ⊙ T(ε; c),   ε ~ N(0, I),          log q(z|x) = log N(ε) − log |det ∂T/∂ε| − Σ log s

The network gives m, log s and a context c. T is autoregressive, of affine maps (Kingma et al. 2016) or of monotonic
rational-quadratic splines (Durkan et al. 2019), and its own weights are shared by all images. A draw costs one pass
through T, and so does its density, which is kept with the draw; the density of another z costs d passes more.
"""

from __future__ import annotations

__all__ = ["FlowPosterior"]

import math
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.distributions import Distribution, constraints
from torch.quasirandom import SobolEngine

from latentia.distributions.conditional import at_least_float32
from latentia.distributions.posteriors import Posterior
from latentia.distributions.priors import zuko_flows
from latentia.errors import ConfigurationError

NODES = 256  # of the moments
NEAR_IDENTITY = 0.01  # of the last layers' weights at the start, where q is then about a diagonal Gaussian


class FlowPosterior(Posterior, name="flow"):
    """A flow from zuko: d means, d logarithms of scales, then `context` numbers for the transforms.

    Its KL has no closed form: set `objective.kl=monte-carlo`, or use `objective=iwae`.
    """

    kind: Literal["iaf", "nsf"] = Field(default="nsf", description="affine (iaf) or spline (nsf) transforms")
    transforms: int = Field(default=3, ge=1, description="layers of the flow")
    bins: int = Field(default=8, ge=2, description="pieces of each spline (nsf)")
    context: int = Field(default=16, ge=1, description="numbers of the network for the transforms")
    hidden: tuple[int, ...] = Field(default=(64, 64), description="hidden layers of each transform's network")

    @model_validator(mode="after")
    def _bins_are_of_splines(self) -> Self:
        if self.kind == "iaf" and self.bins != type(self).model_fields["bins"].default:
            text = "the affine transforms of kind=iaf have no bins"
            raise ConfigurationError([("bins", f"{text}. Leave bins out, or set kind=nsf")])
        return self

    def parameter_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (2 * math.prod(event_shape) + self.context,)

    def shared_module(self, event_shape: tuple[int, ...]) -> nn.Module:
        d = math.prod(event_shape)
        flows = zuko_flows()
        flow = {"iaf": flows.MAF, "nsf": flows.NSF}[self.kind]
        settings: dict[str, Any] = {"hidden_features": self.hidden, "activation": nn.SiLU}
        if self.kind == "nsf":
            settings["bins"] = self.bins
        transform = flow(d, self.context, transforms=self.transforms, **settings).transform
        for part in transform.transforms:
            weight, bias = list(part.parameters())[-2:]  # of the last layer
            with torch.no_grad():
                weight.mul_(NEAR_IDENTITY)
                bias.mul_(NEAR_IDENTITY)
        return transform

    def distribution(self, parameters: Tensor, shared: Any = None, event_dims: int = 1) -> Distribution:
        parameters = at_least_float32(parameters)
        d = (parameters.shape[-1] - self.context) // 2
        mean, log_scale, context = parameters.split([d, d, self.context], dim=-1)
        return ConditionalFlow(mean, log_scale, partial(shared, context))


class ConditionalFlow(Distribution):
    """z = m + s ⊙ T(ε), with event shape (d,).

    Args:
        loc: m, (*batch, d).
        log_scale: log s, (*batch, d).
        transform: gives T, a transform of zuko's with this batch.
    """

    arg_constraints = {}  # noqa: RUF012  # pyright: ignore
    support = constraints.real_vector  # pyright: ignore
    has_rsample = True

    def __init__(self, loc: Tensor, log_scale: Tensor, transform: Any):
        self.loc, self.log_scale, self._transform = loc, log_scale, transform
        self._last: tuple[Tensor, Tensor] | None = None  # the last draws and their log-densities
        super().__init__(loc.shape[:-1], loc.shape[-1:], validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Distribution:
        shape = torch.Size(batch_shape)
        if shape == self.batch_shape:
            return self
        context = self._transform.args[0]
        context = context.expand(*shape, context.shape[-1])
        loc, log_scale = (part.expand(*shape, part.shape[-1]) for part in (self.loc, self.log_scale))
        return ConditionalFlow(loc, log_scale, partial(self._transform.func, context))

    def rsample(self, sample_shape: torch.Size | Sequence[int] = torch.Size()) -> Tensor:
        """Draws of shape (*sample_shape, *batch, d), with gradients."""
        noise = torch.randn(*sample_shape, *self.loc.shape, dtype=self.loc.dtype, device=self.loc.device)
        z, log_density = self._push(noise)
        self._last = z, log_density
        return z

    def log_prob(self, value: Tensor) -> Tensor:
        """log q(z) in nats for z of shape (..., d), broadcast against the batch."""
        if self._last is not None and value is self._last[0]:
            return self._last[1]
        unit = (value - self.loc) / self.log_scale.exp()
        return self._push(self._transform().inv(unit))[1]

    @property
    def mean(self) -> Tensor:
        """E z, (*batch, d), numerically: over 256 quasi-random nodes; its error is about a hundredth of `stddev`."""
        return self._at_nodes().mean(0)

    @property
    def variance(self) -> Tensor:
        """Var z, (*batch, d), over the nodes of `mean`."""
        return self._at_nodes().var(0, correction=0)

    def _at_nodes(self) -> Tensor:
        nodes = _normal_nodes(self.event_shape[0]).to(self.loc)
        return self._push(nodes.reshape(NODES, *[1] * len(self.batch_shape), -1).expand(NODES, *self.loc.shape))[0]

    def _push(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """z and log q(z) of noise ε, (..., d)."""
        unit, log_slope = self._transform().call_and_ladj(noise)
        log_noise = -0.5 * noise.square().sum(-1) - 0.5 * math.log(2 * math.pi) * noise.shape[-1]
        log_density = log_noise - log_slope - self.log_scale.sum(-1)
        return self.loc + self.log_scale.exp() * unit, log_density


@lru_cache(maxsize=8)
def _normal_nodes(d: int) -> Tensor:
    """Quasi-random nodes for N(0, I), (256, d), in float64."""
    uniform = SobolEngine(d, scramble=True, seed=0).draw(NODES, dtype=torch.float64)
    return torch.special.ndtri(uniform.clamp(1e-9, 1 - 1e-9))
