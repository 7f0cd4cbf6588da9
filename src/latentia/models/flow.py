"""A generator with a known density: a normalizing flow, for which D*, the JSD and the game's value are exact.

If x = G(z) with G one-to-one, then log q(x) = log p(z) + log |det ∂z/∂x| at z = G⁻¹(x). The flow is zuko's:
rational-quadratic splines in coupling layers, which in both directions cost one pass of each layer's network.
"""

from __future__ import annotations

__all__ = ["Flow"]

from pydantic import Field, PositiveInt
from torch import Tensor, nn

from latentia.distributions import zuko_flows
from latentia.errors import ConfigurationError
from latentia.networks import Network


class Flow(Network):
    """A neural spline flow (Durkan et al. 2019) as the generator of points; z has the dimension of x and is normal.

    Attributes:
        transforms: layers of the flow.
        hidden: widths of the network in each layer.
        bins: of each spline.
    """

    transforms: PositiveInt = 4
    hidden: tuple[PositiveInt, ...] = (64, 64)
    bins: int = Field(default=16, ge=2)

    def encoder(self, input_shape: tuple[int, ...], outputs: int, classes: int = 0) -> nn.Module:
        raise ConfigurationError([("network", "a flow can only generate; set discriminator=mlp for the discriminator")])

    def decoder(self, inputs: int, output_shape: tuple[int, ...], classes: int = 0) -> nn.Module:
        """The generator, a `FlowGenerator`."""
        if output_shape != (inputs,):
            text = f"a flow is one-to-one: z has {inputs} numbers and x the shape {output_shape}"
            cure = f"Set latent={output_shape[0]}" if len(output_shape) == 1 else "Use it for points, such as data=ring"
            raise ConfigurationError([("network", f"{text}. {cure}")])
        if classes:
            raise ConfigurationError([("network", "this flow takes no labels; set conditional=false")])
        return FlowGenerator(inputs, self.transforms, self.hidden, self.bins)


class FlowGenerator(nn.Module):
    """x = G(z) for z ~ N(0, 1)^d, with its inverse and density; see `Flow`."""

    def __init__(self, features: int, transforms: int, hidden: tuple[int, ...], bins: int):
        super().__init__()
        passes = 2 if features > 1 else 1
        self.flow = zuko_flows().NSF(features, transforms=transforms, hidden_features=hidden, bins=bins, passes=passes)

    def forward(self, z: Tensor) -> Tensor:
        """Map z, (B, d), to x, (B, d)."""
        return self.flow().transform.inv(z)

    def log_prob(self, x: Tensor) -> Tensor:
        """log q(x) in nats, (B, d) → (B,)."""
        return self.flow().log_prob(x)
