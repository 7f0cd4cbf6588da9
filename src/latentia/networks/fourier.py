"""A perceptron that sees points of the plane finely: random Fourier features before its first layer.

A plain perceptron learns slowly what changes fast from point to point. The features sin(w·x) and cos(w·x), with fixed
w ~ N(0, scale²), let a discriminator tell apart points that lie 1/(3 scale) from each other as readily as far ones
(Tancik et al. 2020, "Fourier features let networks learn high frequency functions in low dimensional domains", eq. 5).
"""

from __future__ import annotations

__all__ = ["Fourier", "FourierFeatures"]

import math

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from latentia.errors import ConfigurationError
from latentia.networks.layers import Activation
from latentia.networks.mlp import MLP
from latentia.networks.network import Network


class FourierFeatures(nn.Module):
    """x and the sines and cosines of fixed random projections of it: (B, D) → (B, D + 2 count)."""

    directions: Tensor

    def __init__(self, inputs: int, count: int, scale: float):
        super().__init__()
        self.register_buffer("directions", scale * torch.randn(inputs, count))

    def forward(self, x: Tensor) -> Tensor:
        """Map x, (B, D), to (B, D + 2 count)."""
        phase = x @ self.directions
        return torch.cat([x, phase.sin(), phase.cos()], dim=1)


class Fourier(Network):
    """A perceptron whose encoder reads Fourier features of its input; for points. The decoder is a plain perceptron.

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
                [("network", f"fourier serves points without labels, and {what}. Use network=mlp.")]
            )
        inputs = math.prod(input_shape)
        features = FourierFeatures(inputs, self.features, self.scale)
        return nn.Sequential(features, self._perceptron.encoder((inputs + 2 * self.features,), outputs))

    def decoder(self, inputs: int, output_shape: tuple[int, ...], classes: int = 0) -> nn.Module:
        """The decoder of `MLP`."""
        return self._perceptron.decoder(inputs, output_shape, classes)

    @property
    def _perceptron(self) -> MLP:
        return MLP(hidden=self.hidden, activation=self.activation)
