"""A convolutional encoder and decoder for VAEs.

Strided convolutions reduce the image through the ladder of sizes (`latentia.networks.layers`), so that the depth
follows from the image's size: two for 28×28, five for 128×128. One fully connected layer stands between the smallest
feature maps and the vector on either side. The encoder takes images in [0, 1] and centers them to [−1, 1].
"""

from __future__ import annotations

__all__ = ["Conv"]

import math
from itertools import pairwise
from typing import Literal

from pydantic import PositiveInt
from torch import nn

from latentia.networks.conditioning import decoder_with_labels, encoder_with_head
from latentia.networks.layers import (
    Activation,
    Center,
    activation,
    gain_of,
    group_norm,
    image_shape,
    scaled,
)
from latentia.networks.network import Network
from latentia.networks.strided import FeatureMaps, doubling_widths, sizes_of_steps, strided, transposed


class Conv(Network):
    """Strided convolutions down, transposed convolutions up; for images from 8×8.

    Attributes:
        width: channels after the first convolution; they double with each further one, to 8 × width at most.
        hidden: width of the fully connected layer next to the vector.
        norm: group normalization after each hidden convolution, or none.
        activation: the activation after each hidden layer.
    """

    width: PositiveInt = 32
    hidden: PositiveInt = 256
    norm: Literal["group", "none"] = "none"
    activation: Activation = "relu"

    def encoder(self, input_shape: tuple[int, ...], outputs: int, classes: int = 0) -> nn.Module:
        """Center, convolutions, a hidden layer and a linear head; labels enter by projection on the hidden layer."""
        channels, height, width = image_shape(self.type_name, input_shape)
        sizes = sizes_of_steps(height, width)
        widths = [channels, *doubling_widths(self.width, len(sizes) - 1)]
        layers: list[nn.Module] = [Center()]
        for shapes, sides in zip(pairwise(widths), pairwise(sizes), strict=True):
            layers += [scaled(strided(shapes, *sides), self._gain), *self._after(shapes[1])]
        dense = nn.Linear(widths[-1] * math.prod(sizes[-1]), self.hidden)
        layers += [nn.Flatten(), scaled(dense, self._gain), activation(self.activation)]
        return encoder_with_head(nn.Sequential(*layers), (self.hidden,), outputs, classes)

    def decoder(self, inputs: int, output_shape: tuple[int, ...], classes: int = 0) -> nn.Module:
        """Two fully connected layers, then transposed convolutions up to the image's size."""
        channels, height, width = image_shape(self.type_name, output_shape)

        def build(inputs: int) -> nn.Module:
            sizes = sizes_of_steps(height, width)[::-1]
            widths = [*doubling_widths(self.width, len(sizes) - 1)[::-1], channels]
            start = (widths[0], *sizes[0])
            layers: list[nn.Module] = [
                scaled(nn.Linear(inputs, self.hidden), self._gain),
                activation(self.activation),
                scaled(nn.Linear(self.hidden, math.prod(start)), self._gain),
                activation(self.activation),
                FeatureMaps(start),
            ]
            for shapes, sides in zip(list(pairwise(widths))[:-1], list(pairwise(sizes))[:-1], strict=True):
                layers += [scaled(transposed(shapes, *sides), self._gain), *self._after(shapes[1])]
            return nn.Sequential(*layers, scaled(transposed((widths[-2], channels), *sizes[-2:])))

        return decoder_with_labels(build, inputs, classes)

    @property
    def _gain(self) -> float:
        return gain_of(self.activation)

    def _after(self, channels: int) -> list[nn.Module]:
        norm = [group_norm(channels)] if self.norm == "group" else []
        return [*norm, activation(self.activation)]
