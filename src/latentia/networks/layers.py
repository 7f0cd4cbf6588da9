"""The small parts that the networks share: activations, initial scales, and the ladder of image sizes.

**Sizes.** A convolutional network halves each side of the image until it is below 8. Each side is halved separately, so
that both 8×128 and 128×128 end at 4×4. The sizes on the way are the *ladder*. Strided convolutions round down (a kernel
of 4 with padding 1 still touches every pixel of an odd side), pooling rounds up.

**Scales.** A layer whose weights have standard deviation gain/√fan_in maps inputs of mean square 1 to numbers of
variance gain². With gain = 1/√E[f(u)²], u ~ N(0, 1), the activation f returns their mean square to 1 (He et al. 2015,
eq. 10, for the rectifier, whose gain is √2).
"""

from __future__ import annotations

__all__: list[str] = []  # used by the networks of this package only

import math
from collections.abc import Callable
from functools import partial
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from latentia.errors import ConfigurationError

Activation = Literal["relu", "tanh", "silu", "leaky-relu", "gelu"]

# Each with its gain 1/√E[f(u)²] for u ~ N(0, 1).
ACTIVATIONS: dict[Activation, tuple[Callable[[], nn.Module], float]] = {
    "relu": (nn.ReLU, math.sqrt(2)),
    "tanh": (nn.Tanh, 1.5925374),
    "silu": (nn.SiLU, 1.6765325),
    "leaky-relu": (partial(nn.LeakyReLU, 0.2), math.sqrt(2 / 1.04)),
    "gelu": (nn.GELU, 1.5335304),
}

SMALLEST_SIDE = 8  # a side is halved while it has at least this many pixels; images need as many

_Layer = TypeVar("_Layer", nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


def activation(name: Activation, *, in_place: bool = False) -> nn.Module:
    """Make the activation of that name; the leaky rectifier has slope 0.2.

    Args:
        name: of the activation.
        in_place: let a rectifier overwrite its input, which saves a pass over memory. Only after a layer that does not
            need its own output for its gradient, such as a linear one.
    """
    module = ACTIVATIONS[name][0]()
    if in_place and isinstance(module, nn.ReLU | nn.LeakyReLU):
        module.inplace = True
    return module


def gain_of(name: Activation) -> float:
    """The gain that keeps the mean square at 1 through the activation of that name."""
    return ACTIVATIONS[name][1]


def scaled(layer: _Layer, gain: float = 1.0) -> _Layer:
    """Draw the layer's weights from N(0, gain²/fan_in), set its bias to zero, and return it.

    The fan-in of a transposed convolution is the number of products that reach one output, on average over them.
    """
    fan_in = layer.weight[0].numel()
    if isinstance(layer, nn.ConvTranspose2d):
        fan_in = layer.weight[:, 0].numel() / math.prod(layer.stride) / layer.groups
    with torch.no_grad():
        layer.weight.normal_(0.0, gain / math.sqrt(fan_in))
        if layer.bias is not None:
            layer.bias.zero_()
    return layer


def group_norm(channels: int) -> nn.GroupNorm:
    """Group normalization in up to eight groups, as many as divide the channels (Wu & He 2018)."""
    return nn.GroupNorm(math.gcd(8, channels), channels)


class PreciseLinear(nn.Linear):
    """A linear layer that computes in float32 under autocast: for layers that read or write few numbers.

    A product with few columns costs little, and z and the mean of q(z|x) need their digits.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Map (B, in) to (B, out)."""
        if not torch.is_autocast_enabled(input.device.type):
            return super().forward(input)
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.float())


class ResidualSum(nn.Module):
    """x + branch(x); subclasses build the branch."""

    branch: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """Add the branch; x of the shape that the branch keeps."""
        return x + self.branch(x)


class Center(nn.Module):
    """Map images in [0, 1] to [−1, 1]."""

    def forward(self, x: Tensor) -> Tensor:
        """Return 2x − 1; x of any shape."""
        return 2 * x - 1


def image_shape(network: str, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return (C, H, W), checked.

    Raises:
        ConfigurationError: where the shape is not that of an image, or a side is below 8 pixels.
    """
    if len(shape) != 3:
        text = f"{network} needs images (C, H, W), and the shape is {tuple(shape)}. Use network=mlp."
        raise ConfigurationError([("network", text)])
    channels, height, width = shape
    if channels < 1 or min(height, width) < SMALLEST_SIDE:
        text = (
            f"{network} needs images of at least {SMALLEST_SIDE}×{SMALLEST_SIDE} pixels and one channel, and the "
            f"shape (C, H, W) is {tuple(shape)}. Use network=mlp, or put the channels first."
        )
        raise ConfigurationError([("network", text)])
    return channels, height, width


def ladder(height: int, width: int, *, round_up: bool = False) -> list[tuple[int, int]]:
    """The sizes from the image's size to the smallest; each side is halved while it has 8 pixels or more.

    Examples:
        >>> ladder(28, 9)
        [(28, 9), (14, 4), (7, 4)]
        >>> ladder(28, 9, round_up=True)
        [(28, 9), (14, 5), (7, 5)]
    """
    sizes = [(height, width)]
    while max(sizes[-1]) >= SMALLEST_SIDE:
        height, width = ((side + round_up) // 2 if side >= SMALLEST_SIDE else side for side in sizes[-1])
        sizes.append((height, width))
    return sizes
