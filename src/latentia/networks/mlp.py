"""Fully connected networks: `MLP`, its residual form for deeper decoders, and one with Fourier features for points.

Images are flattened on the way in and unflattened on the way out. Values are taken as they are: an image in [0, 1] is
not centered, nor is a point of the plane.
"""

from __future__ import annotations

__all__ = ["MLP", "Fourier", "ResidualMLP"]

import math
from itertools import pairwise

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from latentia.errors import ConfigurationError
from latentia.networks.conditioning import decoder_with_labels, encoder_with_head
from latentia.networks.layers import Activation, PreciseLinear, ResidualSum, activation
from latentia.networks.network import Network


class MLP(Network):
    """A multilayer perceptron with PyTorch's initial weights; the decoder has the hidden layers in reverse order.

    Attributes:
        hidden: widths of the hidden layers, in the encoder's order; empty for an affine map.
        activation: the activation after each hidden layer.
        spectral_norm: divide each weight of the *encoder* by its largest singular value (Miyato et al. 2018), for
            discriminators. The decoder is never normalized.
    """

    hidden: tuple[PositiveInt, ...] = (512, 512)
    activation: Activation = "relu"
    spectral_norm: bool = False

    @property
    def bounds_slope(self) -> bool:
        return self.spectral_norm

    def encoder(self, input_shape: tuple[int, ...], outputs: int, classes: int = 0) -> nn.Module:
        """Flatten, then hidden layers, then a linear head; labels enter by projection on the last hidden layer."""
        sizes = (math.prod(input_shape), *self.hidden)
        body = nn.Sequential(*_flatten(input_shape), *self._layers(sizes, self.spectral_norm))
        return encoder_with_head(body, (sizes[-1],), outputs, classes, spectral=self.spectral_norm)

    def decoder(self, inputs: int, output_shape: tuple[int, ...], classes: int = 0) -> nn.Module:
        """Hidden layers in reverse order, a linear layer, and the shape of x."""

        def build(inputs: int) -> nn.Module:
            sizes = (inputs, *reversed(self.hidden))
            last = nn.Linear(sizes[-1], math.prod(output_shape))
            hidden = self._layers(sizes, spectral=False, first=PreciseLinear)
            return nn.Sequential(*hidden, last, *_unflatten(output_shape))

        return decoder_with_labels(build, inputs, classes)

    def _layers(self, sizes: tuple[int, ...], spectral: bool, first: type[nn.Linear] = nn.Linear) -> list[nn.Module]:
        layers: list[nn.Module] = []
        for number, (fan_in, fan_out) in enumerate(pairwise(sizes)):
            linear = (nn.Linear if number else first)(fan_in, fan_out)
            layers += [spectral_norm(linear) if spectral else linear, activation(self.activation, in_place=True)]
        return layers


class ResidualMLP(Network, name="residual-mlp"):
    """A linear layer, residual blocks, and a linear layer; for decoders of few latent dimensions.

    A decoder must fold a plane of z into all classes of images, and its depth limits how well it can. Each block adds
    to its input the output of two linear layers on the normalized input (He et al. 2016, "Identity mappings", with
    layer normalization, Ba et al. 2016). The last layer of each of L blocks starts at 1/√L of the usual scale, so that
    all blocks together add a fixed share of variance.

    Under `precision=bf16-mixed` the layers next to z compute in float32: bfloat16 cannot distinguish 2.001 from 2.000,
    and the posteriors of a plane of digits are narrower than that.

    Attributes:
        width: of all hidden layers.
        blocks: of the decoder, two hidden layers each.
        encoder_blocks: of the encoder.
        activation: after the first layer and within each block.
    """

    width: PositiveInt = 512
    blocks: PositiveInt = 3
    encoder_blocks: PositiveInt = 1
    activation: Activation = "silu"

    def encoder(self, input_shape: tuple[int, ...], outputs: int, classes: int = 0) -> nn.Module:
        """Flatten, then the blocks, then a linear head; labels enter by projection on the last hidden layer."""
        first = nn.Linear(math.prod(input_shape), self.width)
        body = nn.Sequential(*_flatten(input_shape), *self._layers(first, self.encoder_blocks))
        return encoder_with_head(body, (self.width,), outputs, classes)

    def decoder(self, inputs: int, output_shape: tuple[int, ...], classes: int = 0) -> nn.Module:
        """The blocks, a linear layer, and the shape of x."""

        def build(inputs: int) -> nn.Module:
            last = nn.Linear(self.width, math.prod(output_shape))
            first = PreciseLinear(inputs, self.width)
            return nn.Sequential(*self._layers(first, self.blocks), last, *_unflatten(output_shape))

        return decoder_with_labels(build, inputs, classes)

    def _layers(self, first: nn.Linear, blocks: int) -> list[nn.Module]:
        middle = [_Block(self.width, self.activation, blocks) for _ in range(blocks)]
        return [first, activation(self.activation), *middle, nn.LayerNorm(self.width)]


class _Block(ResidualSum):
    """x + W₂ f(W₁ norm(x))."""

    def __init__(self, width: int, name: Activation, total: int):
        super().__init__()
        last = nn.Linear(width, width)
        with torch.no_grad():
            last.weight /= math.sqrt(total)
            last.bias.zero_()
        self.branch = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), activation(name), last)


class Fourier(Network):
    """A perceptron whose encoder reads random Fourier features of its input; for points. The decoder is plain.

    A perceptron learns slowly what changes fast from point to point. With the features sin(w·x) and cos(w·x), for fixed
    w ~ N(0, scale²), a discriminator can separate points at a distance of 1/(3 scale) as easily as distant ones (Tancik
    et al. 2020, "Fourier features let networks learn high frequency functions in low dimensional domains", eq. 5).

    Attributes:
        hidden: widths of the hidden layers, in the encoder's order.
        activation: the activation after each hidden layer.
        features: how many random frequencies.
        scale: their standard deviation, in radians per unit of the standardized input.
    """

    hidden: tuple[PositiveInt, ...] = (128, 128, 128)
    activation: Activation = "leaky-relu"
    features: PositiveInt = 64
    scale: float = Field(default=3.0, gt=0)

    def encoder(self, input_shape: tuple[int, ...], outputs: int, classes: int = 0) -> nn.Module:
        """The features, then the perceptron of `MLP`.

        Raises:
            ConfigurationError: for images, and for classes.
        """
        if len(input_shape) > 1 or classes:
            what = f"the shape is {input_shape}" if len(input_shape) > 1 else f"there are {classes} classes"
            raise ConfigurationError(
                [("network", f"fourier is for points without labels, and {what}. Use network=mlp")]
            )
        inputs = math.prod(input_shape)
        features = FourierFeatures(inputs, self.features, self.scale)
        return nn.Sequential(features, self._mlp.encoder((inputs + 2 * self.features,), outputs))

    def decoder(self, inputs: int, output_shape: tuple[int, ...], classes: int = 0) -> nn.Module:
        """The decoder of `MLP`."""
        return self._mlp.decoder(inputs, output_shape, classes)

    @property
    def _mlp(self) -> MLP:
        return MLP(hidden=self.hidden, activation=self.activation)


class FourierFeatures(nn.Module):
    """x with the sines and cosines of fixed random projections of it: (B, D) → (B, D + 2 count)."""

    directions: Tensor

    def __init__(self, inputs: int, count: int, scale: float):
        super().__init__()
        self.register_buffer("directions", scale * torch.randn(inputs, count))

    def forward(self, x: Tensor) -> Tensor:
        """Map x, (B, D), to (B, D + 2 count)."""
        phase = x @ self.directions
        return torch.cat([x, phase.sin(), phase.cos()], dim=1)


def _flatten(shape: tuple[int, ...]) -> list[nn.Module]:
    return [nn.Flatten()] if len(shape) > 1 else []


def _unflatten(shape: tuple[int, ...]) -> list[nn.Module]:
    return [nn.Unflatten(1, tuple(shape))] if len(shape) > 1 else []
