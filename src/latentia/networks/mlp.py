"""Fully connected networks, for vectors and for images of any shape.

Images are flattened on the way in and unflattened on the way out. The values are taken as they come: an image in
[0, 1] enters as it is, a point of the plane too. The module is a plain `nn.Sequential` with PyTorch's own initial
weights, so that a step costs its matrix products and nothing more.
"""

from __future__ import annotations

__all__ = ["MLP"]

import math
from itertools import pairwise

from pydantic import PositiveInt
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from latentia.networks.conditioning import decoder_with_labels, encoder_with_head
from latentia.networks.layers import Activation, PreciseLinear, activation
from latentia.networks.network import Network


class MLP(Network):
    """A multilayer perceptron; the decoder has the hidden layers in reverse order.

    Attributes:
        hidden: widths of the hidden layers, in the encoder's order; empty for an affine map.
        activation: the activation after each hidden layer.
        spectral_norm: divide each weight of the *encoder* by its largest singular value (Miyato et al. 2018), which a
            discriminator wants. The decoder is never normalized.
    """

    hidden: tuple[PositiveInt, ...] = (512, 512)
    activation: Activation = "relu"
    spectral_norm: bool = False

    def encoder(self, input_shape: tuple[int, ...], outputs: int, classes: int = 0) -> nn.Module:
        """Flatten, then hidden layers, then a linear head; labels enter by projection on the last hidden layer."""
        flatten = [nn.Flatten()] if len(input_shape) > 1 else []
        sizes = (math.prod(input_shape), *self.hidden)
        body = nn.Sequential(*flatten, *self._stack(sizes, self.spectral_norm))
        return encoder_with_head(body, (sizes[-1],), outputs, classes, spectral=self.spectral_norm)

    def decoder(self, inputs: int, output_shape: tuple[int, ...], classes: int = 0) -> nn.Module:
        """Hidden layers in reverse order, a linear layer, and the shape of x."""

        def build(inputs: int) -> nn.Module:
            sizes = (inputs, *reversed(self.hidden))
            last = nn.Linear(sizes[-1], math.prod(output_shape))
            unflatten = [nn.Unflatten(1, tuple(output_shape))] if len(output_shape) > 1 else []
            hidden = self._stack(sizes, spectral=False, first=PreciseLinear)
            return nn.Sequential(*hidden, last, *unflatten)

        return decoder_with_labels(build, inputs, classes)

    def _stack(self, sizes: tuple[int, ...], spectral: bool, first: type[nn.Linear] = nn.Linear) -> list[nn.Module]:
        layers: list[nn.Module] = []
        for number, (fan_in, fan_out) in enumerate(pairwise(sizes)):
            linear = (nn.Linear if number else first)(fan_in, fan_out)
            layers += [spectral_norm(linear) if spectral else linear, activation(self.activation, in_place=True)]
        return layers
